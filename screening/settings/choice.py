"""The sections of a config that choose among crystals: filters, ranking, cascade.

Enters: what YAML gave. Leaves: validated, frozen sections of a campaign. This module opens no
source and no model.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from assay.screening.settings.section import Count, Section, Text
from assay.sources.crystals import WARNINGS
from assay.sources.elements import NUMBERS


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


class Elements(Section):
    """Which elements a crystal must, must not, or may hold."""

    include: list[str] = []
    """Every one of these must be present."""
    exclude: list[str] = []
    """None of these may be present."""
    only: list[str] = []
    """Nothing but these; empty: no limit."""

    @model_validator(mode="after")
    def _check(self) -> Elements:
        for symbol in [*self.include, *self.exclude, *self.only]:
            if symbol not in NUMBERS:
                raise ValueError(f"{symbol!r} is not an element symbol (H to Og)")
        for symbol in self.include:
            if symbol in self.exclude or symbol not in (self.only or [symbol]):
                rule = f"exclude {self.exclude}" if symbol in self.exclude else f"only {self.only}"
                raise ValueError(f"include {symbol!r} contradicts {rule}: no crystal passes both")
        return self


class Predicted(Range):
    """A range of a predicted property, in its unit."""

    confidence: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The probability with which the value must lie in the range, by its calibrated error, both
    ends together; unset: the predicted value decides."""


class Filters(Section):
    """Which crystals are scored, and which of them are ranked.

    `predicted` decides after scoring, and counts the others as excluded. All else decides before
    it, and counts them as filtered.
    """

    formula: list[str] = []
    """Compositions as formulas, elements in any order (MgB2, LaFeAsO); empty: no limit."""
    elements: Elements = Elements()
    nsites: Range | None = None
    """Sites in the cell."""
    ordered: bool | None = None
    """true: only crystals of whole atoms, as a force field needs them; false: only those with a
    site that is shared or partly empty; unset: both."""
    reported: dict[str, Range] = {}
    """Reported property -> range, for example energy_above_hull: {max: 0.1} in eV/atom."""
    predicted: dict[str, Predicted] = {}
    """Predicted property -> range, for example formation_energy: {max: 0.0, confidence: 0.9}: a
    property of any of `models`, or with `stability` energy_above_hull. Crystals outside of it are
    scored and not ranked."""

    @model_validator(mode="after")
    def _check(self) -> Filters:
        if self.nsites is not None and self.nsites.max is not None and self.nsites.max < 1:
            raise ValueError(f"nsites.max must be at least 1, got {self.nsites.max:g}")
        if WARNINGS in self.reported:
            raise ValueError(f"reported.{WARNINGS}: this column holds text, a range needs numbers")
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


class Select(Section):
    """A shortlist of which a bounded share is expected to be wrong (conformal selection)."""

    threshold: Annotated[float, Field(allow_inf_nan=False)]
    """In the unit of the property that ranks; a hit lies above it when descending, below it when
    ascending."""
    fdr: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Largest expected share of false discoveries: selected crystals that are no hits."""


class Rank(Section):
    """How scored crystals are put in order."""

    model: str | None = None
    """Name of the ensemble folder that ranks; unset: the first model."""
    property: str | None = None
    """Predicted property that ranks; unset: the first of that model."""
    by: str = "mean"
    """A ranking rule (`assay.screening.ranking.rules`): mean, lower or upper (an end of the
    calibrated interval), or probability (of lying beyond `threshold`). Where the property has a
    floor, most lower ends lie on it and tie: screen by mean or probability there."""
    threshold: float | None = None
    """In the unit of the property; beyond = above when descending, below when ascending. Read by
    `probability` only."""
    order: Literal["descending", "ascending"] = "descending"
    """Which end of the property is wanted."""
    top: Count = 50
    """Rows shown in the report, and the k of `p_top_k`; candidates.parquet holds every ranked
    crystal."""
    objectives: list[Objective] = []
    """Several properties that rank together; unset: one property ranks. `by` then says how: pareto
    (by fronts of crystals that no other one beats in everything; unset), desirability (by a
    weighted mean) or lexicographic (by the first, then by the second, ...)."""

    select: Select | None = None
    """Mark a shortlist among the candidates; unset: none. The order does not depend on it."""

    @model_validator(mode="before")
    @classmethod
    def _by_fronts(cls, content: Any) -> Any:
        several = isinstance(content, dict) and content.get("objectives")
        return {"by": "pareto", **content} if several else content

    @model_validator(mode="after")
    def _check(self) -> Rank:
        if not self.objectives:
            return self
        for name in ("model", "property", "threshold", "order"):
            if getattr(self, name) != Rank.model_fields[name].default:
                raise ValueError(f"{name} is that of one property; each of the objectives has its own")
        if self.select is not None:
            raise ValueError("select chooses by one property; leave it or the objectives out")
        return self

    @model_serializer(mode="wrap")
    def _stored(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without `objectives` and `select` where there are none, as before they could be."""
        return {name: value for name, value in written(self).items() if value or name not in {"objectives", "select"}}


class Tier(Section):
    """A cheap ensemble, and how much of what it scores goes on."""

    model: Text
    """Ensemble folder that predicts the property that ranks, relative to the current folder."""
    keep: int | float
    """What goes on to the next tier: a fraction of what entered this one (0.05), or a number of
    crystals (5000)."""

    @field_validator("keep")
    @classmethod
    def _check(cls, keep: float) -> float:
        if not (0 < keep < 1 if isinstance(keep, float) else keep >= 1):
            raise ValueError("must be a fraction between 0 and 1, or a whole number of crystals of at least 1")
        return keep


class Cascade(Section):
    """Cheap ensembles score everything, `models` only what survives them."""

    tiers: Annotated[list[Tier], Field(min_length=1)]
    """Cheapest first; each scores what the one before it let through."""
    audit: Annotated[int, Field(ge=0)] = 500
    """Crystals that were set aside and are scored in full anyway, drawn at random, to estimate what
    was missed."""
    seed: int = 0
    """Of the draw."""
    k: Count | None = None
    """The recall of the best k is estimated; unset: rank.top."""
