"""How a predictive distribution becomes one predicted value.

Enters: draws (n, T). Leaves: values (n,). Which value is best depends on the measure: the median
has the smallest absolute error, the mean the smallest squared error and no bias. This module does
not know trees, properties or error bars.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from assay.models.ensemble.distribution import draws as samples
from assay.models.ensemble.distribution.draws import Floats

ADAPTIVE = "adaptive-trimmed-mean"
KINDS = ("median", "interquartile-mean", "mean", ADAPTIVE)
"""Kinds of decisions."""


@dataclass(frozen=True)
class Decision:
    """The rule that makes one value of the draws."""

    kind: str = "median"
    """`median`; `interquartile-mean`, the mean of the middle half; `mean`; or
    `adaptive-trimmed-mean`: the interquartile mean where that is at most `low`, the mean without
    the share `trim` at either end where it is at least `high`, and between them a mixture that goes
    over linearly. It errs little where values are small and claims little too much at the top."""
    low: float | None = None
    """In the unit of the property; for `adaptive-trimmed-mean` only."""
    high: float | None = None
    """In the unit of the property, above `low`; for `adaptive-trimmed-mean` only."""
    trim: float = 0.02
    """Share of the draws that the mean above `high` leaves out at either end, 0 to 0.25."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"decision.kind is {self.kind!r}, expected one of {', '.join(KINDS)}")
        bounds = {"low": self.low, "high": self.high}
        for name, bound in bounds.items():
            if self.kind == ADAPTIVE and not (bound is not None and math.isfinite(bound)):
                raise ValueError(f"decision.{name} is {bound}, expected a number in the unit of the property")
            if self.kind != ADAPTIVE and bound is not None:
                raise ValueError(f"decision.{name} is {bound}, and only {ADAPTIVE} reads it, not {self.kind}")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"decision.high is {self.high:g}, expected above decision.low, {self.low:g}")
        if not 0 <= self.trim <= 0.25:
            raise ValueError(f"decision.trim is {self.trim}, expected 0 to 0.25")

    def of(self, draws: Floats) -> Floats:
        """(n,) values of draws (n, T), ascending in each row.

        >>> Decision(ADAPTIVE, 0.0, 4.0, trim=0.0).of(np.array([[0.0, 1.0, 3.0, 8.0]]))
        array([2.5])
        """
        if self.kind == "median":
            return samples.median(draws)
        if self.kind == "mean":
            return np.asarray(draws.mean(axis=1), np.float64)
        middle = samples.trimmed_mean(draws, 0.25)
        if self.low is None or self.high is None:
            return middle
        share = np.clip((middle - self.low) / (self.high - self.low), 0.0, 1.0)
        return np.asarray((1 - share) * middle + share * samples.trimmed_mean(draws, self.trim), np.float64)
