"""Scores of a repeated cross-validation, in which every row is tested once per repeat.

Enters: known values, the predictions of each repeat, those of rivals in the same folds. Leaves:
error bars, and plain dicts of numbers. This module does not know how anything was trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.models.ensemble import calibration, summary
from assay.models.ensemble.distribution import draws, quantiles
from assay.models.ensemble.stored import ErrorBars
from assay.models.ensemble.summary import PropertyPrediction
from assay.models.evaluation import assessment, retrieval
from assay.models.evaluation.assessment import OURS, Truth

TOP = 100
"""Rows with the highest predictions whose bias is reported."""
LENGTHS = (50, 100)
"""Of the ranked lists whose precision is reported."""
SHARES = (0.01, 0.05, *(k / 10 for k in range(1, 10)), 0.95, 0.99)
"""Quantiles from which a campaign reads the probability of lying above a threshold."""


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of n rows in r repeats, by members that learned nothing of the row's fold."""

    fold: NDArray[np.int64]
    """(r, n) in which each row is tested."""
    mean: NDArray[np.float64]
    """(r, n) predicted values, in the property's unit, as all others."""
    spread: NDArray[np.float64]
    """(r, n)"""
    members: NDArray[np.float64]
    """(r, n, k)"""
    draws: NDArray[np.float32] | None
    """(r, n, T), ascending; None where the ensemble decides by no draws."""


def calibrate(found: OutOfFold, truth: Truth, level: float) -> ErrorBars:
    """Error bars from all rows and repeats, for members that learned from all rows.

    Ranges of the predicted value hold enough rows of the first repeat: the others are no new rows.
    """
    edges = None if found.draws is None else quantiles.choose(found.mean[0])
    return _fitted(found, truth, level, np.ones(found.mean.shape, bool), edges)


def predictions(found: OutOfFold, truth: Truth, level: float) -> PropertyPrediction:
    """Predictions (r n,), one repeat after the other, with error bars that know nothing of them.

    The error bars of each fold are fitted on the other folds of its repeat.
    """
    std, lo, hi = (np.empty(found.mean.shape) for _ in range(3))
    for repeat, folds in enumerate(found.fold):
        for fold in np.unique(folds):
            here = np.zeros(found.mean.shape, bool)
            here[repeat] = folds == fold
            others = np.zeros_like(here)
            others[repeat] = folds != fold
            fitted, drawn = _fitted(found, truth, level, others), None
            if found.draws is not None:
                drawn = found.draws[here].astype(np.float64)
            bars = summary.error_bars(fitted, truth.property, found.mean[here], found.spread[here], drawn)
            std[here], lo[here], hi[here] = bars
    return PropertyPrediction(
        mean=found.mean.reshape(-1),
        std=std.reshape(-1),
        lo=lo.reshape(-1),
        hi=hi.reshape(-1),
        members=found.members.reshape(found.mean.size, -1),
        spread=found.spread.reshape(-1),
    )


def _fitted(
    found: OutOfFold, truth: Truth, level: float, chosen: NDArray[np.bool_], edges: Sequence[float] | None = None
) -> ErrorBars:
    value, weight = (np.broadcast_to(part, chosen.shape)[chosen] for part in (truth.value, truth.weight))
    if found.draws is None:
        return calibration.fit(value, found.mean[chosen], found.spread[chosen], level, weight)
    return quantiles.fit(found.draws[chosen], found.mean[chosen], value, weight, level, edges)


