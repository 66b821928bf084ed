"""A rehearsal: known values replayed as a sequential campaign, by one strategy and one seed.

Enters: a `Simulation`, the section of a config, and a `Pool`. Leaves: the order in which formulas
were measured. What is not measured yet is hidden from the surrogate. This module does not know how
a run is judged.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from assay.featurize.composition import CompositionSpec
from assay.models.ensemble.distribution import acquisition
from assay.models.ensemble.distribution.acquisition import ACQUISITIONS, Question
from assay.models.target import Property
from assay.screening.deciding.pool import Pool
from assay.screening.deciding.surrogate import Surrogate
from assay.screening.settings.exits import Exit, Failure
from assay.screening.settings.section import Count, Section, Slug, Text

Rows = NDArray[np.int64]
Strategy = Literal["random", "greedy", "ucb", "ei", "pi", "std", "thompson"]
"""How a batch is chosen: blindly, by the predicted value (`greedy`), or by an acquisition
function."""
NAMES = {"greedy": "mean"}
"""Strategy -> acquisition function, where the names differ."""


class Hits(Section):
    """The formulas that the campaign is for: exactly one of the two fields is set."""

    threshold: float | None = None
    """A value beyond it, in the unit of the property, is a hit: above, or below where `order` is
    ascending."""
    top: Count | None = None
    """The best so many formulas of the pool are hits."""

    @model_validator(mode="after")
    def _check(self) -> Hits:
        if (self.threshold is None) == (self.top is None):
            raise ValueError("give exactly one of threshold and top")
        return self


class Target(Section):
    """The property, and the scale on which the surrogate learns it."""

    name: Text
    transform: Literal["identity", "arcsinh", "log1p", "sqrt"] = "identity"
    """Applied before learning, for values with a long tail."""
    minimum: float | None = None
    """Smallest possible value, in the unit of the data."""


class Forest(Section):
    """The surrogate: trees on features of the composition, fitted anew in each round."""

    trees: Annotated[int, Field(ge=2, le=10_000)] = 64
    max_features: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of the features among which a split is chosen."""
    min_leaf: Count = 1
    """Formulas in a leaf, at least."""
    splits: Literal["random", "best"] = "random"
    """`random` tries one threshold per feature, `best` all of them."""
    bootstrap: bool = False
    """Whether each tree learns from a resampling of the measured formulas."""
    blocks: Annotated[list[str], Field(min_length=1, default_factory=lambda: ["properties", "shares"])]
    """Blocks of features (`assay.featurize.composition`)."""

    def spec(self) -> CompositionSpec:
        """The table of features."""
        return CompositionSpec(blocks=tuple(self.blocks))

    def sizes(self) -> dict[str, Any]:
        """Keyword arguments of `Trees`."""
        return self.model_dump(exclude={"blocks"})


class Simulation(Section):
    """Everything `assay simulate` needs to know."""

    name: Slug
    dataset: Text
    """A training set with known values, or FILE.parquet#COLUMN."""
    limit: Count | None = None
    """Use only its first rows."""
    property: Target
    order: Literal["descending", "ascending"] = "descending"
    """Which values are wanted: the highest (descending) or the lowest."""
    hits: Hits
    strategies: Annotated[list[Strategy], Field(min_length=1)]
    start: Annotated[int, Field(ge=2)] = 50
    """Formulas measured before the first batch, drawn by the seed; alike for all strategies."""
    batch: Count = 20
    """Formulas measured per round."""
    rounds: Count = 10
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=2)]
    """One run of each strategy per seed; the bands are over them."""
    kappa: Annotated[float, Field(ge=0)] = 1.0
    """Standard deviations that `ucb` adds."""
    reach: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Share of the hits at which the acceleration is measured."""
    surrogate: Annotated[Forest, Field(default_factory=Forest)]

    @model_validator(mode="after")
    def _check(self) -> Simulation:
        for name in ("strategies", "seeds"):
            given: list[Any] = getattr(self, name)
            if len(set(given)) < len(given):
                raise ValueError(f"{name} lists one twice: {given}")
        self.surrogate.spec()
        Property(self.property.name, "", self.property.transform, self.property.minimum)
        return self


def sign_of(settings: Simulation) -> float:
    """1 where the highest values are wanted, -1 where the lowest."""
    return 1.0 if settings.order == "descending" else -1.0


def check(settings: Simulation, pool: Pool) -> NDArray[np.bool_]:
    """(n,) which formulas of the pool are hits.

    Raises:
        Failure: CONFIG, when the pool is too small for the campaign, or no or every formula is a
            hit.
    """
    wanted = settings.start + settings.batch * settings.rounds
    if wanted > len(pool):
        how = f"start + batch * rounds is {wanted:,}"
        raise Failure(Exit.CONFIG, f"{how}, and {settings.dataset} has {len(pool):,} formulas; measure fewer")
    sign = sign_of(settings)
    value = sign * pool.value
    if settings.hits.top is not None:
        place = np.array(acquisition.order(value, value, pool.formulas))
        hit = np.zeros(len(pool), bool)
        hit[place[: settings.hits.top]] = True
    else:
        assert settings.hits.threshold is not None
        hit = value > sign * settings.hits.threshold
    if hit.all() or not hit.any():
        low, high = pool.value.min(), pool.value.max()
        found = f"{int(hit.sum()):,} of {len(pool):,} formulas are hits"
        raise Failure(Exit.CONFIG, f"hits: {found}; values lie between {low:.4g} and {high:.4g} {pool.unit}")
    return hit


def run(settings: Simulation, pool: Pool, surrogate: Surrogate, strategy: Strategy, seed: int) -> Rows:
    """Row numbers of the pool in the order they were measured: the start first, then each batch.

    Raises:
        Failure: CONFIG, when all values at the start are equal, so that nothing can be learned.
    """
    sign = sign_of(settings)
    started = acquisition.drawn(pool.formulas, "start", seed)
    measured = np.argsort(started, kind="stable")[: settings.start]
    for number in range(settings.rounds):
        left = np.setdiff1d(np.arange(len(pool)), measured)
        names = [pool.formulas[row] for row in left]
        if strategy == "random":
            utility = mean = acquisition.drawn(names, "random", seed)
        else:
            value = pool.value[measured]
            if np.ptp(value) == 0:
                how = f"seed {seed}: all {len(value)} formulas measured so far have the value {value[0]:.4g}"
                raise Failure(Exit.CONFIG, f"{how}, so nothing can be learned; raise start")
            belief = surrogate.believe(measured, value, left, seed, sign)
            shares = acquisition.drawn(names, "thompson", seed, number) if strategy == "thompson" else None
            asked = Question(float((sign * value).max()), settings.kappa, shares)
            utility, mean = ACQUISITIONS[NAMES.get(strategy, strategy)](belief, asked), belief.mean
        chosen = acquisition.order(utility, mean, names)[: settings.batch]
        measured = np.concatenate([measured, left[chosen]])
    return np.asarray(measured, np.int64)
