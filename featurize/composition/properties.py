"""Statistics of element properties over the atoms of a formula, compiled, with gaps left open.

Enters: the share of each element. Leaves: one row of numbers per crystal, those of
`assay.featurize.composition.statistics`, but NaN where an element of the formula has no value: a
model that reads them can say that the formula is unlike its training data. This module does not
know structures.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from assay.featurize import elements
from assay.featurize.composition import kernels
from assay.featurize.composition.statistics import NORMS, SHELLS

STATISTICS = ("mean", "deviation", "minimum", "maximum", "range", "mode")
"""Deviation is the mean absolute one; mode is the value of the most frequent element, of the
lightest where two are."""


def names() -> list[str]:
    """Names of the columns of `features`."""
    return [
        "elements",
        *(f"norm of order {order}" for order in NORMS),
        *(f"{statistic} of {name}" for name in elements.property_names() for statistic in STATISTICS),
        *(f"{shell[0]} among valence electrons" for shell in SHELLS),
        "ionic character of the mean bond",
        "ionic character of the most ionic bond",
    ]


def features(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 103) shares of the elements -> (n, q)."""
    found = np.empty((len(share), len(names())))
    kernels.fill_statistics(share, _table(), *_places(), np.array(NORMS), found)
    return found


@cache
def _table() -> NDArray[np.float64]:
    """(103, p) properties by atomic number less 1; NaN in gaps."""
    table = elements.properties()[1:].copy()
    for place, name in enumerate(elements.property_names()):
        if name in elements.sources():
            table[:, place] = elements.column(name)[1:]
    return table


@cache
def _places() -> tuple[int, NDArray[np.int64]]:
    """Columns of the electronegativity and of the electrons in each shell."""
    named = elements.property_names()
    return named.index("electronegativity"), np.array([named.index(shell) for shell in SHELLS])
