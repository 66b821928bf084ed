"""Clusters of rows that pairs join.

Enters: pairs of rows. Leaves: the cluster of each row. This module does not know crystals.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def clusters(n: int, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) cluster of each row, numbered by its smallest row, after joining all pairs (m, 2).

    Raises:
        ValueError: when a pair names a row outside 0 to n - 1.
    """
    pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
    if len(pairs) and not (pairs.min() >= 0 and pairs.max() < n):
        raise ValueError(f"pairs name rows {pairs.min()} to {pairs.max()}, expected 0 to {n - 1}")
    parent = list(range(n))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    for one, other in pairs.tolist():
        a, b = root(one), root(other)
        parent[max(a, b)] = min(a, b)
    return np.array([root(row) for row in range(n)], dtype=np.int64)
