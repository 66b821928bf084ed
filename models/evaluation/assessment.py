"""Every score of one set of predictions, with its uncertainty and its rivals beside it.

Enters: known values with weights and groups, a prediction with error bars, predictions of rivals.
Leaves: plain dicts of numbers, ready for JSON. This module does not know where predictions come
from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.models.ensemble.summary import PropertyPrediction
from assay.models.evaluation import error_bars, metrics, retrieval
from assay.models.target import Property

EDGES: dict[str, tuple[float, ...]] = {"tc": (0, 5, 20, 77)}
"""Upper ends of the ranges of the known value by property name, in its unit; other properties are
cut into fifths."""

PREDICTED_EDGES: dict[str, tuple[float, ...]] = {"tc": (10, 30)}
"""The same for ranges of the predicted value, where a screening looks."""

OURS = "this ensemble"


@dataclass(frozen=True)
class Truth:
    """What is known of `m` evaluated crystals."""

    value: NDArray[np.float64]
    """(m,) in the property's unit."""
    weight: NDArray[np.float64]
    """(m,) of each row in every score."""
    groups: NDArray[Any]
    """(m,) rows of one group err together, so they are resampled together."""
    property: Property
    """What the values are."""

    def select(self, rows: NDArray[Any]) -> Truth:
        """The given rows only."""
        return Truth(self.value[rows], self.weight[rows], self.groups[rows], self.property)


def measure(
    truth: Truth, predicted: PropertyPrediction, rivals: Mapping[str, NDArray[np.float64]], level: float
) -> dict[str, Any]:
    """Scores, those of rivals, paired comparisons, error bars, and errors by range.

    `level` is the nominal coverage of lo to hi.
    """
    error = predicted.mean - truth.value
    compared = {}
    for name, values in rivals.items():
        errors = error, values - truth.value
        difference = metrics.mae_difference(errors, truth.weight, truth.groups)
        compared[name] = {**difference, "p": metrics.sign_flip(errors, truth.weight, truth.groups)}
    alone = [metrics.regression(truth.value, one, truth.weight)["mae"] for one in predicted.members.T]
    return {
        "scores": score(truth, predicted.mean),
        "member_mae": alone,
        "rivals": {name: score(truth, values) for name, values in rivals.items()},
        "compared": compared,
        "error_bars": bars(truth, predicted, level),
        "by_range": by_range(truth, predicted, rivals),
        "by_predicted": by_predicted(truth, predicted, rivals),
    }


def score(truth: Truth, mean: NDArray[np.float64]) -> dict[str, Any]:
    """MAE, RMSE, R2 with 95 % intervals; for properties that are never negative MSLE too.

    The MSLE is NaN where a value is negative after all.
    """
    found: dict[str, Any] = metrics.regression(truth.value, mean, truth.weight)
    found["bias"] = float(np.average(mean - truth.value, weights=truth.weight))
    if truth.property.minimum is not None and truth.property.minimum >= 0:
        negative = min(truth.value.min(), mean.min()) < 0  # a rival that knows no minimum
        found["msle"] = float("nan") if negative else metrics.msle(truth.value, mean, truth.weight)
    return {**found, "interval": metrics.intervals(truth.value, mean, truth.weight, truth.groups)}


def bars(truth: Truth, predicted: PropertyPrediction, level: float) -> dict[str, Any]:
    """Coverage and width of lo to hi, rank correlation of error and std, scores as Gaussians."""
    inside = ((truth.value >= predicted.lo) & (truth.value <= predicted.hi)) * truth.weight
    columns = np.stack([inside, truth.weight], axis=1)
    low, high = metrics.bootstrap(columns, truth.groups, lambda sums: sums[:, 0] / sums[:, 1])
    return {
        "level": level,
        "coverage": metrics.coverage(truth.value, predicted.lo, predicted.hi, truth.weight),
        "coverage_interval": (float(low), float(high)),
        "mean_width": float(np.average(predicted.hi - predicted.lo, weights=truth.weight)),
        "spearman": metrics.spearman(np.abs(truth.value - predicted.mean), predicted.std, truth.weight),
        "gaussian": {
            name: error_bars.scores(truth.value, predicted.mean, std, truth.weight)
            for name, std in deviations(predicted, level).items()
        },
        "no_gaussian": no_gaussian(predicted, level),
    }


