"""Honest intervals: normalised split conformal prediction on held-out crystals.

Enters: known values, ensemble means and deviations. Leaves: `Calibration`, stored in the checkpoint, never refitted at
prediction. Follows Angelopoulos and Bates, arXiv 2107.07511, section 2.3, with the ensemble deviation as heuristic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Calibration:
    """Half width of the interval: quantile * (std + floor)."""

    level: float
    """Nominal coverage, for example 0.9."""
    quantile: float
    """Dimensionless; infinite when the calibration set is too small for the level."""
    floor: float
    """In the property's unit; keeps the interval open where all members agree by chance."""
    n: int
    """Crystals it was fitted on."""

    def half_width(self, std: NDArray[Any]) -> NDArray[np.float64]:
        """(n,) half width of the interval in the property's unit."""
        return np.asarray(self.quantile * (std + self.floor), dtype=np.float64)


def fit(
    truth: NDArray[Any], mean: NDArray[Any], std: NDArray[Any], level: float, weight: NDArray[Any] | None = None
) -> Calibration:
    """Choose the quantile so that `level` of exchangeable new crystals fall inside; `weight` counts rows unequally."""
    floor = float(std.mean())
    score = np.abs(truth - mean) / (std + floor)
    order = np.argsort(score)
    w = np.ones(len(score)) if weight is None else np.asarray(weight, np.float64)
    # a new crystal of mean weight stands at infinity: with equal weights this is the rank ceil((n + 1) level)
    reached = np.cumsum(w[order]) / (w.sum() + w.mean())
    place = int(np.searchsorted(reached, level - 1e-12))
    quantile = float(score[order[place]]) if place < len(score) else float("inf")
    return Calibration(level, quantile, floor, len(score))
