"""Composition features for baselines: statistics of element properties, blind to structure.

Enters: `Crystals.composition()`. Leaves: one row of numbers per crystal. Follows the recipe of Ward et al., npj Comput.
Mater. 2, 16028 (2016) ("Magpie"): stoichiometry norms, and six statistics of every element property.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featurize import elements

NORMS = (2, 3, 5, 7, 10)
"""Orders of the stoichiometry norms."""


def names() -> list[str]:
    """Column names of `features`."""
    statistics = ("mean", "deviation", "minimum", "maximum", "range", "mode")
    of_elements = [f"{statistic} {name}" for statistic in statistics for name in elements.property_names()]
    return ["number of elements", *(f"{p}-norm" for p in NORMS), *of_elements]


def features(composition: NDArray[np.float64]) -> NDArray[np.float32]:
    """(n, 119) atoms of each atomic number -> (n, q) features.

    Raises:
        ValueError: for an element the property table does not hold.
    """
    if composition[:, elements.HEAVIEST + 1 :].any():
        raise ValueError(f"no properties for elements beyond atomic number {elements.HEAVIEST}")
    share = composition[:, 1 : elements.HEAVIEST + 1]
    share = share / share.sum(axis=1, keepdims=True)
    table = elements.properties()[1:]
    present = share > 0
    mean = share @ table
    deviation, low, high = np.empty_like(mean), np.empty_like(mean), np.empty_like(mean)
    for p, column in enumerate(table.T):  # over properties, not crystals: keeps the (n, elements, p) cube out of memory
        deviation[:, p] = (share * np.abs(column - mean[:, p : p + 1])).sum(axis=1)
        low[:, p] = np.where(present, column, np.inf).min(axis=1)
        high[:, p] = np.where(present, column, -np.inf).max(axis=1)
    mode = table[share.argmax(axis=1)]
    norms = [(share**p).sum(axis=1) ** (1 / p) for p in NORMS]
    blocks = [present.sum(axis=1), *norms, mean, deviation, low, high, high - low, mode]
    return np.column_stack(blocks).astype(np.float32)
