"""Blocks of composition features by name.

Enters: nothing. Leaves: for each name its columns and the function that fills them. This module
does not know which blocks a model reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.featurize.composition import amounts, charges, families, projections, properties, ratios, shares, statistics


@dataclass(frozen=True)
class Block:
    """Columns that are computed together."""

    names: Callable[[], list[str]]
    """Names of the columns."""
    features: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    """(n, 103) shares of the elements -> (n, columns)."""


BLOCKS: dict[str, Block] = {
    "statistics": Block(statistics.names, statistics.features),
    "shares": Block(shares.names, shares.features),
    "properties": Block(properties.names, properties.features),
    "families": Block(families.names, families.features),
    "charges": Block(charges.names, charges.features),
    "ratios": Block(ratios.names, ratios.features),
    "amounts": Block(amounts.names, amounts.features),
    "projections": Block(projections.names, projections.features),
}
"""A block never changes: a new one gets a new name."""
