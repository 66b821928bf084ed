"""Many crystals relaxed at once: atoms and cells move until forces and stress are small.

Enters: ordered crystals, a `Potential`, `Settings`. Leaves: `Relaxed`, with a record of every
crystal that did not arrive. Atoms and the strain of the cell move together. A crystal that has
arrived leaves the batch, and its path does not depend on the crystals beside it where the numbers
of the potential do not. This module does not know how energies are computed, nor which way leads
downhill (`assay.models.potentials.movers`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from assay.featurize import neighbours
from assay.models.potentials import operations, potential as potentials
from assay.models.potentials.movers import MOVERS, Mover, longest
from assay.models.potentials.potential import GPA, Evaluation, Potential
from assay.sources.crystals import Crystals, wrap
from assay.sources.quarantine import Quarantined, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from assay.models.potentials.operations import Operations

ATOMS_AT_ONCE = 2_048
"""Atoms of the crystals that move together; this bounds the memory."""
STIFFNESS = 1.0
"""Å^2 per atom: the strain moves as a coordinate of sqrt(STIFFNESS x atoms) Å, in which a cell of
any size is about as stiff as an atom. (ASE multiplies by the number of atoms, and large cells
follow slowly.)"""


@dataclass(frozen=True)
class Settings:
    """When a crystal has arrived, and when it is given up."""

    fmax: float = 0.05
    """eV/Å, the longest force that may remain on an atom."""
    smax: float = 0.1
    """GPa, the largest component of the stress that may remain. Small forces alone do not make a
    cell relaxed: the stress of a soft crystal is tiny in eV per cell."""
    steps: int = 300
    """Most evaluations."""
    cell: bool = True
    """Whether the cell moves too."""
    method: Literal["lbfgs", "fire"] = "lbfgs"
    """A key of `assay.models.potentials.movers.MOVERS`: FIRE takes twice the steps, and is hard to
    lead astray."""
    symmetry: Literal["free", "keep"] = "free"
    """Whether the space group of the beginning is kept: forces and stresses lose all that would
    break it."""
    symprec: float = 0.01
    """Å within which `keep` looks for the symmetry, and makes it exact before the first step."""
    smallest: float = 0.4
    """Volume, as a share of that in the beginning, below which a crystal has collapsed."""
    largest: float = 2.5
    """Likewise, above which it has exploded."""
    shortest: float = 0.5
    """Å between two atoms, below which a crystal has collapsed."""

    def __post_init__(self) -> None:
        for name in ("fmax", "smax", "steps", "symprec", "shortest"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}, expected above 0")
        if self.method not in MOVERS:
            raise ValueError(f"method is {self.method!r}, expected one of {sorted(MOVERS)}")
        if self.symmetry not in ("free", "keep"):
            raise ValueError(f"symmetry is {self.symmetry!r}, expected 'free' or 'keep'")
        if not 0 < self.smallest < 1 < self.largest:
            raise ValueError(f"volumes may become {self.smallest} to {self.largest} fold, expected a range around 1")


@dataclass(frozen=True)
class Relaxed:
    """The m crystals that arrived, in the order of the input."""

    crystals: Crystals
    """With their relaxed cells and positions, and the columns that they came with."""
    index: NDArray[np.int64]
    """(m,) their rows in the input."""
    energy: NDArray[np.float64]
    """(m,) eV per cell, of exactly these cells, on the scale of the potential."""
    force: NDArray[np.float64]
    """(m,) eV/Å, longest force that remains."""
    stress: NDArray[np.float64]
    """(m,) GPa, largest component of the stress that remains."""
    steps: NDArray[np.int64]
    """(m,) evaluations."""
    volume_change: NDArray[np.float64]
    """(m,) relaxed volume / first volume - 1."""
    refused: list[Quarantined]
    """The others: unknown to the potential, exploded, collapsed, or not relaxed in time."""


def relax(crystals: Crystals, potential: Potential, settings: Settings | None = None) -> Relaxed:
    """Relax crystals; each crystal is in the result or among the refused."""
    settings = settings or Settings()
    rows, refused = potentials.known(potential, crystals)
    runs = [_Run(crystals, part, potential, settings) for part in _portions(crystals.nsites, rows)]
    for run in runs:
        run.go()
    lost = {row: what for run in runs for row, what in run.lost.items()}
    refused += [potentials.record(crystals, row, *lost[row]) for row in sorted(lost)]
    done = dict(sorted(item for run in runs for item in run.arrived.items()))
    index = np.array(list(done), np.int64)
    ends = list(done.values())
    found = crystals.select(index)
    frac = np.concatenate([end.frac for end in ends]) if ends else found.frac
    moved = _moved(found, np.array([end.lattice for end in ends]).reshape(-1, 3, 3), frac, columns=True)
    return Relaxed(
        crystals=moved,
        index=index,
        energy=np.array([end.energy for end in ends], np.float64),
        force=np.array([end.force for end in ends], np.float64),
        stress=np.array([end.stress for end in ends], np.float64),
        steps=np.array([end.steps for end in ends], np.int64),
        volume_change=moved.volume / found.volume - 1,
        refused=refused,
    )


@dataclass(frozen=True)
class _End:
    """A crystal where it arrived."""

    lattice: NDArray[np.float64]
    frac: NDArray[np.float64]
    energy: float
    force: float
    stress: float
    steps: int


@dataclass
class _State:
    """The crystals that still move: a crystals, s atoms."""

    rows: NDArray[np.int64]
    """(a,) in the input."""
    lattice: NDArray[np.float64]
    """(a, 3, 3) Å."""
    frac: NDArray[np.float64]
    """(s, 3)"""
    owner: NDArray[np.int64]
    """(s,) crystal of each atom, 0 to a - 1."""
    mover: Mover
    """Knows their past."""
    kept: Operations | None
    """The symmetry that they keep."""

    @classmethod
    def of(cls, crystals: Crystals, rows: NDArray[np.int64], method: str, kept: Operations | None) -> _State:
        mover = MOVERS[method](len(crystals.frac), len(crystals))
        return cls(rows, crystals.lattice.copy(), crystals.frac.copy(), crystals.site_crystal, mover, kept)

    def keep(self, left: NDArray[np.bool_]) -> _State:
        """The state of some crystals."""
        atoms = left[self.owner]
        self.mover.keep(left, atoms)
        owner = (np.cumsum(left) - 1)[self.owner[atoms]]
        kept = self.kept.keep(left) if self.kept and left.any() else None
        return _State(self.rows[left], self.lattice[left], self.frac[atoms], owner, self.mover, kept)

    def symmetric(self, found: Evaluation) -> Evaluation:
        """An evaluation without the forces and stresses that would break what is kept."""
        if self.kept is None:
            return found
        return replace(found, forces=self.kept.forces(found.forces), stress=self.kept.stresses(found.stress))

    def move(self, found: Evaluation, left: NDArray[np.bool_], atoms: NDArray[np.bool_], *, cell: bool) -> None:
        """Move the crystals that are `left` (a,) of an evaluation, and their `atoms` (s,) there."""
        length = np.sqrt(STIFFNESS * np.bincount(self.owner, minlength=len(self.rows)))[:, None, None]
        volume = abs(np.linalg.det(self.lattice))[:, None, None]
        pull = -found.stress[left] * volume / length if cell else np.zeros_like(self.lattice)
        move, strain = self.mover.step(self.owner, found.energy[left], (found.forces[atoms], pull))
        self.lattice = self.lattice @ (np.eye(3) + strain / length)
        self.frac = self.frac + np.einsum("si,sij->sj", move, np.linalg.inv(self.lattice)[self.owner])


@dataclass
class _Run:
    """One portion of the crystals on their way."""

    crystals: Crystals
    rows: NDArray[np.int64]
    potential: Potential
    settings: Settings
    arrived: dict[int, _End] = field(default_factory=dict)
    lost: dict[int, tuple[Reason, str]] = field(default_factory=dict)

    def go(self) -> None:
        """Move until every crystal has arrived or is lost."""
        begun, kept = self._begun()
        if not len(begun):
            return
        state, volume = _State.of(begun, self.rows, self.settings.method, kept), begun.volume
        now = begun
        for step in range(1, self.settings.steps + 1):
            found = state.symmetric(self.potential.evaluate(now))
            left = self._sorted(state, found, now.volume / volume, step)
            if not left.any():
                return
            atoms = left[state.owner]
            state, volume = state.keep(left), volume[left]
            state.move(found, left, atoms, cell=self.settings.cell)
            now = self._checked(state, begun.select(np.searchsorted(self.rows, state.rows)))
            if len(now) < len(state.rows):  # some came too close
                near = np.isin(state.rows, list(self.lost))
                state, volume = state.keep(~near), volume[~near]
            if not len(now):
                return

    def _begun(self) -> tuple[Crystals, Operations | None]:
        """The crystals as they start, and the symmetry that they keep."""
        begun = potentials.right_handed(self.crystals.select(self.rows))
        if self.settings.symmetry == "free":
            return begun, None
        begun, kept, failed = operations.symmetrised(begun, self.settings.symprec)
        self.lost.update({int(self.rows[place]): (Reason.NOT_RELAXED, said) for place, said in failed.items()})
        self.rows = np.delete(self.rows, list(failed))
        return begun, kept

    def _sorted(self, state: _State, found: Evaluation, grown: NDArray[np.float64], step: int) -> NDArray[np.bool_]:
        """Whether each crystal moves on; the others have arrived or are lost."""
        force = longest(found.forces, state.owner)
        stress = abs(found.stress).max(axis=(1, 2), initial=0) * GPA
        loud = ~(np.isfinite(found.energy) & np.isfinite(force) & np.isfinite(stress))
        still = (force <= self.settings.fmax) & ((stress <= self.settings.smax) | (not self.settings.cell))
        for place in np.flatnonzero(loud | still | (step == self.settings.steps)):
            row = int(state.rows[place])
            if loud[place]:
                self.lost[row] = _silent(found, int(place))
            elif still[place]:
                frac = wrap(state.frac[state.owner == place])
                ends = float(found.energy[place]), float(force[place]), float(stress[place])
                self.arrived[row] = _End(state.lattice[place], frac, *ends, step)
            else:
                said = f"after {step} step{'s' * (step > 1)}: {force[place]:.3g} eV/Å, {stress[place]:.3g} GPa"
                wanted = f"expected at most {self.settings.fmax:g} eV/Å"
                wanted += f" and {self.settings.smax:g} GPa" if self.settings.cell else ""
                self.lost[row] = Reason.NOT_RELAXED, f"{said}; {wanted}"
        self._give_up(state, grown)
        return np.array([row not in self.arrived and row not in self.lost for row in state.rows.tolist()])

    def _give_up(self, state: _State, grown: NDArray[np.float64]) -> None:
        """Crystals whose volume left the bounds."""
        limits = self.settings
        for place in np.flatnonzero((grown < limits.smallest) | (grown > limits.largest)):
            row, size = int(state.rows[place]), float(grown[place])
            self.arrived.pop(row, None)
            reason = Reason.COLLAPSED if size < 1 else Reason.EXPLODED
            said = f"the volume is {size:.3g} times that of the beginning"
            self.lost[row] = reason, f"{said}, expected {limits.smallest:g} to {limits.largest:g}"

    def _checked(self, state: _State, begun: Crystals) -> Crystals:
        """The crystals where they are now; those with atoms too close are lost."""
        now = _moved(begun, state.lattice, wrap(state.frac))
        near = neighbours.within(now.lattice, now.frac, now.site_ptr, self.settings.shortest)
        distance, ptr = near[-1], near[0]
        close = np.diff(ptr) > 0
        for place in np.flatnonzero(close):
            shortest = distance[ptr[place] : ptr[place + 1]].min()
            said = f"two atoms are {shortest:.3g} Å apart, expected at least {self.settings.shortest:g} Å"
            self.lost[int(state.rows[place])] = Reason.COLLAPSED, said
        return now.select(~close)


def _silent(found: Evaluation, place: int) -> tuple[Reason, str]:
    if place in found.failed:
        return Reason.PREDICTION_FAILED, found.failed[place]
    return Reason.EXPLODED, "energy, forces or stress are not finite"


def _moved(
    crystals: Crystals, lattice: NDArray[np.float64], frac: NDArray[np.float64], *, columns: bool = False
) -> Crystals:
    """The crystals with other cells and positions."""
    parts = crystals.site_ptr, frac, crystals.species_ptr, crystals.numbers, crystals.occupancy
    return Crystals(crystals.ids, lattice, *parts, columns=crystals.columns if columns else {})


def _portions(sites: NDArray[np.int64], rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Rows in order, with up to `ATOMS_AT_ONCE` atoms in each part."""
    part = (np.cumsum(sites[rows]) - 1) // ATOMS_AT_ONCE
    yield from np.split(rows, np.flatnonzero(np.diff(part)) + 1) if len(rows) else ()
