"""The 530 settings of the space groups: operations, and the names under which files give them.

Operations come from spglib's table. The spellings of a name are made here, so nothing of the readers under test enters.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from functools import cache

import numpy as np
import spglib
from numpy.typing import NDArray

COUNT = 530
OLD_NAMES = {
    39: ("A b m 2", "B m a 2", "B 2 c m", "C 2 m b", "C m 2 a", "A c 2 m"),
    41: ("A b a 2", "B b a 2", "B 2 c b", "C 2 c b", "C c 2 a", "A c 2 a"),
    64: ("C m c a", "C c m b", "A b m a", "A c a m", "B b c m", "B m a b"),
    67: ("C m m a", "C m m b", "A b m m", "A c m m", "B m c m", "B m a m"),
    68: ("C c c a", "C c c b", "A b a a", "A c a a", "B b c b", "B b a b"),
}
"""Names before 2002, when the letter e was introduced; in the order of `AXES` (International Tables A, 4.3.2.1)."""
AXES = ("", "ba-c", "cab", "-cba", "bca", "a-cb")
CUBIC_WITH_INVERSION = (*range(200, 207), *range(221, 231))


@dataclass(frozen=True)
class Setting:
    """One row of spglib's table; translations are whole numbers of 1/24."""

    hall: int
    number: int
    choice: str
    hall_symbol: str
    full: str
    short: str
    rotations: NDArray[np.int64]
    shifts: NDArray[np.int64]

    @property
    def origin(self) -> str:
        """`1`, `2`, `H` or `R` where the group has several origins or axes, else nothing."""
        return self.choice[:1] if self.choice[:1] in ("1", "2", "H", "R") and self.choice else ""

    @property
    def operations(self) -> frozenset[bytes]:
        """The operations as a set that can be compared."""
        rows = np.concatenate([self.rotations.reshape(-1, 9), self.shifts % 24], axis=1)
        return frozenset(row.tobytes() for row in rows)

    def fits(self, lattice: NDArray[np.float64]) -> bool:
        """Whether every operation keeps the lengths and angles of this cell."""
        metric = lattice @ lattice.T
        moved = np.einsum("nji,jk,nkl->nil", self.rotations, metric, self.rotations)
        return bool(np.abs(moved - metric).max() < 1e-3 * np.abs(metric).max())


@cache
def setting(hall: int) -> Setting:
    """The setting with this number in the list of Hall symbols."""
    kind, table = spglib.get_spacegroup_type(hall), spglib.get_symmetry_from_database(hall)
    shifts = np.rint(table["translations"] * 24).astype(np.int64) % 24
    full = kind.international_full
    # spglib gives monoclinic groups the short symbol of their standard setting, so it is made from the full one
    short = " ".join(part for part in full.split() if part != "1") if 3 <= kind.number <= 15 else kind.international
    rotations = table["rotations"].astype(np.int64)
    return Setting(hall, kind.number, kind.choice, kind.hall_symbol, full, short, rotations, shifts)


def settings() -> list[Setting]:
    """All 530."""
    return [setting(hall) for hall in range(1, COUNT + 1)]


@dataclass(frozen=True)
class Spelling:
    """A Hermann-Mauguin symbol as a file writes it, and what it says, free of spelling."""

    text: str
    symbol: str
    origin: str
    style: str


def spellings(one: Setting) -> list[Spelling]:
    """Every way to write the name of this setting that files in the field use."""
    found: dict[str, Spelling] = {}
    for style, base in _names(one).items():
        for shape, text in _shapes(base).items():
            for suffix_style, suffix, origin in _suffixes(one):
                name = f"{style}, {shape}" + (f", {suffix_style}" if suffix_style else "")
                found.setdefault(text + suffix, Spelling(text + suffix, plain(base), origin, name))
    return list(found.values())


def _names(one: Setting) -> dict[str, str]:
    names = {"short": one.short, "full": one.full}
    if one.number in OLD_NAMES:
        names["old"] = OLD_NAMES[one.number][AXES.index(one.choice.lstrip("12"))]
    if one.number in CUBIC_WITH_INVERSION:
        names["old"] = one.short.replace("-3", "3")
    return names


def _shapes(base: str) -> dict[str, str]:
    plain = base.replace("_", "")
    return {
        "spaces": plain,
        "underscores": base,
        "no spaces": plain.replace(" ", ""),
        "underscores, no spaces": base.replace(" ", ""),
        "brackets": re.sub(r"_(\d)", r"(\1)", base),
        "brackets, no spaces": re.sub(r"_(\d)", r"(\1)", base).replace(" ", ""),
        "small letters": plain.lower(),
        "capitals": plain.upper(),
        "underscores for spaces": plain.replace(" ", "_"),
    }


def _suffixes(one: Setting) -> list[tuple[str, str, str]]:
    if not one.origin:
        # a colon and the choice of axes and cell, as in the COD: `C 1 2 1 :b1`
        return [
            ("", "", ""),
            *([("axes after a colon", f":{one.choice}", one.choice)] if one.number <= 15 and one.choice else []),
        ]
    origin = one.origin
    letter = {"1": "S", "2": "Z"}.get(origin, origin)
    words = {"H": "hexagonal axes", "R": "rhombohedral axes"}.get(origin, f"origin choice {origin}")
    return [
        ("", "", ""),
        ("colon", f":{origin}", origin),
        ("colon after a space", f" :{origin}", origin),
        ("small letter after a colon", f":{origin.lower()}", origin),
        ("letter", f" {letter}", origin),
        ("words", f" ({words})", origin),
    ]


def plain(base: str) -> str:
    """A symbol without spaces, underscores and capitals."""
    return base.replace("_", "").replace(" ", "").lower()


@cache
def _claims() -> dict[tuple[str, str], frozenset[int]]:
    claims = defaultdict(set)
    for one in settings():
        for base in _names(one).values():
            for origin in {"", one.origin, one.choice}:
                claims[plain(base), origin].add(one.hall)
    return {key: frozenset(halls) for key, halls in claims.items()}


def named(spelling: Spelling) -> frozenset[int]:
    """Every setting that may be meant by a name."""
    return _claims()[spelling.symbol, spelling.origin]


@cache
def numbered(number: int) -> frozenset[int]:
    """What a number alone may mean: the standard setting, with each origin and both axes."""
    own = [one for one in settings() if one.number == number]
    return frozenset(one.hall for one in own if one.choice in {own[0].choice, "2", "R"})


def in_group(number: int) -> frozenset[int]:
    """All settings of one space group."""
    return frozenset(one.hall for one in settings() if one.number == number)
