"""The search for equal and related crystals: fingerprints propose pairs, mappings decide.

Enters: `Crystals`, or their fingerprints. Leaves: pairs of rows to compare, and what is found of
them. Whoever compares may do so in parts and in several processes: a pair depends on its own two
crystals only. This module does not know sources or campaigns.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from importlib import metadata

import numpy as np
from numpy.typing import NDArray

from assay.featurize.identity import likeness, mapping
from assay.featurize.identity.cells import kinds, primitive
from assay.featurize.identity.fingerprint import BINS, FINE, Fingerprints, fingerprints
from assay.featurize.identity.likeness import NOISE_STRAIN, OCCUPANCY, RELATED, SAME, SHIFT, STRAIN, Crystal
from assay.featurize.threads import njit
from assay.sources.crystals import Crystals
from assay.sources.occupants import occupants, shares

LEVELS = (FINE, 0.1, 0.3)
"""Å, tolerances of the primitive cells: the first at which two crystals have equally many sites and
map on each other counts."""
FAR = 0.2
"""Fingerprints that differ more in any number are of different crystals."""
NEAR = 16
"""Most rows of one composition, the nearest ones, with which a row is compared at once."""
WINDOW = 256
"""Rows to each side, in the order of one number of the fingerprint, among which these are."""
SLACK = 0.06
"""What noise and distortions that symmetry takes away may add to the bounds of `SAME`: Å of a
displacement, and a tenth of it of a strain."""
FREE_STRAIN = 0.025
"""Largest strain of the same crystal that breaks no symmetry, where no site moves."""


def stamp() -> str:
    """Library version and tolerances, which decide which crystals are the same.

    Raises:
        ValueError: when a library is missing.
    """
    try:
        version = metadata.version("moyopy")
    except metadata.PackageNotFoundError as error:
        raise ValueError(
            f"finding the same crystal in two sources needs {error.name}: pip install {error.name}, "
            "or set identity: false"
        ) from None
    numbers = (*likeness.bounds(), *LEVELS, *BINS.tolist(), FAR, NEAR, WINDOW)
    strains = (SLACK, FREE_STRAIN, mapping.KEPT, mapping.BROKEN, mapping.OWN_STRAIN)
    return ", ".join([f"moyopy {version}", "distances", *map(str, (*numbers, *strains))])


@dataclass(frozen=True)
class Compared:
    """Pairs of rows that are alike."""

    same: NDArray[np.int64]
    """(m, 2) pairs that are the same crystal."""
    related: NDArray[np.int64]
    """(k, 2) pairs that are related."""
    distance: NDArray[np.float64]
    """(k,) Å, how far a site or the end of the primitive cell moves, at one volume."""
    volume_ratio: NDArray[np.float64]
    """(k,) volume per site of the second over that of the first."""


class Search:
    """The pairs to compare, round by round; each round knows what the one before found.

    A row is compared with the `NEAR` rows that are nearest to it. Of the rows that are the same one
    leads, and only leaders are compared in the next round, until no new pair is left. A composition
    with at most `NEAR` + 1 rows, in which every pair is compared at once, has one round.
    """

    def __init__(self, rows: Fingerprints) -> None:
        """Each id stands there once; rows with lower ids lead."""
        self.leader: NDArray[np.int64] = np.arange(len(rows.ids))
        """(n,) the row that leads each row."""
        self._rank = np.argsort(np.argsort(rows.ids, kind="stable"))
        number: dict[str, int] = {}
        block = np.array([number.setdefault(text, len(number)) for text in rows.compositions], np.int64)
        self._values, self._start = rows.values, rows.pointer
        usable = np.flatnonzero([bool(text) for text in rows.compositions])
        order = usable[np.lexsort((self._rank[usable], block[usable]))]
        parts = np.split(order, np.flatnonzero(np.diff(block[order])) + 1)
        self._blocks = [part for part in parts if len(part) > 1]
        self._tested: set[tuple[int, int]] = set()
        self.compared = np.zeros(len(rows.ids), bool)
        """(n,) whether another row has the composition of a row."""
        self.compared[np.concatenate([order[:0], *self._blocks])] = True

    def pairs(self) -> NDArray[np.int64]:
        """(m, 2) the pairs of the next round, by composition; none at the end."""
        found, left = [], []
        for rows in self._blocks:
            leaders = rows[self.leader[rows] == rows]
            pairs = leaders[_near(self._matrix(leaders), FAR, NEAR, WINDOW)] if len(leaders) > 1 else leaders[:0]
            if len(rows) > NEAR + 1:
                fresh = [pair for pair in map(tuple, pairs.tolist()) if pair not in self._tested]
                self._tested.update(fresh)
                pairs = np.array(fresh, np.int64)
                left += [leaders] if fresh else []
            found.append(pairs.reshape(-1, 2))
        self._blocks = left
        return np.concatenate([np.empty((0, 2), np.int64), *found])

    def learn(self, same: NDArray[np.int64]) -> None:
        """Take the pairs (m, 2) of a round that are the same crystal.

        Rows join in the order of their ids, see `joined`.
        """
        rank = self._rank
        order = np.argsort(rank)
        self.leader = order[joined(rank[self.leader][order], rank[same])][rank]

    def _matrix(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        width = self._start[rows[0] + 1] - self._start[rows[0]]
        return np.asarray(self._values[self._start[rows][:, None] + np.arange(width)], np.float32)


def find(crystals: Crystals) -> tuple[NDArray[np.int64], Compared]:
    """(n,) the row that leads each row, and the pairs that were found; the whole search at once.

    A row is related to each group once, and the row that leads the group stands for it.
    """
    search = Search(fingerprints(crystals))
    found = []
    while len(pairs := search.pairs()):
        found.append(confirm(crystals, pairs))
        search.learn(found[-1].same)
    every = _together(found)
    kept = nearest_of_groups(search.leader, every.related, every.distance)
    groups = search.leader[every.related[kept]]
    return search.leader, Compared(every.same, groups, every.distance[kept], every.volume_ratio[kept])


def _together(found: list[Compared]) -> Compared:
    """What all rounds found."""
    none, nothing = np.empty((0, 2), np.int64), np.empty(0)
    rows = [vars(one) for one in (Compared(none, none, nothing, nothing), *found)]
    return Compared(**{name: np.concatenate([one[name] for one in rows]) for name in rows[0]})


def joined(leader: NDArray[np.int64], same: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) the leader of each row after some leaders (m, 2) were found to be the same crystal.

    In the order of rows each joins the first row that leads and is equal to it. So a chain of
    crystals, each equal to the next, does not become one.

    >>> joined(np.arange(4), np.array([[0, 1], [1, 2], [1, 3], [2, 3]])).tolist()
    [0, 0, 2, 2]
    """
    leader = leader.copy()
    low = np.sort(np.asarray(same, np.int64).reshape(-1, 2), axis=1)
    for one, other in low[np.lexsort((low[:, 0], low[:, 1]))].tolist():
        if leader[one] == one and leader[other] == other:
            leader[other] = one
    return leader[leader]


