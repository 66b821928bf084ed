"""A study: the same property learned in several ways on the same rows, as a table anyone can make again.

Enters: a YAML file that varies a training recipe: rows are ways to learn, columns are splits or
properties. Leaves: `results.json`, and `results.md` with the table of the docs. What is trained is
kept, so an interrupted study goes on.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.models.ensemble import zoo
from assay.models.ensemble.ensemble import Ensemble
from assay.models.evaluation import baselines, metrics
from assay.models.training import fit, prepare
from assay.models.training.prepare import Prepared
from assay.models.training.recipe import Recipe
from assay.screening.settings import bundled, yamlfile
from assay.screening.settings.exits import Exit, Failure
from assay.screening.training import page as study_page, recipes
from assay.sources.durable import whole

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One way to learn."""

    set: dict[str, Any] = field(default_factory=dict)
    """Dotted path in the recipe -> value; `{column}` in a text stands for the name of the
    column."""
    columns: list[str] | None = None
    """Columns it is tried on; unset: all."""
    seeds: list[int] | None = None
    """One network per seed; unset: those of the study."""
    zero_shot: str | None = None
    """Nothing is trained: the prediction of this trained ensemble, of whatever property, is mapped
    to the target by a straight line fitted on the development rows. A lower bound for what
    fine-tuning must reach."""


@dataclass(frozen=True)
class Study:
    """Rows and columns of a table."""

    name: str
    title: str
    recipe: str
    """The recipe that is varied: a file beside this one, or the name of a bundled recipe."""
    member: dict[str, Any]
    """Network and sizes, where a row does not say otherwise."""
    seeds: list[int]
    """One network per seed; member k stops early on fold k."""
    columns: dict[str, dict[str, Any]]
    """Name -> dotted path in the recipe -> value: splits of one property, or properties."""
    rows: dict[str, Row]
    """Name -> way to learn."""
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name -> task of a recipe, for the columns and pre-trainings that say `"@name"` in a list of
    tasks."""
    pretraining: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name -> dotted paths of a recipe that is trained first, with the first two seeds; a row
    starts from it by `start.folder: "@name"`."""
    mixtures: dict[str, list[str]] = field(default_factory=dict)
    """Name -> rows whose networks are averaged; a baseline may be among them, and counts like one
    row."""
    compare: str | None = None
    """Row that the others are compared with, on average over the columns."""
    notes: str = ""
    """Printed under the table."""


def run(path: Path, output: Path, *, workers: int = 1) -> Path:
    """Train what is missing, measure everything on the test rows, write the table, and return its path.

    Raises:
        Failure: when the file does not describe a study.
    """
    began = time.time()
    study = load(path)
    content = recipes.read(recipe_file(study, path))
    some = study.seeds[:2]
    first = {name: _recipe(study, content, name, paths, output, some) for name, paths in study.pretraining.items()}
    cells = {(row, column): cell(study, content, row, column, output) for row, column in trained(study)}
    _check_rows(study, cells)
    for stage in ({_folder(output, "pretraining", name): recipe for name, recipe in first.items()},
                  {_folder(output, *key): recipe for key, recipe in cells.items()}):  # fmt: skip
        calls = [(recipe, k, folder) for folder, recipe in stage.items() for k in range(len(recipe.members))]
        fit.train_members(calls, workers)
    results: dict[str, Any] = {column: _measure(study, cells, column, output, workers) for column in study.columns}
    results |= {"seeds": study.seeds, "seconds": round(time.time() - began)}
    with whole(output / "results.json") as file:
        file.write(json.dumps(results, indent=1).encode())
    page = study_page.write(study, results, f"assay study {path} --output {output} --workers {workers}")
    with whole(output / "results.md") as file:
        file.write(page.encode())
    return output / "results.md"


def load(path: Path) -> Study:
    """Read and check a study."""
    study = yamlfile.validate(Study, yamlfile.read(path), str(path))
    if len(study.seeds) < 2:
        raise Failure(Exit.CONFIG, f"{path}: seeds lists {len(study.seeds)}, expected at least 2")
    for name, row in study.rows.items():
        if strange := [column for column in row.columns or [] if column not in study.columns]:
            known = ", ".join(study.columns)
            raise Failure(Exit.CONFIG, f"{path}: rows.{name}.columns: {strange[0]!r} is no column: {known}")
    if study.compare is not None and (study.compare not in study.rows or study.rows[study.compare].columns is not None):
        raise Failure(Exit.CONFIG, f"{path}: compare: {study.compare!r} is no row that is tried on all columns")
    for name, parts in study.mixtures.items():
        unknown = [part for part in parts if part not in study.rows and part not in baselines.NAMES]
        if unknown:
            known = ", ".join([*study.rows, *baselines.NAMES])
            raise Failure(Exit.CONFIG, f"{path}: mixtures.{name}: {unknown[0]!r} is neither row nor baseline: {known}")
    return study


def recipe_file(study: Study, path: Path) -> Path:
    """The file of the recipe that the study at `path` varies."""
    return bundled.recipe(beside if (beside := path.parent / study.recipe).is_file() else study.recipe)


def trained(study: Study) -> list[tuple[str, str]]:
    """(row, column) of every cell that needs networks of its own."""
    return [
        (name, column)
        for column in study.columns
        for name, row in study.rows.items()
        if row.zero_shot is None and (row.columns is None or column in row.columns)
    ]


def cell(study: Study, content: dict[str, Any], row: str, column: str, output: Path) -> Recipe:
    """The recipe of one cell; `content` is what the recipe file says."""
    said = {path: _named(value, column) for path, value in study.rows[row].set.items()}
    seeds = study.rows[row].seeds or study.seeds
    return _recipe(study, content, f"{row}, {column}", {**study.columns[column], **said}, output, seeds)


