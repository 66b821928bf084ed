"""A potential as a calculator of ASE: for its dynamics, its optimisers, and what is built on them.

Enters: the name of a potential. Leaves: a calculator with energies, forces and stresses. It refuses
whatever the potential cannot know, and gives no number that is not finite. This module does not
know how ASE asks (`assay.sources.formats.convert` does).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.featurize import neighbours
from assay.models.potentials import potential as potentials
from assay.sources.crystals import Crystals, wrap
from assay.sources.formats import convert

if TYPE_CHECKING:
    from assay.models.potentials.potential import Potential
    from assay.sources.formats.convert import Atoms, Calculator

PROPERTIES = ("energy", "free_energy", "forces", "stress")
"""In eV, eV, eV/Å and eV/Å^3; the stress is positive under tension, as everywhere in ASE."""
ONE_PLACE = 1e-3
"""Å; closer atoms have no direction in which a force could part them."""
_VOIGT = [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]


def calculator(name: str = "potential") -> Calculator:
    """Make a calculator of ASE of a potential.

    It has energy, free energy (the same), forces and stress of ordered crystals that are periodic
    in three dimensions. Asked about others it raises a ValueError; where the potential fails, or
    gives a number that is not finite, a RuntimeError. A copy, also in another process, loads the
    potential again by its name.

    Args:
        name: as `assay.models.potentials.potential.load` takes it.

    Raises:
        ValueError: for an unknown potential.
        ImportError: when the potential is not installed.
    """
    potential = potentials.load(name)
    return convert.to_calculator(partial(measured, potential), PROPERTIES, potential.name, partial(calculator, name))


def measured(potential: Potential, atoms: Atoms) -> dict[str, Any]:
    """What a potential says of `Atoms`: each of `PROPERTIES`, the stress in Voigt's order.

    Raises:
        ValueError: when they are not periodic, not ordered, or not of elements that it knows.
        RuntimeError: when the potential fails.
    """
    found = potential.evaluate(potentials.right_handed(_crystal(potential, atoms)))
    if 0 in found.failed:
        raise RuntimeError(found.failed[0])
    energy, forces, stress = float(found.energy[0]), found.forces, found.stress[0][_VOIGT]
    if not (np.isfinite(energy) and np.isfinite(forces).all() and np.isfinite(stress).all()):
        raise RuntimeError(f"{potential.name}: energy, forces or stress are not finite")
    return dict(zip(PROPERTIES, (energy, energy, forces, stress), strict=True))


def _crystal(potential: Potential, atoms: Atoms) -> Crystals:
    """Atoms as a batch of one, whatever the distances between them, as long as there are some."""
    if not len(atoms):
        raise ValueError("there are no atoms")
    if not all(atoms.pbc):
        axes = ", ".join(axis for axis, periodic in zip("abc", atoms.pbc) if not periodic)
        raise ValueError(f"the atoms are not periodic along {axes}; {potential.name} needs a crystal: set pbc=True")
    lattice = np.array(atoms.cell)
    if not abs(np.linalg.det(lattice)) > 0:
        raise ValueError(f"the cell has no volume; {potential.name} needs a crystal")
    kinds = atoms.arrays.get("spacegroup_kinds")
    kinds = None if kinds is None else kinds.tolist()
    shares = convert.site_species(atoms.numbers.tolist(), atoms.info.get("occupancy"), kinds)
    numbers, occupancy = np.array([pair for site in shares for pair in site]).T
    one = Crystals(
        ids=np.array(["atoms"]),
        lattice=lattice[None],
        site_ptr=np.array([0, len(atoms)]),
        frac=wrap(atoms.positions @ np.linalg.inv(lattice)),
        species_ptr=np.cumsum([0, *map(len, shares)]),
        numbers=numbers.astype(np.int64),
        occupancy=occupancy,
    )
    _, refused = potentials.known(potential, one)
    if refused:
        raise ValueError(refused[0].message)
    _, first, second, *_ = neighbours.within(one.lattice, one.frac, one.site_ptr, ONE_PLACE)
    if len(first):
        raise ValueError(f"atoms {second[0]} and {first[0]} are at one place: no force would part them")
    return one