def nearest_of_groups(
    leader: NDArray[np.int64], related: NDArray[np.int64], distance: NDArray[np.float64]
) -> NDArray[np.int64]:
    """The places of the nearest related pair (k, 2) of any two groups.

    Two rows of one group are no pair.
    """
    groups = np.sort(leader[related], axis=1)
    order = np.lexsort((distance, groups[:, 1], groups[:, 0]))
    order = order[groups[order, 0] != groups[order, 1]]
    ends = groups[order]
    first = np.ones(len(order), bool)
    first[1:] = np.any(ends[1:] != ends[:-1], axis=1)
    return np.sort(order[first])


def space_groups(crystals: Crystals) -> list[int]:
    """Number of the space group of each crystal at 0.1 Å; 0 where none is found."""
    kind, _ = kinds(crystals)
    found = [crystal(crystals, kind, row).coarse for row in range(len(crystals))]
    return [0 if one is None else one.key[0] for one in found]


def crystal(crystals: Crystals, kind: NDArray[np.int64], row: int) -> Crystal:
    """One crystal of a batch; `kind` is (S,)."""
    sites = slice(crystals.site_ptr[row], crystals.site_ptr[row + 1])
    return Crystal(crystals.lattice[row], crystals.frac[sites], kind[sites])


def confirm(crystals: Crystals, pairs: NDArray[np.int64]) -> Compared:
    """Those of some pairs (m, 2) of rows of one composition that are the same or related.

    One crystal is mapped on the other (`mapping.between`), their occupancies are compared, and
    where they lie near each other without being equal their symmetry decides
    (`likeness.same`).
    """
    pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    compared = _Comparison(crystals, pairs)
    verdict = [compared.verdict(row) for row in range(len(pairs))]
    same = np.array([answer == _SAME for answer in verdict], bool)
    related = np.array([answer == _RELATED for answer in verdict], bool)
    return Compared(pairs[same], pairs[related], compared.distance()[related], compared.ratio[related])


_APART, _RELATED, _SAME = range(3)


