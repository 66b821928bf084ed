"""The table of known OPTIMADE databases.

Enters: nothing. Leaves: `PROVIDERS`, `ALIASES` and `COMMERCIAL`.

Each row of the table rests on the OPTIMADE specification, documentation, public issues, recorded
replies or public code, not on requests to the server. A row may be out of date; pulls still work.
Energies of two providers are never comparable: each provider has its own functional, corrections
and references. Numbers on another scale than the main one of a provider (SCAN beside PBEsol,
r2SCAN beside PBE, hybrid gaps) have columns of their own. This module does not know HTTP or
crystals.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

UNITS = {"formation_energy_per_atom": "eV/atom", "energy_above_hull": "eV/atom", "band_gap": "eV"}
"""Assay's columns of reported numbers, and their units; a suffix (`band_gap_hse`) names another
scale."""


@dataclass(frozen=True)
class ReportedProperty:
    """A number that a provider reports, and the OPTIMADE properties that hold it."""

    column: str
    """Assay's name of the column: a key of `UNITS`, with a suffix for another scale than the
    provider's main one."""
    paths: tuple[tuple[str, ...], ...]
    """Paths through nested attributes to the same quantity, tried in order; the first key of a path
    is the OPTIMADE property."""
    unit: str
    functional: str
    """Density functional and corrections behind the number."""


@dataclass(frozen=True)
class Quirk:
    """A filter construct that a provider answers wrongly or not at all."""

    pattern: str
    """Regular expression searched in the filter, outside quoted strings."""
    explanation: str
    """How the answer goes wrong, and a filter to write instead."""


@dataclass(frozen=True)
class Provider:
    """One OPTIMADE database."""

    id: str
    """Prefix of crystal ids, `id/entry`."""
    title: str
    base_url: str
    """Without the version segment."""
    licence: str
    """SPDX identifier of the structures, or `unknown`."""
    page_limit: int = 100
    """Entries asked for per page."""
    min_interval_s: float = 0.2
    """s between requests."""
    timeout_s: float = 120.0
    """s of silence accepted from the server."""
    properties: tuple[ReportedProperty, ...] = ()
    sentinels: tuple[float, ...] = ()
    """Numbers that stand for "no value"."""
    refused: tuple[Quirk, ...] = ()
    """Filters that are not sent because the answer would be wrong."""
    reference: bool = False
    """The server runs the reference implementation, which answers some filters wrongly."""
    filter_required: bool = False
    """Without a filter the server returns nothing."""
    unjudged: frozenset[str] = frozenset()
    """Properties whose replies are rounded or clamped, so that a filter on them cannot be checked
    again."""
    noncommercial_from: int | None = None
    """Entries whose id stands for this number or a larger one are under CC-BY-NC-4.0; an id that
    stands for no number is under a licence that is not known. None: all are under `licence`."""
    max_window: int | None = None
    """Entries of one filter the server hands out at most (offset + page size); None: all. Larger
    pulls need shards."""
    caveat: str = ""
    """What to know before using this database, in one sentence; empty when nothing."""
    page: str = ""
    """URL of the page of an entry for people, with {} for the entry; empty where none is known."""
    local: bool = False
    """The server is on this machine or network: plain http and private addresses are allowed."""

    @property
    def host(self) -> str:
        """Host name, with an unusual port; databases of one host share its rate limit."""
        parts = urlsplit(self.base_url)
        name = (parts.hostname or "").rstrip(".")
        return name if parts.port in (None, 80, 443) else f"{name}:{parts.port}"

    def licence_of(self, entry: str) -> str:
        """SPDX identifier for one entry of this provider."""
        if self.noncommercial_from is None:
            return self.licence
        number = number_of(entry)
        if number is None:
            return "unknown"
        return "CC-BY-NC-4.0" if number >= self.noncommercial_from else self.licence