def deviations(predicted: PropertyPrediction, level: float) -> dict[str, NDArray[np.float64]]:
    """(m,) standard deviations by name: of the members, calibrated, and implied by the interval.

    One that is not above 0 and finite everywhere makes no Gaussian and is left out: see
    `no_gaussian`.
    """
    return {name: std for name, std in _deviations(predicted, level).items() if not _useless(std)}


def no_gaussian(predicted: PropertyPrediction, level: float) -> dict[str, int]:
    """Rows whose deviation is 0 or not finite, by the name of the deviation.

    A deviation is 0 where all members are clipped to one value, for example.
    """
    counts = {name: _useless(std) for name, std in _deviations(predicted, level).items()}
    return {name: count for name, count in counts.items() if count}


def _deviations(predicted: PropertyPrediction, level: float) -> dict[str, NDArray[np.float64]]:
    found = {"spread of the members": predicted.spread}
    if not np.allclose(predicted.std, predicted.spread):
        found["calibrated std"] = predicted.std
    found["interval"] = error_bars.gaussian_deviation(predicted.hi - predicted.mean, level)
    return found


def _useless(std: NDArray[np.float64]) -> int:
    return int(np.sum(~((std > 0) & np.isfinite(std))))


def by_range(
    truth: Truth, predicted: PropertyPrediction, rivals: Mapping[str, NDArray[np.float64]]
) -> list[dict[str, Any]]:
    """Errors in each range of the known value, see `EDGES`."""
    ranges = metrics.ranges(truth.value, EDGES.get(truth.property.name))
    return [{"range": name, **_within(truth, predicted, rivals, rows)} for name, rows in ranges]


def by_predicted(
    truth: Truth, predicted: PropertyPrediction, rivals: Mapping[str, NDArray[np.float64]]
) -> list[dict[str, Any]]:
    """Errors in each range of the predicted value, see `PREDICTED_EDGES`."""
    ranges = metrics.ranges(predicted.mean, PREDICTED_EDGES.get(truth.property.name))
    return [{"range": name, **_within(truth, predicted, rivals, rows)} for name, rows in ranges]


def by_family(
    truth: Truth, predicted: PropertyPrediction, rivals: Mapping[str, NDArray[np.float64]], families: NDArray[Any]
) -> list[dict[str, Any]]:
    """Errors in each family of crystals, the largest first."""
    names, counts = np.unique(families, return_counts=True)
    ordered = names[np.lexsort((names, -counts))]
    return [{"family": str(name), **_within(truth, predicted, rivals, families == name)} for name in ordered]


def _within(
    truth: Truth, predicted: PropertyPrediction, rivals: Mapping[str, NDArray[np.float64]], rows: NDArray[np.bool_]
) -> dict[str, Any]:
    part, weight = truth.select(rows), truth.weight[rows]
    error = predicted.mean[rows] - part.value
    return {
        "rows": int(rows.sum()),
        "share": float(weight.sum() / truth.weight.sum()),
        "mae": float(np.average(np.abs(error), weights=weight)),
        "bias": float(np.average(error, weights=weight)),
        "coverage": metrics.coverage(part.value, predicted.lo[rows], predicted.hi[rows], weight),
        "rivals": {
            name: float(np.average(np.abs(values[rows] - part.value), weights=weight))
            for name, values in rivals.items()
        },
    }


def found_above(truth: Truth, rankings: Mapping[str, NDArray[np.float64]], threshold: float) -> dict[str, Any]:
    """The yield of a screening for values above `threshold`, by each ranking that is not constant.

    Raises:
        ValueError: when no row or every row is above it.
    """
    return {
        name: {
            **retrieval.at(truth.value, values, threshold, weight=truth.weight),
            "above": retrieval.above(truth.value, values, threshold, truth.weight),
        }
        for name, values in rankings.items()
        if name == OURS or np.ptp(values) > 0
    }
