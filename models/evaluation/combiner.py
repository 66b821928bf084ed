"""Weights of several predictions by nested folds, a prediction that adds nothing gets none.

Enters: out-of-fold predictions, known values, the fold of each row. Leaves: combined predictions,
each made with weights that its own fold had no part in. This module does not know networks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def least_absolute(
    predicted: NDArray[np.float64], truth: NDArray[np.float64], weight: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(k,) shares, at least 0 and 1 in sum, with the smallest weighted absolute error.

    A linear program: each error t >= 0 is at least predicted @ shares - truth, and its negative.

    Args:
        predicted: (n, k) predictions, finite.
        truth: (n,) known values.
        weight: (n,) weights of the rows.
    """
    from scipy import optimize, sparse  # type: ignore[import-untyped]

    n, k = predicted.shape
    cost = np.concatenate([np.zeros(k), weight / weight.sum()])
    errors = sparse.identity(n, format="csr")
    bounds = sparse.bmat([[sparse.csr_matrix(predicted), -errors], [sparse.csr_matrix(-predicted), -errors]])
    total = sparse.csr_matrix(([1.0] * k, ([0] * k, range(k))), shape=(1, k + n))
    solved = optimize.linprog(
        cost, A_ub=bounds, b_ub=np.concatenate([truth, -truth]), A_eq=total, b_eq=[1.0], method="highs"
    )
    if solved.x is None:
        raise ValueError(f"no shares found for {n} rows of {k} predictions: {solved.message}")
    shares = np.clip(solved.x[:k], 0.0, None)
    return np.asarray(shares / shares.sum(), np.float64)


def nested(
    predicted: NDArray[np.float64],
    truth: NDArray[np.float64],
    weight: NDArray[np.float64],
    fold: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n,) combined predictions, and the (folds, k) shares that made them.

    The shares of a fold are `least_absolute` on the rows of all other folds.

    Args:
        predicted: (n, k) out-of-fold predictions.
        truth: (n,) known values.
        weight: (n,) weights of the rows.
        fold: (n,) number of the fold that tests each row, from 0.
    """
    shares = [
        least_absolute(predicted[fold != k], truth[fold != k], weight[fold != k]) for k in range(int(fold.max()) + 1)
    ]
    used = np.stack(shares)
    return (predicted * used[fold]).sum(axis=1), used