def number_of(entry: str) -> int | None:
    """Return the number that an id of the Materials Project stands for; None for another text.

    Newer ids have letters for digits, with base 26 and a as 0 (emmet-core 0.87.3): mp-aaahilze is
    mp-3347530.
    """
    found = re.fullmatch(r"(?:[a-z]+[-:_])?+(?:([0-9]{1,15})|([a-z]{1,15}))(?:-[a-z0-9]+)*", entry.strip().lower())
    if found is None:
        return None
    if found[1]:
        return int(found[1])
    number = 0
    for letter in found[2]:
        number = 26 * number + ord(letter) - ord("a")
    return number


def properties(functional: str, suffix: str = "", **fields: str) -> tuple[ReportedProperty, ...]:
    """Map columns (keys of `UNITS`) to fields; dots in a field lead into nested attributes."""
    return tuple(
        ReportedProperty(
            f"{column}_{suffix}" if suffix else column, (tuple(field.split(".")),), UNITS[column], functional
        )
        for column, field in fields.items()
    )


# Keys of _mp_stability: specification of the MP endpoint and replies; older replies have the first
# one in upper case. The three scales are never a fallback for one another: a missing key is a
# missing value.
_MP_SCALES = (
    ("", "PBE(+U), MP2020", ("gga_gga+u", "GGA_GGA+U")),
    ("_r2scan", "r2SCAN", ("r2scan", "R2SCAN")),
    ("_mixed", "PBE(+U) and r2SCAN mixed, MP corrections", ("gga_gga+u_r2scan", "GGA_GGA+U_R2SCAN")),
)
_MP = Provider(
    id="mp",
    title="Materials Project",
    base_url="https://optimade.materialsproject.org",
    licence="CC-BY-4.0",
    page_limit=500,  # the maximum of the reference server, which this is
    properties=tuple(
        ReportedProperty(
            column + suffix, tuple(("_mp_stability", key, column) for key in keys), UNITS[column], functional
        )
        for suffix, functional, keys in _MP_SCALES
        for column in ("formation_energy_per_atom", "energy_above_hull")
    ),
    reference=True,
    page="https://next-gen.materialsproject.org/materials/{}",
    noncommercial_from=3_100_000,  # the block of GNoME structures
    caveat="band gaps and is_stable are not served here; a source of kind materials-project has them",
)

# qmpy's server code and recorded replies. Stability is clamped at 0 and rounded in replies; filters
# see raw values.
_OQMD = Provider(
    id="oqmd",
    title="Open Quantum Materials Database",
    base_url="https://oqmd.org/optimade",
    licence="CC-BY-4.0",
    min_interval_s=0.5,
    page="https://oqmd.org/materials/entry/{}",
    timeout_s=180.0,
    properties=properties(
        "PBE(+U), OQMD fitted references",
        formation_energy_per_atom="_oqmd_delta_e",
        energy_above_hull="_oqmd_stability",
        band_gap="_oqmd_band_gap",
    ),
    refused=(
        Quirk(r"\bKNOWN\b|\bUNKNOWN\b", "OQMD answers 501 to IS KNOWN; leave it out and filter after the pull"),
        Quirk(r"\bLENGTH\s*(<|>|!)", "OQMD knows LENGTH with = only; use nelements or nsites"),
        Quirk(r"\bHAS\s+ONLY\b", "OQMD reads HAS ONLY as exactly this set; ask with HAS ALL and nelements"),
        Quirk(
            r"\b(type|id|immutable_id|last_modified|elements_ratios|structure_features|chemical_formula_descriptive|"
            r"dimension_types|nperiodic_dimensions|species|species_at_sites|lattice_vectors|cartesian_site_positions|"
            r"_oqmd_(direct_site_positions|entry_id|calculation_id|icsd_id))\b",
            "OQMD filters by elements, nelements, nsites, the reduced and the anonymous formula, and _oqmd_ band_gap, "
            "delta_e, volume, stability, prototype and spacegroup only; filter by the rest after the pull",
        ),
        Quirk(r"\b_oqmd_formation_energy_per_atom\b", "OQMD calls the formation energy _oqmd_delta_e, in eV/atom"),
    ),
    unjudged=frozenset({"_oqmd_delta_e", "_oqmd_stability", "_oqmd_band_gap"}),
)

