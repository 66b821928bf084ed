"""The trials of a search: one learns, its folder remembers it, all together are a table and a best recipe.

Enters: a `Plan`. Leaves: trained trials, `trials.csv`, `trials.parquet`, `best.yaml`. A trial
learns from the development rows: the values of the calibration and test rows are blanked before it
starts. This module does not know who runs the trials, nor where.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from assay.models.training.recipe import Recipe
from assay.screening.settings import bundled
from assay.screening.settings.exits import one_line
from assay.screening.training import recipes
from assay.screening.training.search import Plan
from assay.sources.durable import whole

Ended = Literal["finished", "stopped", "failed", "unfinished"]
"""Learned to its end; stopped by the scheduler for being worse; refused by the training; not ended
yet."""


@dataclass(frozen=True)
class Trial:
    """One trial, as its folder tells."""

    number: int
    values: dict[str, Any]
    """Dotted path -> value, where it differs from the recipe."""
    told: list[dict[str, float]]
    """After each epoch: `step`, the metric (mean over folds of the best so far), `seconds`."""
    ended: Ended
    reason: str = ""
    """Why it failed."""

    def score(self, metric: str) -> float:
        """The metric at its end; infinite where it has none."""
        return self.told[-1][metric] if self.told else math.inf


def folder_of(output: Path, number: int) -> Path:
    """The folder of a trial."""
    return output / "trials" / f"{number:03d}"


def trial(plan: Plan, output: Path, number: int) -> Trial:
    """What became of trial `number`."""
    folder = folder_of(output, number)
    judge = _Judge(plan)
    told = [judge.hear(k, row) for k in range(plan.search.folds) for row in _history(folder / f"fold-{k}")]
    note: dict[str, Any] = {"ended": "unfinished"}
    if (folder / "end.json").is_file():
        note = json.loads((folder / "end.json").read_text(encoding="utf-8"))
    return Trial(number, plan.values(number), told, note["ended"], note.get("reason", ""))


def end(output: Path, number: int, ended: Ended, reason: str = "") -> None:
    """Note how a trial ended; the first note counts."""
    assert ended in get_args(Ended)
    path = folder_of(output, number) / "end.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), whole(path, absent=True) as file:
        file.write(json.dumps({"ended": ended, "reason": reason}).encode())


def learn(plan: Plan, output: Path, number: int, tell: Callable[[dict[str, float]], None]) -> None:
    """Run one trial, or go on with it, telling of every epoch; what `tell` raises ends it without a note.

    A training that refuses these values (`ValueError`) is a failed trial, not an error.
    """
    try:
        _learn(plan, output, number, tell)
    except ValueError as error:
        end(output, number, "failed", one_line(error))
    else:
        end(output, number, "finished")


def _learn(plan: Plan, output: Path, number: int, tell: Callable[[dict[str, float]], None]) -> None:
    from assay.models.training import prepare, train

    recipe = recipes.check(recipes.vary(plan.content, plan.values(number)), f"trial {number}")
    prepared = prepare.prepare(recipe)
    prepared = replace(prepared, target=blanked(prepared.target, prepared.split.folds))
    judge = _Judge(plan)
    for k in range(plan.search.folds):
        folder = folder_of(output, number) / f"fold-{k}"
        for row in _history(folder):  # before an interruption
            tell(judge.hear(k, row))
        material = replace(prepare.for_member(recipe, k)[1], target=prepared.target)
        train.member(recipe, k, material, folder, {}, progress=partial(_pass_on, judge, k, tell))


def _pass_on(judge: _Judge, fold: int, tell: Callable[[dict[str, float]], None], row: dict[str, float]) -> None:
    tell(judge.hear(fold, row))


def blanked(target: NDArray[np.float64], folds: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """The targets (n, p) with NaN in every row that lies in no fold: what no trial may know, it cannot."""
    kept = np.full_like(target, np.nan)
    rows = np.concatenate(list(folds))
    kept[rows] = target[rows]
    return kept


class _Judge:
    """Makes of the epochs of one fold after the other how good a trial is so far."""

    def __init__(self, plan: Plan) -> None:
        self._metric, self._epochs = plan.search.metric, plan.recipe.schedule.epochs
        self._best: dict[int, float] = {}

    def hear(self, fold: int, row: dict[str, Any]) -> dict[str, float]:
        if self._metric not in row:
            raise ValueError(f"metric {self._metric!r} is not one of a training's: {', '.join(row)}")
        value = float(row[self._metric])
        self._best[fold] = min(self._best.get(fold, math.inf), value if math.isfinite(value) else math.inf)
        mean = float(np.mean(list(self._best.values())))
        return {"step": fold * self._epochs + row["epoch"], self._metric: mean, "seconds": row.get("seconds", 0.0)}


def _history(folder: Path) -> list[dict[str, Any]]:
    path = folder / "history.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def write(plan: Plan, output: Path) -> list[Trial]:
    """Write `trials.csv`, `trials.parquet` and `best.yaml`, as far as the search has got; the trials, best first."""
    import polars as pl

    metric = plan.search.metric
    trials = [trial(plan, output, k) for k in range(plan.search.trials)]
    trials.sort(key=lambda t: (t.ended != "finished", t.score(metric), t.number))
    rows = [_row(plan, found) for found in trials]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with whole(output / "trials.csv") as file:
        file.write(text.getvalue().encode())
    columns = {name: _column([row[name] for row in rows]) for name in rows[0]}
    with whole(output / "trials.parquet") as file:
        pl.DataFrame(columns, strict=False).write_parquet(file)
    best = trials[0]
    if best.told and math.isfinite(best.score(metric)):
        with whole(output / "best.yaml") as file:
            file.write(_best(plan, best).encode())
    return trials


def _row(plan: Plan, found: Trial) -> dict[str, Any]:
    row: dict[str, Any] = {"trial": found.number, "ended": found.ended}
    row |= {plan.search.metric: found.score(plan.search.metric)}
    row |= {"epochs": len(found.told), "seconds": round(sum(r["seconds"] for r in found.told), 2)}
    row |= {path: found.values.get(path, _standing(plan.recipe, path)) for path in plan.search.space}
    return row | {"reason": found.reason}


def _column(values: list[Any]) -> list[Any]:
    plain = all(isinstance(value, int | float | None) for value in values)
    return values if plain else [value if isinstance(value, str | None) else json.dumps(value) for value in values]


def _standing(recipe: Recipe, path: str) -> Any:
    """The value of a path in the recipe itself; of the first member for `members.X`."""
    first, *rest = path.split(".")
    here: Any = getattr(recipe, first)
    here = here[0] if first == "members" else here
    for key in rest:
        here = here.get(key) if isinstance(here, dict) else getattr(here, key, None)
    return here


def _best(plan: Plan, best: Trial) -> str:
    metric = plan.search.metric
    note = f"Trial {best.number} of a search ({best.ended}, {metric} {best.score(metric):.6g}); the best of it."
    content = recipes.vary(plan.content, best.values)
    if plan.search.epochs is not None:  # the trials were shorter or longer than the recipe wants
        own = recipes.read(bundled.recipe(plan.search.recipe)).get("schedule", {}).get("epochs", None)
        content = recipes.vary(content, {"schedule.epochs": own or type(plan.recipe.schedule)().epochs})
    return recipes.dump(content, [note, *(f"{path}: {value}" for path, value in best.values.items())])


def lines(plan: Plan, output: Path, trials: Sequence[Trial]) -> list[str]:
    """What the user reads at the end: the best ten, how all ended, what to do next."""
    metric, shown = plan.search.metric, []
    for found in trials[:10]:
        changed = ", ".join(f"{path} {value}" for path, value in found.values.items()) or "the recipe as it stands"
        score = f"{found.score(metric):.5g}" if found.told else "–"
        epochs = f"{len(found.told):3d} epochs"
        shown.append(f"trial {found.number:3d}  {metric} {score:>8}  {epochs}  {found.ended:<10} {changed}")
    counts = {ended: sum(t.ended == ended for t in trials) for ended in get_args(Ended)}
    shown.append(", ".join(f"{n} {ended}" for ended, n in counts.items() if n))
    shown += [f"trial {found.number} failed: {found.reason}" for found in trials if found.ended == "failed"]
    return [*shown, f"next: assay train {output / 'best.yaml'} --output FOLDER"]
