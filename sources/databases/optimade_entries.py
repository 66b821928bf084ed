"""Turns OPTIMADE structure entries (parsed JSON) into crystals.

Enters: the `data` list of a reply, or entries of an `optimade.jsonl` file; each value is checked.
Leaves: `Crystals`, with reported properties and provenance as columns, and a quarantine record for
each refused entry. This module does not know HTTP, paging or filters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from assay.sources.assemble import Assembler
from assay.sources.checks import shares
from assay.sources.crystals import Crystals, text_array
from assay.sources.databases.providers import PROVIDERS, Provider, ReportedProperty
from assay.sources.databases.trust import BrokenEntry, SourceRefused, printable
from assay.sources.elements import NUMBERS
from assay.sources.quarantine import Quarantined, Reason
from assay.sources.sift import MAX_SITES

STRUCTURE_FIELDS = (
    "structure_features",
    "assemblies",
    "dimension_types",
    "nperiodic_dimensions",
    "lattice_vectors",
    "cartesian_site_positions",
    "species",
    "species_at_sites",
    "nsites",
    "immutable_id",
    "last_modified",
)
"""OPTIMADE properties this module reads; a query must ask for them."""
NEWER_FIELDS = ("site_coordinate_span", "fractional_site_positions")
"""Properties of OPTIMADE 1.3 this module reads too; a server of an older version refuses a query
that names them."""

_HEAVY = {2: "deuterium", 3: "tritium"}
"""Isotopes of hydrogen by mass number."""

SiteSpecies = list[tuple[int, float]]
"""(atomic number, occupancy) of every species on one site."""


class _Refused(Exception):
    """An entry that cannot become a crystal."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def entries_of(document: Any) -> list[Any]:
    """Return the entries of a reply document; a single entry is a list of one.

    Raises:
        SourceRefused: when the document is an error report or no OPTIMADE reply; the message quotes
            its errors.
    """
    errors = document.get("errors") if isinstance(document, dict) else None
    data = document.get("data") if isinstance(document, dict) else None
    if errors and not data:
        message = "; ".join(_error_text(error) for error in (errors if isinstance(errors, list) else [errors])[:3])
        message = re.sub(r"\?\S+", "?...", message)  # some quote the whole query before they come to the point
        raise SourceRefused(f"the server reports: {printable(message) or 'an error without text'}")
    if isinstance(data, dict):
        return [data]
    if not isinstance(data, list):
        raise SourceRefused(f"not an OPTIMADE reply: data is {type(data).__name__}, a list of entries is needed")
    return data


def entries_to_crystals(
    entries: Sequence[Any],
    provider: Provider | str,
    origin: str,
    *,
    extra: Sequence[str] | None = (),
    max_sites: int = MAX_SITES,
) -> tuple[Crystals, list[Quarantined]]:
    """Turn entries into crystals with ids `provider/id`, and refused entries into records.

    The text columns are provider, origin, licence, immutable_id and last_modified. Each property of
    the provider has a float column and a text column `<column>_functional`. Each name in `extra`
    has a float column, NaN where the entry has no number; so all pages of a pull have the same
    columns. With None, `extra` is every number that the entries carry under a provider prefix.
    """
    if isinstance(provider, str):
        provider = PROVIDERS.get(provider) or Provider(provider, provider, "", "unknown")
    assembler = Assembler(max_sites=max_sites)
    read = _column_reader(provider, extra)
    for position, entry in enumerate(entries):
        name = entry_id(entry, provider, origin, position)
        try:
            attributes = _attributes(entry)
            lattice, places, cartesian, sites, warnings = _geometry(attributes, _withheld(entry))
        except _Refused as refused:
            assembler.refuse(name, origin, refused.reason, str(refused))
        except RecursionError:
            assembler.refuse(name, origin, Reason.MALFORMED, "lists or objects are nested too deeply")
        else:
            assembler.add(name, origin, lattice, places, sites, read(attributes), cartesian, warnings)
    crystals, quarantined = assembler.finish()
    return _with_provenance(crystals, provider, origin, extra or ()), quarantined


