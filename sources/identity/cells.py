"""Crystals as the symmetry search reads them: one at a time, with a number per kind of site.

Enters: `Crystals`. Leaves: one `Cell` per crystal. This module does not compare crystals.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from assay.sources import symmetry
from assay.sources.crystals import Crystals
from assay.sources.occupants import occupants, shares

if TYPE_CHECKING:
    from assay.sources.symmetry import MoyoDataset

COARSE, FINE = 0.1, 0.01
"""Å, tolerances of the symmetry search."""


@dataclass(frozen=True)
class Cell:
    """One crystal as lists, as the symmetry search reads it, with a number per kind of site."""

    basis: list[list[float]]
    positions: list[list[float]]
    kinds: list[str]
    """Distinct site compositions in order: an element, or a text such as `La0.92Sr0.08`."""
    numbers: list[int]
    """One per site: 1 + position in `kinds`."""
    shares: NDArray[np.float64]
    """(m,) occupancies behind `kinds`, see `assay.sources.occupants.shares`."""

    def dataset(self, symprec: float) -> MoyoDataset | None:
        """The symmetry found by moyo at this tolerance (Å); None where it fails."""
        return symmetry.dataset(self.basis, self.positions, self.numbers, symprec)


def cells(crystals: Crystals) -> Iterator[Cell]:
    """Yield one cell per crystal, in order."""
    texts = occupants(crystals)
    lattice, frac, ends = crystals.lattice.tolist(), crystals.frac.tolist(), crystals.site_ptr.tolist()
    for start, stop, basis, share in zip(ends[:-1], ends[1:], lattice, shares(crystals, texts)):
        kinds = sorted(set(texts[start:stop]))
        number = {kind: position for position, kind in enumerate(kinds, 1)}
        yield Cell(basis, frac[start:stop], kinds, [number[text] for text in texts[start:stop]], share)
