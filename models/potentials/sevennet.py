"""SevenNet (Park and others, J. Chem. Theory Comput. 20, 4857, 2024), from the wheel of sevenn.

Enters: `Crystals`. Leaves: an `Evaluation`. Its energies are totals of PBE(+U) without corrections,
so they are not comparable with CHGNet's. This module is the door to sevenn.
"""

from __future__ import annotations

import warnings
from typing import Any

from assay.models.potentials.calculator import AseCalculator, version_of
from assay.models.potentials.potential import Scale

MODELS = ("7net-0", "7net-l3i5")
"""Weights that the wheel holds: the smaller, and the more accurate at three times the cost."""


def load(detail: str) -> AseCalculator:
    """Load weights by their name, the first of `MODELS` where `detail` is empty.

    Raises:
        ValueError: for another name.
        ImportError: when sevenn is not installed.
    """
    name = detail or MODELS[0]
    if name not in MODELS:
        raise ValueError(f"sevennet:{name} is not known, expected one of {', '.join(MODELS)}")
    calculator = _calculator(name)
    elements = frozenset(int(number) for number in calculator.type_map)
    return AseCalculator(f"sevennet:{name}", calculator, Scale("PBE(+U)", "totals"), elements, version_of("sevenn"))


def _calculator(name: str) -> Any:
    try:
        from sevenn.calculator import SevenNetCalculator
    except ImportError as error:
        raise ImportError(f"sevenn cannot be imported ({error}); pip install 'assay[sevennet]'") from error
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No tensor product accelerator")  # they need a GPU
        return SevenNetCalculator(model=name, device="cpu")