# A recording of 2023 (400), public issues and third-party notes of 2026 (500 to every query).
_AFLOW = Provider(
    id="aflow",
    title="AFLOW",
    page="https://aflow.org/material/?id={}",
    base_url="https://aflow.org/API/optimade",
    licence="unknown",
    min_interval_s=0.5,
    properties=properties(
        "PBE(+U), element references",
        formation_energy_per_atom="_aflow_enthalpy_formation_atom",
        band_gap="_aflow_Egap",
    ),
    refused=(Quirk(r"\bHAS\s+ALL\b", "AFLOW does not know HAS ALL; join single HAS with AND"),),
    caveat="this server was reported to answer every query with 500; a source of kind aflux asks AFLOW another way",
)


def _alexandria(functional: str, path: str, *more: ReportedProperty) -> Provider:
    """One database of Alexandria; the field names are those of public code that reads it."""
    return Provider(
        id=f"alexandria-{path}",
        title=f"Alexandria, {functional}",
        base_url=f"https://alexandria.icams.rub.de/{path}",
        licence="CC-BY-4.0",
        properties=properties(
            functional,
            formation_energy_per_atom="_alexandria_formation_energy_per_atom",
            energy_above_hull="_alexandria_hull_distance",
            band_gap="_alexandria_band_gap",
        )
        + more,
        reference=True,
        caveat="the server holds a part of the database; all of it is in the bulk files",
    )


_SCAN = properties(
    "SCAN on the PBEsol geometry",
    "scan",
    formation_energy_per_atom="_alexandria_scan_formation_energy_per_atom",
    energy_above_hull="_alexandria_scan_hull_distance",
    band_gap="_alexandria_scan_band_gap",
)

# Public notes and atomgptlab/jarvis#4; nobody maintains the server. It sends 20 entries whatever is
# asked.
_JARVIS = Provider(
    id="jarvis",
    title="JARVIS-DFT",
    base_url="https://jarvis.nist.gov/optimade/jarvisdft",
    licence="NIST-PD",
    page_limit=20,
    min_interval_s=0.5,
    properties=(
        *properties(
            "OptB88vdW",
            formation_energy_per_atom="_jarvis_formation_energy_peratom",
            energy_above_hull="_jarvis_ehull",
            band_gap="_jarvis_optb88vdw_bandgap",
        ),
        *properties("TBmBJ", "mbj", band_gap="_jarvis_mbj_bandgap"),
        *properties("HSE06", "hse", band_gap="_jarvis_hse_gap"),
    ),
    sentinels=(-99999.0, -999.0),
    refused=(Quirk(r"[()]", "JARVIS ignores a filter with parentheses and sends the whole database"),),
    filter_required=True,
)

_COD_CAVEAT = "measured structures: many are disordered or lack atoms, and no energies are reported"


def _crystallography(path: str, title: str, caveat: str = "") -> Provider:
    """A database on COD's own server: 504 on pages with large cells, `next` as an object."""
    return Provider(
        id=path,
        title=title,
        base_url=f"https://www.crystallography.net/{path}/optimade",
        licence="CC0-1.0",
        page_limit=20,
        min_interval_s=0.5,
        page=f"https://www.crystallography.net/{path}/{{}}.html",
        caveat=caveat,
    )


_NOMAD = Provider(
    id="nmd",
    title="NOMAD",
    page="https://nomad-lab.eu/prod/v1/gui/search/entries/entry/id/{}",
    base_url="https://nomad-lab.eu/prod/v1/optimade",
    licence="CC-BY-4.0",
    min_interval_s=0.5,
    max_window=10_000,  # FAIRmat-NFDI/nomad#45
    caveat="structures of many codes and settings, unfinished relaxations among them; no energies are mapped",
)


