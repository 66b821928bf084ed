"""From the outputs of the members to one prediction with an error bar: a pure function.

Enters: `Outputs`, scalers, calibration, weights. Leaves: an `EnsemblePrediction`. This module does
not know networks, crystals or files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.models.ensemble import combine
from assay.models.ensemble.calibration import Calibration
from assay.models.ensemble.distribution import draws as samples
from assay.models.ensemble.distribution.decision import Decision
from assay.models.ensemble.distribution.quantiles import QuantileCalibration
from assay.models.target import Property


class Outputs:
    """The predictions of `k` members for `n` crystals and `p` properties, filled batch by batch."""

    def __init__(self, rows: NDArray[np.int64], k: int, p: int) -> None:
        n = len(rows)
        self.rows = rows
        """(n,) ascending rows of the input, those of the crystals that networks can read."""
        self.values = np.full((n, k, p), np.nan)
        """(n, k, p) in the properties' units."""
        self.variance = np.full((n, k, p), np.nan)
        """(n, k, p) in the units squared; NaN where a member does not predict it."""
        self.views = np.full((n, k, p), np.nan)
        """(n, k, p) variance across the views, in the units squared; NaN for members that see
        none."""
        self.draws: NDArray[np.float64] | None = None
        """(n, T, p) in the properties' units, those of the members one after the other; None where
        the ensemble decides by no draws."""
        self.distance: NDArray[np.float64] | None = None
        """(n,) to the nearest training crystals (`assay.models.ensemble.novelty`); None where the
        ensemble has no reference."""
        self.failed = np.zeros(n, bool)
        """(n,) True for crystals that some member could not read or predict."""
        self.unread: list[tuple[tuple[int, ...], int, str]] = []
        """Members that cannot read a crystal, its position among the n, and why."""
        self.plain = True
        """Whether no network failed and equal atoms stayed merged: then the outputs of a member do
        not depend on the others."""


@dataclass(frozen=True)
class PropertyPrediction:
    """Predictions of one property for m crystals, all in the property's unit."""

    mean: NDArray[np.float64]
    """(m,) predicted value: the decision on the draws, or else the weighted mean of the members."""
    std: NDArray[np.float64]
    """(m,) calibrated standard deviation: an estimate of the error. In ensembles calibrated before
    there was one, the spread."""
    lo: NDArray[np.float64]
    """(m,) lower end of the calibrated interval, not below the property's physical minimum."""
    hi: NDArray[np.float64]
    """(m,) upper end of the calibrated interval."""
    members: NDArray[np.float64]
    """(m, k) prediction of each member."""
    spread: NDArray[np.float64]
    """(m,) standard deviation of the members, ddof 1, with the variance they predict if they do; or
    root mean square distance of the draws from `mean`. Not yet the error."""
    disagreement: NDArray[np.float64] | None = None
    """(m,) mean of the members that read graphs less the mean of those that read pictures; None
    without either."""
    view_spread: NDArray[np.float64] | None = None
    """(m,) standard deviation, ddof 0, of the predictions from single views of a crystal, its root
    mean square over the vision members; None without one."""
    draws: NDArray[np.float64] | None = None
    """(m, T) predictive distribution: the values of all trees, ascending in each row; None where
    the ensemble decides by no draws."""


@dataclass(frozen=True)
class EnsemblePrediction:
    """The prediction of an ensemble for a batch of crystals."""

    index: NDArray[np.int64]
    """(m,) ascending rows of the input that were predicted."""
    values: dict[str, PropertyPrediction]
    """By property name."""
    ood: NDArray[np.bool_]
    """(m,) True where a crystal holds an element that no training crystal held."""
    ood_distance: NDArray[np.float64] | None = None
    """(m,) distance to the nearest training crystals, 1 where 95 % of the calibration crystals are
    nearer (`assay.models.ensemble.novelty`); None where the ensemble has no reference."""
    plain: bool = True
    """Whether no network failed and equal atoms stayed merged, so that the same crystals give the
    same numbers again."""


def summarise(
    outputs: Outputs,
    properties: Sequence[Property],
    calibration: Mapping[str, Calibration | QuantileCalibration],
    weights: Mapping[str, tuple[float, ...]],
    seeing: NDArray[np.bool_],
    unseen: NDArray[np.bool_],
    placing: NDArray[np.bool_] | None = None,
    decisions: Mapping[str, Decision] | None = None,
) -> EnsemblePrediction:
    """One prediction of each property for every crystal that no member failed on.

    Args:
        outputs: of all members.
        properties: (p) in the order of the outputs.
        calibration: of the error bars, by property name.
        weights: of the members, by property name; without an entry they are equal.
        seeing: (k,) whether a member reads pictures.
        unseen: whether a crystal holds an element that was not trained on, by row of the input.
        placing: (k,) whether a member reads graphs; None: where it reads no pictures.
        decisions: on the draws, by property name; without an entry the members have a mean.
    """
    kept = ~outputs.failed
    rows = outputs.rows[kept]
    values = {}
    for k, prop in enumerate(properties):
        members, variance, views = (part[kept, :, k] for part in (outputs.values, outputs.variance, outputs.views))
        decision, draws = (decisions or {}).get(prop.name), None
        if decision is None or outputs.draws is None:
            mean, spread = combine.mean_and_spread(members, weights.get(prop.name), variance)
        else:
            draws = samples.ascending(outputs.draws[kept, :, k])
            mean = decision.of(draws)
            spread = samples.spread(draws, mean)
        std, lo, hi = error_bars(calibration[prop.name], prop, mean, spread, draws)
        values[prop.name] = PropertyPrediction(
            mean=mean,
            std=std,
            lo=lo,
            hi=hi,
            members=members,
            spread=spread,
            draws=draws,
            disagreement=_disagreement(members, seeing, ~seeing if placing is None else placing),
            view_spread=_view_spread(views, seeing),
        )
    distance = None if outputs.distance is None else outputs.distance[kept]
    return EnsemblePrediction(rows, values, unseen[rows], distance, outputs.plain)


def error_bars(
    fitted: Calibration | QuantileCalibration,
    prop: Property,
    mean: NDArray[np.float64],
    spread: NDArray[np.float64],
    draws: NDArray[np.float64] | None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Standard deviation of the error and both ends of the interval, (m,) each, in the unit.

    `draws` is (m, T), ascending, and needed by a calibration of quantiles alone.
    """
    if isinstance(fitted, Calibration):
        half = fitted.half_width(spread)
        std, lo, hi = fitted.deviation(spread), mean - half, mean + half
    elif draws is None:
        raise ValueError("a calibration of quantiles needs draws; ensemble.json must say the decision on them")
    else:
        std, (lo, hi) = fitted.deviation(mean, spread), fitted.interval(mean, draws)
    return std, lo if prop.minimum is None else np.maximum(lo, prop.minimum), hi


def _disagreement(
    members: NDArray[np.float64], seeing: NDArray[np.bool_], placing: NDArray[np.bool_]
) -> NDArray[np.float64] | None:
    if not (seeing.any() and placing.any()):
        return None
    return np.asarray(members[:, placing].mean(axis=1) - members[:, seeing].mean(axis=1), np.float64)


def _view_spread(variance: NDArray[np.float64], seeing: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    return np.asarray(np.sqrt(variance[:, seeing].mean(axis=1)), np.float64) if seeing.any() else None
