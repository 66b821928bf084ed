"""How many atoms of each element there are per transition-metal atom, as chemists write formulas.

Enters: the share of each element. Leaves: one column per element: O is 4 in La2CuO4 and in
La1.85Sr0.15CuO4, and As is 1 in BaFe2As2 and in LaFeAsO. Shares move with everything that is added
to a formula, these numbers do not. This module does not know properties of elements.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from assay.featurize import elements
from assay.featurize.composition.families import METALS_3D, METALS_4D, METALS_5D, members
from assay.sources.elements import SYMBOLS

MOST = 12.0
"""Larger amounts are given as this one."""


def names() -> list[str]:
    """Names of the columns of `features`."""
    return [f"{symbol} per transition metal" for symbol in SYMBOLS[1 : elements.HEAVIEST + 1]]


def features(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 103) shares of the elements -> (n, 103) amounts, 0 without transition metals."""
    metals = np.array(members(f"{METALS_3D} {METALS_4D} {METALS_5D}")) - 1
    count = share[:, metals].sum(axis=1, keepdims=True)
    found = np.divide(share, count, out=np.zeros_like(share), where=count > 0)
    return np.asarray(np.minimum(found, MOST), np.float64)
