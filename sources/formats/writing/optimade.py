"""Writes crystals as `optimade.jsonl`, the bulk format of OPTIMADE 1.2.

Enters: `Crystals`, and properties of each with a meaning and a unit. Leaves: lines of JSON: a
header, the own properties, then one structure each. A formula has whole numbers: shares of sites
count to 5 decimals, so La1.85Sr0.15CuO4 is Cu20La37O80Sr3. This module does not know files.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.sources.crystals import Crystals
from assay.sources.elements import SYMBOLS

VERSION = "1.2.0"
PREFIX = "_assay_"
"""Begin of the names of own properties."""
HEADER = ("x-optimade", "assay")
"""Keys of the first line; the second one says that Assay wrote the file."""
_FULL = 100_000
_LETTERS = [first + second for second in ("", *"abcd") for first in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]


@dataclass(frozen=True)
class Property:
    """An own property of each structure."""

    description: str
    type: str
    """Word of OPTIMADE: float, integer, string, boolean, list."""
    unit: str | None


def lines(crystals: Crystals, properties: Mapping[str, Property], values: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The lines of a file, without their ends.

    `values` holds the own properties of each crystal by the keys of `properties`. These names
    become OPTIMADE's: `_assay_tc_mean`. A number that is not finite is null.
    """
    names = named(properties)
    described = {names[key]: asdict(held) for key, held in properties.items()}
    yield json.dumps({HEADER[0]: {"meta": {"api_version": VERSION}}, HEADER[1]: "export"})
    yield json.dumps({"type": "info", "id": "structures", "properties": described})
    for row, own in enumerate(values):
        stated = {names[key]: finite(value) for key, value in own.items()}
        attributes = attributes_of(crystals[row : row + 1]) | stated
        entry = {"id": str(crystals.ids[row]), "type": "structures", "attributes": attributes}
        yield json.dumps(entry, allow_nan=False)


def named(properties: Iterable[str]) -> dict[str, str]:
    """Key -> name as OPTIMADE allows it: lower case, digits, underscores; no two are equal."""
    found: dict[str, str] = {}
    for key in properties:
        name = PREFIX + re.sub(r"[^a-z0-9_]", "_", key.lower().removeprefix(PREFIX[1:]))
        while name in found.values():
            name += "_"
        found[key] = name
    return found


def finite(value: Any) -> Any:
    """A value as JSON holds it: a number that is not finite becomes None."""
    if isinstance(value, list):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def described(field: pa.Field) -> Property:
    """A column of a campaign as a property, with meaning and unit from the field's metadata."""
    notes = field.metadata or {}
    meaning, unit = (notes.get(key, b"").decode() for key in (b"meaning", b"unit"))
    return Property(meaning or f"the column {field.name} of the campaign", _type(field.type), unit or None)


def _type(kind: pa.DataType) -> str:
    types = pa.types
    if types.is_boolean(kind):
        return "boolean"
    if types.is_integer(kind):
        return "integer"
    if types.is_floating(kind):
        return "float"
    return "list" if types.is_list(kind) or types.is_fixed_size_list(kind) else "string"


def attributes_of(crystal: Crystals) -> dict[str, Any]:
    """The properties that OPTIMADE defines, of one crystal."""
    species, at_sites = _species(crystal)
    disordered = any(len(kind["chemical_symbols"]) > 1 for kind in species)
    return {
        **composed(crystal.composition()[0]),
        "chemical_formula_descriptive": str(crystal.formulas()[0]),
        "dimension_types": [1, 1, 1],
        "nperiodic_dimensions": 3,
        "lattice_vectors": crystal.lattice[0].tolist(),
        "cartesian_site_positions": (crystal.frac @ crystal.lattice[0]).tolist(),
        "nsites": len(crystal.frac),
        "species": species,
        "species_at_sites": at_sites,
        "structure_features": ["disorder"] if disordered else [],
        "immutable_id": None,
        "last_modified": None,
    }


def composed(amounts: NDArray[np.float64]) -> dict[str, Any]:
    """The properties that follow from a composition: `amounts` (119,) of each element in a cell."""
    held = dict(sorted((SYMBOLS[z], float(amounts[z])) for z in np.flatnonzero(amounts).tolist()))
    counts, total = _whole([*held.values()]), sum(held.values())
    return {
        "elements": [*held],
        "nelements": len(held),
        "elements_ratios": [amount / total for amount in held.values()],
        "chemical_formula_reduced": _formula(held, counts),
        "chemical_formula_anonymous": _formula(_LETTERS, sorted(counts, reverse=True)),
    }


def _whole(amounts: Sequence[float]) -> list[int]:
    counts = [round(amount * _FULL) for amount in amounts]
    return [count // math.gcd(*counts) for count in counts]


def _formula(symbols: Iterable[str], counts: Iterable[int]) -> str:
    return "".join(f"{symbol}{count if count > 1 else ''}" for symbol, count in zip(symbols, counts, strict=False))


def _species(crystal: Crystals) -> tuple[list[dict[str, Any]], list[str]]:
    """The different occupations of sites, and the name of that of each site."""
    found: dict[str, dict[str, Any]] = {}
    at_sites = []
    for start, end in zip(crystal.species_ptr[:-1].tolist(), crystal.species_ptr[1:].tolist(), strict=True):
        symbols = [SYMBOLS[z] for z in crystal.numbers[start:end]]
        shares = [round(share * _FULL) for share in crystal.occupancy[start:end].tolist()]
        if (vacant := _FULL - sum(shares)) > 1:
            symbols, shares = [*symbols, "vacancy"], [*shares, vacant]
        parts = [share / _FULL for share in shares]
        name = symbols[0] if len(symbols) == 1 else "".join(f"{s}{p:g}" for s, p in zip(symbols, parts, strict=True))
        found.setdefault(name, {"name": name, "chemical_symbols": symbols, "concentration": parts})
        at_sites.append(name)
    return list(found.values()), at_sites
