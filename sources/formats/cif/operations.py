"""Symmetry operations of a crystal: from text, as a group, and on sites.

Enters: texts such as `-x+y,y,z+1/2`. Leaves: `Operations`, whether they form a group and fit a
cell, and the orbits of sites. Coordinates are fractional columns: an operation takes x to
rot x + shift. This module does not know names of space groups.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from assay.sources.checks import limits

PRODUCTS = 65_536
"""Products of operations that are computed at once."""
SITE_TOLERANCE = 1.5e-3
"""Fractional; images of one site closer than this are one atom. It allows for 3 decimals."""
METRIC_TOLERANCE = 0.02
"""Largest change of a component of the metric tensor under an operation, relative to the cell."""
_SNAP = 0.004
"""Fractional; a translation in decimals this close to a 24th is that 24th."""
_GRID = 110880
"""Steps of a translation that are told apart: holds all denominators to 12, and powers of 2."""
_DECIMALS = np.array([1, 10**6, 10**12])
_TERM = re.compile(r"([+-]?)\s*(?:(\d+/\d+|\d*\.\d+|\d+\.?)\s*(\*?)\s*)?([xyz]?)")


@dataclass(frozen=True, eq=False)
class Operations:
    """`n` symmetry operations, each once."""

    rot: NDArray[np.int64]
    """(n, 3, 3)"""
    shift: NDArray[np.float64]
    """(n, 3) in [0, 1)."""

    def __len__(self) -> int:
        return len(self.rot)

    @cached_property
    def codes(self) -> NDArray[np.uint64]:
        """(n,) one number per operation, ascending."""
        return np.sort(_codes(self.rot, self.shift))

    @cached_property
    def key(self) -> bytes:
        """Equal for equal sets of operations, in any order."""
        return self.codes.tobytes()

    @cached_property
    def has_threefold(self) -> bool:
        """Whether one of the operations is a rotation by 120 degrees, or such a rotoinversion."""
        return bool(np.any(np.abs(np.trace(self.rot, axis1=1, axis2=2)) == 0))

    @cached_property
    def missing(self) -> str:
        """A product of two operations that is no operation of the list, or "" for a group."""
        at_once = max(1, PRODUCTS // len(self))
        for start in range(0, len(self), at_once):
            part = slice(start, start + at_once)
            rot = self.rot[part, None] @ self.rot[None]
            shift = np.einsum("iab,jb->ija", self.rot[part], self.shift) + self.shift[part, None]
            inside = np.isin(_codes(rot.reshape(-1, 3, 3), shift.reshape(-1, 3)), self.codes)
            if not inside.all():
                first, second = divmod(int(np.argmin(inside)), len(self))
                product = as_text(rot[first, second], shift[first, second])
                texts = [as_text(self.rot[k], self.shift[k]) for k in (start + first, second)]
                return f"'{texts[1]}' followed by '{texts[0]}' gives '{product}', which is not among them"
        return ""

    def misfit(self, lattice: NDArray[np.float64]) -> float:
        """Largest change of the metric tensor under an operation; 0 for a cell that has them all.

        `lattice` (3, 3) Å holds a, b, c as rows. The change of a component i, j is divided by the
        lengths of the vectors i and j.
        """
        rot = self._rotations
        metric = lattice @ lattice.T
        length = np.sqrt(metric.diagonal())
        change = rot.transpose(0, 2, 1) @ metric @ rot - metric
        return float(np.abs(change / np.outer(length, length)).max())

    @cached_property
    def _rotations(self) -> NDArray[np.float64]:
        return np.unique(self.rot, axis=0).astype(np.float64)

    def orbit(
        self, place: NDArray[np.float64], tolerance: float = SITE_TOLERANCE
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]] | None:
        """Return the images of one site (3,), each once, and the operation that makes each.

        A site on a special position is first moved onto it exactly, by the mean over the operations
        that leave it in place. None when images lie so close that they are neither one atom nor
        several.
        """
        if len(self) == 1:
            return place[None], np.zeros(1, np.int64)
        images = self.rot @ place + self.shift
        for near in (tolerance, tolerance / 10):
            gap = images - place
            gap -= np.round(gap)
            fixed = np.abs(gap).max(axis=1) < near
            exact = place + gap[fixed].mean(axis=0)
            moved = self.rot @ exact + self.shift
            steps = np.floor(moved * 1e6 + 0.25).astype(np.int64) % 10**6
            kept = np.sort(np.unique(steps @ _DECIMALS, return_index=True)[1])
            if len(kept) * np.count_nonzero(fixed) == len(self):
                return moved[kept], kept
        return None


def parse(texts: Sequence[str]) -> Operations:
    """Read a list of operations in the notation of the International Tables.

    An operation that is listed twice counts once.

    Raises:
        ValueError: when a text is no operation of a crystal, or there are too many.
    """
    limits.check("operations", len(texts))
    return _parsed(tuple(texts))


@lru_cache(maxsize=1024)
def _parsed(texts: tuple[str, ...]) -> Operations:
    read = [_operation(text) for text in texts]
    return distinct(np.array([rot for rot, _ in read]), np.array([shift for _, shift in read]))


def distinct(rot: NDArray[np.int64], shift: NDArray[np.float64]) -> Operations:
    """Operations from arrays (n, 3, 3) and (n, 3), each kept once, in order."""
    shift = shift - np.floor(shift + 1e-9)
    _, first = np.unique(_codes(rot, shift), return_index=True)
    kept = np.sort(first)
    return Operations(rot[kept].astype(np.int64), np.maximum(shift[kept], 0.0))


def _operation(text: str) -> tuple[list[list[int]], list[float]]:
    if len(text) > (most := limits.most("operation")):
        raise ValueError(f"{text[:most]!r}... is no symmetry operation: it is too long")
    parts = text.lower().replace(" ", "").replace("\t", "").strip("'\"").split(",")
    if len(parts) != 3:
        raise ValueError(f"{text!r} is no symmetry operation: three parts with commas between are needed")
    rows = [_row(part, text) for part in parts]
    rot = [row for row, _ in rows]
    if round(abs(float(np.linalg.det(np.array(rot, dtype=np.float64))))) != 1:
        raise ValueError(f"{text!r} is no symmetry operation: it does not keep the volume")
    return rot, [shift for _, shift in rows]


def _row(part: str, text: str) -> tuple[list[int], float]:
    """Coefficients of x, y, z and the translation of one part."""
    row, shift, place = [0, 0, 0], 0.0, 0
    while place < len(part):
        match = _TERM.match(part, place)
        if match is None or match.end() == place or not (match[2] or match[4]) or (place and not match[1]):
            raise ValueError(f"{text!r} is no symmetry operation: {part!r} cannot be read")
        sign = -1 if match[1] == "-" else 1
        if match[4]:
            factor = Fraction(match[2] or "1")
            if factor.denominator != 1:
                raise ValueError(f"{text!r} is no symmetry operation: {part!r} has the factor {match[2]}")
            row["xyz".index(match[4])] += sign * int(factor)
        else:
            shift += sign * _translation(match[2])
        place = match.end()
    if not part:
        raise ValueError(f"{text!r} is no symmetry operation: a part is empty")
    if max(map(abs, row)) > 3:
        raise ValueError(f"{text!r} is no symmetry operation: {part!r} has a factor beyond 3")
    return row, shift


def _translation(text: str) -> float:
    try:
        value = float(Fraction(text))
    except ZeroDivisionError:
        raise ValueError(f"{text!r} is no translation") from None
    near = round(value * 24) / 24
    return near if "/" not in text and abs(value - near) < _SNAP else value


def _codes(rot: NDArray[np.int64], shift: NDArray[np.float64]) -> NDArray[np.uint64]:
    """(n,) a hash per operation; translations count modulo 1."""
    steps = np.floor(shift * _GRID + 0.25).astype(np.int64) % _GRID
    digits = np.concatenate([rot.reshape(len(rot), 9) + 5, steps], axis=1).astype(np.uint64)
    return np.asarray((digits * _PRIMES).sum(axis=1, dtype=np.uint64))


_PRIMES = np.array([0x9E3779B97F4A7C15 * (2 * k + 1) ** 5 % 2**64 | 1 for k in range(12)], dtype=np.uint64)


def as_text(rot: NDArray[np.int64], shift: NDArray[np.float64]) -> str:
    """One operation in the notation of the International Tables.

    >>> as_text(np.array([[-1, 1, 0], [0, 1, 0], [0, 0, 1]]), np.array([0, 0, 0.5]))
    '-x+y,y,z+1/2'
    """
    parts = []
    for row, move in zip(rot.tolist(), shift.tolist()):
        text = "".join(
            f"{k:+d}".replace("1", "") + axis if abs(k) == 1 else f"{k:+d}{axis}" for k, axis in zip(row, "xyz") if k
        )
        fraction = Fraction(move % 1).limit_denominator(48)
        parts.append((text + (f"+{fraction}" if fraction % 1 else "")).removeprefix("+"))
    return ",".join(parts)
