"""Scores of predictions, with intervals and a paired test that respect groups of rows.

Enters: arrays (n,), row weights. Leaves: numbers. Error bars are judged in
`assay.models.evaluation.error_bars`, ranked lists in `assay.models.evaluation.retrieval`. This
module does not know networks or data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FLIPS_AT_ONCE = 500
_QUANTILE_RANGES = 5


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


def msle(truth: NDArray[Any], predicted: NDArray[Any], weight: NDArray[Any] | None = None) -> float:
    """Mean squared difference of log(1 + value); for properties that are never negative.

    Raises:
        ValueError: for a negative value, known or predicted.
    """
    lowest = min(float(np.min(truth)), float(np.min(predicted)))
    if lowest < 0:
        raise ValueError(f"the lowest value is {lowest}; a logarithmic error needs values of at least 0")
    return float(np.average((np.log1p(predicted) - np.log1p(truth)) ** 2, weights=weight))


def coverage(truth: NDArray[Any], low: NDArray[Any], high: NDArray[Any], weight: NDArray[Any] | None = None) -> float:
    """Share of true values inside [low, high]."""
    return float(np.average((truth >= low) & (truth <= high), weights=weight))


def spearman(a: NDArray[Any], b: NDArray[Any], weight: NDArray[Any] | None = None) -> float:
    """Rank correlation; tied values share their mean rank. NaN where one side is constant.

    Weights count rows unequally in the ranks and in the correlation: weight 2 is the same as the
    row twice.
    """
    w = np.ones(len(a)) if weight is None else np.asarray(weight, np.float64)
    x, y = _ranks(a, w), _ranks(b, w)
    x, y = x - np.average(x, weights=w), y - np.average(y, weights=w)
    scale = float(np.sqrt((w @ x**2) * (w @ y**2)))
    return float(w @ (x * y)) / scale if scale > 0 else float("nan")


def _ranks(values: NDArray[Any], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse = np.unique(values, return_inverse=True)
    mass = np.bincount(inverse, weights=weight)
    middle = np.cumsum(mass) - mass / 2
    return np.asarray(middle[inverse], dtype=np.float64)


def ranges(truth: NDArray[Any], edges: Sequence[float] | None = None) -> list[tuple[str, NDArray[np.bool_]]]:
    """Ranges of the true value that hold rows: (name, (n,) mask) each.

    A value on an edge belongs to the lower range.

    Without edges: fifths of the rows, fewer where many rows share a value.

    >>> [name for name, _ in ranges(np.array([0.0, 3.0, 90.0]), (0, 5, 20, 77))]
    ['0', 'above 0 to 5', 'above 77']
    """
    if edges is None:
        inner = np.unique(np.quantile(truth, np.arange(1, _QUANTILE_RANGES) / _QUANTILE_RANGES))
        edges = [float(edge) for edge in inner]
    place = np.searchsorted(np.asarray(edges, np.float64), truth, side="left")
    first = f"{edges[0]:.3g}" if np.all(truth >= edges[0]) else f"up to {edges[0]:.3g}"
    between = [f"above {low:.3g} to {high:.3g}" for low, high in pairwise(edges)]
    names = [first, *between, f"above {edges[-1]:.3g}"]
    return [(name, place == k) for k, name in enumerate(names) if np.any(place == k)]


def intervals(
    truth: NDArray[Any], predicted: NDArray[Any], weight: NDArray[Any], groups: NDArray[Any], draws: int = 2000
) -> dict[str, tuple[float, float]]:
    """95 % bootstrap intervals of MAE, RMSE and R2 over whole groups, whose rows err together."""
    error = predicted - truth
    centred = truth - np.average(truth, weights=weight)  # the sums below must not cancel
    columns = weight * np.stack([np.ones(len(truth)), np.abs(error), error**2, centred, centred**2])

    def scores(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        total, absolute, squared, first, second = sums.T
        spread = second - first**2 / total
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.stack([absolute / total, np.sqrt(squared / total), 1 - squared / spread], axis=1)

    low, high = bootstrap(columns.T, groups, scores, draws)
    return {name: (float(low[k]), float(high[k])) for k, name in enumerate(("mae", "rmse", "r2"))}


def bootstrap(
    columns: NDArray[np.float64],
    groups: NDArray[Any],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    draws: int = 2000,
) -> NDArray[np.float64]:
    """(2, ...) ends of the 95 % interval of a statistic of column sums; groups are resampled.

    `columns` is (n, c); `statistic` maps (draws, c) sums of the resampled rows to (draws, ...)
    values.
    """
    _, group = np.unique(groups, return_inverse=True)
    sums = np.stack([np.bincount(group, weights=column) for column in columns.T], axis=1)
    times = np.random.default_rng(0).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), draws)
    drawn = statistic(np.asarray(times @ sums, np.float64))
    return np.asarray(np.nanquantile(drawn, [0.025, 0.975], axis=0), dtype=np.float64)


def mae_difference(
    errors: tuple[NDArray[Any], NDArray[Any]], weight: NDArray[Any], groups: NDArray[Any], draws: int = 1000
) -> dict[str, float]:
    """MAE of the first minus MAE of the second errors, with a 95 % bootstrap interval over groups.

    Rows of one group stand or fall together, so groups and not rows are resampled. Negative: the
    first is better.
    """
    gain = weight * (np.abs(errors[0]) - np.abs(errors[1]))
    columns = np.stack([gain, weight], axis=1)
    low, high = bootstrap(columns, groups, lambda sums: sums[:, 0] / sums[:, 1], draws)
    return {"difference": float(gain.sum() / weight.sum()), "low": float(low), "high": float(high)}


def sign_flip(
    errors: tuple[NDArray[Any], NDArray[Any]], weight: NDArray[Any], groups: NDArray[Any], draws: int = 10_000
) -> float:
    """Two-sided p-value of "both are equally good", by flipping signs of whole groups.

    Under that hypothesis the two models may be exchanged within any group, so the sign of each
    group's difference is flipped at random. The p-value is at least 1 / (draws + 1) (Phipson and
    Smyth, 2010).
    """
    _, group = np.unique(groups, return_inverse=True)
    gain = np.bincount(group, weights=weight * (np.abs(errors[0]) - np.abs(errors[1])))
    seen = abs(gain.sum()) * (1 - 1e-12)
    rng, reached = np.random.default_rng(0), 0
    for start in range(0, draws, _FLIPS_AT_ONCE):
        signs = rng.integers(0, 2, (min(_FLIPS_AT_ONCE, draws - start), len(gain))) * 2.0 - 1
        reached += int(np.sum(np.abs(signs @ gain) >= seen))
    return (reached + 1) / (draws + 1)