def entry_id(entry: Any, provider: Provider, origin: str, position: int) -> str:
    """Name an entry `provider/id`, or by its place in the reply where it has no usable id."""
    identifier = _identifier(entry)
    return f"{provider.id}/{identifier}" if identifier else f"{provider.id}/?{position}@{origin}"


def _identifier(entry: Any) -> str:
    """Text or whole number in `id`; empty when there is none that can be shown."""
    found = entry.get("id") if isinstance(entry, dict) else None
    if isinstance(found, int) and not isinstance(found, bool):
        found = str(found)
    return found if isinstance(found, str) and found.isprintable() else ""


def _with_provenance(crystals: Crystals, provider: Provider, origin: str, extra: Sequence[str]) -> Crystals:
    n, skip = len(crystals), len(provider.id) + 1
    licences = [provider.licence_of(name[skip:]) for name in crystals.ids] if provider.noncommercial_from else None
    constant = {"provider": provider.id, "origin": origin, "licence": provider.licence}
    columns: dict[str, Any] = {name: np.full(n, value) for name, value in constant.items()}
    if licences:
        columns["licence"] = text_array(licences)
    for name in ("immutable_id", "last_modified"):
        columns[name] = crystals.columns.get(name, text_array([""] * n))
    for known in provider.properties:
        values = crystals.columns.get(known.column, np.full(n, np.nan))
        columns[known.column] = values
        columns[f"{known.column}_functional"] = np.where(np.isnan(values), "", known.functional)
    for name in extra:
        columns[name] = crystals.columns.get(name, np.full(n, np.nan))
    order = dict.fromkeys([*columns, *crystals.columns])
    complete = {**crystals.columns, **columns}
    return replace(crystals, columns={name: complete[name] for name in order})


def _attributes(entry: Any) -> Mapping[str, Any]:
    if isinstance(entry, BrokenEntry):
        raise _Refused(Reason.MALFORMED, entry.message)
    if not isinstance(entry, dict):
        raise _Refused(Reason.MALFORMED, f"the entry is {type(entry).__name__}, an object is needed")
    kind = entry.get("type", "structures")
    if kind != "structures":
        raise _Refused(Reason.UNSUPPORTED, f"entry type {kind!r:.60}; structures accepted")
    if not _identifier(entry):
        raise _Refused(Reason.MALFORMED, f"id {entry.get('id')!r:.60} is not a printable text")
    attributes = entry.get("attributes")
    if not isinstance(attributes, dict):
        raise _Refused(Reason.MALFORMED, "the entry has no attributes")
    return attributes


def _withheld(entry: Mapping[str, Any]) -> frozenset[str]:
    """Names of properties that the server keeps behind a partial-data link."""
    meta = entry.get("meta")
    links = meta.get("partial_data_links") if isinstance(meta, dict) else None
    return frozenset(links) if isinstance(links, dict) else frozenset()


def _geometry(
    attributes: Mapping[str, Any], withheld: frozenset[str]
) -> tuple[Any, Any, bool, list[SiteSpecies], list[str]]:
    """Lattice, positions, whether these are Cartesian, the species of each site, and warnings."""
    _check_kind(attributes)

    def needed(name: str) -> Any:
        value = attributes.get(name)
        if value is None:
            raise _Refused(
                Reason.PARTIAL_DATA if name in withheld else Reason.MALFORMED,
                f"{name} is behind a partial-data link" if name in withheld else f"{name} is missing",
            )
        return value

    lattice = needed("lattice_vectors")
    if isinstance(lattice, list) and any(_is_null(vector) for vector in lattice):
        raise _Refused(Reason.NOT_PERIODIC, "a lattice vector is null, three are needed")
    places = attributes.get("cartesian_site_positions")
    cartesian = places is not None
    if not cartesian:
        places = attributes.get("fractional_site_positions")
    if places is None:
        places = needed("cartesian_site_positions")
    names = needed("species_at_sites")
    table = _species_table(needed("species"))
    if not isinstance(names, list):
        raise _Refused(Reason.MALFORMED, f"species_at_sites is {type(names).__name__}, a list is needed")
    try:
        sites = [table[name] for name in names]
    except KeyError as error:
        raise _Refused(Reason.UNKNOWN_SPECIES, f"site species {error} is not in the species list") from None
    except TypeError:
        raise _Refused(Reason.UNKNOWN_SPECIES, "species_at_sites must hold texts, names of species") from None
    _check_used(sites, names)
    nsites = attributes.get("nsites")
    if nsites is not None and nsites != len(names):
        raise _Refused(Reason.MALFORMED, f"nsites is {nsites!r:.40} but species_at_sites has {len(names)} entries")
    return lattice, places, cartesian, sites, _isotopes(attributes["species"], set(names))  # type: ignore[return-value]


