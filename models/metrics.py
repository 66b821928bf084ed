"""Scores of predictions against known values.

Enters: arrays (n,). Leaves: numbers. This module does not know networks or data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def regression(truth: NDArray[Any], predicted: NDArray[Any], weight: NDArray[Any] | None = None) -> dict[str, float]:
    """MAE, RMSE (both in the property's unit) and R2, with optional row weights.

    >>> regression(np.array([0.0, 1.0]), np.array([0.0, 2.0]))
    {'mae': 0.5, 'rmse': 0.7071067811865476, 'r2': -1.0}
    """
    w = np.ones(len(truth)) if weight is None else np.asarray(weight, np.float64)
    w = w / w.sum()
    error = predicted - truth
    variance = float(w @ (truth - w @ truth) ** 2)
    mse = float(w @ error**2)
    return {"mae": float(w @ np.abs(error)), "rmse": mse**0.5, "r2": 1 - mse / variance if variance else float("nan")}


def coverage(truth: NDArray[Any], low: NDArray[Any], high: NDArray[Any], weight: NDArray[Any] | None = None) -> float:
    """Share of true values inside [low, high]."""
    return float(np.average((truth >= low) & (truth <= high), weights=weight))


def mae_difference(
    errors: tuple[NDArray[Any], NDArray[Any]], weight: NDArray[Any], groups: NDArray[Any], draws: int = 1000
) -> dict[str, float]:
    """MAE of the first minus MAE of the second set of errors, with a 95 % bootstrap interval over whole groups.

    Rows of one group stand or fall together, so groups and not rows are resampled. Negative: the first is better.
    """
    _, group = np.unique(groups, return_inverse=True)
    gain = np.bincount(group, weights=weight * (np.abs(errors[0]) - np.abs(errors[1])))
    size = np.bincount(group, weights=weight)
    times = np.random.default_rng(0).multinomial(len(size), np.full(len(size), 1 / len(size)), draws)
    low, high = np.quantile((times @ gain) / (times @ size), [0.025, 0.975])
    return {"difference": float(gain.sum() / size.sum()), "low": float(low), "high": float(high)}


def spearman(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Rank correlation; tied values share their mean rank."""
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts - 1) / 2
    return np.asarray(middle[inverse], dtype=np.float64)
