"""Queries to the own API of the Materials Project, checked before and after they are sent.

Enters: criteria as plain Python (or YAML) values under mp-api's names, and rows. Leaves: a checked
`MPQuery`, and the reason why a row does not fit. A server that does not know a parameter ignores
it, so each row is judged against the criteria again. This module does not know mp-api, HTTP or
crystals.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from assay.sources.databases.paging import check_limits
from assay.sources.elements import NUMBERS
from assay.sources.sift import MAX_SITES

MAX_PAGE = 1000
"""Most rows the API sends per page."""
GNOME = "gnome_r2scan_statics"
"""What the API calls the GNoME structures, in the batch_id of builder_meta."""
THERMO_TYPES = {
    "GGA_GGA+U": "PBE(+U), MP2020",
    "R2SCAN": "r2SCAN",
    "GGA_GGA+U_R2SCAN": "PBE(+U) and r2SCAN mixed, MP corrections",
}
"""Scales of energy the Materials Project keeps, and what each means; never comparable with one
another."""
RANGES = ("band_gap", "energy_above_hull", "formation_energy", "density", "volume", "total_magnetization")
"""Criteria that take [min, max]; null leaves an end open. eV, eV/atom, eV/atom, g/cm^3, Å^3, Bohr
magnetons."""
COUNTS = ("num_elements", "num_sites")
"""Criteria that take a whole number or [min, max]."""
FLAGS = ("is_stable", "is_metal", "is_gap_direct", "theoretical")
"""Criteria that take true or false."""
SYMBOLS = ("elements", "exclude_elements")
"""Criteria that take element symbols."""
WORDS = ("chemsys", "formula")
"""Criteria that take one text or several; * stands for any element."""
CRITERIA = (*RANGES, *COUNTS, *FLAGS, *SYMBOLS, *WORDS, "spacegroup_number")
"""Everything that restricts a query."""
_COLUMNS = {"band_gap": "band_gap", "energy_above_hull": "energy_above_hull"}
_COLUMNS["formation_energy"] = "formation_energy_per_atom"


@dataclass(frozen=True)
class MPQuery:
    """A request to the Materials Project; it never asks for deprecated materials.

    Raises:
        ValueError: without criteria (the API would send the whole table), or for a wrong one.
    """

    criteria: Mapping[str, Any]
    """Names of `CRITERIA` to values, for example {"band_gap": [0.5, 2.0], "is_stable": True,
    "elements": ["O"]}."""
    include_gnome: bool = False
    """Take the GNoME structures too, which are under CC-BY-NC-4.0; a criterion of this name does
    the same."""
    thermo_type: str | None = None
    """A key of `THERMO_TYPES`: energies on that scale, fetched by one more request per page.

    None: the energies of the summary page, PBE(+U) and r2SCAN mixed. The server applies criteria
    on energies, and always to the energies of the summary page."""
    page_limit: int | None = None
    """Rows per page, at most 1000; None takes 512."""
    max_entries: int | None = None
    """Stop after this many rows; None takes all."""
    max_sites: int = MAX_SITES
    """Larger cells go to quarantine."""
    search: Mapping[str, Any] = field(init=False, repr=False)
    """The criteria in the form mp-api takes."""

    def __post_init__(self) -> None:
        if not isinstance(self.criteria, Mapping):
            raise ValueError(f"criteria {self.criteria!r:.80} must be names with values")  # noqa: TRY004
        criteria = {str(name): value for name, value in self.criteria.items() if value is not None}
        gnome = criteria.pop("include_gnome", self.include_gnome)
        thermo_type = criteria.pop("thermo_type", self.thermo_type)
        if criteria.pop("deprecated", False) is not False:
            raise ValueError("criterion deprecated must be false: deprecated materials are never pulled")
        _flag("include_gnome", gnome)
        if thermo_type is not None and thermo_type not in THERMO_TYPES:
            raise ValueError(f"thermo_type is {thermo_type!r:.60}, one of {', '.join(THERMO_TYPES)} accepted")
        if not criteria:
            raise ValueError(
                "criteria are empty: the Materials Project would send all of its table, and mp-api download it; "
                f"name at least one of {', '.join(CRITERIA)}"
            )
        checked = {name: _checked(name, value) for name, value in criteria.items()}
        object.__setattr__(self, "search", {**checked, "deprecated": False, "include_gnome": gnome})
        object.__setattr__(self, "include_gnome", gnome)
        object.__setattr__(self, "thermo_type", thermo_type)
        check_limits(MAX_PAGE, page_limit=self.page_limit, max_entries=self.max_entries, max_sites=self.max_sites)

    def contradiction(self, row: Mapping[str, Any], elements: set[str], nsites: int) -> str:
        """Say how a row of the summary page contradicts the criteria; empty when it does not.

        A row that cannot be judged counts as one that fits. `elements` and `nsites` describe the
        sites of the structure; the numbers that the row claims are not used.
        """
        if row.get("deprecated") is True:
            return "the row is deprecated"
        meta = row.get("builder_meta")
        if not self.include_gnome and isinstance(meta, dict) and meta.get("batch_id") == GNOME:
            return "the row is a GNoME structure, which were not asked for"
        for name, wanted in self.search.items():
            found: Any = {"num_elements": len(elements), "num_sites": nsites}.get(
                name, row.get(_COLUMNS.get(name, name))
            )
            if name in (*_COLUMNS, *COUNTS) and _outside(found, wanted):
                return f"{name} is {found:g}, {wanted} was asked for"
            if name in FLAGS and isinstance(found, bool) and found is not wanted:
                return f"{name} is {found}, {wanted} was asked for"
        missing = set(self.search.get("elements", ())) - elements
        unwanted = set(self.search.get("exclude_elements", ())) & elements
        if missing or unwanted:
            return f"the crystal holds {' '.join(sorted(elements))}, which the elements asked for exclude"
        systems = self.search.get("chemsys", ())
        if systems and not any("*" in system or set(system.split("-")) == elements for system in systems):
            return f"the crystal holds {' '.join(sorted(elements))}, chemsys {', '.join(systems)} was asked for"
        return ""


def _checked(name: str, value: Any) -> Any:
    kinds: list[tuple[tuple[str, ...], Callable[[str, Any], Any]]] = [
        (RANGES, _range),
        (COUNTS, _count),
        (FLAGS, _flag),
        (SYMBOLS, _symbols),
        (WORDS, _words),
        (("spacegroup_number",), _spacegroup),
    ]
    for names, check in kinds:
        if name in names:
            return check(name, value)
    if name == "material_ids":
        raise ValueError(
            "criterion material_ids is not accepted: lists of ids get callers blocked; filter by chemistry"
        )
    near = difflib.get_close_matches(name, CRITERIA, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown criterion {name!r:.60}{hint} Known: {', '.join(CRITERIA)}")


def _range(name: str, value: Any) -> tuple[float | None, float | None]:
    ends = list(value) if isinstance(value, list | tuple) else [None]
    numbers = [end for end in ends if end is not None]
    sound = all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers)
    if len(ends) != 2 or not numbers or not sound or numbers != sorted(numbers):
        raise ValueError(f"criterion {name} is {value!r:.60}, [min, max] accepted, null for an open end")
    return ends[0], ends[1]


def _count(name: str, value: Any) -> tuple[float | None, float | None]:
    pair = _range(name, [value, value] if isinstance(value, int) else value)
    if any(end is not None and (end != int(end) or end < 1) for end in pair):
        raise ValueError(f"criterion {name} is {value!r:.60}, whole numbers from 1 accepted")
    return pair


def _flag(name: str, value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    raise ValueError(f"criterion {name} is {value!r:.60}, true or false accepted")


def _symbols(name: str, value: Any) -> list[str]:
    symbols = [value] if isinstance(value, str) else value
    if not isinstance(symbols, list | tuple) or not symbols or not all(symbol in NUMBERS for symbol in symbols):
        raise ValueError(f"criterion {name} is {value!r:.80}, a list of element symbols accepted")
    return list(symbols)


def _words(name: str, value: Any) -> list[str]:
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list | tuple) or not 1 <= len(words) <= 100:
        raise ValueError(f"criterion {name} is {value!r:.80}, one to 100 texts accepted")
    for word in words:
        if not isinstance(word, str) or not re.fullmatch(r"[A-Za-z0-9*().\[\]-]{1,100}", word) or not word.strip("*-"):
            raise ValueError(
                f"criterion {name} holds {word!r:.60}; letters, digits, * and - accepted, for example Nb-Sn"
            )
    return list(words)


def _spacegroup(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 230:
        raise ValueError(f"criterion {name} is {value!r:.60}, 1 to 230 accepted")
    return value


def _outside(value: Any, ends: tuple[float | None, float | None]) -> bool:
    """Whether a number is clearly outside: filters see more digits than replies show."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return False
    low, high = (end if end is not None else limit for end, limit in zip(ends, (-math.inf, math.inf), strict=True))
    return value < low - 1e-3 or value > high + 1e-3
