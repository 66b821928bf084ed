"""What every force field offers: energies, forces and stresses of a batch of crystals.

Enters: `Crystals`, and the name of a potential. Leaves: a `Potential`, an `Evaluation`, and records
of the crystals that a potential does not know. An energy has a scale, and energies on two scales
cannot be compared. This module does not know how a potential computes, and imports none before it
is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from assay.sources.crystals import wrap
from assay.sources.elements import SYMBOLS
from assay.sources.quarantine import Quarantined, Reason, Stage

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals

GPA = 160.21766208
"""GPa in one eV/Å^3."""


@dataclass(frozen=True)
class Scale:
    """What an energy is measured in: two energies are comparable on one scale only."""

    functional: str
    """For example `PBE(+U)`."""
    reference: str
    """For example `totals`, or `totals with MP2020 corrections`."""

    def __str__(self) -> str:
        return f"{self.functional}, {self.reference}"


@dataclass(frozen=True)
class Evaluation:
    """Energies, forces and stresses of n crystals with S sites; NaN where a crystal failed."""

    energy: NDArray[np.float64]
    """(n,) eV per cell, on the scale of the potential."""
    forces: NDArray[np.float64]
    """(S, 3) eV/Å, Cartesian."""
    stress: NDArray[np.float64]
    """(n, 3, 3) eV/Å^3, dE/dstrain per volume, symmetric: positive under tension, where the cell
    wants to shrink. ASE has the same sign, VASP the opposite one."""
    failed: Mapping[int, str] = field(default_factory=dict)
    """Row -> what the potential said of a crystal that it could not evaluate."""


class Potential(Protocol):
    """A force field."""

    @property
    def name(self) -> str:
        """As `load` takes it."""

    @property
    def scale(self) -> Scale:
        """Of its energies."""

    @property
    def elements(self) -> frozenset[int]:
        """Atomic numbers that it has learned; it is never asked about others."""

    @property
    def version(self) -> str:
        """What computes it: packages with their versions, or a digest.

        Another version, other numbers.
        """

    def evaluate(self, crystals: Crystals) -> Evaluation:
        """Evaluate ordered, right-handed crystals of its elements; one that fails has NaN."""


KINDS: Mapping[str, str] = {
    "ase": "assay.models.potentials.calculator:load",
    "chgnet": "assay.models.potentials.chgnet:load",
    "nequix": "assay.models.potentials.nequix:load",
    "potential": "assay.models.potentials.student.student:load",
    "sevennet": "assay.models.potentials.sevennet:load",
}
"""Kind of potential -> the function that loads one, given what follows the colon in its name."""


def load(name: str) -> Potential:
    """Load a potential by its name.

    `potential` is bundled; others are `potential:FOLDER`, `chgnet`, `sevennet`,
    `sevennet:7net-l3i5`, `nequix:PATH` and `ase:MODULE:CLASS`.

    Raises:
        ValueError: for an unknown kind, or a calculator that is not there.
        ImportError: when its library is not installed; the message says how to install it.
    """
    kind, _, detail = name.partition(":")
    if kind not in KINDS:
        raise ValueError(f"potential {name!r} is not known; expected {', '.join(sorted(KINDS))} (ase:MODULE:CLASS)")
    module, _, function = KINDS[kind].partition(":")
    loaded: Potential = getattr(import_module(module), function)(detail)
    return loaded


def known(potential: Potential, crystals: Crystals) -> tuple[NDArray[np.int64], list[Quarantined]]:
    """Rows of the crystals that a potential can evaluate, and records of the others.

    The elements are asked for before the potential is: some answer for elements that they never
    learned, with the numbers they were initialised with.
    """
    amounts = crystals.composition()
    strange = amounts > 0
    strange[:, sorted(potential.elements)] = False
    disordered = ~crystals.is_ordered
    refused = []
    for row in np.flatnonzero(disordered | strange.any(axis=1)):
        if disordered[row]:
            reason, message = Reason.UNSUPPORTED, "a site is shared or partly empty, and a potential needs whole atoms"
        else:
            symbols = ", ".join(SYMBOLS[z] for z in np.flatnonzero(strange[row]))
            reason, message = Reason.UNKNOWN_SPECIES, f"{potential.name} has not learned {symbols}"
        refused.append(record(crystals, int(row), reason, message))
    return np.flatnonzero(~(disordered | strange.any(axis=1))), refused


def record(crystals: Crystals, row: int, reason: Reason, message: str) -> Quarantined:
    """A record of a crystal that was not relaxed."""
    return Quarantined(str(crystals.ids[row]), "", Stage.RELAX, reason, message)


def right_handed(crystals: Crystals) -> Crystals:
    """The same atoms in cells whose vectors are right-handed; all vectors of others are reversed.

    Some potentials divide by the signed volume, and give a left-handed cell the opposite stress.
    """
    left = np.linalg.det(crystals.lattice) < 0
    if not left.any():
        return crystals
    sign: NDArray[Any] = np.where(left, -1.0, 1.0)
    frac = wrap(crystals.frac * sign[crystals.site_crystal][:, None])
    return replace(crystals, lattice=crystals.lattice * sign[:, None, None], frac=frac)
