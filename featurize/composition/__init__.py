"""Composition features: what a formula says, as one row of numbers per crystal.

Enters: atoms of each element, from `Crystals.composition()` or from formulas, and a
`CompositionSpec`. Leaves: a table with named columns. This package does not know structures,
networks or files.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from assay.featurize.composition import shares
from assay.featurize.composition.blocks import BLOCKS
from assay.featurize.composition.spec import CompositionSpec

__all__ = ["CompositionSpec", "features", "names"]

_BASELINE = CompositionSpec()


def names(spec: CompositionSpec = _BASELINE) -> list[str]:
    """Names of the columns of `features`, in order; no two are equal."""
    return [name for block in spec.blocks for name in BLOCKS[block].names()]


def features(composition: NDArray[np.float64], spec: CompositionSpec = _BASELINE) -> NDArray[np.float32]:
    """(n, 119) atoms of each atomic number -> (n, q) features, which depend on their ratios only.

    Raises:
        ValueError: for an element the property table does not hold, or a row without atoms.
    """
    share = shares.of(composition)
    blocks = [BLOCKS[block].features(share) for block in spec.blocks]
    return np.hstack(blocks, dtype=np.float32)
