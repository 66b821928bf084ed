"""What is known about each OPTIMADE provider: a data table, no behaviour.

Enters: a name or a base URL. Leaves: a `Provider`.
Facts come from the providers' documentation, public issues and recorded replies; nothing here was learnt by probing.
Energies of two providers are never comparable: each has its own functional, corrections and references.
This module does not know HTTP or crystals.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Property:
    """One reported number and where a provider keeps it."""

    column: str
    """House name of the column: `formation_energy_per_atom`, `energy_above_hull`, `band_gap`."""
    paths: tuple[tuple[str, ...], ...]
    """Ways through nested attributes to the same quantity, tried in order; the first key is the OPTIMADE property."""
    unit: str
    functional: str
    """Density functional and corrections behind the number."""


@dataclass(frozen=True)
class Quirk:
    """A filter construct that a provider answers wrongly or not at all."""

    pattern: str
    """Regular expression searched in the filter, outside quoted strings."""
    told: str
    """What goes wrong and what to write instead."""


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
    properties: tuple[Property, ...] = ()
    sentinels: tuple[float, ...] = ()
    """Numbers that stand for "no value"."""
    refused: tuple[Quirk, ...] = ()
    """Filters that are not sent because the answer would be wrong."""
    filter_required: bool = False
    """Without a filter the server returns nothing."""
    unjudged: frozenset[str] = frozenset()
    """Properties whose replies are rounded or clamped, so that a filter on them cannot be checked again."""
    noncommercial: str = ""
    """Regular expression of entry ids under CC-BY-NC-4.0 in place of `licence`."""
    local: bool = False
    """The server is on this machine or network: plain http and private addresses are allowed."""

    def licence_of(self, entry: str) -> str:
        """SPDX identifier for one entry of this provider."""
        return "CC-BY-NC-4.0" if self.noncommercial and re.fullmatch(self.noncommercial, entry) else self.licence


def _energies(functional: str, **fields: str) -> tuple[Property, ...]:
    units = {"formation_energy_per_atom": "eV/atom", "energy_above_hull": "eV/atom", "band_gap": "eV"}
    return tuple(Property(column, ((path,),), units[column], functional) for column, path in fields.items())


def _alexandria(functional: str, path: str) -> Provider:
    return Provider(
        id=f"alexandria-{path}",
        title=f"Alexandria, {functional}",
        base_url=f"https://alexandria.icams.rub.de/{path}",
        licence="CC-BY-4.0",
        properties=_energies(
            functional,
            formation_energy_per_atom="_alexandria_formation_energy_per_atom",
            energy_above_hull="_alexandria_hull_distance",
            band_gap="_alexandria_band_gap",
        ),
    )


_MP_THERMO = ("gga_gga+u", "GGA_GGA+U")
_MP = Provider(
    id="mp",
    title="Materials Project",
    base_url="https://optimade.materialsproject.org",
    licence="CC-BY-4.0",
    page_limit=500,
    properties=tuple(
        # r2SCAN and mixed values live under other keys; they are another scale, so there is no fallback to them.
        Property(
            column, tuple(("_mp_stability", thermo, column) for thermo in _MP_THERMO), "eV/atom", "PBE(+U), MP2020"
        )
        for column in ("formation_energy_per_atom", "energy_above_hull")
    ),
    noncommercial=r"mp-(3[1-9]\d{5}|[4-9]\d{6}|\d{8,})",  # the block of GNoME structures
)
_OQMD = Provider(
    id="oqmd",
    title="Open Quantum Materials Database",
    base_url="https://oqmd.org/optimade",
    licence="CC-BY-4.0",
    min_interval_s=0.5,
    timeout_s=180.0,
    properties=_energies(
        "PBE(+U), OQMD fitted references",
        formation_energy_per_atom="_oqmd_delta_e",
        energy_above_hull="_oqmd_stability",
        band_gap="_oqmd_band_gap",
    ),
    refused=(
        Quirk(r"\bKNOWN\b|\bUNKNOWN\b", "OQMD answers 501 to IS KNOWN; leave it out and filter after the pull"),
        Quirk(r"\bLENGTH\s*(<|>|!)", "OQMD knows LENGTH with = only; use nelements or nsites"),
        Quirk(r"\bHAS\s+ONLY\b", "OQMD reads HAS ONLY as exactly this set; ask with HAS ALL and nelements"),
    ),
    unjudged=frozenset({"_oqmd_delta_e", "_oqmd_stability", "_oqmd_band_gap"}),
)
_AFLOW = Provider(
    id="aflow",
    title="AFLOW",
    base_url="https://aflow.org/API/optimade",
    licence="unknown",
    min_interval_s=0.5,
    properties=_energies(
        "PBE(+U), element references",
        formation_energy_per_atom="_aflow_enthalpy_formation_atom",
        band_gap="_aflow_Egap",
    ),
    refused=(Quirk(r"\bHAS\s+ALL\b", "AFLOW does not know HAS ALL; join single HAS with AND"),),
)
_JARVIS = Provider(
    id="jarvis",
    title="JARVIS-DFT",
    base_url="https://jarvis.nist.gov/optimade/jarvisdft",
    licence="NIST-PD",
    page_limit=20,
    min_interval_s=0.5,
    properties=_energies(
        "OptB88vdW",
        formation_energy_per_atom="_jarvis_formation_energy_peratom",
        energy_above_hull="_jarvis_ehull",
        band_gap="_jarvis_optb88vdw_bandgap",
    ),
    sentinels=(-99999.0, -999.0),
    refused=(Quirk(r"[()]", "JARVIS ignores a filter with parentheses and sends the whole database"),),
    filter_required=True,
)
_COD = Provider(
    id="cod",
    title="Crystallography Open Database",
    base_url="https://www.crystallography.net/cod/optimade",
    licence="CC0-1.0",
    page_limit=20,
    min_interval_s=0.5,
)

PROVIDERS: dict[str, Provider] = {
    provider.id: provider
    for provider in (
        _MP,
        _OQMD,
        _AFLOW,
        _alexandria("PBE", "pbe"),
        _alexandria("PBEsol", "pbesol"),
        _JARVIS,
        _COD,
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
}
"""Other spellings of the ids."""

_EXAMPLE_PROPERTIES = _energies(
    "as reported",
    formation_energy_per_atom="_exmpl_formation_energy_per_atom",
    energy_above_hull="_exmpl_energy_above_hull",
    band_gap="_exmpl_band_gap",
)


def resolve(name_or_url: str, *, id: str | None = None) -> Provider:
    """Find a provider by id, or describe any other OPTIMADE base URL; `id` renames it.

    A URL on this machine is local and is called `local`. `exmpl` is the prefix that OPTIMADE reserves for examples;
    its usual properties are mapped for every unknown URL.

    Raises:
        ValueError: for an unknown name (the message lists the known ones), a URL without host, or an unusable id.
    """
    if id is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", id):
        raise ValueError(f"provider id {id!r:.80} must be letters, digits, '.', '_' or '-', at most 64")
    if "://" in name_or_url:
        provider = _from_url(name_or_url.rstrip("/"))
    else:
        key = name_or_url.strip().lower()
        key = ALIASES.get(key, key)
        if key not in PROVIDERS:
            near = difflib.get_close_matches(key, [*PROVIDERS, *ALIASES], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            known = ", ".join(PROVIDERS)
            raise ValueError(f"unknown provider {name_or_url!r:.80}{hint} Known: {known}, or a URL with https://")
        provider = PROVIDERS[key]
    return provider if id is None else replace(provider, id=id)


def _from_url(url: str) -> Provider:
    for provider in PROVIDERS.values():
        if _bare(url) == _bare(provider.base_url):
            return provider
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError as error:
        raise ValueError(f"provider URL {url!r:.200}: {error}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError(f"provider URL {url!r:.200} must start with http:// or https:// and name a host")
    local = host in ("localhost", "::1") or re.fullmatch(r"127(\.\d+){3}", host) is not None
    return Provider(
        id="local" if local else host,
        title=host,
        base_url=url,
        licence="unknown",
        min_interval_s=0.0 if local else 0.5,
        properties=_EXAMPLE_PROPERTIES,
        local=local,
    )


def _bare(url: str) -> str:
    return re.sub(r"(/v\d+(\.\d+)*)?/*$", "", url).removeprefix("https://").removeprefix("http://").lower()
