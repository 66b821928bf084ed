"""The trials of a search: each learns into a folder; all together are a table and a best recipe.

Enters: a `Search`. Leaves: trained trials, `trials.csv`, `trials.parquet`, `best.yaml`. A trial
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
import polars as pl
from numpy.typing import NDArray

from assay.models.training import prepare, start, train
from assay.models.training.recipe import Recipe
from assay.screening.folder import stamp
from assay.screening.settings import bundled
from assay.screening.settings.exits import Exit, Failure, one_line
from assay.screening.training import recipes
from assay.screening.training.search import Search
from assay.sources import datasets, durable
from assay.sources.durable import whole

Ended = Literal["finished", "stopped", "failed", "unfinished"]
"""Learned to its end; stopped by the scheduler for being worse; refused by the training; not ended
yet."""


@dataclass(frozen=True)
class Trial:
    """One trial, read from its folder."""

    number: int
    values: dict[str, Any]
    """Dotted path -> value, where it differs from the recipe."""
    reported: list[dict[str, float]]
    """After each epoch: `step`, the metric (mean over folds of the best so far), `seconds`."""
    ended: Ended
    reason: str = ""
    """Why it failed."""

    def score(self, metric: str) -> float:
        """The metric at its end; infinite where it has none."""
        return self.reported[-1][metric] if self.reported else math.inf


def hold_files(search: Search, output: Path) -> None:
    """Note the data and weights that all trials learn from, or hold them against an earlier note.

    Raises:
        Failure: CONFIG, when the earlier trials in `output` learned from others.
    """
    path, now = output / "files.json", _files(search)
    if not path.is_file():  # a new search, or one of an earlier build
        with whole(path) as file:
            file.write(json.dumps(now, indent=1).encode())
        return
    changed = stamp.changes(json.loads(path.read_text(encoding="utf-8")), now)
    if changed:
        advice = "put the old files back, or choose another --output"
        raise Failure(Exit.CONFIG, f"{output} holds a search on other files ({'; '.join(changed)}); {advice}")


def _files(search: Search) -> dict[str, str]:
    """Key of the recipe -> digest of a file that trials learn from, or of weights to start from."""
    recipe = search.recipe
    named = {f"tasks.{k}.dataset": datasets.described(task.dataset) for k, task in enumerate(recipe.tasks)}
    if recipe.measured:
        named["measured.dataset"] = datasets.described(recipe.measured.dataset)
    if recipe.formulas:
        named["formulas.dataset"] = datasets.described(recipe.formulas.dataset, datasets.FORMULAS)
    found = {key: durable.sha256(path)[:16] for key, (path, _) in named.items()}
    for k, member in enumerate(recipe.members[: search.config.folds]):
        begun = recipe.start_of(member)
        if begun is not None:
            found[f"members.{k}.start"] = start.find(begun, member, recipe.reads(member), k).sha256[:16]
    return found


def folder_of(output: Path, number: int) -> Path:
    """The folder of a trial."""
    return output / "trials" / f"{number:03d}"


def trial(search: Search, output: Path, number: int) -> Trial:
    """Read trial `number` from its folder."""
    folder = folder_of(output, number)
    judge = _Judge(search)
    reported = [judge.add(k, row) for k in range(search.config.folds) for row in _history(folder / f"fold-{k}")]
    note: dict[str, Any] = {"ended": "unfinished"}
    if (folder / "end.json").is_file():
        note = json.loads((folder / "end.json").read_text(encoding="utf-8"))
    return Trial(number, search.values(number), reported, note["ended"], note.get("reason", ""))


def end(output: Path, number: int, ended: Ended, reason: str = "") -> None:
    """Note how a trial ended; the first note counts."""
    assert ended in get_args(Ended)
    path = folder_of(output, number) / "end.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), whole(path, absent=True) as file:
        file.write(json.dumps({"ended": ended, "reason": reason}).encode())


def learn(search: Search, output: Path, number: int, report: Callable[[dict[str, float]], None]) -> None:
    """Run one trial, or go on with it, and report every epoch.

    An exception out of `report` ends the trial without a note. A training that refuses these values
    (`ValueError`) is a failed trial, not an error.
    """
    try:
        _learn(search, output, number, report)
    except ValueError as error:
        end(output, number, "failed", one_line(error))
    else:
        end(output, number, "finished")


def _learn(search: Search, output: Path, number: int, report: Callable[[dict[str, float]], None]) -> None:
    recipe = recipes.check(recipes.vary(search.content, search.values(number)), f"trial {number}")
    prepared = prepare.prepare(recipe)
    prepared = replace(prepared, target=blanked(prepared.target, prepared.split.folds))
    judge = _Judge(search)
    for k in range(search.config.folds):
        folder = folder_of(output, number) / f"fold-{k}"
        for row in _history(folder):  # before an interruption
            report(judge.add(k, row))
        material = replace(prepare.for_member(recipe, k)[1], target=prepared.target)
        train.member(recipe, k, material, folder, {}, progress=partial(_pass_on, judge, k, report))


def _pass_on(judge: _Judge, fold: int, report: Callable[[dict[str, float]], None], row: dict[str, float]) -> None:
    report(judge.add(fold, row))


def blanked(target: NDArray[np.float64], folds: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """The targets (n, p), NaN in every row that is in no fold: no trial can learn from those."""
    kept = np.full_like(target, np.nan)
    rows = np.concatenate(list(folds))
    kept[rows] = target[rows]
    return kept


class _Judge:
    """The score of a trial so far, from the epochs of one fold after the other."""

    def __init__(self, search: Search) -> None:
        self._metric, self._epochs = search.config.metric, search.recipe.schedule.epochs
        self._best: dict[int, float] = {}

    def add(self, fold: int, row: dict[str, Any]) -> dict[str, float]:
        if self._metric not in row:
            raise ValueError(f"metric {self._metric!r} is not one of a training's: {', '.join(row)}")
        value = float(row[self._metric])
        self._best[fold] = min(self._best.get(fold, math.inf), value if math.isfinite(value) else math.inf)
        mean = float(np.mean(list(self._best.values())))
        return {"step": fold * self._epochs + row["epoch"], self._metric: mean, "seconds": row.get("seconds", 0.0)}


def _history(folder: Path) -> list[dict[str, Any]]:
    path = folder / "history.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []


def write(search: Search, output: Path) -> list[Trial]:
    """Write `trials.csv`, `trials.parquet` and `best.yaml` of the search so far, the best first."""
    metric = search.config.metric
    trials = [trial(search, output, k) for k in range(search.config.trials)]
    trials.sort(key=lambda t: (t.ended != "finished", t.score(metric), t.number))
    rows = [_row(search, found) for found in trials]
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
    if best.reported and math.isfinite(best.score(metric)):
        with whole(output / "best.yaml") as file:
            file.write(_best(search, best).encode())
    return trials


def _row(search: Search, found: Trial) -> dict[str, Any]:
    row: dict[str, Any] = {"trial": found.number, "ended": found.ended}
    row |= {search.config.metric: found.score(search.config.metric)}
    row |= {"epochs": len(found.reported), "seconds": round(sum(r["seconds"] for r in found.reported), 2)}
    row |= {path: found.values.get(path, _standing(search.recipe, path)) for path in search.config.space}
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


def _best(search: Search, best: Trial) -> str:
    metric = search.config.metric
    note = f"Trial {best.number} of a search ({best.ended}, {metric} {best.score(metric):.6g}); the best of it."
    content = recipes.vary(search.content, best.values)
    if search.config.epochs is not None:  # the trials were shorter or longer than the recipe wants
        own = recipes.read(bundled.recipe(search.config.recipe)).get("schedule", {}).get("epochs", None)
        content = recipes.vary(content, {"schedule.epochs": own or type(search.recipe.schedule)().epochs})
    return recipes.dump(content, [note, *(f"{path}: {value}" for path, value in best.values.items())])


def lines(search: Search, output: Path, trials: Sequence[Trial]) -> list[str]:
    """The lines at the end of a search: the ten best trials, the counts, the next command."""
    metric, shown = search.config.metric, []
    for found in trials[:10]:
        changed = ", ".join(f"{path} {value}" for path, value in found.values.items()) or "the recipe as it stands"
        score = f"{found.score(metric):.5g}" if found.reported else "–"
        epochs = f"{len(found.reported):3d} epochs"
        shown.append(f"trial {found.number:3d}  {metric} {score:>8}  {epochs}  {found.ended:<10} {changed}")
    counts = {ended: sum(t.ended == ended for t in trials) for ended in get_args(Ended)}
    shown.append(", ".join(f"{n} {ended}" for ended, n in counts.items() if n))
    shown += [f"trial {found.number} failed: {found.reason}" for found in trials if found.ended == "failed"]
    return [*shown, f"next: assay train {output / 'best.yaml'} --output FOLDER"]
