"""Intervals of a predictive distribution that cover what they promise, whatever is predicted.

Enters: held-out draws, predicted and known values. Leaves: `QuantileCalibration`, stored in
`ensemble.json`. A pair of quantiles is widened until it covers the level (Romano, Patterson,
Candès, NeurIPS 2019), by itself in each range of the predicted value (Mondrian: Vovk et al.,
Algorithmic Learning in a Random World, 2005, section 4.5). This module does not know trees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.models.ensemble import calibration
from assay.models.ensemble.distribution import draws as samples
from assay.models.ensemble.distribution.draws import Floats

KIND = "quantiles"
LEAST = 300
"""Rows in a range of predicted values, where the ranges are not given."""
_SMALL = 0.05
"""Share of the spreads below the floor."""


@dataclass(frozen=True)
class QuantileCalibration:
    """Numbers that turn draws into error bars, by range of the predicted value.

    The interval goes from the lower to the upper quantile of the draws that cover `base` of them,
    less and plus the widening of the range. The standard deviation of the error is scale * (spread
    + floor); the spread is that of the draws around the predicted value.
    """

    level: float
    """Nominal coverage, for example 0.9."""
    base: float
    """Share of the draws between the two quantiles, for example 0.8."""
    edges: tuple[float, ...]
    """(b - 1,) ascending, in the property's unit: a predicted value equal to an edge belongs to the
    range above it."""
    widening: tuple[float, ...]
    """(b,) in the property's unit; below 0 the interval is narrower than the pair."""
    scale: tuple[float, ...]
    """(b,) dimensionless."""
    floor: float
    """In the property's unit; keeps the deviation above 0 where all draws agree by chance."""
    n: tuple[int, ...]
    """(b,) crystals it was fitted on."""
    kind: str = KIND
    """Tells it from a `Calibration` in `ensemble.json`."""

    @classmethod
    def read(cls, fields: dict[str, Any]) -> QuantileCalibration:
        """What `dataclasses.asdict` and JSON made of one."""
        parts: dict[str, Any] = {name: tuple(part) if isinstance(part, list) else part for name, part in fields.items()}
        return cls(**parts)

    def interval(self, predicted: Floats, draws: Floats) -> tuple[Floats, Floats]:
        """Lower and upper ends (n,) for predicted values (n,) and draws (n, T), ascending.

        The predicted value lies between them.
        """
        low, high = _pair(draws, self.base)
        wider = np.asarray(self.widening)[_ranges(predicted, self.edges)]
        return np.minimum(low - wider, predicted), np.maximum(high + wider, predicted)

    def deviation(self, predicted: Floats, spread: Floats) -> Floats:
        """(n,) standard deviation of the error, in the unit."""
        scale = np.asarray(self.scale)[_ranges(predicted, self.edges)]
        return np.asarray(scale * (spread + self.floor), np.float64)


def fit(
    draws: NDArray[Any],
    predicted: NDArray[Any],
    truth: NDArray[Any],
    weight: NDArray[Any],
    level: float,
    edges: Sequence[float] | None = None,
) -> QuantileCalibration:
    """Widen a pair of quantiles so that a share `level` of new crystals falls between, by range.

    The pair leaves out twice the share that the interval may miss: 80 % for a level of 90 %
    (docs/log.md has the comparison).

    Args:
        draws: (n, T) of crystals that no tree has learned from, in any order.
        predicted: (n,) values that the decision made of these draws.
        truth: (n,) known values.
        weight: (n,) of the rows.
        level: nominal coverage.
        edges: predicted values between the ranges; None: chosen so that each range has `LEAST`
            rows, and narrow ones lie at both ends.

    Raises:
        ValueError: when a number is not finite, edges do not ascend, or a range has too few rows
            for the level.
    """
    ordered = samples.ascending(draws)
    if not (np.isfinite(ordered).all() and np.isfinite(predicted).all() and np.isfinite(truth).all()):
        raise ValueError("a calibration row lacks a finite value or prediction; select the others")
    bounds = choose(predicted) if edges is None else tuple(float(edge) for edge in edges)
    if any(low >= high for low, high in pairwise(bounds)):
        raise ValueError(f"edges of predicted values are {list(bounds)}, expected ascending numbers")
    base, w = max(2 * level - 1, 0.0), np.asarray(weight, np.float64)
    low, high = _pair(ordered, base)
    spread = samples.spread(ordered, predicted)
    floor = float(np.quantile(spread, _SMALL)) or float(spread.mean()) or 1.0
    outside, ratio = np.maximum(low - truth, truth - high), (truth - predicted) / (spread + floor)
    place = _ranges(predicted, bounds)
    widening, scale, rows = [], [], []
    for k in range(len(bounds) + 1):
        here = place == k
        if not calibration.suffices(int(here.sum()), level):
            raise ValueError(f"{here.sum()} calibration rows in {_named(bounds, k)} are too few for level {level:g}")
        widening.append(calibration.conformal(outside[here], w[here], level))
        scale.append(float(np.sqrt(np.average(ratio[here] ** 2, weights=w[here]))))
        rows.append(int(here.sum()))
    return QuantileCalibration(level, base, bounds, tuple(widening), tuple(scale), floor, tuple(rows))


def choose(predicted: NDArray[Any]) -> tuple[float, ...]:
    """Edges between ranges of predicted values (n,), each with at least `LEAST` of them.

    The middle one is the median; outwards each range holds half as many rows as the one before.
    """
    shares, part = [0.5], 0.25
    while part * len(predicted) >= LEAST:
        shares, part = [part, *shares, 1 - part], part / 2
    kept: list[float] = []
    ordered = np.sort(predicted)
    for edge in np.quantile(ordered, shares):
        under = int(np.searchsorted(ordered, edge))
        before = int(np.searchsorted(ordered, kept[-1])) if kept else 0
        if under - before >= LEAST and len(ordered) - under >= LEAST:
            kept.append(float(edge))
    return tuple(kept)


def _pair(draws: Floats, base: float) -> tuple[Floats, Floats]:
    return samples.quantile(draws, (1 - base) / 2), samples.quantile(draws, (1 + base) / 2)


def _ranges(predicted: NDArray[Any], edges: Sequence[float]) -> NDArray[np.int64]:
    """(n,) number of the range of each predicted value."""
    return np.searchsorted(np.asarray(edges, np.float64), predicted, side="right").astype(np.int64)


def _named(edges: Sequence[float], k: int) -> str:
    ends = ["-inf", *(f"{edge:g}" for edge in edges), "inf"]
    return f"the range of predicted values {ends[k]} to {ends[k + 1]}"
