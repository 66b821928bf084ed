"""Shares of groups of elements that chance chose, each less the share of another group.

Enters: the share of each element. Leaves: one column per pair of groups. A tree divides one column
at a time; columns that mix elements let it divide along other directions too, so that trees differ
more and their errors average out (forests of random combinations: Breiman, Machine Learning 45, 5,
2001, section 5; sparse ones: Tomita et al., JMLR 21, 104, 2020). This module does not know
properties of elements.
"""

from __future__ import annotations

import zlib
from functools import cache

import numpy as np
from numpy.typing import NDArray

from assay.featurize import elements
from assay.featurize.composition import kernels
from assay.sources.elements import SYMBOLS

COLUMNS = 120
ONE_IN = 9
"""An element is in the first group of a column with this chance, and in the second likewise."""


def names() -> list[str]:
    """Names of the columns of `features`."""
    return [f"random combination {column}" for column in range(COLUMNS)]


def features(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 103) shares of the elements -> (n, 120) differences, -1 to 1."""
    found = np.zeros((len(share), COLUMNS))
    kernels.fill_projections(share, signs(), found)
    return found


@cache
def signs() -> NDArray[np.float64]:
    """(103, 120) of each element in each column: 1, -1 or 0, from a checksum of both names.

    A checksum and not a random generator: its numbers never change.
    """
    drawn = [
        [zlib.crc32(f"{column} {symbol}".encode()) % ONE_IN for column in range(COLUMNS)]
        for symbol in SYMBOLS[1 : elements.HEAVIEST + 1]
    ]
    found = np.array(drawn)
    return np.where(found == 0, 1.0, np.where(found == 1, -1.0, 0.0))
