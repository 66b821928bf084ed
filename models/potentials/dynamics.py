"""Molecular dynamics of many crystals at once, with or without a thermostat, in fixed cells.

Enters: ordered crystals, a `Potential`, velocities. Leaves: energies along the way, where the atoms
are, and why a crystal broke. The steps are those of Leimkuhler and Matthews (Applied Mathematics
Research eXpress 2013, 34: half a kick, half a drift, friction and noise, and back); without
friction that is the velocity Verlet method. A crystal has random numbers of its own, so its path
does not depend on the crystals beside it. This module does not know what is made of a trajectory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from assay.featurize import elements, neighbours
from assay.sources.crystals import Crystals, wrap

if TYPE_CHECKING:
    from assay.models.potentials.potential import Evaluation, Potential

Floats = NDArray[np.float64]

BOLTZMANN = 8.617333262e-5
"""eV/K."""
ACCELERATION = 9.648533212e-3
"""Å/fs^2 that 1 eV/Å gives to 1 u."""
FRICTION = 0.01
"""1/fs, of the thermostat."""
HOT = 5.0
"""A crystal has broken when it is so many times as hot as it should be."""
NEAR, FAR = 0.5, 2.0
"""It has broken, too, when the nearest neighbour of an atom comes nearer or goes farther than these
shares of its first distance: atoms have fallen into each other, or one has left."""


@dataclass(frozen=True)
class Motion:
    """n crystals with S atoms that move."""

    crystals: Crystals
    velocity: Floats
    """(S, 3) Å/fs."""

    def part(self, left: NDArray[np.bool_]) -> Motion:
        """Those of some crystals (n,)."""
        return Motion(self.crystals.select(left), self.velocity[left[self.crystals.site_crystal]])


@dataclass(frozen=True)
class Trajectory:
    """What n crystals did in t steps."""

    energy: Floats
    """(t + 1, n) eV per cell, potential and kinetic; NaN from the step at which a crystal broke."""
    temperature: Floats
    """(t + 1, n) K, likewise."""
    end: Motion
    """The crystals that did not break."""
    broken: dict[int, str]
    """Row -> what happened to the others."""


def masses(crystals: Crystals) -> Floats:
    """(S,) u.

    Raises:
        ValueError: for an element beyond the table of elements.
    """
    elements.check(crystals.numbers)
    return elements.column("mass")[crystals.numbers]


def thermal(crystals: Crystals, temperature: float, seed: int) -> Motion:
    """Give crystals random velocities of exactly this temperature (K), without drift."""
    mass, owner = masses(crystals), crystals.site_crystal
    drawn = noise(streams_of(crystals, seed, "velocities"), crystals.nsites)
    velocity = _at_rest(drawn / np.sqrt(mass)[:, None], mass, owner)
    now = _temperatures(velocity, mass, owner)
    return Motion(crystals, velocity * np.sqrt(temperature / np.maximum(now, 1e-30))[owner, None])


def run(
    motion: Motion,
    potential: Potential,
    steps: int,
    timestep: float,
    temperature: float,
    *,
    thermostat: bool,
    seed: int = 0,
) -> Trajectory:
    """Let crystals move for some steps of `timestep` fs.

    Args:
        motion: Where they start; of elements that the potential knows.
        potential: Gives the forces.
        steps: How many.
        timestep: fs.
        temperature: K, of the thermostat; a crystal that is `HOT` times as hot has broken.
        thermostat: Whether friction and noise hold the temperature. Without them the energy stays.
        seed: Of the noise.
    """
    n = len(motion.crystals)
    energy, heat = np.full((steps + 1, n), np.nan), np.full((steps + 1, n), np.nan)
    broken: dict[int, str] = {}
    streams = streams_of(motion.crystals, seed, "thermostat")
    rows, first = np.arange(n), _nearest(motion.crystals)
    friction = FRICTION if thermostat else 0.0
    found = potential.evaluate(motion.crystals)
    for step in range(steps + 1):
        if step:
            motion, found = _moved(motion, found, potential, timestep, (friction, temperature), streams)
        mass, owner = masses(motion.crystals), motion.crystals.site_crystal
        kelvin = _temperatures(motion.velocity, mass, owner)
        wrong = _broken(motion.crystals, found, kelvin / temperature, first)
        if wrong:
            broken |= {int(rows[place]): f"after {step * timestep:g} fs: {said}" for place, said in wrong.items()}
            left = ~np.isin(np.arange(len(rows)), list(wrong))
            atoms = left[owner]
            motion, kelvin, found = motion.part(left), kelvin[left], _part(found, left, atoms)
            rows, first = rows[left], first[atoms]
            streams = [stream for stream, keep in zip(streams, left) if keep]
        if not len(rows):
            break
        heat[step, rows] = kelvin
        energy[step, rows] = found.energy + kelvin * _freedom(motion.crystals.nsites) * BOLTZMANN / 2
    return Trajectory(energy, heat, motion, broken)


def _moved(
    motion: Motion,
    found: Evaluation,
    potential: Potential,
    timestep: float,
    bath: tuple[float, float],
    streams: list[np.random.Generator],
) -> tuple[Motion, Evaluation]:
    """One step: kick, drift, friction and noise, drift, kick."""
    crystals, velocity = motion.crystals, motion.velocity
    mass, owner = masses(crystals), crystals.site_crystal
    kick = timestep / 2 * ACCELERATION / mass[:, None]
    back = np.linalg.inv(crystals.lattice)[owner] * (timestep / 2)
    velocity = velocity + kick * found.forces
    moved = np.einsum("si,sij->sj", velocity, back)
    friction, temperature = bath
    if friction:
        kept = np.exp(-friction * timestep)
        spread = np.sqrt((1 - kept**2) * BOLTZMANN * temperature * ACCELERATION / mass)
        velocity = velocity * kept + noise(streams, crystals.nsites) * spread[:, None]
        velocity = _at_rest(velocity, mass, owner)
    moved += np.einsum("si,sij->sj", velocity, back)
    crystals = replace(crystals, frac=wrap(crystals.frac + moved))
    found = potential.evaluate(crystals)
    return Motion(crystals, velocity + kick * found.forces), found


def _broken(crystals: Crystals, found: Evaluation, heat: Floats, first: Floats) -> dict[int, str]:
    """Row -> what is wrong with it; `heat` is (n,) temperature as a share of the wanted one."""
    starts, change = crystals.site_ptr[:-1], _nearest(crystals) / first
    finite = np.isfinite(found.energy) & np.logical_and.reduceat(np.isfinite(found.forces).all(axis=1), starts)
    near, far = np.minimum.reduceat(change, starts), np.maximum.reduceat(change, starts)
    wrong: dict[int, str] = {}
    for row in np.flatnonzero(~(finite & (heat <= HOT) & (near >= NEAR) & (far <= FAR))).tolist():
        if not finite[row]:
            wrong[row] = found.failed.get(row, "energy or forces are not finite")
        elif near[row] < NEAR:
            wrong[row] = f"two atoms came together, to {near[row]:.2f} of their first distance"
        elif far[row] > FAR:
            wrong[row] = f"an atom was lost, {far[row]:.1f} times as far from any other as at first"
        else:
            wrong[row] = f"it is {heat[row]:.1f} times as hot as it should be"
    return wrong


def _nearest(crystals: Crystals) -> Floats:
    """(S,) Å from each atom to its nearest neighbour."""
    _, _, target, _, distance = neighbours.nearest(crystals.lattice, crystals.frac, crystals.site_ptr, 1, 0.0)
    found = np.full(len(crystals.frac), np.inf)
    np.minimum.at(found, target, distance)
    return found


def _part(found: Evaluation, left: NDArray[np.bool_], atoms: NDArray[np.bool_]) -> Evaluation:
    return replace(found, energy=found.energy[left], forces=found.forces[atoms], stress=found.stress[left], failed={})


def streams_of(crystals: Crystals, seed: int, purpose: str) -> list[np.random.Generator]:
    """Random numbers for each crystal, which depend on its id and not on its place."""
    return [np.random.default_rng([seed, *f"{purpose}/{id}".encode()]) for id in crystals.ids]


def noise(streams: list[np.random.Generator], sites: NDArray[np.int64]) -> Floats:
    """(S, 3) of deviation 1."""
    drawn = [stream.standard_normal((n, 3)) for stream, n in zip(streams, sites)]
    return np.concatenate([np.empty((0, 3)), *drawn])


def _at_rest(velocity: Floats, mass: Floats, owner: NDArray[np.int64]) -> Floats:
    """Velocities less that of the centre of mass of each crystal."""
    momentum = np.stack([np.bincount(owner, mass * axis) for axis in velocity.T], axis=1)
    return velocity - (momentum / np.bincount(owner, mass)[:, None])[owner]


def _temperatures(velocity: Floats, mass: Floats, owner: NDArray[np.int64]) -> Floats:
    """(n,) K."""
    twice = np.bincount(owner, mass * (velocity**2).sum(axis=1)) / ACCELERATION
    return np.asarray(twice / (_freedom(np.bincount(owner)) * BOLTZMANN))


def _freedom(sites: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) degrees of freedom of cells whose centre of mass rests; a single atom counts as one."""
    return np.maximum(3 * sites - 3, 1)
