"""Random crystals for each setting, expanded straight from spglib's operations: the truth that readers are held to.

Positions are whole numbers of 1/30000, so images are found exactly. A general coordinate is a multiple of 1e-4,
which a file can write without loss; 1/3 and 1/24 are rounded by the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from .settings import Setting, setting

GRID = 30000
SHORTEST = 1.85
"""Å; draws with atoms closer than this are rejected."""
DENSEST, THINNEST = 12.0, 26.0
"""Å^3 per atom."""
MOST_ATOMS = 110
IMAGES = np.array(list(product((-1, 0, 1), repeat=3)))
ELEMENTS = ("Be", "B", "C", "N", "O", "F", "Al", "Si", "P", "S", "Cl", "Co", "Ni", "Zn", "Ga", "Ge", "As", "Se", "Br")
"""Small atoms: two of any of these may stand at the shortest distance."""
COMMON = np.array([0, GRID // 2, GRID // 4, 3 * GRID // 4, GRID // 3, 2 * GRID // 3])


@dataclass(frozen=True)
class Site:
    """One listed site: element, occupancy, position in 1/30000 of the cell."""

    label: str
    element: str
    occupancy: float
    place: tuple[int, int, int]


@dataclass(frozen=True)
class Truth:
    """A crystal as the file means it."""

    setting: Setting = field(repr=False)
    cell: tuple[float, ...]
    sites: tuple[Site, ...]
    elements: tuple[str, ...] = field(repr=False)
    occupancy: NDArray[np.float64] = field(repr=False)
    frac: NDArray[np.float64] = field(repr=False)

    @cached_property
    def lattice(self) -> NDArray[np.float64]:
        """Lattice vectors as rows, in Å."""
        return vectors(self.cell)

    @property
    def volume(self) -> float:
        """Å^3."""
        return float(abs(np.linalg.det(self.lattice)))

    @property
    def composition(self) -> dict[str, float]:
        """Atoms of each element in the cell."""
        return composition(self.elements, self.occupancy)

    @property
    def units(self) -> int:
        """Formula units in the cell: the largest number that divides all counts."""
        whole = int(np.gcd.reduce([round(100 * amount) for amount in self.composition.values()]))
        return whole // 100 if whole % 100 == 0 else 1


def composition(elements: tuple[str, ...], occupancy: NDArray[np.float64]) -> dict[str, float]:
    """Atoms of each element."""
    amounts: dict[str, float] = {}
    for element, share in zip(elements, occupancy.tolist()):
        amounts[element] = amounts.get(element, 0.0) + share
    return amounts


def vectors(cell: tuple[float, ...]) -> NDArray[np.float64]:
    """Rows a, b, c of a cell given by lengths and angles in degrees."""
    a, b, c, *angles = cell
    alpha, beta, gamma = np.cos(np.radians(angles))
    metric = np.array(
        [
            [a * a, a * b * gamma, a * c * beta],
            [a * b * gamma, b * b, b * c * alpha],
            [a * c * beta, b * c * alpha, c * c],
        ]
    )
    return np.linalg.cholesky(metric)


def parameters(lattice: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lengths and angles of a cell."""
    metric = lattice @ lattice.T
    a, b, c = np.sqrt(np.diag(metric))
    cosines = [metric[1, 2] / (b * c), metric[0, 2] / (a * c), metric[0, 1] / (a * b)]
    return np.array([a, b, c, *np.degrees(np.arccos(cosines))])