def _check_rows(study: Study, cells: dict[tuple[str, str], Recipe]) -> None:
    """Rows of a column are measured on the same test rows, which none of them may have learned from."""
    for column in study.columns:
        first, *others = [(row, recipe) for (row, where), recipe in cells.items() if where == column]
        for row, recipe in others:
            for name in ("tasks", "split", "limit", "graph"):
                if getattr(recipe, name) != getattr(first[1], name):
                    told = (
                        f"{name} is not that of {first[0]!r}; what decides which rows are tested belongs to the column"
                    )
                    raise Failure(Exit.CONFIG, f"{study.name}: {row}, {column}: {told}")


def _named(value: Any, column: str) -> Any:
    return value.replace("{column}", column) if isinstance(value, str) else value


def _recipe(
    study: Study, content: dict[str, Any], name: str, paths: dict[str, Any], output: Path, seeds: list[int]
) -> Recipe:
    members = [{**study.member, "seed": seed} for seed in seeds]
    varied = recipes.vary({**content, "name": name, "members": members}, paths)
    varied["tasks"] = [_task(study, name, task) for task in varied["tasks"]]
    start = varied.get("start")
    if start and str(start.get("folder", "")).startswith("@"):
        if start["folder"][1:] not in study.pretraining:
            known = ", ".join(study.pretraining) or "nothing"
            raise Failure(Exit.CONFIG, f"{study.name}: {name}: {start['folder']} is not pre-trained; known: {known}")
        varied["start"] = {**start, "folder": str(_folder(output, "pretraining", start["folder"][1:]))}
    return recipes.check(varied, f"{study.name}: {name}")


def _task(study: Study, name: str, task: Any) -> Any:
    if not isinstance(task, str):
        return task
    if task[1:] not in study.tasks:
        raise Failure(
            Exit.CONFIG, f"{study.name}: {name}: {task} is no task; known: {', '.join(study.tasks) or 'none'}"
        )
    return study.tasks[task[1:]]


def _folder(output: Path, *names: str) -> Path:
    """One folder per cell; names become file names."""
    return output.joinpath(*("".join(c if c.isalnum() or c in "-+." else "_" for c in name) for name in names))


def _measure(
    study: Study, cells: dict[tuple[str, str], Recipe], column: str, output: Path, workers: int
) -> dict[str, Any]:
    """Scores of every row, mixture and baseline of one column on its test rows."""
    recipe = next(recipe for (_, where), recipe in cells.items() if where == column)
    prepared = prepare.prepare(recipe)
    rows = prepared.known(prepared.split.test, 0)
    truth, weight = prepared.target[rows, 0], prepared.weight[rows]
    groups = prepared.keys[recipe.split.by][rows]
    prop, target = recipe.tasks[0].property, prepared.target[:, 0]
    known = prepared.known(prepared.split.development(), 0)
    trees = baselines.predict(prepared.crystals, target, prepared.weight, known, rows, prop, workers)
    members = {
        row: _predictions(recipe, prepared, rows, _folder(output, row, where))
        for (row, where), recipe in cells.items()
        if where == column
    }
    members |= {
        name: _zero_shot(row.zero_shot, prepared, rows)[:, None]
        for name, row in study.rows.items()
        if row.zero_shot and (row.columns is None or column in row.columns)
    }
    every = {name: values.mean(axis=1) for name, values in members.items()} | trees
    found: dict[str, Any] = {"unit": prop.unit, "split": recipe.split.by, "test": len(rows), "train": len(known)}
    best = min((metrics.regression(truth, values, weight)["mae"], name) for name, values in trees.items())[1]
    scored: dict[str, dict[str, Any]] = {}
    for name, values in members.items():
        single = [metrics.regression(truth, alone, weight) for alone in values.T]
        scored[name] = {"single_mae": [s["mae"] for s in single], "single_r2": [s["r2"] for s in single]}
    for name, parts in study.mixtures.items():
        if all(part in every for part in parts):
            stacked = [members[part] if part in members else trees[part][:, None] for part in parts]
            every[name] = np.mean([part.mean(axis=1) for part in stacked], axis=0)
    for name, mean in every.items():
        compared = metrics.mae_difference((mean - truth, every[best] - truth), weight, groups)
        scored.setdefault(name, {}).update(metrics.regression(truth, mean, weight), versus_best_baseline=compared)
    seconds = {row: _seconds(_folder(output, row, where)) for row, where in cells if where == column}
    return {**found, "best_baseline": best, "baselines": sorted(trees), "scores": scored, "seconds": seconds}


def _predictions(recipe: Recipe, prepared: Prepared, rows: NDArray[np.int64], folder: Path) -> NDArray[np.float64]:
    """(len(rows), members) predictions of the first task, in its unit."""
    name = recipe.tasks[0].property.name
    return fit.predict(fit.uncalibrated(recipe, folder), prepared.crystals, rows)[name].members


def _zero_shot(folder: str, prepared: Prepared, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    trained = Ensemble.load(zoo.find(folder))
    name = trained.properties[0].name
    known = prepared.known(prepared.split.development(), 0)
    known = known[:: max(1, len(known) // 2000)]
    before = fit.predict(trained, prepared.crystals, known)[name].mean
    slope, offset = np.polyfit(before, prepared.target[known, 0], 1, w=np.sqrt(prepared.weight[known]))
    return np.asarray(slope * fit.predict(trained, prepared.crystals, rows)[name].mean + offset, np.float64)


def _seconds(folder: Path) -> float:
    """Seconds that its members learned, summed."""
    logs = [line for path in folder.glob("member-*/history.jsonl") for line in path.read_text().splitlines()]
    return round(sum(float(json.loads(line)["seconds"]) for line in logs), 1)
