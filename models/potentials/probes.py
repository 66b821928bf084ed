"""Energies of crystals that are pushed, squeezed and pulled apart, and what they should obey.

Enters: crystals, and a `Potential`. Leaves: how far forces and stress are from the slopes of the
energy, equations of state, and pairs of atoms at many distances. This module does not know which
deviation is too large.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from assay.featurize import elements
from assay.models.potentials.dynamics import noise, streams_of
from assay.models.potentials.potential import GPA
from assay.sources.crystals import Crystals, wrap
from assay.sources.elements import SYMBOLS

if TYPE_CHECKING:
    from assay.models.potentials.potential import Potential

Floats = NDArray[np.float64]

DISPLACED, STRAINED = 0.05, 0.01
"""Å of each coordinate, and strain: at rest, and on a saddle, there is little to see."""
PUSH, STRAIN = 0.01, 0.002
"""Å of each coordinate, and strain, between the energies that a slope is taken from."""
DIRECTIONS = 2
"""In which slopes are taken: each moves every atom, or every component of the strain, at random."""
VOLUMES = np.linspace(0.94, 1.06, 7)
"""Of an equation of state, as shares of the first volume."""
DISTANCES = np.linspace(0.5, 1.2, 15)
"""Of two atoms, as shares of the sum of their covalent radii."""
BOX = 20.0
"""Å, edge of the cube that holds a pair."""


def displaced(crystals: Crystals, seed: int) -> Crystals:
    """Crystals with their atoms `DISPLACED` at random."""
    return _pushed(crystals, noise(streams_of(crystals, seed, "displaced"), crystals.nsites), DISPLACED)


def slopes(crystals: Crystals, potential: Potential, seed: int) -> tuple[Floats, Floats]:
    """Compare forces and stress with differences of the energy, at displaced atoms.

    A slope is that of four energies, so its own error is of fourth order in the distance. A
    direction has unit length, so a difference is about that of one component.

    Returns:
        (n,) eV/Å and (n,) GPa, the largest differences over `DIRECTIONS`; NaN where the potential
            fails.
    """
    streams, sites, owner = streams_of(crystals, seed, "slopes"), crystals.nsites, crystals.site_crystal
    start = displaced(_strained(crystals, _strains(streams), STRAINED), seed)
    found = potential.evaluate(start)
    force, stress = np.zeros(len(crystals)), np.zeros(len(crystals))
    for _ in range(DIRECTIONS):
        push, strain = noise(streams, sites), _strains(streams)
        push /= np.sqrt(np.bincount(owner, (push**2).sum(axis=1)) / sites)[owner, None]
        pushed = _slope(potential, partial(_pushed, start, push), PUSH)
        along = np.bincount(owner, (found.forces * push).sum(axis=1))
        force = np.maximum(force, abs(along + pushed) / np.sqrt(sites))
        squeezed = _slope(potential, partial(_strained, start, strain), STRAIN)
        wanted = (found.stress * strain).sum(axis=(1, 2))
        stress = np.maximum(stress, abs(squeezed / start.volume - wanted) * GPA)
    return force, stress


@dataclass(frozen=True)
class EquationOfState:
    """Energies of n crystals at `VOLUMES`, and what a fit of Birch and Murnaghan says of them."""

    energy: Floats
    """(n, v) eV per cell; positions are scaled with the cell."""
    volume: Floats
    """(n,) Å^3 per cell at the minimum of the fit, NaN where it has none."""
    modulus: Floats
    """(n,) GPa, the bulk modulus there."""
    minima: NDArray[np.int64]
    """(n,) minima of the energies between the first and the last volume; a sound curve has one."""


def equation_of_state(crystals: Crystals, potential: Potential) -> EquationOfState:
    """Squeeze and stretch crystals alike in all directions.

    The fit is that of third order (Birch, Phys. Rev. 71, 809, 1947): a cubic polynomial in
    V^(-2/3).
    """
    scales = np.cbrt(VOLUMES)
    energy = np.stack([potential.evaluate(replace(crystals, lattice=crystals.lattice * s)).energy for s in scales], 1)
    places = VOLUMES ** (-2 / 3)
    c1, c2, c3 = np.einsum("cv,nv->cn", np.linalg.pinv(np.vander(places, 4, increasing=True)), energy)[1:]
    with np.errstate(invalid="ignore"):
        root = np.sqrt(c2**2 - 3 * c3 * c1)
        ratio = (-c1 / (c2 + root)) ** (-3 / 2)
    rising = np.diff(energy, axis=1) > 0
    minima = (~rising[:, :-1] & rising[:, 1:]).sum(axis=1)
    modulus = 8 / 9 * root * ratio ** (-7 / 3) / crystals.volume * GPA
    return EquationOfState(energy, ratio * crystals.volume, modulus, np.where(np.isnan(energy).any(axis=1), 0, minima))


@dataclass(frozen=True)
class Dimers:
    """Energies of p pairs of atoms at `DISTANCES`."""

    names: list[str]
    """Such as `Cu-O`."""
    length: Floats
    """(p,) Å, sum of the covalent radii."""
    energy: Floats
    """(p, d) eV; NaN where the potential fails."""
    repulsive: Floats
    """(p,) share of `length` below which the energy rises at every step inwards; that of the
    shortest distance where it does not even rise there."""
    failed: dict[int, str]
    """Pair -> what the potential said."""


def dimers(crystals: Crystals, potential: Potential) -> Dimers:
    """Pull apart all pairs of elements that are together in some crystal."""
    present = crystals.composition() > 0
    together = present.T.astype(np.int64) @ present.astype(np.int64)
    pairs = np.argwhere(np.triu(together > 0))
    radii = elements.properties()[:, elements.property_names().index("covalent_radius")]
    length = radii[pairs].sum(axis=1)
    energy, failed = np.full((len(pairs), len(DISTANCES)), np.nan), dict[int, str]()
    for place, share in enumerate(DISTANCES if len(pairs) else ()):
        found = potential.evaluate(_pairs(pairs, share * length))
        energy[:, place] = found.energy
        failed |= dict(found.failed)
    names = [f"{SYMBOLS[a]}-{SYMBOLS[b]}" for a, b in pairs]
    return Dimers(names, length, energy, _repulsive(energy), failed)


def _repulsive(energy: Floats) -> Floats:
    rises = np.logical_and.accumulate(energy[:, :-1] > energy[:, 1:], axis=1)  # False for NaN
    return np.asarray(DISTANCES[rises.sum(axis=1)])


def _pairs(pairs: NDArray[np.int64], distance: Floats) -> Crystals:
    """Two atoms each in a cube, around its middle."""
    n = len(pairs)
    frac = np.full((n, 2, 3), 0.5)
    frac[:, 1, 0] += distance / BOX
    whole = np.arange(2 * n + 1)
    cells = np.tile(BOX * np.eye(3), (n, 1, 1))
    ids = np.array([f"pair/{row}" for row in range(n)], object)
    return Crystals(ids, cells, whole[::2], frac.reshape(-1, 3), whole, pairs.ravel(), np.ones(2 * n))  # type: ignore[arg-type]


def _slope(potential: Potential, moved: Callable[[float], Crystals], step: float) -> Floats:
    """(n,) the first derivative of the energy along a way, from four places."""
    ahead, behind, far_ahead, far_behind = (potential.evaluate(moved(k * step)).energy for k in (1, -1, 2, -2))
    return np.asarray((8 * (ahead - behind) - (far_ahead - far_behind)) / (12 * step))


def _strains(streams: list[np.random.Generator]) -> Floats:
    """(n, 3, 3) random symmetric strains of unit length."""
    drawn = np.stack([stream.standard_normal((3, 3)) for stream in streams])
    drawn = drawn + np.swapaxes(drawn, 1, 2)
    return np.asarray(drawn / np.linalg.norm(drawn, axis=(1, 2), keepdims=True))


def _strained(crystals: Crystals, strain: Floats, step: float) -> Crystals:
    return replace(crystals, lattice=crystals.lattice @ (np.eye(3) + step * strain))


def _pushed(crystals: Crystals, push: Floats, step: float) -> Crystals:
    back = np.linalg.inv(crystals.lattice)[crystals.site_crystal]
    return replace(crystals, frac=wrap(crystals.frac + step * np.einsum("si,sij->sj", push, back)))
