"""A study by repeated grouped cross-validation: every row of the data is tested once per repeat.

Enters: a study with `cross_validation`, and the recipe that it varies. Leaves: `results.json`, and
`results.md` with the tables. One split of few groups may be a kind one; here no group is left out
of the test, and intervals are over groups. Nothing is fitted on a test row.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.models.ensemble.checkpoint import finite
from assay.models.evaluation import combiner, metrics, retrieval
from assay.models.training import fit, prepare
from assay.screening.settings import place
from assay.screening.settings.exits import Exit, Failure
from assay.screening.training import design
from assay.sources.durable import whole

if TYPE_CHECKING:
    from assay.models.training.prepare import Prepared
    from assay.models.training.recipe import Recipe
    from assay.screening.training.design import CrossValidation, Study

TOP = 100
"""Rows with the highest predictions whose bias is reported."""


def run(study: Study, content: dict[str, Any], output: Path, workers: int, command: str) -> Path:
    """Train what is missing, test every row once per repeat, and return the path of the tables.

    Raises:
        Failure: when two rows of the study test other crystals or another property.
    """
    began = time.time()
    recipes = _recipes(study, content, output)
    place.claim(output, "study")
    calls = [(recipe, k, folder) for folder, recipe in recipes.items() for k in range(len(recipe.members))]
    fit.train_members(calls, workers)
    folders = iter(recipes.items())
    every = {name: [[next(folders) for _ in _folds(study)] for _ in _repeats(study)] for name in study.rows}
    prepared = prepare.prepare(every[next(iter(every))][0][0][1])
    rows = prepared.known(np.arange(len(prepared.crystals)), 0)
    predicted = {name: np.stack([_out_of_fold(cells) for cells in repeats])[:, rows] for name, repeats in every.items()}
    tested = np.stack([_tested(cells) for cells in every[next(iter(every))]])[:, rows]
    combined, shares = _combined(study, predicted, prepared.target[rows, 0], prepared.weight[rows], tested)
    results = {"seconds": round(time.time() - began), **measure(study, prepared, rows, predicted | combined)}
    results["shares"] = shares
    with whole(output / "results.json") as file:
        file.write(json.dumps(finite(results), indent=1, allow_nan=False).encode())
    with whole(output / "results.md") as file:
        file.write(page(study, results, command).encode())
    return output / "results.md"


def _cv(study: Study) -> CrossValidation:
    assert study.cross_validation is not None
    return study.cross_validation


def _folds(study: Study) -> range:
    return range(_cv(study).folds)


def _repeats(study: Study) -> range:
    return range(_cv(study).repeats)


def _recipes(study: Study, content: dict[str, Any], output: Path) -> dict[Path, Recipe]:
    """The recipe of every row, repeat and fold, by the folder of its members."""
    found: dict[Path, Recipe] = {}
    ((_, column),) = study.columns.items()
    for name, row in study.rows.items():
        for repeat in _repeats(study):
            for fold in _folds(study):
                here = {"split.kfold": fold, "split.kfolds": _cv(study).folds, "split.seed": repeat}
                label = f"{name}, repeat {repeat}, fold {fold}"
                seeds = row.seeds or study.seeds
                recipe = design.variant(study, content, label, {**column, **row.set, **here}, output, seeds)
                found[design.folder(output, name, f"{repeat}-{fold}")] = recipe
    first = next(iter(found.values()))
    for recipe in found.values():
        for what in ("dataset", "property.name", "property.unit"):
            if _of(recipe, what) != _of(first, what):
                raise Failure(Exit.CONFIG, f"{study.name}: {recipe.name}: {what} is not that of {first.name}")
        if recipe.limit != first.limit or recipe.split.by != first.split.by:
            raise Failure(Exit.CONFIG, f"{study.name}: {recipe.name}: limit or split.by is not that of {first.name}")
    return found


def _of(recipe: Recipe, path: str) -> Any:
    value: Any = recipe.tasks[0]
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _out_of_fold(cells: list[tuple[Path, Recipe]]) -> NDArray[np.float64]:
    """(n,) mean predictions of the folds of one repeat, each for its test rows; NaN if untested."""
    found: NDArray[np.float64] | None = None
    for folder, recipe in cells:
        prepared = prepare.prepare(recipe)
        found = np.full(len(prepared.crystals), np.nan) if found is None else found
        rows = prepared.known(prepared.split.test, 0)
        name = recipe.tasks[0].property.name
        found[rows] = fit.predict(fit.uncalibrated(recipe, folder), prepared.crystals, rows)[name].mean
    assert found is not None
    return found


def _tested(cells: list[tuple[Path, Recipe]]) -> NDArray[np.int64]:
    """(n,) number of the fold that tests each row; -1 if none does."""
    every = [prepare.prepare(recipe) for _, recipe in cells]
    found = np.full(len(every[0].crystals), -1)
    for k, prepared in enumerate(every):
        found[prepared.split.test] = k
    return found


def _combined(
    study: Study,
    predicted: dict[str, NDArray[np.float64]],
    truth: NDArray[np.float64],
    weight: NDArray[np.float64],
    tested: NDArray[np.int64],
) -> tuple[dict[str, NDArray[np.float64]], dict[str, dict[str, float]]]:
    """The (repeats, n) predictions of `combine`, and the mean share of each row in them."""
    found, shares = {}, {}
    for name, parts in _cv(study).combine.items():
        stacked = np.stack([predicted[part] for part in parts], axis=-1)
        made = [combiner.nested(one, truth, weight, fold) for one, fold in zip(stacked, tested, strict=True)]
        found[name] = np.stack([values for values, _ in made])
        mean = np.concatenate([used for _, used in made]).mean(axis=0)
        shares[name] = dict(zip(parts, mean.tolist(), strict=True))
    return found, shares


def measure(
    study: Study, prepared: Prepared, rows: NDArray[np.int64], predicted: dict[str, NDArray[np.float64]]
) -> dict[str, Any]:
    """The scores of every row of the study; `predicted` holds (repeats, n) values."""
    truth, weight = prepared.target[rows, 0], prepared.weight[rows]
    recipe_key = next(iter(study.columns.values())).get("split.by", "element-set")
    groups, families = prepared.keys[recipe_key][rows], prepared.keys["family"][rows]
    scores = {name: _scores(study, truth, weight, values) for name, values in predicted.items()}
    errors = {name: np.abs(values - truth).mean(axis=0) for name, values in predicted.items()}
    for name, mean_error in errors.items():
        low, high = metrics.bootstrap(
            np.stack([weight * mean_error, weight], axis=1), groups, lambda sums: sums[:, 0] / sums[:, 1]
        )
        sets = [float(np.average(mean_error[groups == g], weights=weight[groups == g])) for g in np.unique(groups)]
        scores[name] |= {"low": float(low), "high": float(high), "mae_over_groups": float(np.mean(sets))}
        scores[name]["families"] = {
            str(family): float(np.average(mean_error[families == family], weights=weight[families == family]))
            for family in np.unique(families)
        }
        if study.compare and name != study.compare:
            scores[name]["versus"] = metrics.mae_difference((mean_error, errors[study.compare]), weight, groups)
    counts = {str(family): int((families == family).sum()) for family in np.unique(families)}
    return {"rows": len(rows), "groups": len(np.unique(groups)), "families": counts, "scores": scores}


def _scores(
    study: Study, truth: NDArray[np.float64], weight: NDArray[np.float64], predicted: NDArray[np.float64]
) -> dict[str, Any]:
    """Means over the repeats."""
    each = []
    for values in predicted:
        order = np.argsort(-values, kind="stable")[:TOP]
        one = metrics.regression(truth, values, weight)
        one["top_bias"] = float(np.average(values[order] - truth[order], weights=weight[order]))
        if np.any(zero := truth == 0):
            one["zero_bias"] = float(np.average(values[zero], weights=weight[zero]))
        if (threshold := _cv(study).threshold) is not None:
            lists = retrieval.at(truth, values, threshold, (50, 100), weight)["lists"]
            one |= {f"precision_{k['k']}": k["precision"] for k in lists}
            one["average_precision"] = retrieval.average_precision(truth, values, threshold, weight)
        each.append(one)
    return {name: float(np.mean([one[name] for one in each])) for name in each[0]}


def page(study: Study, results: dict[str, Any], command: str) -> str:
    """The tables in Markdown."""
    threshold = _cv(study).threshold
    titles = {
        "mae": "MAE",
        "mae_over_groups": "mean over groups",
        "rmse": "RMSE",
        "zero_bias": "bias at 0",
        "top_bias": f"bias of the {TOP} highest",
        "precision_50": f"P@50 above {threshold}",
        "precision_100": "P@100",
        "average_precision": "average precision",
    }
    shown = [name for name in titles if any(name in scores for scores in results["scores"].values())]
    lines = [f"### {study.title}", "", "| | " + " | ".join(titles[name] for name in shown) + " | MAE, difference |"]
    lines.append("|---" * (len(shown) + 2) + "|")
    for name, scores in results["scores"].items():
        cells = [f"{scores[key]:.3f}" for key in shown]
        cells[0] += f" [{scores['low']:.2f}, {scores['high']:.2f}]"
        versus = scores.get("versus")
        gain = "–" if versus is None else f"{versus['difference']:+.3f} [{versus['low']:+.3f}, {versus['high']:+.3f}]"
        lines.append(f"| {name} | " + " | ".join([*cells, gain]) + " |")
    families = [f"{name} ({count:,})" for name, count in results["families"].items()]
    lines += ["", "| MAE by family (rows) | " + " | ".join(families) + " |", "|---" * (len(families) + 1) + "|"]
    for name, scores in results["scores"].items():
        lines.append(
            f"| {name} | " + " | ".join(f"{scores['families'][each]:.2f}" for each in results["families"]) + " |"
        )
    legend = (
        f"{results['rows']:,} rows of {results['groups']:,} groups, each tested once in each of {_cv(study).repeats} "
        f"repeats of {_cv(study).folds} folds. Intervals (95 %) resample groups. Differences are paired"
        + (f", against {study.compare}." if study.compare else ".")
    )
    for name, shares in results.get("shares", {}).items():
        told = ", ".join(f"{share:.2f} of {part}" for part, share in shares.items())
        legend += f" {name}: {told}, as found on the other folds (mean)."
    notes = [study.notes.strip(), ""] if study.notes else []
    return "\n".join([*lines, "", legend, "", *notes, "```", command, "```", ""])
