"""Honest error bars: a scaled deviation and a conformal interval, fitted on held-out crystals.

Enters: known values, ensemble means and spreads. Leaves: `Calibration`, stored in the checkpoint,
never refitted at prediction. The interval follows Angelopoulos and Bates, arXiv 2107.07511, section
2.3, with the spread as heuristic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Calibration:
    """Two numbers that turn a spread into error bars.

    The standard deviation of the error is scale * (spread + floor); the half width of the interval
    is quantile * (spread + floor).
    """

    level: float
    """Nominal coverage, for example 0.9."""
    quantile: float
    """Dimensionless; infinite when the calibration set is too small for the level."""
    floor: float
    """In the property's unit; keeps the interval open where all members agree by chance."""
    n: int
    """Crystals it was fitted on."""
    scale: float | None = None
    """Dimensionless; None in ensembles calibrated before there was one: their standard deviation is
    the spread."""

    def half_width(self, spread: NDArray[Any]) -> NDArray[np.float64]:
        """(n,) half width of the interval in the property's unit."""
        return np.asarray(self.quantile * (spread + self.floor), dtype=np.float64)

    def deviation(self, spread: NDArray[Any]) -> NDArray[np.float64]:
        """(n,) standard deviation of the error, in the unit; without `scale`, the spread itself."""
        scaled = spread if self.scale is None else self.scale * (spread + self.floor)
        return np.asarray(scaled, dtype=np.float64)


def suffices(n: int, level: float) -> bool:
    """Whether `n` crystals give an interval at this level that is finite.

    >>> suffices(9, 0.9), suffices(8, 0.9)
    (True, False)
    """
    return n / (n + 1) >= level - 1e-12


def fit(
    truth: NDArray[Any], mean: NDArray[Any], spread: NDArray[Any], level: float, weight: NDArray[Any] | None = None
) -> Calibration:
    """Choose the quantile so that a share `level` of exchangeable new crystals falls inside.

    `weight` counts rows unequally.

    The scale is the root mean square of the errors in units of (spread + floor), with the same
    weights.

    Raises:
        ValueError: when a value or a prediction is not finite.
    """
    error = np.abs(truth - mean)
    if not (np.isfinite(error).all() and np.isfinite(spread).all()):
        raise ValueError(
            f"{int((~np.isfinite(error + spread)).sum())} of {len(error)} calibration rows lack a finite "
            "value or prediction; select the others"
        )
    floor = float(spread.mean()) or float(error.mean()) or 1.0  # where members never differ, errors give the measure
    score = error / (spread + floor)
    w = np.ones(len(score)) if weight is None else np.asarray(weight, np.float64)
    scale = float(np.sqrt(np.average(score**2, weights=w)))
    return Calibration(level, conformal(score, w, level), floor, len(score), scale)


def conformal(score: NDArray[Any], weight: NDArray[np.float64], level: float) -> float:
    """The score (n,) that a share `level` of exchangeable new rows does not exceed, else infinity.

    A new row of mean weight stands at infinity: with equal weights this is the rank ceil((n + 1)
    level).
    """
    order = np.argsort(score)
    reached = np.cumsum(weight[order]) / (weight.sum() + weight.mean())
    place = int(np.searchsorted(reached, level - 1e-12))
    return float(score[order[place]]) if place < len(score) else float("inf")
