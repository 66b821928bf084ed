"""How members become one prediction: their weights, the mean, and the spread around it.

Enters: predictions of the members, known values, validation errors. Leaves: weights that are at
least 0 and sum to 1, means and spreads. This module does not know networks or crystals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

RIDGE = 1e-9
"""Of the mean squared error; makes members that predict the same share their weight, whatever their
order."""


@dataclass(frozen=True)
class Fitted:
    """Weights, and the rows that were not used up to find them."""

    weights: tuple[float, ...] | None
    """One per member; None: equal ones, the plain mean."""
    rest: NDArray[np.int64]
    """(r,) ascending positions among the calibration rows: those left to calibrate on."""


def equal(k: int) -> tuple[float, ...]:
    """The same weight for each of k members."""
    return (1 / k,) * k


def by_validation(maes: Sequence[float]) -> tuple[float, ...]:
    """Weights by the inverse square of each member's validation error.

    Raises:
        ValueError: when an error is not a positive number.
    """
    errors = np.asarray(maes, np.float64)
    if not (np.isfinite(errors).all() and (errors > 0).all()):
        raise ValueError(f"validation errors are {[float(e) for e in errors]}, expected finite numbers above 0")
    return _shares((errors.min() / errors) ** 2)


def stacked(members: NDArray[Any], truth: NDArray[Any], weight: NDArray[Any] | None = None) -> tuple[float, ...]:
    """Weights on the simplex with the least squared error of members (m, k) against truth (m,).

    On the simplex the error is w'Gw, G the second moments of the members' errors. Its minimiser is
    u / sum(u), where u >= 0 minimises u'Gu + (1 - sum(u))^2: for u = t w the best t is 1 / (1 +
    w'Gw), which leaves 1 - t, smallest where w'Gw is. Active sets solve that problem (Lawson and
    Hanson, Solving Least Squares Problems, 1974, chapter 23).

    Raises:
        ValueError: when a value or a prediction is not finite, or there are no rows.
    """
    errors = np.asarray(members, np.float64) - np.asarray(truth, np.float64)[:, None]
    if not (len(errors) and np.isfinite(errors).all()):
        raise ValueError(f"stacking needs rows with finite values and predictions; got {len(errors)} rows")
    w = np.ones(len(errors)) if weight is None else np.asarray(weight, np.float64)
    moments = (errors * (w / w.sum())[:, None]).T @ errors
    k, size = len(moments), float(np.trace(moments)) / len(moments)
    if size == 0:
        return equal(k)
    return _shares(_nonnegative(moments / size + RIDGE * np.eye(k) + 1.0, np.ones(k)))


def fit_weights(
    kind: Literal["mean", "validation", "stacking"],
    members: NDArray[Any],
    truth: NDArray[Any],
    weight: NDArray[Any],
    validation_mae: Sequence[float],
    groups: NDArray[Any],
) -> Fitted:
    """Weights of the members as a recipe wants them (`Recipe.combine`).

    Stacking uses up half of the calibration rows: with the other half the error bars stay honest.
    No group of `groups` (c,) lies in both halves, and the halves depend on the groups alone.

    Args:
        kind: what decides.
        members: (c, k) predictions for the calibration rows.
        truth: (c,) known values.
        weight: (c,) weights of the rows.
        validation_mae: error of each member on its own validation rows, any common unit.
        groups: (c,) labels of related rows.
    """
    every = np.arange(len(truth), dtype=np.int64)
    if kind == "mean":
        return Fitted(None, every)
    if kind == "validation":
        return Fitted(by_validation(validation_mae), every)
    first = _half(groups)
    return Fitted(stacked(members[first], truth[first], weight[first]), np.flatnonzero(~first))


def mean_and_spread(
    members: NDArray[np.float64], weights: tuple[float, ...] | None, variance: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (m,) and standard deviation (m,) of predictions (m, k); ddof 1 for equal weights.

    With weights w the deviation is sqrt(sum w (member - mean)^2 k / (k - 1)). Where members predict
    the variance of their error (m, k), NaN where they do not, its mean is added: they may agree on
    being unsure.
    """
    k = members.shape[1]
    if weights is None or len(set(weights)) == 1:
        share = np.full(k, 1 / k)
        mean, spread = members.mean(axis=1), members.std(axis=1, ddof=1)
    else:
        share = np.asarray(weights, np.float64)
        mean = (members * share).sum(axis=1)
        spread = np.sqrt((share * (members - mean[:, None]) ** 2).sum(axis=1) * (k / (k - 1)))
    known = np.isfinite(variance)
    if known.any():
        counted = (share * known).sum(axis=1)
        noise = (share * np.where(known, variance, 0.0)).sum(axis=1) / np.where(counted > 0, counted, 1.0)
        spread = np.sqrt(spread**2 + noise)
    return mean, spread


def _half(groups: NDArray[Any]) -> NDArray[np.bool_]:
    """(c,) whether a row lies in the first half, which is filled group by group, shuffled."""
    names, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise ValueError(f"stacking halves the calibration rows by group, and {len(groups)} rows have {len(names)}")
    order = np.random.default_rng(0).permutation(len(names))
    before = np.cumsum(counts[order]) - counts[order]
    taken = before + counts[order] / 2 <= counts.sum() / 2
    taken[0], taken[-1] = True, False
    first = np.zeros(len(names), bool)
    first[order[taken]] = True
    return np.asarray(first[inverse], dtype=np.bool_)


def _nonnegative(matrix: NDArray[np.float64], vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """The u >= 0 that minimises u'Mu - 2 v'u, for a positive definite M (k, k)."""
    k = len(vector)
    u, free = np.zeros(k), np.zeros(k, bool)
    for _ in range(10 * k):
        slope = vector - matrix @ u
        slope[free] = -np.inf
        if slope.max() <= 1e-12:
            break
        free[int(np.argmax(slope))] = True
        while True:
            wanted = np.zeros(k)
            wanted[free] = np.linalg.solve(matrix[np.ix_(free, free)], vector[free])
            if wanted[free].min() > 0:
                break
            leaving = free & (wanted <= 0)
            step = (u[leaving] / (u[leaving] - wanted[leaving])).min()
            u = u + step * (wanted - u)
            free &= u > 1e-15
            u[~free] = 0.0
        u = wanted
    return u


def _shares(parts: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(share) for share in parts / parts.sum())
