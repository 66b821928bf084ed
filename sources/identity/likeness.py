"""How two crystals of one label are alike: the same, related, or different.

Enters: two crystals, each with its symmetric cell at 0.1 Å. Leaves: a `Relation`, or nothing. The
answer comes from continuous measures: volume, shape of the cell, places of the sites, and how far
each crystal lies from the symmetric cell. Within the tight bounds `SAME` two crystals are the same.
Within the loose bounds `RELATED` they are related: a perovskite with softly tilted octahedra and
its cubic parent, or one crystal at two pressures. Otherwise they are different. This module does
not know ids or campaigns.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from assay.sources import symmetry
from assay.sources.checks.importing import one_at_a_time
from assay.sources.elements import SYMBOLS
from assay.sources.identity.cells import COARSE, FINE, Cell

if TYPE_CHECKING:
    from pymatgen.analysis.structure_matcher import StructureMatcher
    from pymatgen.core.structure import Structure

    from assay.sources.symmetry import Distortion, MoyoDataset

log = logging.getLogger(__name__)


class Bounds(NamedTuple):
    """Largest differences between two symmetric cells."""

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
RELATED = Bounds(0.1, 0.15, 5.0, 1.2)
"""Related crystals."""
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
MOST_POINTS = 100_000
"""Most lattice points within the longest vector; a very flat cell has more, and comparing it would
take too long."""


class Relation(NamedTuple):
    """How one crystal is like another."""

    distance: float
    """Å, how far a site moves from one to the other, or the end of the cell, at one volume."""
    volume_ratio: float
    """Volume per site of the other over that of the first."""
    same: bool
    """Whether they are the same crystal; if so, `distance` is not measured and 0."""


@dataclass(frozen=True)
class Reduced:
    """The primitive cell of one crystal, symmetrised and Niggli-reduced.

    The other fields are compared first, because comparing structures is expensive.
    """

    key: tuple[int, int, tuple[str, ...]]
    """Space group, sites, kinds: equal in crystals that are alike."""
    shares: NDArray[np.float64]
    """(m,) occupancies, see `assay.sources.occupants.shares`."""
    volume: float
    """Å^3 per site."""
    structure: Structure
    """The primitive cell; element k stands for the k-th of `kinds`."""
    cell: Cell
    distortion: Distortion
    """Against the symmetric cell."""

    @property
    def undistorted(self) -> bool:
        """Whether nothing tells the crystal from the symmetric cell."""
        most = STRAIN if self.distortion.keeps_axis else NOISE_STRAIN
        return self.distortion.displacement <= SHIFT and self.distortion.strain <= most

    @cached_property
    def fine(self) -> Reduced | None:
        """The same at 0.01 Å."""
        return reduced(self.cell, FINE)


def bounds() -> tuple[float, ...]:
    """Everything that decides."""
    return (*SAME, *RELATED, SHIFT, STRAIN, NOISE_STRAIN, OCCUPANCY)


def _primitive(dataset: MoyoDataset, basis: NDArray[np.float64]) -> Structure:
    """The symmetrised primitive cell in another basis, sites in the order of their kinds."""
    with one_at_a_time():
        from pymatgen.core import lattice, structure

    primitive = dataset.prim_std_cell
    order = np.argsort(primitive.numbers, kind="stable")
    positions = (np.array(primitive.positions) @ np.array(primitive.basis) @ np.linalg.inv(basis))[order]
    stand_ins = [SYMBOLS[primitive.numbers[site]] for site in order]
    return structure.Structure(lattice.Lattice(basis), stand_ins, positions)


def reduced(cell: Cell, symprec: float = COARSE) -> Reduced | None:
    """One crystal, ready to be compared; None where it has no symmetry or its cell is too flat."""
    dataset = cell.dataset(symprec)
    if dataset is None or len(cell.kinds) >= len(SYMBOLS):
        return None
    basis = symmetry.niggli(dataset.prim_std_cell.basis)
    volume, longest = abs(float(np.linalg.det(basis))), float(np.linalg.norm(basis, axis=1).max())
    if 4.19 * ((1 + RELATED.length) * longest) ** 3 > MOST_POINTS * volume:
        log.warning("a cell of %.4g Å^3 with a vector of %.4g Å is too flat to be compared", volume, longest)
        return None
    structure = _primitive(dataset, basis)
    key = (dataset.number, len(structure), tuple(cell.kinds))
    distortion = symmetry.distortion(cell.basis, cell.positions, dataset)
    return Reduced(key, cell.shares, volume / len(structure), structure, cell, distortion)


def compare(one: Reduced, other: Reduced) -> Relation | None:
    """How two crystals are alike; None where they are different."""
    if one.key != other.key:  # one distortion, which is near the tolerance of the search
        a, b = (one.fine, other.fine) if one.key[2] == other.key[2] else (None, None)
        if a is None or b is None or not _one_symmetry(a, b):
            return None
        one, other = a, b
    ratio = other.volume / one.volume
    if not 1 / RELATED.volume < ratio < RELATED.volume:
        return None
    if np.abs(one.shares - other.shares).max() > OCCUPANCY + 1e-9:
        return None
    try:
        alike = _distorted_alike(one, other)
        if alike and 1 / SAME.volume < ratio < SAME.volume and _fit(one.structure, other.structure, SAME):
            return Relation(0.0, ratio, same=True)
        distance = _distance(one, other, alike=alike)
    except (ValueError, ArithmeticError) as error:
        log.warning("a comparison failed, the crystals stay apart: %s", error)
        return None
    return None if distance is None else Relation(distance, ratio, same=False)


def _distorted_alike(one: Reduced, other: Reduced) -> bool:
    """Whether the symmetric cells of two crystals say all about their difference.

    That is so where neither is distorted, where both have one lower symmetry at 0.01 Å, and where
    their strains are equal and their sites at 0.01 Å map on each other within `SHIFT`.
    """
    if one.undistorted and other.undistorted:
        return True
    a, b = one.fine, other.fine
    if a is None or b is None or a.key[1] != b.key[1]:
        return False
    if _one_symmetry(a, b):
        return True
    bounds = SAME._replace(displacement=SHIFT / math.cbrt(one.volume))
    return abs(one.distortion.strain - other.distortion.strain) <= STRAIN and _fit(a.structure, b.structure, bounds)


def _one_symmetry(one: Reduced, other: Reduced) -> bool:
    """Whether two crystals have one symmetry, and more of it than noise has."""
    return one.key == other.key and one.key[0] > TRICLINIC


def _fit(one: Structure, other: Structure, bounds: Bounds) -> bool:
    return bool(_matcher(bounds).fit(one, other, skip_structure_reduction=True))


def _distance(one: Reduced, other: Reduced, *, alike: bool) -> float | None:
    """Å, how far a site or the end of the cell moves, at one volume; None without a mapping."""
    if not _fit(one.structure, other.structure, RELATED):
        return None
    a, b = one.distortion, other.distortion
    moved = [abs(a.displacement - b.displacement) if alike else max(a.displacement, b.displacement)]
    strained = [abs(a.strain - b.strain) if alike else max(a.strain, b.strain)]
    mapped: Structure | None = _matcher(RELATED).get_s2_like_s1(  # type: ignore[no-untyped-call]  # has no types
        one.structure, other.structure
    )
    if mapped is None:
        moved.append(RELATED.displacement * math.cbrt(one.volume))
    else:
        basis = one.structure.lattice.matrix
        steps = (mapped.frac_coords - one.structure.frac_coords) @ basis
        moved.append(float(np.linalg.norm(steps - steps.mean(axis=0), axis=1).max()))
        strained.append(symmetry.strain_between(basis, mapped.lattice.matrix)[1])
    return max(*moved, max(strained) * math.cbrt(one.volume * one.key[1]))


@lru_cache(maxsize=256)
def _matcher(bounds: Bounds) -> StructureMatcher:
    with one_at_a_time():
        from pymatgen.analysis.structure_matcher import StructureMatcher

    length, displacement, angle, _ = bounds
    return StructureMatcher(length, displacement, angle, primitive_cell=False, scale=True)
