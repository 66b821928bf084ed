"""Disorder that is written as several partly occupied sites at one position.

Enters: a batch with unchecked values. Leaves: the batch in which such sites are one site, at the
position of the first of them. This module does not know the rules of a sound crystal.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from assay.sources.checks import shares
from assay.sources.checks.unchecked import Unchecked, pointer, safe_cells

SAME_PLACE = 0.01
"""Å; partly occupied sites closer than this are one disordered site."""


def merge(batch: Unchecked) -> Unchecked:
    """Join the sites of a crystal that coincide and together hold at most one atom.

    What "at most one atom" means is the bound on sums in `assay.sources.checks.shares`.
    """
    partial = np.unique(batch.species_row[batch.occupancy < 1])
    if not len(partial):
        return batch
    held = shares.site_units(batch)
    leader = np.arange(len(batch.frac))
    for row in partial:
        sites = np.arange(batch.site_ptr[row], batch.site_ptr[row + 1])
        sites = sites[held[sites] + held[sites].min() <= shares.MOST_OF_SEVERAL]  # others have no room for any
        if len(sites) > 1:
            leader[sites] = sites[_leaders(batch.frac[sites], batch.lattice[row], held[sites])]
    if (leader == np.arange(len(leader))).all():
        return batch
    return _joined(batch, leader)


def _leaders(frac: NDArray[np.float64], lattice: NDArray[np.float64], held: NDArray[np.float64]) -> NDArray[np.int64]:
    """(m,) for each site the first site at its position that has room for it; itself, if none."""
    with np.errstate(all="ignore"):  # values that are not finite are refused later
        gap = frac[:, None] - frac[None]
        distance = np.linalg.norm((gap - np.round(gap)) @ safe_cells(lattice[None])[0], axis=-1)
    near = np.tril(distance < SAME_PLACE, -1)
    leader, load = np.arange(len(frac)), held.copy()
    for site in np.flatnonzero(near.any(axis=1)):
        for other in np.flatnonzero(near[site]):
            if leader[other] == other and load[other] + held[site] <= shares.MOST_OF_SEVERAL:
                leader[site] = other
                load[other] += held[site]
                break
    return leader


def _joined(batch: Unchecked, leader: NDArray[np.int64]) -> Unchecked:
    """The batch with the species of each site given to its leader (S,)."""
    kept = leader == np.arange(len(leader))
    owner = leader[batch.species_site]
    order = np.argsort(owner, kind="stable")
    return replace(
        batch,
        site_ptr=pointer(np.bincount(batch.site_row[kept], minlength=len(batch.ids))),
        frac=batch.frac[kept],
        species_ptr=pointer(np.bincount(owner, minlength=len(leader))[kept]),
        numbers=batch.numbers[order],
        occupancy=batch.occupancy[order],
    )