def _check_kind(attributes: Mapping[str, Any]) -> None:
    features = attributes.get("structure_features")
    if features and features != ["disorder"]:
        held = features if isinstance(features, list) else [features]
        foreign = [str(feature) for feature in held if feature != "disorder"]
        if foreign:
            raise _Refused(Reason.UNSUPPORTED, f"structure feature {', '.join(foreign)}; only disorder accepted")
    if attributes.get("assemblies"):
        raise _Refused(Reason.UNSUPPORTED, "assemblies of correlated sites; independent sites accepted")
    span = attributes.get("site_coordinate_span")
    if span is not None and span != "unit_cell":
        raise _Refused(Reason.UNSUPPORTED, f"site_coordinate_span {span!r:.60}; unit_cell accepted")
    dimensions = attributes.get("dimension_types")
    if dimensions is not None and dimensions != [1, 1, 1]:
        raise _Refused(Reason.NOT_PERIODIC, f"dimension_types {dimensions!r:.60}; [1, 1, 1] accepted")
    periodic = attributes.get("nperiodic_dimensions")
    if periodic is not None and periodic != 3:
        raise _Refused(Reason.NOT_PERIODIC, f"nperiodic_dimensions {periodic!r:.60}; 3 accepted")


def _is_null(vector: Any) -> bool:
    return vector is None or (isinstance(vector, list) and len(vector) == 3 and vector.count(None) == 3)


def _species_table(species: Any) -> dict[str, SiteSpecies | _Refused]:
    """Atoms of each species name; chemical_symbols gives the elements, the name does not."""
    if not isinstance(species, list):
        raise _Refused(Reason.MALFORMED, f"species is {type(species).__name__}, a list is needed")
    table: dict[str, SiteSpecies | _Refused] = {}
    for item in species:
        name = item.get("name") if isinstance(item, dict) else None
        if not isinstance(name, str):
            raise _Refused(Reason.MALFORMED, f"species {item!r:.80} has no name")
        try:
            atoms: SiteSpecies | _Refused = _atoms(name, item)
        except _Refused as refused:
            atoms = refused  # matters only if a site uses it
        if name in table and table[name] != atoms:
            raise _Refused(Reason.MALFORMED, f"species {name!r:.60} is defined twice")
        table[name] = atoms
    return table


