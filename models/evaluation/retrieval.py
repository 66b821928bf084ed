"""Would the screening have found them: a ranked list judged by what is known afterwards.

Enters: known values and predictions (n,), a threshold. Leaves: numbers per list length and a curve.
A hit is a row whose known value is above the threshold. This module does not know networks or
campaigns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LENGTHS = (10, 30, 100, 300, 1000)
"""List lengths that are reported, as far as there are rows."""


def at(
    truth: NDArray[Any],
    predicted: NDArray[Any],
    threshold: float,
    lengths: Sequence[int] = LENGTHS,
    weight: NDArray[Any] | None = None,
) -> dict[str, Any]:
    """Precision, recall and discovery acceleration factor of the k best predictions, for each k.

    The factor is precision over prevalence: how many times more hits a test finds than a blind draw
    of as many rows (Riebesell et al., arXiv 2308.14920); for a list cut at k it is the enrichment
    factor. Rows that share a formula are to share its weight, or a list of one formula many times
    over looks rich. Ties are broken by row order.

    Raises:
        ValueError: when no row or every row is a hit, or a length is not above 0.
    """
    hit, w = hits(truth, threshold, weight)
    order = np.argsort(-predicted, kind="stable")
    looked, found = np.cumsum(w[order]), np.cumsum((w * hit)[order])
    prevalence = found[-1] / looked[-1]
    if min(lengths) < 1:
        raise ValueError(f"a list of {min(lengths)} rows was asked for, expected at least 1")
    lists = []
    for k in sorted({k for k in lengths if k <= len(truth)}):
        precision = found[k - 1] / looked[k - 1]
        numbers = {"precision": precision, "recall": found[k - 1] / found[-1], "daf": precision / prevalence}
        lists.append({"k": k, **{name: float(value) for name, value in numbers.items()}})
    return {"threshold": threshold, "prevalence": float(prevalence), "hits": int(hit.sum()), "lists": lists}


def average_precision(
    truth: NDArray[Any], predicted: NDArray[Any], threshold: float, weight: NDArray[Any] | None = None
) -> float:
    """Mean precision of the lists that end at each hit; 1 when all hits come first.

    Raises:
        ValueError: as `at` does.
    """
    hit, w = hits(truth, threshold, weight)
    order = np.argsort(-predicted, kind="stable")
    found, looked = np.cumsum((w * hit)[order]), np.cumsum(w[order])
    return float(np.average(found / looked, weights=(w * hit)[order]))


def above(
    truth: NDArray[Any], predicted: NDArray[Any], threshold: float, weight: NDArray[Any] | None = None
) -> dict[str, float]:
    """Precision, recall, F1, discovery acceleration factor of rows predicted above the threshold.

    Precision, F1 and factor are NaN where nothing is predicted above it.
    """
    hit, w = hits(truth, threshold, weight)
    chosen = predicted > threshold
    found = float(w @ (hit & chosen))
    precision = found / float(w @ chosen) if chosen.any() else float("nan")
    recall = found / float(w @ hit)
    both = precision + recall
    return {
        "predicted": int(chosen.sum()),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / both if both > 0 else (float("nan") if np.isnan(both) else 0.0),
        "daf": precision / float(np.average(hit, weights=w)),
    }


def curve(
    truth: NDArray[Any], predicted: NDArray[Any], threshold: float, weight: NDArray[Any] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n + 1,) share of rows, best prediction first, and (n + 1,) share of all hits among them."""
    hit, w = hits(truth, threshold, weight)
    order = np.argsort(-predicted, kind="stable")
    looked = np.concatenate([[0.0], np.cumsum(w[order])])
    found = np.concatenate([[0.0], np.cumsum((w * hit)[order])])
    return looked / looked[-1], found / found[-1]


def hits(
    truth: NDArray[Any], threshold: float, weight: NDArray[Any] | None = None
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """(n,) which rows are hits, and (n,) their weights.

    Raises:
        ValueError: when no row or every row is a hit.
    """
    hit = np.asarray(truth > threshold)
    if hit.all() or not hit.any():
        raise ValueError(
            f"{int(hit.sum())} of {len(hit)} known values are above {threshold}; a threshold between "
            f"{np.min(truth):.4g} and {np.max(truth):.4g} tells hits from the rest"
        )
    return hit, np.ones(len(hit)) if weight is None else np.asarray(weight, np.float64)
