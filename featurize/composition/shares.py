"""The share of every element among the atoms.

Enters: atoms of each element. Leaves: one column per element of the property table. This module
does not know properties of elements.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from assay.featurize import elements
from assay.sources.elements import SYMBOLS


def names() -> list[str]:
    """Names of the columns of `features`."""
    return [f"share of {symbol}" for symbol in SYMBOLS[1 : elements.HEAVIEST + 1]]


def features(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 103) shares of the elements -> the same."""
    return share


def of(composition: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 119) atoms of each atomic number -> (n, 103) shares, which sum to 1.

    Raises:
        ValueError: for an element the property table does not hold, or a row without atoms.
    """
    elements.check(np.flatnonzero(composition.any(axis=0)))
    atoms = composition[:, 1 : elements.HEAVIEST + 1]
    total = atoms.sum(axis=1, keepdims=True)
    if not (total > 0).all():
        raise ValueError(f"row {int(np.flatnonzero(~(total[:, 0] > 0))[0])} of the compositions holds no atoms")
    return np.asarray(atoms / total, np.float64)
