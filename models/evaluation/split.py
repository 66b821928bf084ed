"""Splits that keep related crystals on one side.

Enters: labels of the rows. Leaves: disjoint row sets, and the same as text. This module does not
know what a label means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Key = Literal["element-set", "formula", "row"]
"""What is kept together."""


@dataclass(frozen=True)
class SplitSpec:
    """How rows are divided into a test set, a calibration set, and one fold per member."""

    test: float = 0.15
    """Share of rows nobody trains, stops or calibrates on; not read with `family` or `kfold`, which
    say it."""
    calibration: float = 0.10
    """Share of rows for the error bars; with `family` or `kfold` of the rows outside the test
    set."""
    folds: int = 5
    """Member k stops early on fold k and trains on the others."""
    seed: int = 0
    """Seeds the order in which groups are dealt."""
    by: Key = "element-set"
    """What never straddles two parts. `row` (a random split: `test` and `calibration` of 0.15 are
    the usual 70/15/15) leaks: members of one doping series stand on both sides, and the error looks
    smaller than it is. It is there for comparison with the literature only."""
    family: str | None = None
    """Leave one family out: the test set is this family, all of it and nothing else; `by` deals the
    other rows. A group with rows inside and outside the family, as a few element sets of 3DSC have,
    is then cut by the border of the test set, and by no other."""
    kfold: int | None = None
    """Which of `kfolds` parts is the test set, 0 to kfolds - 1; together they test every row
    once."""
    kfolds: int = 5
    """Parts of equal size, each a whole number of groups, for cross-validation; read with
    `kfold`."""

    def __post_init__(self) -> None:
        for name in ("test", "calibration"):
            if not 0 < getattr(self, name) < 0.5:
                raise ValueError(f"split.{name} is {getattr(self, name)}, expected between 0 and 0.5")
        for name in ("folds", "kfolds"):
            if getattr(self, name) < 2:
                raise ValueError(f"split.{name} is {getattr(self, name)}, expected at least 2")
        if self.by not in get_args(Key):
            raise ValueError(f"split.by is {self.by!r}, expected one of {', '.join(get_args(Key))}")
        if self.kfold is not None and not 0 <= self.kfold < self.kfolds:
            raise ValueError(f"split.kfold is {self.kfold}, expected 0 to {self.kfolds - 1} (split.kfolds - 1)")
        if self.family is not None and self.kfold is not None:
            raise ValueError(f"split.family ({self.family!r}) and split.kfold ({self.kfold}) both choose the test set")


@dataclass(frozen=True)
class Split:
    """Row numbers of each part; a group lies in exactly one."""

    test: NDArray[np.int64]
    """(t,) ascending."""
    calibration: NDArray[np.int64]
    """(c,) ascending."""
    folds: tuple[NDArray[np.int64], ...]
    """One (f,) array per fold, ascending."""
    always: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    """(a,) ascending: rows that every member learns from, and that judge nothing."""

    def train(self, member: int) -> NDArray[np.int64]:
        """Rows member `member` learns from: `always`, and every fold but its own; ascending.

        From a fold that is the only one all members learn, and none stops on it.
        """
        own = member % len(self.folds) if len(self.folds) > 1 else -1
        return np.sort(np.concatenate([self.always, *(fold for k, fold in enumerate(self.folds) if k != own)]))

    def validation(self, member: int) -> NDArray[np.int64]:
        """Rows member `member` stops early on."""
        if len(self.folds) == 1:
            return np.empty(0, np.int64)
        return self.folds[member % len(self.folds)]

    def development(self) -> NDArray[np.int64]:
        """All rows some member trains on: what a baseline may see."""
        return np.sort(np.concatenate([self.always, *self.folds]))

    def opened(self, groups: NDArray[Any], first: int) -> Split:
        """The same with the rows from `first` on, and all of their groups, in `always` alone.

        Args:
            groups: (n,) label of every row, those that are new to this split last.
            first: number of the first of them.

        Raises:
            ValueError: when a part has no row left.
        """
        every = np.isin(groups, groups[first:])
        left = [part[~every[part]] for part in self.parts()]
        if any(len(part) < len(was) and not len(part) for part, was in zip(left, self.parts(), strict=True)):
            raise ValueError("a part of the split holds nothing but groups of which a value was measured")
        return Split(left[0], left[1], tuple(left[2:]), np.flatnonzero(every))

    def parts(self) -> list[NDArray[np.int64]]:
        """Every part: test, calibration, then the folds."""
        return [self.test, self.calibration, *self.folds]

    def ids(self, ids: NDArray[Any]) -> dict[str, Any]:
        """Sorted ids of `test`, `calibration` and `folds` (a list of lists); `ids` (n,) are all.

        Where there are rows that all members learn from, theirs are those of `always`.
        An id may stand for several rows of one part (two properties of one crystal).

        Raises:
            ValueError: when an id lies in two parts, or the number of ids is not the number of
                rows.
        """
        parts = [*self.parts(), self.always]
        if len(ids) != sum(map(len, parts)):
            raise ValueError(f"{len(ids)} ids for a split of {sum(map(len, parts))} rows")
        test, calibration, *folds, always = ([str(id) for id in np.unique(ids[part])] for part in parts)
        _part_of_id(test, calibration, *folds, always)
        found = {"test": test, "calibration": calibration, "folds": folds}
        return found | ({"always": always} if always else {})

    def to_json(self, ids: NDArray[Any]) -> str:
        """`ids` as one line of JSON: the same text for the same split, in any order of the rows.

        Raises:
            ValueError: as `ids` does.
        """
        return json.dumps(self.ids(ids), ensure_ascii=False, separators=(",", ":")) + "\n"

    @classmethod
    def read(cls, path: Path, ids: NDArray[Any]) -> Split:
        """The split in a file of `to_json`, for rows with these ids (n,).

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when it is no split, or not one of exactly these ids.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            known = stored["test"], stored["calibration"], *stored["folds"]
            place = _part_of_id(*known, stored.get("always", []))
            folds = len(stored["folds"])
        except (KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is no split of Assay: {error}") from error
        missing, foreign = sorted(place.keys() - set(ids.tolist())), sorted(set(ids.tolist()) - place.keys())
        if missing or foreign:
            raise ValueError(
                f"{path} is a split of other rows: {len(missing)} of its {len(place)} ids are not in the data "
                f"{missing[:1]}, {len(foreign)} ids of the data are not in it {foreign[:1]}"
            )
        found = _split(np.array([place[id] for id in ids.tolist()], np.int64), folds + 3)
        return replace(found, folds=found.folds[:-1], always=found.folds[-1])


def divide(keys: Mapping[str, NDArray[Any]], spec: SplitSpec) -> Split:
    """Divide rows as `spec` says, by their labels (n,) (`assay.sources.datasets.Dataset.keys`).

    The result depends on the labels, not on the order of rows.

    Raises:
        ValueError: when there is no such label or family, fewer groups than parts, or a part stays
            empty.
    """
    groups = _labels(keys, spec.by, f"split.by is {spec.by!r}")
    if spec.family is None and spec.kfold is None:
        return _filled(grouped(groups, spec), spec)
    if spec.family is None:
        test = _deal(groups, [1 / spec.kfolds] * spec.kfolds, np.random.default_rng(spec.seed)) == spec.kfold
    else:
        families = _labels(keys, "family", f"split.family is {spec.family!r}")
        test = families == spec.family
        if not test.any():
            known = ", ".join(repr(str(name)) for name in np.unique(families))
            raise ValueError(f"split.family is {spec.family!r}, expected one of {known}")
    rest = np.flatnonzero(~test)
    share = (1 - spec.calibration) / spec.folds
    part = np.zeros(len(groups), np.int64)
    generator = np.random.default_rng([spec.seed, 1])
    part[rest] = 1 + _deal(groups[rest], [spec.calibration, *[share] * spec.folds], generator)
    return _filled(_split(part, spec.folds + 2), spec)


def parts(keys: Mapping[str, NDArray[Any]], spec: SplitSpec, count: int) -> tuple[NDArray[np.int64], ...]:
    """Rows of each of `count` parts of equal size, each a whole number of the groups of `spec`.

    They are the test sets of `kfold` 0 to `count` - 1.

    Raises:
        ValueError: when there are no such labels, or fewer groups than parts.
    """
    groups = _labels(keys, spec.by, f"split.by is {spec.by!r}")
    part = _deal(groups, [1 / count] * count, np.random.default_rng(spec.seed))
    return tuple(np.flatnonzero(part == k) for k in range(count))


def without(keys: Mapping[str, NDArray[Any]], spec: SplitSpec, test: NDArray[np.int64], folds: int) -> Split:
    """A split with these test rows, no calibration rows, and all others in `folds` folds.

    Raises:
        ValueError: when there are no labels as `spec` wants them, or fewer groups than folds.
    """
    groups = _labels(keys, spec.by, f"split.by is {spec.by!r}")
    rest = np.setdiff1d(np.arange(len(groups)), test)
    part = np.zeros(len(groups), np.int64)
    part[rest] = 2 + _deal(groups[rest], [1 / folds] * folds, np.random.default_rng([spec.seed, 1]))
    return _split(part, folds + 2)


def grouped(groups: NDArray[Any], spec: SplitSpec) -> Split:
    """Divide rows by group: shuffled groups fill the test set, calibration set and folds in turn.

    The result depends on the set of groups and their sizes, not on the order of rows. Shipped
    models were trained on such splits: the same groups and seed must go on giving the same one.

    Raises:
        ValueError: when there are fewer groups than parts.
    """
    share = (1 - spec.test - spec.calibration) / spec.folds
    shares = [spec.test, spec.calibration, *[share] * spec.folds]
    return _split(_deal(groups, shares, np.random.default_rng(spec.seed)), spec.folds + 2)


def _deal(groups: NDArray[Any], shares: list[float], generator: np.random.Generator) -> NDArray[np.int64]:
    """(n,) part of each row: part p gets groups with `shares[p]` of the rows, the last the rest."""
    names, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < len(shares):
        raise ValueError(f"{len(names)} groups cannot be divided into {len(shares)} parts")
    order = generator.permutation(len(names))
    edges = np.cumsum(shares[:-1]) * counts.sum()
    part_of_group = np.empty(len(names), np.int64)
    part_of_group[order] = np.searchsorted(edges, np.cumsum(counts[order]) - counts[order] / 2, side="right")
    return np.asarray(part_of_group[inverse])


def _split(part: NDArray[np.int64], parts: int) -> Split:
    """Rows of part 0 are the test set, of part 1 the calibration set, of the others the folds."""
    rows = [np.flatnonzero(part == p) for p in range(parts)]
    return Split(rows[0], rows[1], tuple(rows[2:]))


def _filled(split: Split, spec: SplitSpec) -> Split:
    sizes = [len(part) for part in split.parts()]
    if not all(sizes):
        raise ValueError(
            f"a part of the split has no rows (test, calibration, folds: {sizes}): the groups by {spec.by} are too "
            "large for it; ask for fewer folds or another seed"
        )
    return split


def _labels(keys: Mapping[str, NDArray[Any]], name: str, asked: str) -> NDArray[Any]:
    if name not in keys:
        raise ValueError(f"{asked}, but these data have no {name!r} labels, only {', '.join(sorted(keys))}")
    return keys[name]


def _part_of_id(*parts: list[str]) -> dict[str, int]:
    """Number of the part that holds each id."""
    place: dict[str, int] = {}
    for number, ids in enumerate(parts):
        for id in ids:
            if place.setdefault(id, number) != number:
                raise ValueError(f"id {id!r} lies in two parts of the split")
    return place
