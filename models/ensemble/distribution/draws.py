"""Functions of draws: means without the extremes, quantiles, probabilities.

Enters: draws (n, T), one value per crystal and tree, in the unit of the property and ascending in
each row. Leaves: numbers (n,). Every row counts by itself: its last bits do not depend on the
others. This module does not know trees, properties or calibration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def ascending(values: NDArray[Any]) -> Floats:
    """The values (n, T) of each row from the smallest to the largest."""
    return np.sort(np.asarray(values, np.float64), axis=1)


def levels(count: int) -> Floats:
    """(T,) share of the distribution below each of so many draws: (k + 1/2) / T.

    >>> levels(2).tolist()
    [0.25, 0.75]
    """
    return (np.arange(count) + 0.5) / count


def trimmed_mean(draws: Floats, trim: float) -> Floats:
    """(n,) means without the share `trim` at either end; at 0.25 the interquartile mean.

    A draw on the border counts in part.

    >>> trimmed_mean(np.array([[0.0, 1.0, 2.0, 9.0]]), 0.25).tolist()
    [1.5]
    """
    ends = np.arange(draws.shape[1] + 1) / draws.shape[1]
    part = np.maximum(np.minimum(ends[1:], 1 - trim) - np.maximum(ends[:-1], trim), 0.0)
    return np.asarray((draws * (part / part.sum())).sum(axis=1), np.float64)


def median(draws: Floats) -> Floats:
    """(n,) middle draws, or the mean of the two in the middle."""
    count = draws.shape[1]
    return np.asarray(0.5 * (draws[:, (count - 1) // 2] + draws[:, count // 2]), np.float64)


def quantile(draws: Floats, share: float) -> Floats:
    """(n,) values with this share of the distribution below, linear between two draws.

    >>> quantile(np.array([[0.0, 10.0]]), 0.5).tolist()
    [5.0]
    """
    count = draws.shape[1]
    place = min(max(share * count - 0.5, 0.0), count - 1.0)
    first = min(int(place), max(count - 2, 0))
    part = place - first
    return np.asarray((1 - part) * draws[:, first] + part * draws[:, min(first + 1, count - 1)], np.float64)


def spread(draws: Floats, value: Floats) -> Floats:
    """(n,) root mean square distance of the draws from values (n,)."""
    return np.asarray(np.sqrt(((draws - value[:, None]) ** 2).mean(axis=1)), np.float64)


def above(values: Floats, shares: Sequence[float] | Floats, threshold: float) -> Floats:
    """(n,) probability of lying above a threshold, from quantiles (n, m) at shares (m,), ascending.

    Draws are quantiles at `levels`. Between two quantiles the distribution is taken as uniform;
    beyond the outermost ones half of what is left counts, so that no probability is 0 or 1.

    >>> above(np.array([[0.0, 10.0]]), [0.25, 0.75], 5.0).tolist()
    [0.5]
    """
    return 1.0 - _share(values, np.asarray(shares, np.float64), threshold, values <= threshold)


def below(values: Floats, shares: Sequence[float] | Floats, threshold: float) -> Floats:
    """(n,) probability of lying below a threshold; see `above`."""
    return _share(values, np.asarray(shares, np.float64), threshold, values < threshold)


def _share(values: Floats, shares: Floats, threshold: float, under: NDArray[np.bool_]) -> Floats:
    """(n,) share of the distribution on the lower side; `under` (n, m) marks quantiles there."""
    rows, last = np.arange(len(values)), values.shape[1] - 1
    count = under.sum(axis=1)
    left, right = np.clip(count - 1, 0, last), np.clip(count, 0, last)
    low, high = values[rows, left], values[rows, right]
    gap = np.where(high > low, high - low, 1.0)
    part = np.where(high > low, np.clip((threshold - low) / gap, 0.0, 1.0), 0.0)
    inside = shares[left] + part * (shares[right] - shares[left])
    found = np.where(count == 0, shares[0] / 2, np.where(count > last, (1 + shares[-1]) / 2, inside))
    return np.asarray(np.where(np.isfinite(values).all(axis=1), found, np.nan), np.float64)
