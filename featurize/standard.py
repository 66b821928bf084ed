"""One cell for all descriptions of a crystal: conventional or primitive.

Enters: `Crystals`. Leaves: the conventional cell and the positions in it, or crystals in their
standard cells; both symmetrised, by moyo. This module does not know cameras or networks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from assay.featurize import atoms
from assay.featurize.refinement import content
from assay.sources import symmetry
from assay.sources.crystals import Crystals, gather_ranges, wrap

if TYPE_CHECKING:
    from assay.sources.symmetry import Cell, MoyoDataset

SYMPREC = 0.01
"""Å, tolerance of the symmetry search; positions are symmetrised within it."""


@dataclass(frozen=True)
class Standard:
    """The cell in which a model sees every crystal, whatever the cell it came in."""

    cell: Literal["primitive", "conventional"]
    tolerance: float = SYMPREC
    """Å, of the symmetry search; the symmetry within it is made exact."""

    def __call__(self, crystals: Crystals) -> Crystals:
        """The crystals in this cell."""
        return symmetrised(crystals, self.tolerance, self.cell)


def symmetrised(
    crystals: Crystals, tolerance: float, cell: Literal["primitive", "conventional"] = "primitive"
) -> Crystals:
    """The same crystals in their standard cells, their symmetry within a tolerance made exact.

    Atoms move by less than `tolerance` (Å), and equal atoms become equal to rounding, so that the
    symmetry quotient finds them. Ids and columns stay; sites are in another order and, where the
    cell was another one, of another number. Disordered sites are alike where they hold the same
    species in the same shares. A crystal whose symmetry moyo does not find stays as it is.

    Raises:
        ValueError: when the tolerance is not above 0.
    """
    if not tolerance > 0:
        raise ValueError(f"the tolerance of the symmetry search is {tolerance} Å, expected above 0")
    kinds = np.unique(content(crystals), return_inverse=True)[1]
    lattice, frac, sites = crystals.lattice.copy(), [], []
    for row, (first, last) in enumerate(zip(crystals.site_ptr[:-1], crystals.site_ptr[1:], strict=True)):
        own = kinds[first:last]
        found = _dataset(crystals, row, own, tolerance)
        if found is None:
            frac.append(crystals.frac[first:last])
            sites.append(np.arange(first, last))
            continue
        lattice[row], positions, like = _cell(found.prim_std_cell if cell == "primitive" else found.std_cell, own)
        frac.append(positions)
        sites.append(first + like)
    species, species_ptr = gather_ranges(crystals.species_ptr, np.concatenate([np.empty(0, np.int64), *sites]))
    return replace(
        crystals,
        lattice=lattice,
        site_ptr=np.cumsum([0, *map(len, sites)]),
        frac=wrap(np.concatenate([np.empty((0, 3)), *frac])),
        species_ptr=species_ptr,
        numbers=crystals.numbers[species],
        occupancy=crystals.occupancy[species],
    )


class Conventional(NamedTuple):
    """A conventional cell and what is in it."""

    cell: NDArray[np.float64]
    """(3, 3) Å."""
    frac: NDArray[np.float64]
    """(s, 3)."""
    sites: NDArray[np.int64]
    """(s,) a site of the batch with the same species as each."""
    kinds: NDArray[np.int64]
    """(s,) see `kinds_of`."""


def conventional(crystals: Crystals, row: int) -> Conventional:
    """The conventional cell of a crystal within `SYMPREC`; as given where moyo fails."""
    sites = np.arange(crystals.site_ptr[row], crystals.site_ptr[row + 1])
    kinds = kinds_of(crystals, sites)
    found = _dataset(crystals, row, kinds, SYMPREC)
    if found is not None:
        basis, frac, like = _cell(found.std_cell, kinds)
        return Conventional(basis, frac, sites[like], kinds[like])
    basis, frac = crystals.lattice[row], crystals.frac[sites]
    hand = math.copysign(1.0, float(np.linalg.det(basis)))  # left-handed: the same crystal, turned inside out twice
    return Conventional(hand * basis, hand * frac, sites, kinds)


def _dataset(crystals: Crystals, row: int, kinds: NDArray[np.int64], tolerance: float) -> MoyoDataset | None:
    frac = crystals.frac[crystals.site_ptr[row] : crystals.site_ptr[row + 1]]
    return symmetry.dataset(crystals.lattice[row].tolist(), frac.tolist(), (kinds + 1).tolist(), tolerance)


def _cell(cell: Cell, kinds: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Basis, fractional positions, and for each a site of the crystal of its kind."""
    example = {kind: site for site, kind in reversed(list(enumerate(kinds.tolist())))}
    like = np.array([example[number - 1] for number in cell.numbers], np.int64)
    return np.array(cell.basis), np.array(cell.positions), like


def kinds_of(crystals: Crystals, sites: NDArray[np.int64]) -> NDArray[np.int64]:
    """(s,) number of the species, with occupancies, on each site, in the order of features."""
    held, ptr = gather_ranges(crystals.species_ptr, sites)
    alone = len(held) == len(sites)  # one species on each site: few are different
    told = 2.0 * crystals.numbers[held] + crystals.occupancy[held] if alone else np.arange(len(sites))
    _, first, like = np.unique(told, return_index=True, return_inverse=True)
    held, ptr = gather_ranges(crystals.species_ptr, sites[first])
    features = atoms.features("properties-identity-v1", ptr, crystals.numbers[held], crystals.occupancy[held])
    rows = [tuple(row) for row in features.round(4).tolist()]
    number = {row: k for k, row in enumerate(sorted(set(rows)))}
    return np.array([number[row] for row in rows], np.int64)[like]
