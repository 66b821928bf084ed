"""Compositions without a structure as a batch for models that read the composition alone.

Enters: amounts of the elements. Leaves: `Crystals` whose composition is these amounts. Their cells
and places mean nothing: no model that reads them may see the batch, and no user gets it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.sources.crystals import Crystals

MOST = 400
"""Atoms of a formula that stands in the batch as it is written; a larger one is scaled down."""
LEAST = 1e-5
"""Atoms per formula below which an amount is lost in an occupancy."""


def scaled(amounts: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 119) the amounts in formulas of at most `MOST` atoms."""
    atoms = amounts.sum(axis=1, keepdims=True)
    return np.where(atoms > MOST, amounts * (MOST / np.maximum(atoms, 1)), amounts)


def place(ids: NDArray[Any], amounts: NDArray[np.float64], columns: Mapping[str, NDArray[Any]]) -> Crystals:
    """A batch with these compositions (n, 119): a site for each whole atom, one for what is left.

    Each row holds at most `MOST` atoms and no amount between 0 and `LEAST`.
    """
    row, number = np.nonzero(amounts)
    atoms = amounts[row, number]
    whole = np.floor(atoms + LEAST / 2).astype(np.int64)
    rest = np.where(atoms - whole >= LEAST / 2, atoms - whole, 0.0)
    sites = whole + (rest > 0)
    owner = np.repeat(np.arange(len(row)), sites)
    last = np.cumsum(sites) - 1
    occupancy = np.ones(len(owner))
    occupancy[last[rest > 0]] = rest[rest > 0]
    per_row = np.bincount(row[owner], minlength=len(ids))
    pointer = np.concatenate([[0], np.cumsum(per_row)])
    return Crystals(
        ids=ids,
        lattice=np.broadcast_to(10 * np.eye(3), (len(ids), 3, 3)),
        site_ptr=pointer,
        frac=np.zeros((len(owner), 3)),
        species_ptr=np.arange(len(owner) + 1),
        numbers=number[owner].astype(np.uint8),
        occupancy=occupancy.astype(np.float32),
        columns=columns,
    )
