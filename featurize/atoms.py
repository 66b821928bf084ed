"""Node features: what a site holds, weighted by occupancy.

Enters: the species on each site. Leaves: one row of numbers per site.
This module does not know neighbours or networks.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from assay.featurize import elements


@cache
def _properties() -> NDArray[np.float32]:
    return elements.standardised()


@cache
def _properties_and_identity() -> NDArray[np.float32]:
    identity = np.eye(elements.HEAVIEST + 1, dtype=np.float32)[:, 1:]
    return np.hstack([elements.standardised(), identity])


TABLES: dict[str, Callable[[], NDArray[np.float32]]] = {
    "properties-v1": _properties,
    "properties-identity-v1": _properties_and_identity,
}
"""Element tables (104, p) by the name a `GraphSpec` gives them. A table never changes: a new one
gets a new name."""


def width(name: str) -> int:
    """Number of features per site: the table's columns and the total occupancy."""
    return int(TABLES[name]().shape[1]) + 1


def features(
    name: str, species_ptr: NDArray[np.int64], numbers: NDArray[np.uint8], occupancy: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(N, width) occupancy-weighted mean of the element rows on each site, then its occupancy.

    A vacancy is visible only through the last column: the mean alone would forget it. Occupancies
    are rounded to 5 decimals first, because float32 sums of fractions read 1.0000001.

    Raises:
        ValueError: for an element the table does not hold.
    """
    elements.check(numbers)
    table = TABLES[name]()
    share = np.round(occupancy.astype(np.float64), 5).astype(np.float32)
    if len(numbers) == len(species_ptr) - 1:  # one species per site: nothing to average
        return np.hstack([table[numbers], share[:, None]])
    total = np.add.reduceat(share, species_ptr[:-1])
    mean = np.add.reduceat(table[numbers] * share[:, None], species_ptr[:-1], axis=0) / total[:, None]
    return np.hstack([mean, total[:, None]])
