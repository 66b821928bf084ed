"""Whether symmetry lets two crystals that nearly map on each other be the same.

Enters: single crystals. Leaves: yes or no. A free coordinate that two calculations relax
differently and a soft distortion move sites equally far; only the symmetric cell at 0.1 Å tells
them apart. Two crystals are the same if their symmetric cells are, and if neither is distorted
against it or both are so in one way. This module does not know ids or campaigns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from assay.featurize.identity import mapping
from assay.featurize.identity.cells import Cells, of_arrays
from assay.sources import symmetry

if TYPE_CHECKING:
    from assay.sources.symmetry import Distortion, MoyoDataset


class Bounds(NamedTuple):
    """Largest differences between two cells."""

    length: float
    """Of cell lengths, relative, after scaling to one volume."""
    displacement: float
    """Of sites, in units of (V / sites)^(1/3)."""
    angle: float
    """Of cell angles, in degrees."""
    volume: float
    """Ratio of the volumes per site."""


SAME = Bounds(0.05, 0.08, 3.0, 1.07)
"""The same crystal; functionals, pseudopotentials and magnetic states move it so far."""
RELATED = Bounds(0.1, 0.15, 5.0, 1.35)
"""Related crystals. Functionals with and without dispersion differ so much in volume."""
SHIFT = 0.02
"""Å, largest displacement from the symmetric cell that counts as none. A perovskite with octahedra
turned by 1 degree has 0.034 Å."""
STRAIN, NOISE_STRAIN = 0.0015, 0.006
"""Largest strain from the symmetric cell that counts as none: one that keeps a symmetry axis, and
one that keeps none."""
TRICLINIC = 2
"""Space group up to which a lower symmetry tells nothing, because noise has it too."""
OCCUPANCY = 0.001
"""Largest difference of an occupancy. Samples of one doping series are often 0.005 apart and have
different critical temperatures."""
COARSE, FINE = 0.1, 0.01
"""Å, tolerances of the symmetry search."""


def bounds() -> tuple[float, ...]:
    """Everything that decides."""
    return (*SAME, *RELATED, SHIFT, STRAIN, NOISE_STRAIN, OCCUPANCY, COARSE, FINE)


@dataclass(frozen=True)
class Reduced:
    """The primitive cell of one crystal, symmetrised."""

    crystal: Crystal
    dataset: MoyoDataset

    @property
    def key(self) -> tuple[int, int]:
        """Space group and sites: equal in crystals that are the same."""
        return self.dataset.number, len(self.dataset.prim_std_cell.numbers)

    @cached_property
    def cell(self) -> Cells:
        """The cell, reduced and scaled."""
        found = self.dataset.prim_std_cell
        kind = np.array(found.numbers, np.int64) - 1
        return of_arrays(np.array([found.basis]), np.array(found.positions), kind, np.array([0, len(kind)]))

    @cached_property
    def distortion(self) -> Distortion:
        """Of the crystal against the symmetric cell."""
        return symmetry.distortion(self.crystal.lattice.tolist(), self.crystal.frac.tolist(), self.dataset)

    @property
    def undistorted(self) -> bool:
        """Whether nothing tells the crystal from the symmetric cell."""
        most = STRAIN if self.distortion.keeps_axis else NOISE_STRAIN
        return self.distortion.displacement <= SHIFT and self.distortion.strain <= most


@dataclass(frozen=True)
class Crystal:
    """One crystal, whose symmetry is searched for on demand."""

    lattice: NDArray[np.float64]
    """(3, 3) Å, rows are the vectors."""
    frac: NDArray[np.float64]
    """(n, 3) fractional coordinates."""
    kind: NDArray[np.int64]
    """(n,) see `assay.featurize.identity.cells.Cells`."""

    @cached_property
    def coarse(self) -> Reduced | None:
        """At 0.1 Å; None where no symmetry is found."""
        return self._reduced(COARSE)

    @cached_property
    def fine(self) -> Reduced | None:
        """At 0.01 Å."""
        return self._reduced(FINE)

    def _reduced(self, symprec: float) -> Reduced | None:
        numbers = (1 + self.kind).tolist()
        found = symmetry.dataset(self.lattice.tolist(), self.frac.tolist(), numbers, symprec)
        return None if found is None else Reduced(self, found)


def same(one: Crystal, other: Crystal) -> bool:
    """Whether symmetry says that two crystals of one composition are the same."""
    a, b = one.coarse, other.coarse
    if a is None or b is None:
        return False
    if a.key != b.key:  # one distortion, which is near the tolerance of the search
        a, b = one.fine, other.fine
        return a is not None and b is not None and _one_symmetry(a, b) and _fit(a, b, SAME)
    if not (a.undistorted and b.undistorted):
        fine, others = one.fine, other.fine
        if fine is None or others is None or fine.key[1] != others.key[1]:
            return False
        tight = SAME._replace(displacement=SHIFT / a.cell.unit[0])
        alike = abs(a.distortion.strain - b.distortion.strain) <= STRAIN
        if not (_one_symmetry(fine, others) or (alike and _fit(fine, others, tight))):
            return False
    return _fit(a, b, SAME)


def one_group(one: Crystal, other: Crystal) -> bool:
    """Whether two crystals have one space group, so that they are no two mirror images."""
    a, b = one.coarse, other.coarse
    return a is not None and b is not None and a.key[0] == b.key[0]


def _one_symmetry(one: Reduced, other: Reduced) -> bool:
    """Whether two crystals have one symmetry, and more of it than noise has."""
    return one.key == other.key and one.key[0] > TRICLINIC


def _fit(one: Reduced, other: Reduced, bounds: Bounds) -> bool:
    first = np.zeros(1, np.int64)
    return bool(np.isfinite(mapping.between(one.cell, first, other.cell, first, bounds[:3])[0, 0]))
