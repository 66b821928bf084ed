"""The one door to moyo: the space group of a cell, and what follows from it.

Enters: a cell, and a number for the kind of each site. Leaves: the symmetry that moyo finds. This
module does not know species, files or graphs.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib import metadata
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from moyopy import (
        Cell as Cell,  # noqa: PLC0414 (handed on)
        MoyoDataset as MoyoDataset,  # noqa: PLC0414
    )

log = logging.getLogger(__name__)


def stamp() -> str:
    """Name and version of the library that decides.

    Raises:
        ValueError: when the library is missing.
    """
    try:
        return f"moyopy {metadata.version('moyopy')}"
    except metadata.PackageNotFoundError:
        raise ValueError("the symmetry of a crystal is found by moyopy: pip install moyopy") from None


@cache
def _moyopy() -> ModuleType:
    """The library, imported on first use."""
    import moyopy

    logging.getLogger("moyo").setLevel(logging.CRITICAL)  # it warns about every supercell
    return moyopy


def dataset(
    basis: list[list[float]], positions: list[list[float]], numbers: list[int], symprec: float
) -> MoyoDataset | None:
    """Find the symmetry of a cell at a tolerance in Å; None where moyo fails.

    `basis` is 3 x 3 in Å, `positions` are fractional.
    """
    moyopy = _moyopy()
    try:
        found: MoyoDataset = moyopy.MoyoDataset(moyopy.Cell(basis, positions, numbers), symprec=symprec)
    except ValueError as error:
        reason = str(error)
    except BaseException as error:  # a panic in moyo's Rust; its class is no Exception and cannot be imported
        if type(error).__name__ != "PanicException":
            raise
        reason = str(error)
    else:
        return found
    log.info("no symmetry at %s Å for a cell of %d sites: %s", symprec, len(numbers), reason)
    return None


def niggli(basis: list[list[float]]) -> NDArray[np.float64]:
    """(3, 3) the Niggli-reduced cell of a lattice, in the unit of `basis`."""
    return np.array(_moyopy().niggli_reduce(basis)[0], np.float64)
