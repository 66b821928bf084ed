"""Other descriptions of the same crystals: another cell, origin, orientation, order of sites, a little noise."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from assay.sources.crystals import Crystals, concat, gather_ranges, wrap

STRAIN, NOISE, MOST_SITES = 0.004, 0.002, 160
"""Change of every length; Å, standard deviation of a coordinate; sites of the largest supercell."""


def copies(crystals: Crystals, seed: int, shear: float = 0.0, prefix: str = "copy") -> Crystals:
    """One disturbed copy per crystal, in order, with the ids `<prefix>-<seed>/<id>`; columns are left out.

    `shear` is the largest principal strain of a deformation in a random direction, which breaks the
    symmetry.
    """
    rng = np.random.default_rng(seed)
    found = concat([_copy(crystals[row : row + 1], rng, shear) for row in range(len(crystals))])
    ids = np.array([f"{prefix}-{seed}/{id}" for id in crystals.ids], dtype=np.str_)
    return Crystals(
        ids, found.lattice, found.site_ptr, found.frac, found.species_ptr, found.numbers, found.occupancy, {}
    )


def in_cell(crystal: Crystals, matrix: NDArray[np.int64]) -> Crystals:
    """One crystal in the cell whose vectors are `matrix` (3, 3) times the old ones; |det| copies of every site."""
    inverse, size = np.linalg.inv(matrix), abs(round(float(np.linalg.det(matrix))))
    reach = int(np.abs(matrix).sum())
    shifts = np.array(list(itertools.product(range(-reach, reach + 1), repeat=3))) @ inverse
    points = wrap(np.round(shifts[np.all((shifts > -1e-9) & (shifts < 1 - 1e-9), axis=1)], 12))
    assert len(points) == size, (matrix, len(points))
    frac = wrap((crystal.frac @ inverse)[:, None, :] + points[None, :, :]).reshape(-1, 3)
    return _rebuilt(crystal, matrix @ crystal.lattice[0], frac, np.repeat(np.arange(len(crystal.frac)), size))


def _copy(crystal: Crystals, rng: np.random.Generator, shear: float) -> Crystals:
    other = in_cell(crystal, _cell_choice(rng, max(1, MOST_SITES // len(crystal.frac))))
    order = rng.permutation(len(other.frac))
    strain = rng.normal(size=(3, 3))
    strain = shear * (strain + strain.T) / np.abs(np.linalg.eigvalsh(strain + strain.T)).max()
    deformed = np.eye(3) * (1 + STRAIN * rng.choice([-1, 1])) + strain
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    lattice = other.lattice[0] @ deformed @ (rotation * np.linalg.det(rotation))
    noise = NOISE * rng.normal(size=other.frac.shape) @ np.linalg.inv(lattice)
    return _rebuilt(other, lattice, wrap(other.frac + rng.random(3) + noise)[order], order)


def _cell_choice(rng: np.random.Generator, largest: int) -> NDArray[np.int64]:
    """Integers with a determinant of 1 to 4: the same cell with other vectors, or a supercell."""
    while True:
        matrix = rng.integers(-1, 3, (3, 3))
        if 1 <= round(float(np.linalg.det(matrix))) <= min(largest, 4):
            return matrix


def _rebuilt(
    crystal: Crystals, lattice: NDArray[np.float64], frac: NDArray[np.float64], sites: NDArray[np.int64]
) -> Crystals:
    species, species_ptr = gather_ranges(crystal.species_ptr, sites)
    return Crystals(
        ids=crystal.ids,
        lattice=lattice[None],
        site_ptr=np.array([0, len(frac)]),
        frac=frac,
        species_ptr=species_ptr,
        numbers=crystal.numbers[species],
        occupancy=crystal.occupancy[species],
    )