def _atoms(name: str, item: Mapping[str, Any]) -> SiteSpecies:
    """Atoms of one species with their shares of a site.

    The specification says that concentrations should sum to one, and need not where numbers are
    rounded or measured. A sum below 1 leaves the site partly vacant, as in entries of the
    Crystallography Open Database; `assay.sources.sift` knows what sum above 1 is rounding.
    """
    symbols, amounts = item.get("chemical_symbols"), item.get("concentration")
    if not isinstance(symbols, list) or not isinstance(amounts, list) or len(symbols) != len(amounts):
        message = f"species {name!r:.60}: chemical_symbols and concentration must be lists of one length"
        raise _Refused(Reason.MALFORMED, message)
    if item.get("attached") and not _all_zero(item.get("nattached")):
        raise _Refused(Reason.UNSUPPORTED, f"species {name!r:.60} has attached atoms")
    atoms, vacant = [], 0.0
    for symbol, amount in zip(symbols, amounts, strict=True):
        share = _share(name, amount)
        element = isinstance(symbol, str) and symbol in NUMBERS
        if symbol == "vacancy":
            vacant += share  # lowers the total of the site and is nothing else
        elif element or share == 0:
            atoms.append((NUMBERS[symbol] if element else 0, share))  # sift leaves out what has no share
        else:
            message = f"species {name!r:.60} holds {symbol!r:.60}, which is no chemical element"
            raise _Refused(Reason.UNKNOWN_SPECIES, message)
    held = shares.units([vacant, *(share for _, share in atoms)])
    if vacant and not (vacant > 0 and held.sum() <= shares.MOST_OF_SEVERAL):
        message = f"species {name!r:.60}: a vacancy of {vacant:g} beside {held[1:].sum() / shares.FULL:g} atoms"
        raise _Refused(Reason.BAD_OCCUPANCY, f"{message}, at most 1 in total accepted")
    return atoms


def _share(name: str, amount: Any) -> float:
    if isinstance(amount, bool) or not isinstance(amount, int | float):
        raise _Refused(Reason.MALFORMED, f"species {name!r:.60}: concentration {amount!r:.60} is not a number")
    try:
        return float(amount)
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf


def _all_zero(counts: Any) -> bool:
    return isinstance(counts, list) and all(count == 0 for count in counts)


def _isotopes(species: list[dict[str, Any]], used: set[str]) -> list[str]:
    """Warnings about the heavy hydrogen on the sites; an entry tells it by its mass."""
    found = set()
    for item in species:
        masses = item.get("mass")
        masses = masses if isinstance(masses, list) else [masses]  # OPTIMADE 1.0 has one number
        if item["name"] in used:
            found |= {
                _HEAVY.get(round(mass))
                for symbol, mass in zip(item["chemical_symbols"], masses, strict=False)
                if symbol == "H" and isinstance(mass, int | float) and 0 < mass < 4
            }
    return sorted(f"{name} was read as hydrogen" for name in found if name)


def _check_used(sites: list[Any], names: list[str]) -> None:
    for name, atoms in dict(zip(names, sites, strict=True)).items():
        if isinstance(atoms, _Refused):
            raise atoms
        if not isinstance(name, str):
            raise _Refused(Reason.MALFORMED, f"site species {name!r:.60} is not a text")


def _column_reader(provider: Provider, extra: Sequence[str] | None) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    texts = ("immutable_id", "last_modified")
    sentinels = frozenset(provider.sentinels)

    def read(attributes: Mapping[str, Any]) -> dict[str, Any]:
        columns: dict[str, Any] = {name: _as_text(attributes.get(name)) for name in texts}
        for known in provider.properties:
            columns[known.column] = _number(_follow(attributes, known), sentinels)
        for name in _numeric_names(attributes) if extra is None else extra:
            columns[name] = _number(attributes.get(name), sentinels)
        return columns

    return read


def _numeric_names(attributes: Mapping[str, Any]) -> list[str]:
    number = (int, float)
    own = {name: value for name, value in attributes.items() if name[:1] == "_"}
    return [name for name, value in own.items() if isinstance(value, number) and not isinstance(value, bool)]


def _follow(attributes: Mapping[str, Any], known: ReportedProperty) -> Any:
    """Value at the first of the property's paths that leads anywhere."""
    for path in known.paths:
        value: Any = attributes
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            return value
    return None


def _number(value: Any, sentinels: frozenset[float]) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value in sentinels:
        return None
    return value


def _as_text(value: Any) -> str:
    return "" if value is None else str(value)[:200]


def _error_text(error: Any) -> str:
    if isinstance(error, dict):
        return " ".join(str(error[key]) for key in ("status", "title", "detail") if error.get(key))
    return str(error)
