"""Statistics of element properties over the atoms of a formula, without gaps: those of baselines.

Enters: the share of each element. Leaves: one row of numbers per crystal. Follows the recipe of
Ward et al., npj Comput. Mater. 2, 16028 (2016) ("Magpie"): stoichiometry norms, six statistics of
every element property, shares of the valence orbitals, ionic character. Magpie's band gap, magnetic
moment and space group of the pure elements are not among them. A property nobody has measured is
taken from the nearest element (`assay.featurize.elements.properties`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from assay.featurize import elements

NORMS = (2, 3, 5, 7, 10)
"""Orders of the stoichiometry norms."""

SHELLS = ("s_electrons", "p_electrons", "d_electrons", "f_electrons")
"""Properties that count the valence electrons in each shell."""


def names() -> list[str]:
    """Column names of `features`."""
    statistics = ("mean", "deviation", "minimum", "maximum", "range", "mode")
    of_elements = [f"{statistic} {name}" for statistic in statistics for name in elements.property_names()]
    orbitals = [f"share of valence {shell[0]}" for shell in SHELLS]
    norms = [f"{p}-norm" for p in NORMS]
    return [
        "number of elements",
        *norms,
        *of_elements,
        *orbitals,
        "mean ionic character",
        "largest ionic character",
    ]


def features(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 103) shares of the elements -> (n, q) features."""
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
    named = elements.property_names()
    valence = mean[:, [named.index(shell) for shell in SHELLS]]
    valence = valence / valence.sum(axis=1, keepdims=True)
    affinity = named.index("electronegativity")
    ionic = _ionic_character(table[:, affinity, None] - table[:, affinity])
    largest = _ionic_character(high[:, affinity] - low[:, affinity])
    between = np.einsum("ni,ij,nj->n", share, ionic, share, optimize=True)
    blocks = [present.sum(axis=1), *norms, mean, deviation, low, high, high - low, mode, valence, between, largest]
    return np.column_stack(blocks)


def _ionic_character(difference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ionic share of a bond, 0 to 1, from the difference of electronegativities (Pauling, 1932)."""
    return np.asarray(1 - np.exp(-(difference**2) / 4), dtype=np.float64)
