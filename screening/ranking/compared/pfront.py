"""The probability of each crystal to be on the first front, when every prediction errs.

Enters: rows with points (n, m), one column per objective, and the laws of their true values.
Leaves: (n,) shares of the draws in which no other row is better in everything. Rows that are never
on the front are left out, by proof: in every draw some crystal beats a certain point, and this
point is at least as good as the best that a draw can give the row. This module does not know tables
or rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.screening.ranking.compared import draws, fronts, kernels
from assay.screening.ranking.compared.draws import Floats, Keys, Law, Strata

BITS = 9
DRAWS = 2**BITS
"""A probability of 0.5 is known to 0.022 (one standard deviation)."""
STRONG = 1_000
"""Rows, from the first fronts on, that the others meet first in each draw."""
WITNESSES = 4_096
"""Points that may be beaten in every draw."""


class Counted(Protocol):
    """How true values of a property count."""

    def true(self, values: Floats) -> Floats:
        """(n,) higher is better."""

    def best(self, lowest: Floats, highest: Floats) -> Floats:
        """(n,) the best that a value between two ends can count."""


@dataclass(frozen=True)
class Movable:
    """One objective of all rows: what it can be, and how that counts."""

    counted: Counted
    fixed: Floats | None
    """(n,) values that count as exact."""
    numbers: Floats
    """(n, m) laws; empty for what is exact."""
    keys: Keys
    strata: Strata | None

    @property
    def known(self) -> NDArray[np.bool_]:
        """(n,) whether the error of a row is known."""
        if self.fixed is not None:
            return np.ones(len(self.fixed), bool)
        return np.asarray(np.isfinite(self.numbers).all(axis=1), bool)

    def at(self, rows: NDArray[np.int64]) -> Movable:
        """Some rows."""
        if self.fixed is not None:
            return Movable(self.counted, self.fixed[rows], self.numbers, self.keys, None)
        return Movable(self.counted, None, self.numbers[rows], self.keys[rows], self.strata)

    def drawn(self, draw: int) -> Floats:
        """(n,) how the true values of one draw count."""
        if self.strata is None:
            assert self.fixed is not None
            return self.counted.true(self.fixed)
        return self.counted.true(self.strata.drawn(self.numbers, self.keys, draw))

    def best(self) -> Floats:
        """(n,) the best that any draw can give."""
        if self.strata is None:
            return self.drawn(0)
        return self.counted.best(*self.strata.ends(self.numbers))


def movable(counted: Counted, law: Law | None, ids: pa.Array, values: Mapping[str, Floats]) -> Movable:
    """One objective; without a law the values `mean` count as exact."""
    if law is None:
        return Movable(counted, values["mean"], np.empty((0, 2)), np.empty(0, np.uint64), None)
    return Movable(counted, None, law.numbers(values), draws.keys(ids, law.source), law.strata(BITS))


def chances(objectives: Sequence[Movable], points: Floats, order: NDArray[np.int64]) -> Floats:
    """(n,) probabilities; NaN for a row whose error is not known, which takes no part.

    Args:
        objectives: m of them, each with all rows.
        points: (n, m) how the predicted values count, finite.
        order: (n,) rows, the strong ones first.
    """
    found = np.full(len(points), np.nan)
    known = np.logical_and.reduce([each.known for each in objectives])
    order = order[known[order]]
    if not len(order):
        return found
    found[order] = 0.0
    strong, rest = order[:STRONG], order[STRONG:]
    ahead = [each.at(strong) for each in objectives]
    first = [strongest(drawn(ahead, draw)) for draw in range(DRAWS)]
    rest = rest[~_hopeless([each.at(rest) for each in objectives], points[order], [front for front, _ in first])]
    behind = [each.at(rest) for each in objectives]
    for draw, (front, rows) in enumerate(first):
        others = drawn(behind, draw)
        left = np.flatnonzero(~outdone(others, front, strictly=True))
        stays = fronts.first(np.concatenate([front, others[left]]))
        found[strong[rows[stays[: len(rows)]]]] += 1
        found[rest[left[stays[len(rows) :]]]] += 1
    return np.asarray(found / DRAWS, np.float64)


def drawn(objectives: Sequence[Movable], draw: int) -> Floats:
    """(n, m) how the true values of one draw count."""
    return np.asarray(np.stack([each.drawn(draw) for each in objectives], axis=1), np.float64)


def strongest(points: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """The points that no other one dominates, those first that are good in all; their rows."""
    if not len(points):
        return points, np.empty(0, np.int64)
    rows = np.flatnonzero(fronts.first(points))
    span = np.ptp(points, axis=0)
    strength = (points[rows] / np.where(span > 0, span, 1.0)).sum(axis=1)
    rows = rows[np.argsort(-strength, kind="stable")]
    return np.asarray(points[rows]), rows


def _hopeless(objectives: Sequence[Movable], points: Floats, ahead: Sequence[Floats]) -> NDArray[np.bool_]:
    """(rows,) whether a row is dominated in every draw; `ahead` are fronts, one per draw.

    `points` are where witnesses are looked for: whichever are taken, the answer is right.
    """
    witnesses = points[:: max(1, len(points) // WITNESSES)]
    for front in ahead:
        witnesses = witnesses[outdone(witnesses, front, strictly=True)]
    best = np.stack([each.best() for each in objectives], axis=1)
    return outdone(best, strongest(witnesses)[0], strictly=False) if len(witnesses) else np.zeros(len(best), bool)


def outdone(points: Floats, front: Floats, *, strictly: bool) -> NDArray[np.bool_]:
    """(n,) whether a point of a front is at least as good in all, and `strictly`: better in one."""
    out = np.empty(len(points), np.bool_)
    kernels.outdone(np.ascontiguousarray(points), np.ascontiguousarray(front), strictly, out)
    return out