def _materials_cloud(path: str, title: str, functional: str, caveat: str = "") -> Provider:
    """A database of Materials Cloud, on the reference server; each record has its own licence."""
    return Provider(
        id=path,
        title=f"Materials Cloud, {title}",
        base_url=f"https://optimade.materialscloud.org/main/{path}",
        licence="unknown",
        properties=properties(functional, band_gap="_mcloud_band_gap"),
        reference=True,
        caveat=caveat,
    )


_LAYERS = "single layers, periodic in two dimensions where the server says so: those go to quarantine"


def _odbx(
    id: str, title: str, host: str, licence: str, more: tuple[ReportedProperty, ...], caveat: str = ""
) -> Provider:
    """A database of odbx, on the reference server; names and units as in code that reads it."""
    return Provider(
        id=id,
        title=title,
        base_url=f"https://{host}.odbx.science",
        licence=licence,
        properties=more,
        reference=True,
        caveat=caveat,
    )


_ODBX_FIELDS = properties(
    "as computed, see _odbx_dft_parameters",
    formation_energy_per_atom="_odbx_thermodynamics.formation_energy",
    energy_above_hull="_odbx_thermodynamics.hull_distance",
)
_GNOME_FIELDS = properties(
    "PBE(+U), as in GNoME",
    formation_energy_per_atom="_gnome_formation_energy_per_atom",
    band_gap="_gnome_bandgap",
)

PROVIDERS: dict[str, Provider] = {
    provider.id: provider
    for provider in (
        _MP,
        _OQMD,
        _AFLOW,
        _alexandria("PBE", "pbe"),
        _alexandria("PBEsol", "pbesol", *_SCAN),
        _JARVIS,
        _crystallography("cod", "Crystallography Open Database", _COD_CAVEAT),
        _crystallography("tcod", "Theoretical Crystallography Open Database"),
        _NOMAD,
        _materials_cloud("mc3d-pbe-v1", "three-dimensional crystals, PBE", "PBE"),
        _materials_cloud("mc3d-pbesol-v2", "three-dimensional crystals, PBEsol", "PBEsol"),
        _materials_cloud("mc2d", "two-dimensional crystals", "PBE", _LAYERS),
        _materials_cloud("2dtopo", "two-dimensional topological insulators", "PBE", _LAYERS),
        _odbx("odbx", "Open Database of Xtals", "optimade", "unknown", _ODBX_FIELDS),
        _odbx("odbx-misc", "Open Database of Xtals, miscellaneous", "optimade-misc", "unknown", ()),
        _odbx(
            "odbx-gnome",
            "GNoME, served by the Open Database of Xtals",
            "optimade-gnome",
            "CC-BY-NC-4.0",
            _GNOME_FIELDS,
            "predicted structures under a non-commercial licence",
        ),
    )
}
"""Known databases by id."""

ALIASES = {
    "materials-project": "mp",
    "materialsproject": "mp",
    "alexandria": "alexandria-pbe",
    "alexandria_pbe": "alexandria-pbe",
    "alexandria_pbesol": "alexandria-pbesol",
    "jarvis-dft": "jarvis",
    "nomad": "nmd",
    "mc3d-pbe": "mc3d-pbe-v1",
    "mc3d-pbesol": "mc3d-pbesol-v2",
    "odbx_misc": "odbx-misc",
    "gnome": "odbx-gnome",
    **{f"mcloud:{name}": name for name in ("mc3d-pbe-v1", "mc3d-pbesol-v2", "mc2d", "2dtopo")},
}
"""Other spellings of the ids."""

COMMERCIAL = {
    "mpds": (
        "api.mpds.io",
        "MPDS is commercial, so Assay never asks it; use an open database, or read what your licence allows as files",
    )
}
"""Databases that Assay does not ask: id -> host, and the reason for the error message."""
