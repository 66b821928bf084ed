"""Formation energies of relaxed crystals by the force field that relaxed them, with their errors.

Enters: relaxed crystals and their energies. Leaves: the columns `FORMED` of
`assay.models.potentials.columns`, on the scale of a hull. A crystal with an element that has no
reference has NaN. This module does not know hulls, nor how crystals relax.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from assay.models.potentials.columns import FORMED
from assay.models.stability import corrections
from assay.models.stability.references import formation_energies
from assay.sources.checks import importing

if TYPE_CHECKING:
    from assay.models.potentials.potential import Potential
    from assay.models.potentials.student import student
    from assay.sources.crystals import Crystals
else:
    student = importing.later("assay.models.potentials.student.student")


@dataclass(frozen=True)
class Error:
    """The error of the energy of a relaxed crystal, eV/atom, by how far students disagree on it."""

    scale: float
    """The standard deviation is scale x (disagreement + floor)."""
    quantile: float
    """Half of the interval is quantile x (disagreement + floor)."""
    floor: float
    """eV/atom."""
    level: float = 0.9
    """Nominal coverage of the interval."""
    n: int = 0
    """Crystals that this was fitted on; 0: it was stated, and the disagreement does not count."""


def stated(error: float) -> Error:
    """A normal error of this standard deviation, eV/atom, the same for every crystal."""
    return Error(1.0, NormalDist().inv_cdf(0.95), error)


def on_card(potential: Potential) -> Error | None:
    """The error that the card of a potential says; None without one."""
    found = potential.facts.get("calibration") if isinstance(potential, student.Student) else None
    return None if found is None else Error(**found)


@dataclass(frozen=True)
class Formation:
    """How the energy of a relaxed crystal becomes a formation energy beside a hull."""

    functional: str
    """Of the hull: functional, corrections and references."""
    references: Mapping[str, float]
    """Element symbol -> eV/atom, on that scale."""
    error: Error

    def columns(
        self, crystals: Crystals, energy: NDArray[np.float64], potential: Potential
    ) -> dict[str, NDArray[np.float64]]:
        """The columns `FORMED`, (m,) each, of m relaxed crystals with energies (m,) in eV/atom."""
        there = corrections.converted(crystals, energy, str(potential.scale), self.functional)
        mean = formation_energies(crystals.composition(), there, self.references)
        spread = np.zeros(len(mean))
        if self.error.n and isinstance(potential, student.Student):
            spread, _ = potential.disagreement(crystals)
        std, half = (factor * (spread + self.error.floor) for factor in (self.error.scale, self.error.quantile))
        return dict(zip(FORMED, (mean, std, mean - half, mean + half), strict=True))