def orbit(one: Setting, place: NDArray[np.int64]) -> NDArray[np.int64]:
    """All images of a position in the cell, each once."""
    images = (one.rotations @ place + one.shifts * (GRID // 24)) % GRID
    return np.unique(images, axis=0)


@cache
def truth(hall: int, seed: int = 0) -> Truth:
    """The random crystal of a setting and a seed; in odd seeds low symmetries have a cell with right angles."""
    one, rng = setting(hall), np.random.default_rng([hall, seed])
    for _ in range(1000):
        cell = _cell(one, rng, right_angles=seed % 2 == 1)
        places = [] if cell is None else _places(one, vectors(cell), rng)
        if cell is not None and places:
            return _decorated(one, cell, places, rng)
    raise AssertionError(f"no crystal for setting {hall}")


def _places(one: Setting, lattice: NDArray[np.float64], rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Orbits of 2 to 4 sites that fill the cell with no atoms too close; empty where the draws do not fit."""
    volume = abs(np.linalg.det(lattice))
    orbits: list[NDArray[np.int64]] = []
    atoms = np.empty((0, 3))
    for _ in range(80):
        images = orbit(one, _place(rng))
        images = images[rng.permutation(len(images))]
        filled = np.concatenate([atoms, images / GRID])
        # one image stands for its orbit: the operations carry it and all its distances to the others
        if len(filled) * DENSEST > volume or _from_first(lattice, images[0] / GRID, filled) < SHORTEST:
            continue
        orbits, atoms = [*orbits, images], filled
        if len(orbits) >= 2 and len(atoms) * THINNEST > volume:
            return orbits
        if len(orbits) == 4:
            break
    return []


def _from_first(lattice: NDArray[np.float64], place: NDArray[np.float64], frac: NDArray[np.float64]) -> float:
    gaps = (frac - place + 0.5) % 1 - 0.5
    lengths = np.sort(np.linalg.norm((gaps[:, None] + IMAGES) @ lattice, axis=-1), axis=None)
    return float(lengths[1])  # the first is the atom itself


def _decorated(
    one: Setting, cell: tuple[float, ...], orbits: list[NDArray[np.int64]], rng: np.random.Generator
) -> Truth:
    names = rng.choice(ELEMENTS, size=len(orbits) + 1, replace=False).tolist()
    sites, elements, occupancy, frac = [], [], [], []
    mixed = int(rng.integers(len(orbits))) if rng.random() < 0.2 else -1
    for number, images in enumerate(orbits):
        shares = [(names[number], 0.75), (names[-1], 0.25)] if number == mixed else [(names[number], 1.0)]
        x, y, z = images[0].tolist()
        for element, share in shares:
            sites.append(Site(f"{element}{number + 1}", element, share, (x, y, z)))
            elements.extend([element] * len(images))
            occupancy.extend([share] * len(images))
            frac.append(images / GRID)
    return Truth(one, cell, tuple(sites), tuple(elements), np.array(occupancy), np.concatenate(frac))


def _place(rng: np.random.Generator) -> NDArray[np.int64]:
    """A position, often on a plane, an axis or a point of symmetry."""
    free = rng.integers(300, 9700, size=3) * 3
    fixed = rng.choice(COMMON, size=3)
    x, y = free[0], free[1]
    shapes = [free, fixed, [fixed[0], free[1], free[2]], [free[0], fixed[1], free[2]], [free[0], free[1], fixed[2]]]
    shapes += [[fixed[0], fixed[1], free[2]], [fixed[0], free[1], fixed[2]], [free[0], fixed[1], fixed[2]]]
    shapes += [[x, x, y], [x, -x, y], [x, 2 * x, y], [x, x, x], [x, x, fixed[2]], [x, x + GRID // 2, fixed[2]]]
    shapes += [np.full(3, GRID // 8), [GRID // 4 + x, x, GRID // 8]]
    return np.array(shapes[rng.integers(len(shapes))]) % GRID


def _cell(one: Setting, rng: np.random.Generator, right_angles: bool) -> tuple[float, ...] | None:
    """A random cell that the operations keep, as a random metric averaged over them."""
    angles = (90.0, 90.0, 90.0) if right_angles else rng.uniform(74, 106, size=3)
    draw = (*rng.uniform(5, 7.5, size=3), *angles)
    averaged = np.einsum("nji,jk,nkl->il", one.rotations, vectors(draw) @ vectors(draw).T, one.rotations)
    lattice = np.linalg.cholesky(averaged)
    volume = 18 * np.clip(len(one.rotations) * rng.uniform(0.6, 2), 3, MOST_ATOMS)
    cell = parameters(lattice * (volume / abs(np.linalg.det(lattice))) ** (1 / 3))
    lengths, angles = cell[:3].round(4), cell[3:].round(3)
    oblique = angles[np.abs(angles - 90) > 1e-6]
    gaps = [abs(x - y) / x for x, y in zip(lengths, np.roll(lengths, 1))]
    near_higher_symmetry = np.any(np.abs(oblique - 90) < 4) or any(1e-6 < gap < 0.03 for gap in gaps)
    if near_higher_symmetry or np.any((angles < 55) | (angles > 125)):
        return None
    return (*lengths.tolist(), *angles.tolist())
