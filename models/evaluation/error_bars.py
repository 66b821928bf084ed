"""How honest error bars are: likelihood, sharpness and calibration of Gaussian predictions.

Enters: known values, means and standard deviations (n,), row weights. Leaves: numbers and curves.
The definitions are those of the uncertainty toolbox (Chung et al., arXiv 2109.10254). This module
does not know ensembles.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LEVELS = 100
_BINS = 10
_STANDARD = NormalDist()


def scores(
    truth: NDArray[Any], mean: NDArray[Any], std: NDArray[Any], weight: NDArray[Any] | None = None
) -> dict[str, float]:
    """NLL, CRPS, ENCE, miscalibration area and RMS of the z score.

    Lower is better, except for the z score, whose RMS should be 1.

    Raises:
        ValueError: for a standard deviation that is not above 0.
    """
    if not np.all(std > 0):
        raise ValueError(f"the smallest standard deviation is {np.min(std)}, expected above 0")
    expected, observed = calibration_curve(truth, mean, std, weight)
    return {
        "nll": nll(truth, mean, std, weight),
        "crps": crps(truth, mean, std, weight),
        "ence": ence(truth, mean, std, weight),
        "miscalibration_area": miscalibration_area(expected, observed),
        "z_rms": float(np.sqrt(np.average(((truth - mean) / std) ** 2, weights=weight))),
    }


def nll(truth: NDArray[Any], mean: NDArray[Any], std: NDArray[Any], weight: NDArray[Any] | None = None) -> float:
    """Mean negative log-likelihood of Gaussians, in nats per row; depends on the unit."""
    rows = 0.5 * np.log(2 * np.pi * std**2) + 0.5 * ((truth - mean) / std) ** 2
    return float(np.average(rows, weights=weight))


def crps(truth: NDArray[Any], mean: NDArray[Any], std: NDArray[Any], weight: NDArray[Any] | None = None) -> float:
    """Mean continuous ranked probability score of Gaussians, in the unit of the property.

    Gneiting and Raftery, J. Am. Stat. Assoc. 102, 359 (2007).

    A generalised MAE: for a standard deviation that goes to zero it becomes the MAE.
    """
    z = (truth - mean) / std
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    rows = std * (z * (2 * _normal_cdf(z) - 1) + 2 * density - 1 / math.sqrt(math.pi))
    return float(np.average(rows, weights=weight))


def ence(
    truth: NDArray[Any], mean: NDArray[Any], std: NDArray[Any], weight: NDArray[Any] | None = None, bins: int = _BINS
) -> float:
    """Expected normalised calibration error (Levi et al., Sensors 22, 5540, 2022), dimensionless.

    Rows are sorted by deviation into bins of equal weight; in each, the RMS deviation should be the
    RMS error.
    """
    w = np.ones(len(truth)) if weight is None else np.asarray(weight, np.float64)
    order = np.argsort(std, kind="stable")
    reached = np.cumsum(w[order]) - w[order] / 2
    place = np.empty(len(order), np.int64)
    place[order] = np.minimum((reached / w.sum() * bins).astype(np.int64), bins - 1)
    mass = np.bincount(place, weights=w, minlength=bins)
    filled = mass > 0
    claimed = np.sqrt(np.bincount(place, weights=w * std**2, minlength=bins)[filled] / mass[filled])
    found = np.sqrt(np.bincount(place, weights=w * (truth - mean) ** 2, minlength=bins)[filled] / mass[filled])
    return float(np.mean(np.abs(claimed - found) / claimed))


def calibration_curve(
    truth: NDArray[Any], mean: NDArray[Any], std: NDArray[Any], weight: NDArray[Any] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(100,) nominal and (100,) observed shares, 0 to 1, of rows in central Gaussian intervals."""
    w = np.ones(len(truth)) if weight is None else np.asarray(weight, np.float64)
    expected = np.linspace(0, 1, _LEVELS)
    half = np.array([0.0, *(_STANDARD.inv_cdf(0.5 + p / 2) for p in expected[1:-1]), np.inf])
    z = np.abs(truth - mean) / std
    order = np.argsort(z)
    reached = np.concatenate([[0.0], np.cumsum(w[order])]) / w.sum()
    return expected, reached[np.searchsorted(z[order], half, side="right")]


def miscalibration_area(expected: NDArray[np.float64], observed: NDArray[np.float64]) -> float:
    """Area between the calibration curve and the diagonal: 0 is perfect, 0.5 the worst."""
    gap = observed - expected
    left, right, width = gap[:-1], gap[1:], np.diff(expected)
    size = np.abs(left) + np.abs(right)
    crossed = (left**2 + right**2) / np.where(size > 0, size, 1)  # two triangles that meet on the diagonal
    return float(np.sum(width / 2 * np.where(left * right < 0, crossed, size)))


def gaussian_deviation(half_width: NDArray[Any], level: float) -> NDArray[np.float64]:
    """(n,) deviation of the Gaussian whose central interval at `level` has this half width."""
    return np.asarray(half_width / _STANDARD.inv_cdf(0.5 + level / 2), dtype=np.float64)


def _normal_cdf(z: NDArray[Any]) -> NDArray[np.float64]:
    error_function = np.fromiter(map(math.erf, (z / math.sqrt(2)).tolist()), np.float64, len(z))
    return 0.5 * (1 + error_function)
