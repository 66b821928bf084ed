"""Splits that keep related crystals on one side.

Enters: group labels. Leaves: disjoint row sets. This module does not know what a group means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class SplitSpec:
    """How rows are divided: test and calibration sets are held out, the rest is cut into folds, one per member."""

    test: float = 0.15
    """Share of rows nobody trains, stops or calibrates on."""
    calibration: float = 0.10
    """Share of rows for the error bars."""
    folds: int = 5
    """Member k stops early on fold k and trains on the others."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("test", "calibration"):
            if not 0 < getattr(self, name) < 0.5:
                raise ValueError(f"split.{name} is {getattr(self, name)}, expected between 0 and 0.5")
        if self.folds < 2:
            raise ValueError(f"split.folds is {self.folds}, expected at least 2")


@dataclass(frozen=True)
class Split:
    """Row numbers of each part; a group lies in exactly one."""

    test: NDArray[np.int64]
    """(t,) ascending."""
    calibration: NDArray[np.int64]
    """(c,) ascending."""
    folds: tuple[NDArray[np.int64], ...]
    """One (f,) array per fold, ascending."""

    def train(self, member: int) -> NDArray[np.int64]:
        """Rows member `member` learns from: every fold but its own, in ascending order."""
        own = member % len(self.folds)
        return np.sort(np.concatenate([fold for k, fold in enumerate(self.folds) if k != own]))

    def validation(self, member: int) -> NDArray[np.int64]:
        """Rows member `member` stops early on."""
        return self.folds[member % len(self.folds)]

    def development(self) -> NDArray[np.int64]:
        """All rows some member trains on: what a baseline may see."""
        return np.sort(np.concatenate(self.folds))


def grouped(groups: NDArray[Any], spec: SplitSpec) -> Split:
    """Divide rows by group: shuffled groups are dealt to test, then calibration, then the folds, until each is full.

    The result depends on the set of groups and their sizes, not on the order of rows.

    Raises:
        ValueError: when there are fewer groups than parts.
    """
    names, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < spec.folds + 2:
        raise ValueError(f"{len(names)} groups cannot be divided into {spec.folds + 2} parts")
    order = np.random.default_rng(spec.seed).permutation(len(names))
    share = (1 - spec.test - spec.calibration) / spec.folds
    edges = np.cumsum([spec.test, spec.calibration, *[share] * (spec.folds - 1)]) * counts.sum()
    part_of_group = np.empty(len(names), np.int64)
    part_of_group[order] = np.searchsorted(edges, np.cumsum(counts[order]) - counts[order] / 2, side="right")
    part = part_of_group[inverse]
    rows = [np.flatnonzero(part == p) for p in range(spec.folds + 2)]
    return Split(rows[0], rows[1], tuple(rows[2:]))
