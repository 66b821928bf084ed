"""Any calculator of ASE as a potential: `ase:ase.calculators.emt:EMT`.

Enters: a calculator, or the dotted name of its class, and `Crystals`. Leaves: an `Evaluation`. ASE
says neither which elements a calculator knows nor on which scale its energies are. One that refuses
a crystal fails for it alone. This module does not know files.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.models.potentials.potential import Evaluation, Scale
from assay.sources.crystals import MAX_ATOMIC_NUMBER
from assay.sources.formats.convert import to_ase

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals


class AseCalculator:
    """A calculator of ASE, asked about one crystal after the other."""

    def __init__(self, name: str, calculator: Any, scale: Scale, elements: frozenset[int], version: str) -> None:
        """`calculator` is an instance."""
        self.name, self.scale, self.elements, self.version = name, scale, elements, version
        self._calculator = calculator

    def evaluate(self, crystals: Crystals) -> Evaluation:
        """Evaluate crystals in double precision; what a calculator raises is kept for its row."""
        energy, stress = np.full(len(crystals), np.nan), np.full((len(crystals), 3, 3), np.nan)
        forces, failed = np.full((len(crystals.frac), 3), np.nan), {}
        every: list[Any] = to_ase(crystals)
        for row, atoms in enumerate(every):
            if hasattr(self._calculator, "reset"):  # what it keeps of the crystal before, such as its neighbours
                self._calculator.reset()
            atoms.calc = self._calculator
            sites = slice(crystals.site_ptr[row], crystals.site_ptr[row + 1])
            try:
                energy[row] = atoms.get_potential_energy()
                forces[sites] = atoms.get_forces()
                stress[row] = atoms.get_stress(voigt=False)
            except Exception as error:  # noqa: BLE001 -- calculators raise whatever they like
                energy[row], failed[row] = np.nan, f"{self.name}: {type(error).__name__}: {error}"[:300]
        return Evaluation(energy, forces, stress, failed)


def load(detail: str) -> AseCalculator:
    """Make a calculator without arguments; `detail` is `MODULE:CLASS`.

    Raises:
        ValueError: when there is no such module or class.
    """
    module, _, name = detail.partition(":")
    try:
        made = getattr(import_module(module), name)()
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        said = f"{type(error).__name__}: {error}"
        raise ValueError(f"ase:{detail} is no calculator ({said}); expected ase:MODULE:CLASS") from error
    every = frozenset(range(1, MAX_ATOMIC_NUMBER + 1))
    return AseCalculator(f"ase:{detail}", made, Scale(detail, "that of the calculator"), every, version_of(module))


@cache
def version_of(module: str) -> str:
    """The packages that hold a module and ASE, with their versions.

    A module that belongs to no package is known by the digest of its file.
    """
    top = module.partition(".")[0]
    packages = metadata.packages_distributions().get(top, [])
    found = [f"{package} {metadata.version(package)}" for package in sorted({*packages, "ase"})]
    file = None if packages else import_module(module).__file__
    return ", ".join(found if file is None else [*found, hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]])
