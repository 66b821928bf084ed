"""One cell for all descriptions of a crystal: conventional, placed alike, or primitive.

Enters: `Crystals`. Leaves: the conventional cell and the positions in it, or crystals in their
standard cells; both symmetrised. This module does not know cameras or networks.

The conventional cell is found with moyo. What is left open, an origin and the axes that the lattice
cannot tell apart, is settled by a generic function of the atoms: the choice with its largest value
is taken. Choices with the same value are related by a symmetry operation of the crystal, so it does
not matter which of them it is.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Literal

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
_SAME = 1e-6


def frame(crystals: Crystals, row: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """The conventional cell of a crystal, placed alike whatever its description was.

    Where moyo fails the cell is the given one.

    Returns:
        The cell (3, 3) in Å, a along x and b in the xy plane; fractional positions (s, 3) in
        [-0.5, 0.5) around the middle of the block, where an atom of the rarest species is; and for
        each a site (s,) of the batch with its species.
    """
    cell, frac, sites = _conventional(crystals, row)
    kinds = kinds_of(crystals, sites)
    counts = np.bincount(kinds)
    centres = frac[kinds == np.argmin(counts)]
    turns = _turns(cell)
    back = np.linalg.inv(turns)
    turned = np.einsum("sk,tkl->tsl", frac, back)
    origins = np.einsum("ok,tkl->tol", centres, back)
    waves, factors = _waves()
    amplitudes = np.einsum("tsw,s->tw", np.exp(2j * math.pi * turned @ waves.T), 1 + 0.37 * kinds)
    value = np.einsum("tow,tw,w->to", np.exp(-2j * math.pi * origins @ waves.T), amplitudes, factors).real
    turn, origin = np.unravel_index(int(np.argmax(value > value.max() - _SAME * len(frac))), value.shape)
    around = turned[turn] - origins[turn, origin]
    return _upright(turns[turn] @ cell), around - np.floor(around + 0.5 + _SAME), sites


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


def _conventional(crystals: Crystals, row: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Conventional cell, fractional positions, a site like each; as given where moyo fails."""
    sites = np.arange(crystals.site_ptr[row], crystals.site_ptr[row + 1])
    kinds = kinds_of(crystals, sites)
    found = _dataset(crystals, row, kinds, SYMPREC)
    if found is not None:
        basis, frac, like = _cell(found.std_cell, kinds)
        return basis, frac, sites[like]
    basis, frac = crystals.lattice[row], crystals.frac[sites]
    hand = math.copysign(1.0, float(np.linalg.det(basis)))  # left-handed: the same crystal, turned inside out twice
    return hand * basis, hand * frac, sites


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
    features = atoms.features("properties-identity-v1", ptr, crystals.numbers[held], crystals.occupancy[held])
    return np.asarray(np.unique(features.round(4), axis=0, return_inverse=True)[1].reshape(-1), np.int64)


def _turns(cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """(t, 3, 3) integer matrices of determinant 1 that turn the lattice onto itself."""
    rows = _steps()
    vectors = rows @ cell
    metric = cell @ cell.T
    products = vectors @ vectors.T
    room = 1e-3 * metric.diagonal()
    like = [np.flatnonzero(abs(products.diagonal() - metric[k, k]) < room[k]) for k in range(3)]
    a, b, c = (part.reshape(-1) for part in np.meshgrid(*like, indexing="ij"))
    good = np.ones(len(a), bool)
    for (one, j), (other, k) in itertools.combinations(((a, 0), (b, 1), (c, 2)), 2):
        good &= abs(products[one, other] - metric[j, k]) < math.sqrt(room[j] * room[k])
    found = np.stack([rows[a[good]], rows[b[good]], rows[c[good]]], axis=1)
    return np.asarray(found[np.linalg.det(found) > 0.5], np.float64)


@cache
def _steps() -> NDArray[np.float64]:
    """(26, 3) lattice vectors of whole numbers from -1 to 1, without zero."""
    return np.array([step for step in itertools.product((-1.0, 0.0, 1.0), repeat=3) if any(step)])


@cache
def _waves() -> tuple[NDArray[np.float64], NDArray[np.complex128]]:
    """(w, 3) integer wave vectors and (w,) factors, whose sum over atoms tells arrangements apart.

    Half of the vectors are even: centred cells and glide planes extinguish most others.
    """
    rng = np.random.default_rng(7)
    vectors = np.concatenate([2 * rng.integers(-4, 5, size=(64, 3)), rng.integers(-5, 6, size=(64, 3))])
    return vectors.astype(np.float64), np.exp(2j * math.pi * rng.random(len(vectors))) / len(vectors)


def _upright(cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same cell with a along x and b in the xy plane."""
    lower = np.linalg.cholesky(cell @ cell.T)
    return np.asarray(lower, np.float64)
