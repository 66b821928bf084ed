"""Assay screens crystalline materials: see `docs/python.md`.

The functions below are imported from `assay.screening.python` on first use, so that `import assay`
is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from assay.screening.python import (
        Crystals,
        Ensemble,
        Predictions,
        Relaxations,
        Results,
        calculator,
        from_ase,
        from_pymatgen,
        load,
        open,  # noqa: A004 (as gzip.open: the word that users look for)
        predict,
        predict_formulas,
        read,
        relax,
        screen,
        to_ase,
        to_pymatgen,
        torchsim_model,
    )

__all__ = [
    "Crystals",
    "Ensemble",
    "Predictions",
    "Relaxations",
    "Results",
    "calculator",
    "from_ase",
    "from_pymatgen",
    "load",
    "open",
    "predict",
    "predict_formulas",
    "read",
    "relax",
    "screen",
    "to_ase",
    "to_pymatgen",
    "torchsim_model",
]


def __getattr__(name: str) -> Any:
    """A name of the Python API, imported now."""
    if name not in __all__:
        raise AttributeError(f"module 'assay' has no attribute {name!r}")
    return getattr(import_module("assay.screening.python"), name)


def __dir__() -> list[str]:
    """The names of the Python API."""
    return [*__all__, "__file__", "__path__"]
