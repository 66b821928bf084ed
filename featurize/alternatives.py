"""Split positions: sites so close to each other that the atom stands on one of them at a time.

Enters: crystals, or cells, positions and the share of each site (its total occupancy). Leaves:
which pairs of sites are alternatives, so that no bond joins them; which crystals are crowded: they
would hold more than one atom at one place; and crystals with one site for each split position.
This module does not know features or networks.

The rule, with all periodic images counted: a site and the sites closer to it than `CLOSEST` hold at
most `FULL` atoms together, else the crystal is crowded. In a crystal that is not crowded, two sites
closer than `CLOSEST` are alternatives. So are all sites of a chain of such pairs, however far apart
its ends are, if the whole chain holds at most `FULL` atoms: opposite corners of a ring are places
of one atom too. Of a chain that holds more, only the close pairs are alternatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.featurize import neighbours
from assay.featurize.neighbours import Edges
from assay.featurize.threads import njit
from assay.sources.crystals import Crystals, gather_ranges, wrap

CLOSEST = 0.5
"""Å; two atoms are never closer than this. H-H in H2, the shortest bond there is, has 0.74 Å."""
FULL = 1.02
"""Largest sum of shares that counts as one atom: rounded shares, 3 x 0.34, add up to more than
1."""
_SAME = 1e-4
"""Å; two vectors closer than this lead to the same image of a site."""


@dataclass(frozen=True, eq=False)
class Alternatives:
    """The split positions in `n` crystals with `S` sites."""

    crowded: NDArray[np.bool_]
    """(S,) whether the crystal of a site is crowded; none of its sites are alternatives then."""
    chain: NDArray[np.int64]
    """(S,) number of the chain that a site belongs to, -1 for none; a chain holds one atom."""
    place: NDArray[np.float64]
    """(S, 3) Å, from the first site of the chain to this one."""
    most: int
    """Alternatives of a site, at most."""

    def between(
        self, source: NDArray[Any], target: NDArray[Any], vector: NDArray[np.floating[Any]]
    ) -> NDArray[np.bool_]:
        """(E,) whether the ends of a pair are alternatives.

        `source` and `target` are (E,) sites, and `vector` is (E, 3) Å from target to source.
        """
        close = _length(vector) < CLOSEST
        linked = (self.chain[source] == self.chain[target]) & (self.chain[source] >= 0)
        apart = self.place[source] - self.place[target] - vector
        return np.asarray((close & ~self.crowded[target]) | (linked & (abs(apart).max(axis=1) < _SAME)))


def find(
    lattice: NDArray[np.float64],
    frac: NDArray[np.float64],
    site_ptr: NDArray[np.int64],
    share: NDArray[np.float64],
) -> Alternatives:
    """The split positions of a batch; `share` is (S,), the total occupancy of each site."""
    source, target, vector = _close_pairs(lattice, frac, site_ptr)
    over = _rounded(_around(source, target, share)) > FULL
    owner = np.repeat(np.arange(len(lattice)), np.diff(site_ptr))
    crowded = np.isin(owner, owner[over])
    kept = ~crowded[target]
    source, target, vector = source[kept], target[kept], vector[kept]
    into = np.concatenate([[0], np.cumsum(np.bincount(target, minlength=len(share)))])
    chain, place, held = _chains(into, source, vector, share)
    chain = np.where((chain >= 0) & (_rounded(held)[chain] <= FULL), chain, -1)
    most = max(np.diff(into).max(initial=0), np.bincount(chain[chain >= 0]).max(initial=0))
    return Alternatives(crowded, chain, place, int(most))


def united(crystals: Crystals) -> Crystals:
    """The batch with each split position as one site; the batch itself where there is none.

    Networks have learned from crystals without split positions: half atoms next to each other are
    like nothing they know. The one site stands at the mean of the places, weighted by their shares.
    A chain of close sites that holds more than one atom stays as it is. The order of the crystals
    and of the other sites is kept.
    """
    rows = _candidates(crystals)
    if not len(rows):
        return crystals
    some = crystals.select(rows)
    chain, place = np.full(len(crystals.frac), -1, np.int64), np.zeros((len(crystals.frac), 3))
    sites = np.flatnonzero(np.isin(crystals.site_crystal, rows))
    found = find(some.lattice, some.frac, some.site_ptr, some.site_occupancy)
    linked = found.chain >= 0
    if not linked.any():
        return crystals
    chain[sites[linked]] = sites[found.chain[linked]]
    place[sites] = found.place
    return _merged(crystals, np.where(chain >= 0, chain, np.arange(len(chain))), place)


def _candidates(crystals: Crystals) -> NDArray[np.int64]:
    """Rows with at least two partly occupied sites, one of them at most half full."""
    share = crystals.site_occupancy
    half = np.bincount(crystals.site_crystal[share <= FULL / 2], minlength=len(crystals))
    partial = np.bincount(crystals.site_crystal[share < 1], minlength=len(crystals))
    return np.flatnonzero((half > 0) & (partial > 1))


def _merged(crystals: Crystals, leader: NDArray[np.int64], place: NDArray[np.float64]) -> Crystals:
    """The batch with the sites of one leader (S,) as one; `place` (S, 3) Å leads from it."""
    share = crystals.site_occupancy
    total = np.bincount(leader, share, minlength=len(leader))
    sums = np.stack([np.bincount(leader, share * axis, minlength=len(leader)) for axis in place.T], axis=1)
    moved = sums / np.where(total > 0, total, 1.0)[:, None]
    kept = leader == np.arange(len(leader))
    shifted = moved[kept].any(axis=1)
    inverse = np.linalg.inv(crystals.lattice)[crystals.site_crystal[kept]]
    frac = crystals.frac[kept].copy()
    frac[shifted] = wrap(frac[shifted] + np.einsum("si,sij->sj", moved[kept][shifted], inverse[shifted]))
    numbers, occupancy, counts = _species(crystals, leader, total)
    return Crystals(
        ids=crystals.ids,
        lattice=crystals.lattice,
        site_ptr=np.concatenate([[0], np.cumsum(np.bincount(crystals.site_crystal[kept], minlength=len(crystals)))]),
        frac=frac,
        species_ptr=np.concatenate([[0], np.cumsum(counts[kept])]),
        numbers=numbers,
        occupancy=occupancy,
        columns=crystals.columns,
    )


def _species(
    crystals: Crystals, leader: NDArray[np.int64], total: NDArray[Any]
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
    """Numbers and occupancies (K,) site by site, and the species (S,) of each leader.

    Species of sites that stay alone keep their order and their bytes.
    """
    owner = leader[crystals.species_site]
    joint = np.bincount(leader, minlength=len(leader))[owner] > 1
    order = np.lexsort((np.where(joint, crystals.numbers, np.arange(len(owner))), owner))
    owner, joint, numbers = owner[order], joint[order], crystals.numbers[order]
    again = np.zeros(len(owner), bool)
    again[1:] = joint[1:] & (owner[1:] == owner[:-1]) & (numbers[1:] == numbers[:-1])
    first = np.flatnonzero(~again)
    shares = crystals.occupancy[order]
    sums = np.add.reduceat(shares.astype(np.float64), first) / np.maximum(total[owner[first]], 1.0)
    occupancy = np.where(joint[first], np.minimum(sums, 1.0), shares[first]).astype(np.float32)
    return numbers[first], occupancy, np.bincount(owner[first], minlength=len(leader))


def possible(share: NDArray[np.floating[Any]]) -> bool:
    """Whether any share, of a site or of a species on it, leaves room for an alternative."""
    return bool((share <= FULL / 2).any())


def suspects(crystals: Crystals, edge_ptr: NDArray[np.int64], distance: NDArray[np.float32]) -> NDArray[np.int64]:
    """Rows that may have split positions, by the lengths of the edges that were found."""
    if not possible(crystals.occupancy):
        return np.empty(0, np.int64)
    close = np.flatnonzero(distance < CLOSEST)
    return np.unique(np.searchsorted(edge_ptr, close, side="right") - 1)


def replaced(edges: Edges, rows: NDArray[np.int64], others: Edges, site_ptr: NDArray[np.int64]) -> Edges:
    """The edges of a batch with those of some rows exchanged.

    `site_ptr` is (n + 1,), the sites of each crystal. In `others` the sites of the rows are
    counted from 0.
    """
    pointer, *columns = edges
    _, *fresh = others
    stays = np.ones(len(site_ptr) - 1, bool)
    stays[rows] = False
    kept = np.repeat(stays, np.diff(pointer))
    nodes, _ = gather_ranges(site_ptr, rows)
    fresh[:2] = [nodes[ends].astype(ends.dtype) for ends in fresh[:2]]
    joined = [np.concatenate([column[kept], new]) for column, new in zip(columns, fresh, strict=True)]
    order = np.argsort(joined[1], kind="stable")
    source, target, vector, distance = (column[order] for column in joined)
    return np.searchsorted(target, site_ptr), source, target, vector, distance


def crowded(crystals: Crystals) -> NDArray[np.int64]:
    """Rows with more than one atom at a place, which no network reads; `crowding` says where."""
    source, target, _ = _close_pairs(crystals.lattice, crystals.frac, crystals.site_ptr)
    over = _rounded(_around(source, target, crystals.site_occupancy)) > FULL
    return np.unique(crystals.site_crystal[over])


def crowding(crystals: Crystals, row: int) -> str:
    """What is wrong with a crystal that has two atoms at one place, in one line."""
    first, last = crystals.site_ptr[row], crystals.site_ptr[row + 1]
    share, pointer = crystals.site_occupancy[first:last], np.array([0, last - first])
    cell, frac = crystals.lattice[[row]], crystals.frac[first:last]
    _, source, target, vector, _ = neighbours.within(cell, frac, pointer, CLOSEST)
    held = _rounded(_around(source, target, share))
    length = np.where(held[target] > FULL, _length(vector), np.inf)
    pair = int(np.argmin(length))
    one, other = sorted((share[target[pair]], share[source[pair]]), reverse=True)
    return (
        f"two sites that hold {one:.4g} and {other:.4g} atoms are {_length(vector)[pair]:.3f} Å apart; "
        f"closer than {CLOSEST} Å to each other at most 1 atom is accepted, here {held[target[pair]]:.4g}"
    )


def _close_pairs(
    lattice: NDArray[np.float64], frac: NDArray[np.float64], site_ptr: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """Source, target and vector of all pairs closer than `CLOSEST`, ascending in target."""
    _, source, target, vector, _ = neighbours.within(lattice, frac, site_ptr, CLOSEST)
    close = _length(vector) < CLOSEST
    return source[close], target[close], vector[close]


def _length(vector: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """(E,) Å, as graphs hold it, so that no rounding tells a graph from this rule."""
    return np.asarray(np.linalg.norm(vector.astype(np.float64), axis=1), np.float32)


def _around(source: NDArray[np.int32], target: NDArray[np.int32], share: NDArray[np.float64]) -> NDArray[np.float64]:
    """(S,) atoms on each site and on the sites that are close to it."""
    return np.asarray(share + np.bincount(target, weights=share[source], minlength=len(share)), np.float64)


def _rounded(atoms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of shares without the noise of float32."""
    return np.asarray(atoms.round(5), np.float64)


@njit(cache=True, nogil=True)
def _chains(into, source, vector, share):  # type: ignore[no-untyped-def]
    """Follow close pairs from site to site.

    Returns the chain (S,) of each site, named by its first site, -1 without a close pair; the place
    (S, 3) of each site from there; and the atoms (S,) on each chain, at its first site. A chain
    that comes back to a site in another cell runs through the crystal, and holds infinitely many.
    """
    n = len(share)
    chain, place, held = np.full(n, -1, np.int64), np.zeros((n, 3)), np.zeros(n)
    waiting = np.empty(n, np.int64)
    for first in range(n):
        if chain[first] >= 0 or into[first] == into[first + 1]:
            continue
        chain[first], waiting[0], left = first, first, 1
        while left > 0:
            left -= 1
            here = waiting[left]
            held[first] += share[here]
            for pair in range(into[here], into[here + 1]):
                there = source[pair]
                if chain[there] < 0:
                    chain[there] = first
                    place[there] = place[here] + vector[pair]
                    waiting[left] = there
                    left += 1
                elif np.abs(place[there] - place[here] - vector[pair]).max() > _SAME:
                    held[first] = np.inf
    return chain, place, held
