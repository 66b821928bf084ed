"""CHGNet 0.3.0 (Deng and others, Nature Machine Intelligence 5, 1031, 2023), from its own wheel.

Enters: `Crystals`. Leaves: an `Evaluation`. Its energies are totals with the MP2020 corrections of
the Materials Project; compare them with nothing else. It learned 89 elements, and answers for Po,
At, Rn, Fr and Ra with the numbers it was initialised with, so they are not among its elements here.
This module is the door to chgnet.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.models.potentials.potential import GPA, Evaluation, Scale
from assay.sources.formats.convert import to_pymatgen

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals

_LEARNED = frozenset(range(1, 95)) - {84, 85, 86, 87, 88}
_AT_ONCE = 16
"""Crystals in one batch of chgnet."""


class Chgnet:
    """The published model of version 0.3.0."""

    name = "chgnet"
    scale = Scale("PBE(+U)", "totals with MP2020 corrections")
    elements = _LEARNED

    def __init__(self) -> None:
        """Load the weights that chgnet brings.

        Raises:
            ImportError: when chgnet is not installed.
        """
        self._model = _model()
        self.version = f"chgnet {metadata.version('chgnet')}"

    def evaluate(self, crystals: Crystals) -> Evaluation:
        """Evaluate crystals, `_AT_ONCE` at a time, on the CPU, in single precision."""
        energy, stress = np.full(len(crystals), np.nan), np.full((len(crystals), 3, 3), np.nan)
        forces, failed = np.full((len(crystals.frac), 3), np.nan), {}
        for row, values in enumerate(self._predicted(crystals)):
            if isinstance(values, str):
                failed[row] = values
                continue
            energy[row] = float(values["e"]) * crystals.nsites[row]
            forces[crystals.site_ptr[row] : crystals.site_ptr[row + 1]] = values["f"]
            stress[row] = (values["s"] + values["s"].T) / (2 * GPA)
        return Evaluation(energy, forces, stress, failed)

    def _predicted(self, crystals: Crystals) -> list[Any]:
        """What chgnet says of each crystal; the error where it cannot take one."""
        try:
            with warnings.catch_warnings():  # of torch, about how chgnet 0.4.2 takes volumes
                warnings.filterwarnings("ignore", message="Converting a tensor with requires_grad")
                found = self._model.predict_structure(to_pymatgen(crystals), task="efs", batch_size=_AT_ONCE)
        except Exception as error:  # noqa: BLE001 -- one crystal must not cost the others
            if len(crystals) == 1:
                return [f"chgnet: {type(error).__name__}: {error}"[:300]]
            return [values for row in range(len(crystals)) for values in self._predicted(crystals.select([row]))]
        return found if isinstance(found, list) else [found]


def load(detail: str) -> Chgnet:
    """The model; `detail` must be empty.

    Raises:
        ValueError: when it is not.
        ImportError: when chgnet is not installed.
    """
    if detail:
        raise ValueError(f"chgnet:{detail} is not known; the one model is called chgnet")
    return Chgnet()


def _model() -> Any:
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # it prints its size
            from chgnet import model

            made: Any = model
            return made.CHGNet.load(model_name="0.3.0", use_device="cpu", verbose=False)
    except ImportError as error:
        raise ImportError(f"chgnet cannot be imported ({error}); pip install 'assay[potentials]'") from error
