"""Rules of several objectives: fronts, a weighted desirability, one objective after the other.

Enters: the `rank` section of a config, what each of its objectives judges, and predictions as
arrays. Leaves: a rule like those of one property (`rules`). A crystal without one of its objectives
cannot be compared: it has no score, and the rule says what it lacks. To add a rule, write a class
and add one line to `SEVERAL`. This module does not know tables or folders.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.screening.folder.summary import Summary, Target
from assay.screening.ranking import rules
from assay.screening.ranking.compared import fronts, pfront, together, topk
from assay.screening.ranking.compared.draws import Floats, Law
from assay.screening.ranking.compared.together import Note
from assay.screening.ranking.rules import Rule
from assay.screening.settings import nearest
from assay.screening.settings.choice import Objective, Rank
from assay.screening.settings.exits import Exit, Failure

MOST = 4
"""Objectives of a rule by fronts: with more of them nearly every crystal is on the first."""


@dataclass(frozen=True)
class Goal:
    """One objective: what it judges, and how."""

    settings: Objective
    target: Target
    """What is judged; without a model it is a column of numbers that counts as exact."""
    rule: Rule | None
    """How a prediction is judged; None for a column."""

    @property
    def law(self) -> Law | None:
        """How the true values are distributed; None for what counts as exact."""
        return Law(self.target, lowest_first=False) if self.rule else None

    def columns(self) -> dict[str, str]:
        """Name of a number -> column of the scored crystals."""
        if self.rule is None or self.law is None:
            return {"mean": self.target.name}
        return self.rule.columns() | self.law.columns()

    def judged(self, values: Mapping[str, Floats]) -> Floats:
        """(n,) what is judged: the score of the rule."""
        return self.rule.score(values) if self.rule else values["mean"]

    def good(self, judged: Floats) -> Floats:
        """(n,) judged numbers as they count: higher is better, no better than `range` asks for."""
        low, high = self._ends
        if self.settings.order == "inside":
            return np.asarray(-np.maximum(np.maximum(low - judged, judged - high), 0.0))
        sign = -1.0 if self._lowest_first else 1.0
        return np.asarray(sign * np.clip(judged, low, high))

    def true(self, values: Floats) -> Floats:
        """(n,) true values as they count; of a probability 1 beyond the threshold, else 0."""
        if self.settings.by != "probability":
            return self.good(values)
        assert self.settings.threshold is not None
        sign = -1.0 if self.settings.order == "ascending" else 1.0
        return np.asarray(sign * values > sign * self.settings.threshold, np.float64)

    def best(self, lowest: Floats, highest: Floats) -> Floats:
        """(n,) how good a true value between two ends can count."""
        low, high = self._ends
        within = (self.settings.order == "inside") & (lowest <= high) & (highest >= low)
        return np.where(within, 0.0, np.maximum(self.true(lowest), self.true(highest)))

    def desirability(self, good: Floats) -> Floats:
        """(n,) from 0, the worse end of the range, to 1; a probability is its own."""
        if self.settings.by == "probability":
            return good
        low, high = self._ends
        width = high - low
        if self.settings.order == "inside":
            return np.asarray(np.maximum(1 + good / width, 0.0))
        return np.asarray((good + high if self._lowest_first else good - low) / width)

    @property
    def _lowest_first(self) -> bool:
        return self.rule.lowest_first if self.rule else self.settings.order == "ascending"

    @property
    def _ends(self) -> tuple[float, float]:
        given = self.settings.range
        low, high = (None, None) if given is None else (given.min, given.max)
        return -math.inf if low is None else low, math.inf if high is None else high

    def sentence(self) -> str:
        """What it judges, and which end is wanted, in words."""
        subject = self.rule.subject if self.rule else self.target.name
        low, high = self._ends
        unit = f" {self.target.unit}".rstrip()
        ends = f"from {low:g} to {high:g}{unit}"
        ends = f"from {low:g}{unit} on" if math.isinf(high) else f"up to {high:g}{unit}" if math.isinf(low) else ends
        if self.settings.order == "inside":
            return f"{subject} {ends}"
        wanted = "low" if self._lowest_first else "high"
        return f"{wanted} {subject}" + ("" if self.settings.range is None else f" (counted {ends})")


@dataclass(frozen=True)
class Several(Rule):
    """A rule of several objectives; `target` is the first of them that is predicted."""

    goals: tuple[Goal, ...] = field(default=())

    whole = True
    then: ClassVar[tuple[tuple[str, str], ...] | None] = ()

    decisive: ClassVar[int | None] = None
    """A row that dominates another in the first so many objectives is better; None: in all."""

    @abstractmethod
    def picked(self, points: Floats, k: int, ends: Floats) -> NDArray[np.int64]:
        """(k or fewer,) rows of the best k of some points; of equal rows the first.

        Args:
            points: (r, m) how good each row is, higher is better.
            k: how many are the best.
            ends: (2, m) how good the worst and the best predictions are.
        """

    def check(self) -> None:
        """Refuse weights that nothing reads."""
        for number, goal in enumerate(self.goals):
            if goal.settings.weight is not None:
                raise ValueError(f"has no weights, which desirability has: leave objectives.{number}.weight out")

    def columns(self) -> dict[str, str]:
        """Mean and std of the target, and the numbers of each objective, by `number.part`."""
        own = {f"{k}.{part}": column for k, goal in enumerate(self.goals) for part, column in goal.columns().items()}
        return super().columns() | own

    def of(self, values: Mapping[str, Floats], k: int) -> dict[str, Floats]:
        """The numbers of one objective among those of all."""
        return {part: values[f"{k}.{part}"] for part in self.goals[k].columns()}

    def judged(self, values: Mapping[str, Floats]) -> Floats:
        """(n, m) judged numbers, one column per objective."""
        return np.stack([goal.judged(self.of(values, k)) for k, goal in enumerate(self.goals)], axis=1)

    def points(self, values: Mapping[str, Floats]) -> tuple[Floats, NDArray[np.bool_]]:
        """(n, m) how good each row is, higher is better; (n,) whether all of it is known."""
        judged = self.judged(values)
        whole = np.isfinite(judged).all(axis=1) & np.isfinite(values["mean"]) & np.isfinite(values["std"])
        return np.stack([goal.good(judged[:, k]) for k, goal in enumerate(self.goals)], axis=1), whole

    def measured(
        self, ids: pa.Array, values: Mapping[str, Floats], note: Note | None = None
    ) -> tuple[Floats, dict[str, NDArray[Any]]]:
        """The scores, and `p_top_k`."""
        scores = self.score(values)
        order = np.argsort(scores if self.lowest_first else -scores, kind="stable")
        return scores, self.chances(ids, values, order, note)

    def chances(
        self,
        ids: pa.Array,
        values: Mapping[str, Floats],
        order: NDArray[np.int64],
        note: Note | None = None,
        *,
        on_front: bool = False,
    ) -> dict[str, Floats]:
        """`p_top_k` and, `on_front`, `p_front`, (n,) each; `order` (n,): strong rows first."""
        points, whole = self.points(values)
        rows, here = np.flatnonzero(whole), points[whole]
        order = (np.cumsum(whole) - 1)[order[whole[order]]]
        movable = [self._movable(ids, values, k, rows) for k in range(len(self.goals))]
        last = pa.table({"std": values["std"][rows], "id": ids.take(pa.array(rows))})
        ends = np.stack([here.min(axis=0), here.max(axis=0)]) if len(rows) else here
        picked, decisive = partial(self.picked, ends=ends), self.decisive or len(movable)
        noted = None if note is None else (lambda best: note(rows[best]))
        top = self.settings.top
        found = {topk.COLUMN: together.chances(movable, here, order, last, top, picked, decisive, noted)}
        found |= {"p_front": pfront.chances(movable, here, order)} if on_front else {}
        spread = {name: np.full(len(points), np.nan) for name in found}
        for name, column in spread.items():
            column[rows] = found[name]
        return spread

    def _movable(self, ids: pa.Array, values: Mapping[str, Floats], k: int, rows: NDArray[np.int64]) -> pfront.Movable:
        goal = self.goals[k]
        own = {part: column[rows] for part, column in self.of(values, k).items()}
        return pfront.movable(goal, goal.law, ids.take(pa.array(rows)), own)

    def lacks(self, values: Mapping[str, Floats]) -> list[str]:
        """The objectives of which a row has no finite number."""
        names = [goal.target.name for goal in self.goals]
        known = np.isfinite(self.judged(values))
        known[:, names.index(self.target.name)] &= np.isfinite(values["mean"]) & np.isfinite(values["std"])
        return [", ".join(name for name, is_known in zip(names, row) if not is_known) for row in known.tolist()]

    @property
    def lowest_first(self) -> bool:
        """Scores are places."""
        return True

    @property
    def listed(self) -> str:
        """The objectives in words."""
        return ", ".join(goal.sentence() for goal in self.goals)


class Pareto(Several):
    """By fronts: a crystal of a front is beaten in everything by none of it or of a later one."""

    then = (("hypervolume", "descending"),)

    def check(self) -> None:
        """Refuse too many objectives."""
        super().check()
        if not 2 <= len(self.goals) <= MOST:
            raise ValueError(f"takes 2 to {MOST} objectives, not {len(self.goals)}")

    def score(self, values: Mapping[str, Floats]) -> Floats:
        """(n,) numbers of the fronts, from 1."""
        points, whole = self.points(values)
        found = np.full(len(points), np.nan)
        found[whole] = fronts.fronts(points[whole])
        return found

    def measured(
        self, ids: pa.Array, values: Mapping[str, Floats], note: Note | None = None
    ) -> tuple[Floats, dict[str, NDArray[Any]]]:
        """The fronts, what each row adds to the hypervolume of its own, `p_top_k` and `p_front`."""
        points, whole = self.points(values)
        scores, volume = self.score(values), np.full(len(points), np.nan)
        front = np.where(whole, scores, 0).astype(np.int64)
        volume[whole] = fronts.contributions(points[whole], front[whole])
        chances = self.chances(ids, values, np.lexsort((-volume, front)), note, on_front=True)
        return scores, {"front": front, "hypervolume": volume, **chances}

    def picked(self, points: Floats, k: int, ends: Floats) -> NDArray[np.int64]:
        """Front after front, within the last one by hypervolume."""
        front = fronts.fronts(points)
        last = int(np.searchsorted(np.cumsum(np.bincount(front)[1:]), k)) + 1
        inside, rows = np.flatnonzero(front < last), np.flatnonzero(front == last)
        if len(inside) + len(rows) > k:
            volume = fronts.contributions(points[rows], front[rows], ends)
            rows = rows[np.argsort(-volume, kind="stable")]
        return np.concatenate([inside, rows[: k - len(inside)]])

    def reference(self, values: Mapping[str, Floats]) -> list[float]:
        """The reference point of the hypervolume, by objective, in its unit; none without rows."""
        points, whole = self.points(values)
        if not whole.any():
            return []
        return [
            float(-number if goal.good(np.array([0.0, 1.0])).argmin() else number)
            for goal, number in zip(self.goals, fronts.reference(points[whole]), strict=True)
        ]

    @property
    def subject(self) -> str:
        """The rule in words."""
        return f"fronts of {self.listed}"

    def sentence(self) -> str:
        """The rule for people."""
        return f"{self.subject}, the front that no crystal beats in everything first"


class Desirability(Several):
    """By the weighted geometric mean of desirabilities, each from 0 to 1 (Derringer and Suich)."""

    def check(self) -> None:
        """Refuse objectives that do not say what is worth nothing, and what is good enough."""
        for number, goal in enumerate(self.goals):
            low, high = goal._ends  # noqa: SLF001
            if goal.settings.by != "probability" and not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"needs objectives.{number}.range, a min below a max: from worth nothing to enough")

    def score(self, values: Mapping[str, Floats]) -> Floats:
        """(n,) desirabilities."""
        points, whole = self.points(values)
        return np.where(whole, self._together(points), np.nan)

    def _together(self, points: Floats) -> Floats:
        weights = np.array([goal.settings.weight or 1.0 for goal in self.goals])
        each = np.stack([goal.desirability(points[:, k]) for k, goal in enumerate(self.goals)], axis=1)
        return np.asarray(np.prod(np.clip(each, 0.0, 1.0) ** (weights / weights.sum()), axis=1))

    def picked(self, points: Floats, k: int, ends: Floats) -> NDArray[np.int64]:  # noqa: ARG002 (for fronts)
        """The highest desirabilities; what is worth nothing (0) is not among the best."""
        found = self._together(points)
        best = np.argsort(-found, kind="stable")[:k]
        return best[found[best] > 0]

    @property
    def lowest_first(self) -> bool:
        """The highest desirability is the best."""
        return False

    @property
    def subject(self) -> str:
        """The rule in words."""
        return f"weighted desirability of {self.listed}"


class Lexicographic(Several):
    """By the first objective; rows equal in it by the second; and so on."""

    decisive = 1

    def score(self, values: Mapping[str, Floats]) -> Floats:
        """(n,) places from 1, shared by rows that are equal in all objectives."""
        points, whole = self.points(values)
        rows = np.flatnonzero(whole)
        order = rows[np.lexsort(-points[rows].T[::-1])]
        found = np.full(len(points), np.nan)
        steps = (np.diff(points[order], axis=0) != 0).any(axis=1)
        found[order] = 1 + np.concatenate([np.zeros(min(len(order), 1)), np.cumsum(steps)])
        return found

    def picked(self, points: Floats, k: int, ends: Floats) -> NDArray[np.int64]:  # noqa: ARG002 (for fronts)
        """The first in the order of the objectives."""
        return np.asarray(np.lexsort(-points.T[::-1])[:k])

    @property
    def subject(self) -> str:
        """The rule in words."""
        return f"{self.listed}, one after the other"

    def sentence(self) -> str:
        """The rule for people."""
        return self.subject


SEVERAL: dict[str, type[Several]] = {
    "pareto": Pareto,
    "desirability": Desirability,
    "lexicographic": Lexicographic,
}
"""`rank.by` -> rule, where there are `rank.objectives`."""


def make(settings: Rank, target: Target, judged: Sequence[Target] = ()) -> Rule:
    """The rule that a config names; `judged` is what each of its objectives judges.

    Raises:
        Failure: CONFIG, when there is no such rule, with the nearest known name, or when it cannot
            work with the settings.
    """
    if not settings.objectives:
        if settings.by in SEVERAL:
            raise Failure(Exit.CONFIG, f"rank.by: {settings.by} needs rank.objectives, a list of what counts")
        return rules.make(settings, target)
    if settings.by not in SEVERAL:
        what = "ranks one property" if settings.by in rules.RULES else "is no ranking rule"
        hint = nearest.hint(settings.by, SEVERAL, "several objectives have")
        raise Failure(Exit.CONFIG, f"rank.by: {settings.by!r} {what}; {hint}")
    goals = tuple(
        Goal(objective, each, _rule(number, objective, each))
        for number, (objective, each) in enumerate(zip(settings.objectives, judged, strict=True))
    )
    rule = SEVERAL[settings.by](settings, target, goals)
    try:
        rule.check()
    except ValueError as error:
        raise Failure(Exit.CONFIG, f"rank.by: {settings.by} {error}") from None
    return rule


def of(summary: Summary) -> Rule:
    """The rule of a ranked campaign."""
    return make(summary.rank, summary.target, summary.objectives)


def _rule(number: int, objective: Objective, target: Target) -> Rule | None:
    """How an objective judges a prediction; None for a column that counts as exact."""
    where = f"rank.objectives.{number}"
    if not target.model:
        if objective.by != "mean":
            raise Failure(Exit.CONFIG, f"{where}.by: {objective.property} has no error, and no {objective.by}")
        return None
    lowest: Literal["ascending", "descending"] = "ascending" if objective.order == "ascending" else "descending"
    one = Rank(by=objective.by, threshold=objective.threshold, order=lowest)
    try:
        return rules.make(one, target)
    except Failure as failure:
        raise Failure(failure.code, str(failure).replace("rank.by", f"{where}.by", 1)) from None