def measure(
    found: OutOfFold,
    truth: Truth,
    rivals: Mapping[str, NDArray[np.float64]],
    level: float,
    families: NDArray[Any] | None = None,
    threshold: float | None = None,
) -> dict[str, Any]:
    """All scores, means over the repeats; intervals resample groups with all that belongs to them.

    Args:
        found: predictions to judge.
        truth: of the n rows.
        rivals: (r, n) predictions by name, in the same folds.
        level: nominal coverage of the interval.
        families: (n,) names, for a table by family.
        threshold: for ranked lists; None: they are not judged.
    """
    repeats, predicted = len(found.mean), predictions(found, truth, level)
    many = truth.select(np.tile(np.arange(len(truth.value)), repeats))
    flat = {name: values.reshape(-1) for name, values in rivals.items()}
    measured = assessment.measure(many, predicted, flat, level)
    parts = {name: measured[name] for name in ("by_range", "by_predicted")}
    if families is not None:
        parts["by_family"] = assessment.by_family(many, predicted, flat, np.tile(families, repeats))
    for part in (part for table in parts.values() for part in table):
        part["rows"] = round(part["rows"] / repeats)
        part["mae_of_the_others"] = _others(part, measured["scores"]["mae"])
    every = {OURS: found.mean, **rivals}
    kept = ("scores", "member_mae", "rivals", "compared")
    bars = {name: measured["error_bars"][name] for name in ("coverage", "coverage_interval", "mean_width", "spearman")}
    return {
        "repeats": repeats,
        "folds": len(np.unique(found.fold)),
        "rows": len(truth.value),
        "groups": len(np.unique(truth.groups)),
        **{name: measured[name] for name in kept},
        **bars,
        **parts,
        "threshold": threshold,
        "ranked": {name: ranked(truth, values, threshold) for name, values in every.items()},
    }


def _others(part: dict[str, Any], mae: float) -> float:
    """MAE of the rows outside a part."""
    return float("nan") if part["share"] >= 1 else (mae - part["share"] * part["mae"]) / (1 - part["share"])


def ranked(truth: Truth, predicted: NDArray[np.float64], threshold: float | None) -> dict[str, float]:
    """What a mean error does not tell of predictions (r, n); means over the repeats.

    `over_groups` is the mean of the MAE of each group, `top_bias` the bias of the `TOP` highest
    predictions, `zero_bias` that of known zeros. With a threshold also the precision of ranked
    lists, their enrichment over a blind draw, and the average precision.
    """
    value, weight = truth.value, truth.weight
    _, group = np.unique(truth.groups, return_inverse=True)
    mass = np.bincount(group, weights=weight)
    each = []
    for mean in predicted:
        order = np.argsort(-mean, kind="stable")[:TOP]
        sums = np.bincount(group, weights=weight * np.abs(mean - value))
        one = {"over_groups": float((sums / mass).mean())}
        one["top_bias"] = float(np.average((mean - value)[order], weights=weight[order]))
        if np.any(zero := value == 0):
            one["zero_bias"] = float(np.average(mean[zero], weights=weight[zero]))
        if threshold is not None:
            one |= _listed(truth, mean, threshold)
        each.append(one)
    return _means(each)


def by_probability(truth: Truth, found: OutOfFold, threshold: float) -> dict[str, float]:
    """Ranked lists in the order of the probability of lying above the threshold, as in a campaign.

    Equal probabilities go by the predicted value. Means over the repeats; the names are those of
    `ranked`.

    Raises:
        ValueError: when there are no draws.
    """
    if found.draws is None:
        raise ValueError("a probability of lying above a threshold needs draws")
    each = []
    for drawn, mean in zip(found.draws, found.mean, strict=True):
        wide = drawn.astype(np.float64)
        values = np.stack([draws.quantile(wide, share) for share in SHARES], axis=1)
        place = np.empty(len(mean))
        place[np.lexsort((mean, draws.above(values, SHARES, threshold)))] = np.arange(len(mean))
        each.append(_listed(truth, place, threshold))
    return _means(each)


def _listed(truth: Truth, score: NDArray[np.float64], threshold: float) -> dict[str, float]:
    """What lists in the order of a score (n,) hold, the highest first."""
    lists = retrieval.at(truth.value, score, threshold, LENGTHS, truth.weight)["lists"]
    one = {f"precision_{k['k']}": k["precision"] for k in lists} | {f"enrichment_{k['k']}": k["daf"] for k in lists}
    return one | {"average_precision": retrieval.average_precision(truth.value, score, threshold, truth.weight)}


def _means(each: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in each])) for name in each[0]}
