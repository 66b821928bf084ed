"""How good a student is: beside its teacher on unseen chemical systems, and beside DFT.

Enters: a `Student`, labels that it did not learn from, crystals with energies or moduli of DFT.
Leaves: numbers. This module does not know training or files.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from assay.models.ensemble import calibration
from assay.models.potentials.potential import GPA, Potential, known
from assay.models.potentials.probes import equation_of_state
from assay.models.potentials.relax import relax

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from assay.models.potentials.student.student import Student
    from assay.models.training.distil.label import Labels
    from assay.sources.crystals import Crystals


LEVEL = 0.9
"""Coverage of the interval of an energy."""


def beside_teacher(student: Student, labels: Labels) -> dict[str, float]:
    """Mean absolute errors on labelled crystals.

    Returns:
        `energy` meV/atom, `force` meV/Å and `stress` GPa (of a component); of several networks
        `energy_spread` and `force_spread`: root mean square error over that of the disagreement.
    """
    found = student.evaluate(labels.crystals)
    energy = (found.energy - labels.energy) / labels.crystals.nsites
    forces = found.forces - labels.forces
    errors = {
        "energy": float(abs(energy).mean() * 1e3),
        "force": float(abs(forces).mean() * 1e3),
        "stress": float(abs(found.stress - labels.stress).mean() * GPA),
    }
    if len(student.networks) > 1:
        unsure, shaky = student.disagreement(labels.crystals)
        errors["energy_spread"] = float(np.sqrt((energy**2).mean() / (unsure**2).mean()))
        errors["force_spread"] = float(np.sqrt((forces**2).mean() / (shaky**2).mean()))
    return errors


def common(potentials: Iterable[Potential], crystals: Crystals) -> NDArray[np.int64]:
    """Rows of the crystals that every potential knows."""
    rows = np.arange(len(crystals), dtype=np.int64)
    for one in potentials:
        rows = np.intersect1d(rows, known(one, crystals)[0])
    return rows


def beside_dft(
    potentials: Mapping[str, Potential], crystals: Crystals, energy: NDArray[np.float64]
) -> dict[str, dict[str, float]]:
    """Errors on crystals that DFT relaxed: their forces and stresses are zero there.

    `energy` (n,) eV per cell must be on the scale of the potentials. Crystals of which one of them
    says nothing are left out for all.

    Returns:
        For each name `rows`; mean absolute `energy` meV/atom, `force` meV/Å and `stress` GPa (of a
        component). Nothing where no crystal is left.
    """
    rows = common(potentials.values(), crystals)
    if not len(rows):
        return {}
    some = crystals.select(rows)
    found = {name: one.evaluate(some) for name, one in potentials.items()}
    said = np.logical_and.reduce([np.isfinite(one.energy) for one in found.values()])
    if not said.any():
        return {}
    of_atoms = np.repeat(said, some.nsites)
    return {
        name: {
            "rows": int(said.sum()),
            "energy": float(abs((one.energy - energy[rows]) / some.nsites)[said].mean() * 1e3),
            "force": float(abs(one.forces[of_atoms]).mean() * 1e3),
            "stress": float(abs(one.stress[said]).mean() * GPA),
        }
        for name, one in found.items()
    }


def energy_error(student: Student, crystals: Crystals, energy: NDArray[np.float64]) -> dict[str, float] | None:
    """The error of the energy of a relaxed crystal, eV/atom, by how far the students disagree.

    The students relax crystals that DFT relaxed, with energies (n,) in eV per cell on their scale,
    so that an energy which they lower too far counts as an error.

    Returns:
        The fields of an `assay.models.ensemble.calibration.Calibration`; None if too few relaxed.
    """
    found = relax(crystals, student)
    if not calibration.suffices(len(found.index), LEVEL):
        return None
    atoms = found.crystals.nsites
    spread, _ = student.disagreement(found.crystals)
    return asdict(calibration.fit(energy[found.index] / atoms, found.energy / atoms, spread, LEVEL))


def bulk_moduli(potential: Potential, crystals: Crystals, modulus: NDArray[np.float64]) -> dict[str, float]:
    """Bulk moduli by an equation of state, beside those of DFT, `modulus` (n,) GPa.

    A crystal whose energy has not one minimum between 0.94 and 1.06 of its volume has no modulus.

    Returns:
        `rows` with a modulus, and `without`; mean and median absolute error of the `rows`, in GPa.
    """
    rows, _ = known(potential, crystals)
    found = equation_of_state(crystals.select(rows), potential)
    sound = (found.minima == 1) & np.isfinite(found.modulus)
    off = abs(found.modulus - modulus[rows])[sound]
    middle = {"modulus": float(off.mean()), "modulus_median": float(np.median(off))} if len(off) else {}
    return {"rows": int(sound.sum()), "without": len(crystals) - int(sound.sum()), **middle}
