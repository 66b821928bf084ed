"""The pool of a rehearsal: formulas whose value is known and is hidden until they are measured.

Enters: the name of a training set. Leaves: a `Pool` with one row per formula, so that no measured
row tells the value of its own copy. It does not know surrogates or strategies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.sources import datasets

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pool:
    """`n` formulas, in the order of their names."""

    formulas: list[str]
    """Reduced, each once."""
    atoms: Floats
    """(n, 119) atoms of each atomic number."""
    value: Floats
    """(n,) in `unit`, the weighted mean over the crystals of a formula."""
    unit: str
    crystals: int
    """Rows of the training set behind them."""
    sha256: str
    """Of its file."""

    def __len__(self) -> int:
        return len(self.formulas)


def load(name: str, limit: int | None = None) -> Pool:
    """The formulas of a training set, or of its first `limit` rows.

    Raises:
        FileNotFoundError: when the data are not there.
        ValueError: for an unknown name.
    """
    found = datasets.load(name, limit)
    atoms = found.crystals.composition()
    rows = np.flatnonzero(atoms.any(axis=1))
    names, first, inverse = np.unique(found.keys["formula"][rows], return_index=True, return_inverse=True)
    weight = found.weight[rows]
    value = np.bincount(inverse, weight * found.target[rows]) / np.bincount(inverse, weight)
    return Pool(names.tolist(), atoms[rows[first]], value, found.spec.unit, len(rows), found.sha256)
