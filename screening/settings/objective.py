"""Ranges of numbers, and the objectives of a ranking by several properties.

Enters: parts of a YAML file. Leaves: their sections. This module does not know what is predicted.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from assay.screening.settings.section import Section, Text


class Range(Section):
    """A closed interval; an unset end is open. A missing (NaN) value is outside every range."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _check(self) -> Range:
        if self.min is None and self.max is None:
            raise ValueError("needs min, max or both")
        if self.min is not None and self.max is not None and not self.min <= self.max:
            raise ValueError(f"min {self.min} must not be above max {self.max}")
        return self


class Objective(Section):
    """One of several properties that rank together."""

    property: Text
    """Predicted property, energy_above_hull, or a column of numbers that counts as exact: p_stable,
    nsites, or one that a source reports."""
    order: Literal["descending", "ascending", "inside"] = "descending"
    """Which end is wanted; inside: values within `range`."""
    by: str = "mean"
    """A ranking rule of one property: mean, lower, upper or probability. A column that counts as
    exact has its value alone: mean."""
    threshold: float | None = None
    """As `rank.threshold`, for `by: probability`."""
    range: Range | None = None
    """Values outside count as its nearest end: whatever is better than the wanted end is good
    enough. With `order: inside` the distance from the range counts, the nearest first."""
    weight: Annotated[float, Field(gt=0)] | None = None
    """How much it counts in `by: desirability`; unset: 1."""

    @model_validator(mode="after")
    def _check(self) -> Objective:
        if self.order == "inside" and self.range is None:
            raise ValueError("order: inside needs a range")
        if self.order == "inside" and self.by == "probability":
            raise ValueError("by: probability has a threshold, and no order: inside")
        if self.range is not None and self.by == "probability":
            raise ValueError("by: probability has a threshold, and no range")
        return self
