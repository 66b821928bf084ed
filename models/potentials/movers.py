"""Where atoms and cells move next: FIRE and L-BFGS, for many crystals at once.

Enters: energies, and the slopes of atoms and strains. Leaves: displacements. Each crystal has its
own time step or memory, and learns nothing of the others. The strain is a coordinate in Å like
those of the atoms; `assay.models.potentials.relax` says of which length. This module does not know
cells, potentials or when a crystal has arrived.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Moving = tuple[Floats, Floats]
"""(s, 3) of the atoms and (a, 3, 3) of the strains of a crystals."""

LONGEST_STEP = 0.2
"""Å that an atom may move in one step; the strain is limited alike."""
DT, DT_MOST = 0.2, 1.0
"""First and longest time step of FIRE; masses are 1."""
GROWTH, SHRINKAGE, PATIENCE = 1.1, 0.5, 5
MIXING, MIXING_DECAY = 0.1, 0.99
"""Constants of the paper."""
STIFF = 70.0
"""eV/Å^2, curvature that L-BFGS begins with, as ASE's does."""
REMEMBERED = 16
"""Steps that L-BFGS knows."""


class Mover(Protocol):
    """A way downhill. Atoms are given by their crystal, `owner` (s,), ascending from 0."""

    def step(self, owner: NDArray[np.int64], energy: Floats, slope: Moving) -> Moving:
        """Displacements, given energies (a,) in eV, and forces and pulls on the strain in eV/Å."""

    def keep(self, left: NDArray[np.bool_], atoms: NDArray[np.bool_]) -> None:
        """Forget all but some crystals (a,) and their atoms (s,)."""


class Fire:
    """Fast inertial relaxation (Bitzek and others, Phys. Rev. Lett. 97, 170201, 2006)."""

    def __init__(self, atoms: int, crystals: int) -> None:
        self._speed: Moving = np.zeros((atoms, 3)), np.zeros((crystals, 3, 3))
        self._dt, self._mixing = np.full(crystals, DT), np.full(crystals, MIXING)
        self._downhill = np.zeros(crystals, np.int64)

    def step(self, owner: NDArray[np.int64], energy: Floats, slope: Moving) -> Moving:  # noqa: ARG002 -- the contract
        """Go on along the slope; a crystal that goes uphill stops."""
        along = product(owner, slope, self._speed) > 0
        size = np.sqrt(product(owner, self._speed, self._speed))
        force = np.sqrt(product(owner, slope, slope))
        turn = np.where(along, self._mixing * size / np.maximum(force, 1e-30), 0.0)
        kept = np.where(along, 1 - self._mixing, 0.0)
        patient = along & (self._downhill >= PATIENCE)
        longer = np.where(patient, np.minimum(self._dt * GROWTH, DT_MOST), self._dt)
        self._dt = np.where(along, longer, self._dt * SHRINKAGE)
        self._mixing = np.where(along, np.where(patient, self._mixing * MIXING_DECAY, self._mixing), MIXING)
        self._downhill = np.where(along, self._downhill + 1, 0)
        self._speed = added(times(owner, kept, self._speed), times(owner, turn + self._dt, slope))
        return limited(owner, times(owner, self._dt, self._speed))

    def keep(self, left: NDArray[np.bool_], atoms: NDArray[np.bool_]) -> None:
        """Forget all but some crystals."""
        self._speed = self._speed[0][atoms], self._speed[1][left]
        self._dt, self._mixing, self._downhill = self._dt[left], self._mixing[left], self._downhill[left]


