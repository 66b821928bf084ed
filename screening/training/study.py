"""A study: one property learned in several ways on the same rows, written as a table.

Enters: the file of a study, which varies a training recipe: rows are ways to learn, columns are
splits or properties. Leaves: `results.json`, and `results.md` with the table of the docs. Trained
networks are kept, so an interrupted study goes on.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.models.ensemble import zoo
from assay.models.ensemble.checkpoint import finite
from assay.models.ensemble.ensemble import Ensemble
from assay.models.evaluation import baselines, metrics
from assay.models.training import members, prepare
from assay.models.training.prepare import Prepared
from assay.screening.settings import bundled, place
from assay.screening.training import crossval, design, listed, page, recipes
from assay.sources.durable import whole

if TYPE_CHECKING:
    from assay.models.training.recipe import Recipe
    from assay.screening.training.design import Study


def run(config: Path | str, output: Path, *, workers: int = 1) -> Path:
    """Train the missing networks, measure all on the test rows, and return the path of the table.

    `config` is the file of a study, or the name of a bundled one.

    Raises:
        Failure: when the file does not describe a study.
    """
    began, path = time.time(), bundled.study(config)
    study = design.load(path)
    content = recipes.read(design.recipe_file(study, path))
    command = f"assay study {config} --output {output} --workers {workers}"
    if study.cross_validation is not None:
        return crossval.run(study, content, output, workers, command)
    some = study.seeds[:2]
    first = {
        name: design.variant(study, content, name, paths, output, some) for name, paths in study.pretraining.items()
    }
    cells = {(row, column): design.cell(study, content, row, column, output) for row, column in design.trained(study)}
    design.check_rows(study, cells)
    place.claim(output, "study")
    first, cells = listed.shared(first, output), listed.shared(cells, output)
    pretrained = {design.folder(output, "pretraining", name): recipe for name, recipe in first.items()}
    for stage in (pretrained, {design.folder(output, *key): recipe for key, recipe in cells.items()}):
        calls = [(recipe, k, folder) for folder, recipe in stage.items() for k in range(len(recipe.members))]
        members.train_all(calls, workers)
    results: dict[str, Any] = {column: _measure(study, cells, column, output, workers) for column in study.columns}
    results |= {"seeds": study.seeds, "seconds": round(time.time() - began)}
    with whole(output / "results.json") as file:
        file.write(json.dumps(finite(results), indent=1, allow_nan=False).encode())
    text = page.write(study, results, command)
    with whole(output / "results.md") as file:
        file.write(text.encode())
    return output / "results.md"


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
    alone = {
        row: _predictions(recipe, prepared, rows, design.folder(output, row, where))
        for (row, where), recipe in cells.items()
        if where == column
    }
    alone |= {
        name: _zero_shot(row.zero_shot, prepared, rows)[:, None]
        for name, row in study.rows.items()
        if row.zero_shot and (row.columns is None or column in row.columns)
    }
    every = {name: values.mean(axis=1) for name, values in alone.items()} | trees
    found: dict[str, Any] = {"unit": prop.unit, "split": recipe.split.by, "test": len(rows), "train": len(known)}
    best = min((metrics.regression(truth, values, weight)["mae"], name) for name, values in trees.items())[1]
    scored: dict[str, dict[str, Any]] = {}
    for name, values in alone.items():
        single = [metrics.regression(truth, one, weight) for one in values.T]
        scored[name] = {"single_mae": [s["mae"] for s in single], "single_r2": [s["r2"] for s in single]}
    for name, parts in study.mixtures.items():
        if all(part in every for part in parts):
            stacked = [alone[part] if part in alone else trees[part][:, None] for part in parts]
            every[name] = np.mean([part.mean(axis=1) for part in stacked], axis=0)
    for name, mean in every.items():
        compared = metrics.mae_difference((mean - truth, every[best] - truth), weight, groups)
        scored.setdefault(name, {}).update(metrics.regression(truth, mean, weight), versus_best_baseline=compared)
    seconds = {row: _seconds(design.folder(output, row, where)) for row, where in cells if where == column}
    return {**found, "best_baseline": best, "baselines": sorted(trees), "scores": scored, "seconds": seconds}


def _predictions(recipe: Recipe, prepared: Prepared, rows: NDArray[np.int64], folder: Path) -> NDArray[np.float64]:
    """(len(rows), members) predictions of the first task, in its unit."""
    name = recipe.tasks[0].property.name
    return members.predict(members.uncalibrated(recipe, folder), prepared.crystals, rows)[name].members


def _zero_shot(folder: str, prepared: Prepared, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    trained = Ensemble.load(zoo.find(folder))
    name = trained.properties[0].name
    known = prepared.known(prepared.split.development(), 0)
    known = known[:: max(1, len(known) // 2000)]
    before = members.predict(trained, prepared.crystals, known)[name].mean
    slope, offset = np.polyfit(before, prepared.target[known, 0], 1, w=np.sqrt(prepared.weight[known]))
    return np.asarray(slope * members.predict(trained, prepared.crystals, rows)[name].mean + offset, np.float64)


def _seconds(folder: Path) -> float:
    """The seconds that the members in a folder learned, summed."""
    logs = [line for path in folder.glob("member-*/history.jsonl") for line in path.read_text().splitlines()]
    return round(sum(float(json.loads(line)["seconds"]) for line in logs), 1)