@dataclass
class _Comparison:
    """The pairs of one batch, mapped; symmetry is searched for where it is asked."""

    crystals: Crystals
    pairs: NDArray[np.int64]
    ratio: NDArray[np.float64] = field(init=False)
    moved: NDArray[np.float64] = field(init=False)
    strain: NDArray[np.float64] = field(init=False)
    proper: NDArray[np.bool_] = field(init=False)

    def __post_init__(self) -> None:
        kind, _ = kinds(self.crystals)
        one, other = self.pairs.T
        volume = self.crystals.volume / np.maximum(self.crystals.nsites, 1)
        self.ratio = volume[other] / volume[one]
        self._unit = np.cbrt(volume[one])
        found, spread = np.full((len(one), 4), np.inf), np.zeros(len(one))
        self._sites = np.ones(len(one))
        self.level = np.zeros(len(one), np.int64)
        left = np.flatnonzero(np.abs(np.log(self.ratio)) < np.log(RELATED.volume))
        counts, rest = self.crystals.nsites, self.pairs[:0, 0]
        for level, tolerance in enumerate(LEVELS):
            rows, ends = np.unique(self.pairs[left], return_inverse=True)
            ends = ends.reshape(-1, 2)
            some = self.crystals.select(rows)
            sites = np.isin(self.crystals.site_crystal, rows)
            cells = primitive(some, kind[sites], tolerance)
            before, counts = counts, counts.copy()
            counts[rows] = np.diff(cells.pointer)
            if level == 0:
                self._cells, self._place = cells, np.searchsorted(rows, np.arange(len(self.crystals)))
            else:  # nothing is new where both have their cells of the level before
                new = np.any(counts[self.pairs[left]] != before[self.pairs[left]], axis=1)
                left, ends, rest = left[new], ends[new], left[~new]
            first, second = ends[:, 0].copy(), ends[:, 1].copy()
            found[left] = mapping.between(cells, first, cells, second, RELATED[:3], STRAIN)
            spread[left] = cells.spread[first] + cells.spread[second]
            self._sites[left] = counts[one[left]]
            self.level[left] = level
            left = np.sort(np.concatenate([rest, left[~np.isfinite(found[left, 0])]]))
        self.moved = found[:, 0] * self._unit + spread
        self._folded = spread > 2 * SHIFT  # a superstructure is never the same as its parent
        self.strain, self.proper, self._breaks = found[:, 1], found[:, 2] == 1, found[:, 3]
        self._single = cache(self._crystal)
        self._share = list(shares(self.crystals, occupants(self.crystals)))

    def distance(self) -> NDArray[np.float64]:
        """(m,) Å, see `Compared`."""
        return np.asarray(np.maximum(self.moved, self.strain * self._unit * np.cbrt(self._sites)))

    def _idle(self, row: int) -> bool:
        """Whether a strain tells no phases apart: it is small, noise, or breaks no symmetry."""
        most = {mapping.NOTHING: FREE_STRAIN, mapping.EVERYTHING: NOISE_STRAIN}
        return bool(self.strain[row] <= most.get(int(self._breaks[row]), STRAIN))

    def verdict(self, row: int) -> int:
        """What is said of a pair."""
        moved, strain, unit = self.moved[row], self.strain[row], self._unit[row]
        one, other = self.pairs[row].tolist()
        if not moved <= RELATED.displacement * unit:
            return _APART
        if np.abs(self._share[one] - self._share[other]).max() > OCCUPANCY + 1e-9:
            return _APART
        near = abs(np.log(self.ratio[row])) < np.log(SAME.volume)
        if self.level[row] == 0 and self.proper[row] and moved <= SHIFT and near and self._idle(row):
            return _SAME
        if self.level[row] == 0 and self.proper[row] and self._breaks[row] == mapping.PARENT:
            return _RELATED
        close = moved <= SAME.displacement * unit + SLACK and strain <= SAME.length + SLACK / 10
        if near and close and not self._folded[row] and likeness.same(self._single(one), self._single(other)):
            return _SAME
        if self.proper[row] or likeness.one_group(self._single(one), self._single(other)):
            return _RELATED
        return _APART

    def _crystal(self, row: int) -> Crystal:
        """The primitive cell of a crystal, in Å."""
        cells, place = self._cells, self._place[row]
        sites = slice(cells.pointer[place], cells.pointer[place + 1])
        return Crystal(cells.basis[place] * cells.unit[place], cells.frac[sites], cells.kind[sites])


@njit(cache=True, nogil=True)
def _near(values, far, most, window):  # type: ignore[no-untyped-def]
    """(m, 2) pairs of rows, the lower first, in order: of each row the nearest within `far`."""
    n, width = values.shape
    column, widest = 0, -1.0
    for k in range(width):
        spread = values[:, k].var()
        if spread > widest:
            column, widest = k, spread
    order = np.argsort(values[:, column], kind="mergesort")
    out, count = np.empty((n * most, 2), np.int64), 0
    best, gap = np.empty(most, np.int64), np.empty(most)
    for p in range(n):
        i, met = order[p], 0
        for side in (-1, 1):
            for step in range(1, window + 1):
                q = p + side * step
                if q < 0 or q >= n:
                    break
                j = order[q]
                limit = gap[most - 1] if met == most else far
                if abs(values[j, column] - values[i, column]) > limit:
                    break
                widest = 0.0
                for k in range(width):
                    widest = max(widest, abs(values[i, k] - values[j, k]))
                    if widest > limit:
                        break
                if widest > limit or (met == most and widest == limit):
                    continue
                met = min(met + 1, most)
                k = met - 1
                while k > 0 and gap[k - 1] > widest:
                    gap[k], best[k] = gap[k - 1], best[k - 1]
                    k -= 1
                gap[k], best[k] = widest, j
        for k in range(met):
            out[count, 0], out[count, 1] = min(i, best[k]), max(i, best[k])
            count += 1
    codes = np.unique(out[:count, 0] * n + out[:count, 1])
    pairs = np.empty((len(codes), 2), np.int64)
    pairs[:, 0], pairs[:, 1] = codes // n, codes % n
    return pairs
