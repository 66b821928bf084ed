"""The symmetry operations of many crystals, and the symmetric part of their forces and stresses.

Enters: ordered crystals, and a tolerance. Leaves: the crystals with their symmetry made exact, and
`Operations`, which take from forces and stresses whatever would break it. Cells and sites stay as
they were delivered: no cell is standardised, and sites keep their number and order. This module
does not know potentials, nor how atoms move.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from assay.sources import symmetry
from assay.sources.crystals import wrap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assay.sources.crystals import Crystals

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SAME = 1e-6
"""Largest difference of fractional coordinates between an atom and the image of its equal."""


@dataclass(frozen=True)
class Symmetry:
    """One crystal made symmetric: s sites; p sites and m operations of its primitive cell."""

    lattice: Floats
    """(3, 3) Å."""
    frac: Floats
    """(s, 3)"""
    rotations: Floats
    """(m, 3, 3) Cartesian: a vector v becomes R v."""
    orbit: Ints
    """(s,) site of the primitive cell that each site is a translated copy of."""
    source: Ints
    """(p, m) site of the primitive cell that each operation moves onto a site."""


@dataclass(frozen=True)
class Operations:
    """The operations of n crystals with S sites, laid end to end.

    An average over a whole group is one over the copies of a primitive site, and then one over the
    operations of the primitive cell: at most 48, however large the cell is.
    """

    parts: Sequence[Symmetry]
    """(n,) one by one."""
    rotations: Floats
    """(M, 3, 3)"""
    rotation_ptr: Ints
    """(n + 1,) rotations of each crystal."""
    orbit: Ints
    """(S,) primitive site of each site."""
    source: Ints
    """(E,) primitive site that moves, for each primitive site and each operation onto it."""
    turn: Ints
    """(E,) the operation."""
    source_ptr: Ints
    """(P + 1,) where the entries of each primitive site are."""

    @classmethod
    def of(cls, parts: Sequence[Symmetry]) -> Operations:
        """Lay crystals end to end; at least one."""
        sites, turns = np.array([part.source.shape for part in parts], np.int64).T
        first_site, first_turn = np.cumsum([0, *sites]), np.cumsum([0, *turns])
        return cls(
            parts=parts,
            rotations=np.concatenate([part.rotations for part in parts]),
            rotation_ptr=first_turn,
            orbit=np.concatenate([part.orbit + start for part, start in zip(parts, first_site)]),
            source=np.concatenate([part.source.ravel() + start for part, start in zip(parts, first_site)]),
            turn=np.concatenate([np.tile(np.arange(m) + start, p) for p, m, start in zip(sites, turns, first_turn)]),
            source_ptr=np.cumsum([0, *np.repeat(turns, sites)]),
        )

    def keep(self, left: NDArray[np.bool_]) -> Operations:
        """Those of some crystals (n,), at least one."""
        return self if left.all() else Operations.of([part for part, one in zip(self.parts, left) if one])

    def forces(self, forces: Floats) -> Floats:
        """(S, 3) the symmetric part of forces: the mean of what all operations make of them."""
        copies = np.bincount(self.orbit)[:, None]
        own = np.stack([np.bincount(self.orbit, axis) for axis in forces.T], axis=1) / copies
        turned = np.einsum("eij,ej->ei", self.rotations[self.turn], own[self.source])
        return np.asarray(_means(turned, self.source_ptr)[self.orbit])

    def stresses(self, stresses: Floats) -> Floats:
        """(n, 3, 3) the symmetric part of stresses, or of strains."""
        every = np.repeat(stresses, np.diff(self.rotation_ptr), axis=0)
        return _means(np.einsum("mij,mjk,mlk->mil", self.rotations, every, self.rotations), self.rotation_ptr)


def symmetrised(crystals: Crystals, symprec: float) -> tuple[Crystals, Operations | None, dict[int, str]]:
    """Find the operations of ordered crystals within `symprec` Å, and make them exact.

    Atoms move by about `symprec` at most, the cell is strained as little as possible and not
    turned, and the atoms of a crystal move by nothing on average. So the group that was found
    within the tolerance is that of the result to rounding.

    Returns:
        The crystals whose symmetry was found; their operations, None where there are none of these;
        row -> what is wrong with each of the others.
    """
    found, failed = [], {}
    for row in range(len(crystals)):
        try:
            found.append(_symmetry(crystals[row : row + 1], symprec))
        except ValueError as error:
            failed[row] = str(error)
    if not found:
        return crystals[:0], None, failed
    kept = crystals.select([row for row in range(len(crystals)) if row not in failed])
    lattice, frac = np.stack([one.lattice for one in found]), np.concatenate([one.frac for one in found])
    return replace(kept, lattice=lattice, frac=wrap(frac)), Operations.of(found), failed


def _symmetry(one: Crystals, symprec: float) -> Symmetry:
    """The symmetry of a batch of one."""
    lattice, frac = one.lattice[0], one.frac
    found = symmetry.dataset(lattice.tolist(), frac.tolist(), one.numbers.tolist(), symprec)
    if found is None:
        raise ValueError(f"no symmetry was found within {symprec:g} Å")
    linear, orbit = np.array(found.prim_std_linear), np.array(found.mapping_std_prim, np.int64)
    places = np.array(found.prim_std_cell.positions)
    inner = (frac - np.array(found.prim_std_origin_shift)) @ np.linalg.inv(linear).T
    moved = inner - places[orbit]
    moved -= np.rint(moved)
    kinds = np.zeros(len(places), np.int64)
    kinds[orbit] = one.numbers
    rotations, shifts = symmetry.operations(found.number)
    source = _sources(places, kinds, rotations, shifts)
    primitive = linear.T @ lattice
    metric = np.einsum("mji,jk,mkl->il", rotations, primitive @ primitive.T, rotations) / len(rotations)
    strained = _root(np.linalg.solve(primitive, np.linalg.solve(primitive, metric).T))
    turned = (primitive @ strained).T
    return Symmetry(
        lattice=lattice @ strained,
        frac=frac - (moved - moved.mean(axis=0)) @ linear.T,
        rotations=turned @ rotations @ np.linalg.inv(turned),
        orbit=orbit,
        source=source,
    )


def _sources(places: Floats, kinds: Ints, rotations: Floats, shifts: Floats) -> Ints:
    """(p, m) site that each operation moves onto each of p places."""
    source = np.empty((len(places), len(rotations)), np.int64)
    for turn, (rotation, shift) in enumerate(zip(rotations, shifts)):
        apart = places[:, None] - (places @ rotation.T + shift)
        far = abs(apart - np.rint(apart)).max(axis=2)
        source[:, turn] = far.argmin(axis=1)
        if far.min(axis=1).max() > SAME or (kinds[source[:, turn]] != kinds).any():
            raise ValueError("its sites are not equal under the operations that were found")
    return source


def _root(square: Floats) -> Floats:
    """The symmetric square root of a positive symmetric matrix."""
    values, axes = np.linalg.eigh((square + square.T) / 2)
    return np.asarray((axes * np.sqrt(values)) @ axes.T)


def _means(values: Floats, ptr: Ints) -> Floats:
    """The mean of each range of rows."""
    sizes = np.diff(ptr).reshape(-1, *[1] * (values.ndim - 1))
    return np.asarray(np.add.reduceat(values, ptr[:-1]) / sizes)