class Lbfgs:
    """Limited-memory BFGS (Liu and Nocedal, Mathematical Programming 45, 503, 1989).

    It takes the whole step, up to `LONGEST_STEP`, and forgets what it knows of a crystal whose
    energy rose.
    """

    def __init__(self, atoms: int, crystals: int) -> None:  # noqa: ARG002 -- the contract
        self._softness = np.full(crystals, 1 / STIFF)
        self._energy = np.full(crystals, np.inf)
        self._last: tuple[Moving, Moving] | None = None
        """The last displacement, and the slope before it."""
        self._known: list[tuple[Moving, Moving, Floats]] = []
        """Displacements, changes of the slope, and the inverse of their products; 0: unknown."""

    def step(self, owner: NDArray[np.int64], energy: Floats, slope: Moving) -> Moving:
        """Go where a quadratic model has its minimum."""
        self._learn(owner, slope)
        rose = energy > self._energy
        self._known = [(moved, change, np.where(rose, 0.0, inverse)) for moved, change, inverse in self._known]
        self._energy = energy
        aim, shares = slope, []
        for moved, change, inverse in reversed(self._known):
            shares.append(inverse * product(owner, moved, aim))
            aim = added(aim, times(owner, -shares[-1], change))
        aim = times(owner, self._softness, aim)
        for (moved, change, inverse), share in zip(self._known, reversed(shares), strict=True):
            aim = added(aim, times(owner, share - inverse * product(owner, change, aim), moved))
        lost = product(owner, aim, slope) <= 0
        straight = times(owner, np.where(lost, 1 / STIFF, 0.0), slope)
        move = limited(owner, added(times(owner, np.where(lost, 0.0, 1.0), aim), straight))
        self._last = move, slope
        return move

    def _learn(self, owner: NDArray[np.int64], slope: Moving) -> None:
        """Remember what the last displacement did to the slope."""
        if self._last is None:
            return
        moved, before = self._last
        change = before[0] - slope[0], before[1] - slope[1]
        along, size = product(owner, moved, change), product(owner, change, change)
        convex = along > 1e-10 * np.maximum(size, 1e-30)
        self._softness = np.where(convex, along / np.maximum(size, 1e-30), self._softness)
        inverse = np.where(convex, 1 / np.where(convex, along, 1.0), 0.0)
        self._known = [*self._known, (moved, change, inverse)][-REMEMBERED:]

    def keep(self, left: NDArray[np.bool_], atoms: NDArray[np.bool_]) -> None:
        """Forget all but some crystals."""

        def part(pair: Moving) -> Moving:
            return pair[0][atoms], pair[1][left]

        self._softness, self._energy = self._softness[left], self._energy[left]
        self._known = [(part(moved), part(change), inverse[left]) for moved, change, inverse in self._known]
        self._last = self._last and (part(self._last[0]), part(self._last[1]))


MOVERS: dict[str, type[Fire | Lbfgs]] = {"fire": Fire, "lbfgs": Lbfgs}
"""By name; each is made for a number of atoms and a number of crystals."""


def product(owner: NDArray[np.int64], one: Moving, other: Moving) -> Floats:
    """(a,) scalar product of each crystal, over atoms and strain."""
    atoms = np.bincount(owner, (one[0] * other[0]).sum(axis=1), len(one[1]))
    return np.asarray(atoms + (one[1] * other[1]).sum(axis=(1, 2)))


def times(owner: NDArray[np.int64], factor: Floats, what: Moving) -> Moving:
    """Everything of a crystal times its factor (a,)."""
    return factor[owner, None] * what[0], factor[:, None, None] * what[1]


def added(one: Moving, other: Moving) -> Moving:
    """The sum."""
    return one[0] + other[0], one[1] + other[1]


def limited(owner: NDArray[np.int64], move: Moving) -> Moving:
    """The same direction, at most `LONGEST_STEP` long for each atom and each strain."""
    most = np.maximum(longest(move[0], owner), abs(move[1]).max(axis=(1, 2)))
    return times(owner, np.minimum(1.0, LONGEST_STEP / np.maximum(most, 1e-30)), move)


def longest(vectors: Floats, owner: NDArray[np.int64]) -> Floats:
    """(a,) length of the longest vector of each crystal; NaN where one is."""
    return np.maximum.reduceat(np.sqrt((vectors**2).sum(axis=1)), np.flatnonzero(np.diff(owner, prepend=-1)))
