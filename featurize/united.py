"""Split positions as one site each, so that a network sees the atom and not its places.

Enters: a batch of crystals. Leaves: the same crystals, in which the sites of a split position are
one site at their mean place, weighted by their shares. Networks have learned from crystals without
split positions; half atoms next to each other are like nothing they know. This module does not know
graphs or networks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.featurize import alternatives
from assay.sources.crystals import Crystals, wrap


def united(crystals: Crystals) -> Crystals:
    """The batch with each split position as one site; the batch itself where there is none.

    A chain of close sites that holds more than one atom stays as it is, see
    `assay.featurize.alternatives`. The order of the crystals and of the other sites is kept.
    """
    rows = _candidates(crystals)
    if not len(rows):
        return crystals
    some = crystals.select(rows)
    chain, place = np.full(len(crystals.frac), -1, np.int64), np.zeros((len(crystals.frac), 3))
    sites = np.flatnonzero(np.isin(crystals.site_crystal, rows))
    found = alternatives.find(some.lattice, some.frac, some.site_ptr, some.site_occupancy)
    linked = found.chain >= 0
    if not linked.any():
        return crystals
    chain[sites[linked]] = sites[found.chain[linked]]
    place[sites] = found.place
    return _merged(crystals, np.where(chain >= 0, chain, np.arange(len(chain))), place)


def _candidates(crystals: Crystals) -> NDArray[np.int64]:
    """Rows with at least two partly occupied sites, one of them at most half full."""
    share = crystals.site_occupancy
    half = np.bincount(crystals.site_crystal[share <= alternatives.FULL / 2], minlength=len(crystals))
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
