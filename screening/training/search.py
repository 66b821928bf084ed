"""A search for hyper-parameters: a recipe, ranges for its keys, and the values of each trial.

Enters: YAML. Leaves: a `Search` whose every value fits the recipe, or one line about the first that
does not. This module does not know how a trial runs (`assay.screening.training.trials`) or where
(`assay.screening.training.tuning`).
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from assay.models.training.recipe import Recipe
from assay.screening.settings import bundled, place, yamlfile
from assay.screening.settings.exits import Exit, Failure
from assay.screening.settings.section import Count, Section
from assay.screening.training import listed, recipes
from assay.sources.durable import whole

Ends = Annotated[list[float], Field(min_length=2, max_length=2)]
FIXED = ("name", "tasks", "split", "limit", "level", "combine", "schedule.epochs", "members.seed")
"""Keys that a search may not vary: they change what is measured or nothing that it measures;
`epochs` has its own."""


class Range(Section):
    """The possible values of a key: exactly one of the four fields is set."""

    uniform: Ends | None = None
    """Between the two ends, all values equally likely."""
    loguniform: Ends | None = None
    """Between the two ends, all orders of magnitude equally likely."""
    integers: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None
    """From the first to the second, both included."""
    choice: Annotated[list[Any], Field(min_length=1)] | None = None
    """One of these."""

    @model_validator(mode="after")
    def _check(self) -> Range:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of uniform, loguniform, integers, choice, not {given or 'none'}")
        ends = self.uniform or self.loguniform or self.integers
        if ends and not ends[0] < ends[1]:
            raise ValueError(f"{given[0]} is {ends}, expected the smaller end first")
        if self.loguniform and not self.loguniform[0] > 0:
            raise ValueError(f"loguniform is {self.loguniform}, expected ends above 0")
        return self

    def draw(self, rng: np.random.Generator) -> Any:
        """A value."""
        if self.choice is not None:
            return self.choice[int(rng.integers(len(self.choice)))]
        if self.integers:
            return int(rng.integers(self.integers[0], self.integers[1] + 1))
        low, high = self.uniform or [math.log(end) for end in self.loguniform or []]
        value = float(rng.uniform(low, high))
        return float(f"{value if self.uniform else math.exp(value):.4g}")

    def corners(self) -> list[Any]:
        """Values that must all be possible if the range is."""
        return list(self.choice or self.integers or self.uniform or self.loguniform or [])


class SearchConfig(Section):
    """Everything `assay tune` needs to know."""

    recipe: str
    """The recipe that is varied: a path from the current folder, or the name of a bundled one."""
    space: Annotated[dict[str, Range], Field(min_length=1)]
    """Dotted path into the recipe -> its possible values; `members.sizes.hidden` is that of every
    member."""
    metric: str = "validation_mae"
    """What of a row of `history.jsonl` should be small."""
    trials: Count = 20
    """The first is the recipe as it stands, the others are drawn at random."""
    scheduler: Literal["asha", "none"] = "asha"
    """`asha` stops the worse two thirds of the trials after `grace` epochs, of the rest after 3
    `grace`, and so on (Li et al., MLSys 2020); `none`: every trial learns to its end."""
    grace: Count = 5
    """Epochs that every trial may learn."""
    epochs: Count | None = None
    """Of each trial; unset: as in the recipe."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of what is drawn; the weights have the seeds of the members."""
    folds: Count = 1
    """Each trial learns the first so many members, one fold each, and is judged by their mean."""

    def load(self, overrides: Sequence[str] = ()) -> Search:
        """Read the recipe and check that every value of the space fits it."""
        content = recipes.read(bundled.recipe(self.recipe), overrides)
        if self.epochs is not None:
            content = recipes.vary(content, {"schedule.epochs": self.epochs})
        recipe = recipes.check(content, self.recipe)
        for path, values in self.space.items():
            self._allow(path)
            for value in values.corners():
                _check_path(content, path, value)
        if recipe.cross_validation is not None:
            raise Failure(
                Exit.CONFIG, f"{self.recipe}: cross_validation keeps no rows that a search can decide by; leave it out"
            )
        if self.folds > min(len(recipe.members), recipe.split.folds):
            most = min(len(recipe.members), recipe.split.folds)
            raise Failure(Exit.CONFIG, f"folds is {self.folds}, expected at most {most} as in {self.recipe}")
        return Search(self, content, recipe)

    def _allow(self, path: str) -> None:
        if path.startswith("members.") and path.split(".")[1].isdigit():
            raise Failure(
                Exit.CONFIG, f"space: {path} is one member's; a search varies all alike, as members.sizes.hidden"
            )
        for fixed in FIXED:
            if path == fixed or path.startswith(f"{fixed}."):
                reason = "set `epochs` of the search instead" if "epochs" in fixed else "trials could not be compared"
                raise Failure(Exit.CONFIG, f"space: {path} cannot be varied: {reason}")


def read(path: Path, overrides: Sequence[str] = ()) -> SearchConfig:
    """Read, override and validate the config of a search."""
    return yamlfile.validate(SearchConfig, yamlfile.override(yamlfile.read(path), overrides), str(path))


def _check_path(content: dict[str, Any], path: str, value: Any) -> None:
    try:
        recipes.check(recipes.vary(content, {path: value}), "space")
    except Failure as error:
        raise Failure(error.code, f"space: {path} = {value!r} does not fit the recipe: {error}") from None


@dataclass(frozen=True)
class Search:
    """A search whose recipe is read."""

    config: SearchConfig
    content: dict[str, Any]
    """Keys of the recipe."""
    recipe: Recipe
    """Trial 0."""

    @property
    def steps(self) -> int:
        """Epochs of a trial, over all its folds."""
        return self.config.folds * self.recipe.schedule.epochs

    def values(self, number: int) -> dict[str, Any]:
        """The values of trial `number`; the first has none: it is the recipe as it stands."""
        if number == 0:
            return {}
        rng = np.random.default_rng([self.config.seed, number])
        return {path: values.draw(rng) for path, values in self.config.space.items()}

    def claim(self, output: Path) -> None:
        """Make `output` the folder of this search, or find it there already.

        Raises:
            Failure: when the folder holds something else.
        """
        asked = self.config.model_dump(mode="json", exclude={"trials", "recipe"})
        wanted = json.dumps({"search": asked, "recipe": self.content}, indent=1, sort_keys=True) + "\n"
        path = output / "search.json"
        if path.is_file():
            if path.read_text(encoding="utf-8") != wanted:
                changed = _difference(path.read_text(), wanted)
                advice = "only `trials` may change; choose another --output"
                raise Failure(Exit.CONFIG, f"{output} holds another search: {changed}; {advice}")
            return
        place.check(output, lambda _: False, "no search")
        output.mkdir(parents=True, exist_ok=True)
        with whole(path) as file:
            file.write(wanted.encode())

    def learned(self, output: Path) -> Search:
        """The search on a file of each list, and number of a campaign, that its recipe names."""
        recipe = listed.shared({"": self.recipe}, output)[""]
        files = {f"tasks.{k}.dataset": task.dataset for k, task in enumerate(recipe.tasks)}
        return Search(self.config, recipes.vary(self.content, files), recipe)


def _difference(old: str, new: str) -> str:
    lines = difflib.ndiff(old.splitlines(), new.splitlines())
    return ", ".join(" ".join(line.split()) for line in lines if line[:2] in ("- ", "+ "))[:300]
