"""A study by repeated grouped cross-validation: every row of the data is tested once per repeat.

Enters: a study with `cross_validation`, and the recipe that it varies. Leaves: `results.json`, and
`results.md` with the tables. One split of few groups may be a kind one; here no group is left out
of the test, and intervals are over groups. Nothing is fitted on a test row.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.models.ensemble.checkpoint import finite
from assay.models.evaluation import combiner, metrics, repeated
from assay.models.evaluation.assessment import Truth
from assay.models.training import crossval, prepare
from assay.screening.settings import place
from assay.screening.settings.exits import Exit, Failure
from assay.screening.training import design, listed
from assay.sources.durable import whole

if TYPE_CHECKING:
    from assay.models.training.recipe import Recipe
    from assay.screening.training.design import CrossValidation, Study


def run(study: Study, content: dict[str, Any], output: Path, workers: int, command: str) -> Path:
    """Train what is missing, test every row once per repeat, and return the path of the tables.

    Raises:
        Failure: when two rows of the study test other crystals or another property.
    """
    began, how = time.time(), study.cross_validation
    assert how is not None
    recipes = _recipes(study, how, content, output)
    place.claim(output, "study")
    recipes = listed.shared(recipes, output)
    found = {name: crossval.predict(recipe, design.folder(output, name), workers) for name, recipe in recipes.items()}
    first = next(iter(recipes.values()))
    prepared = prepare.prepare(first)
    rows = prepared.known(np.arange(len(prepared.crystals)), 0)
    groups, families = prepared.keys[first.split.by][rows], prepared.keys["family"][rows]
    truth = Truth(prepared.target[rows, 0], prepared.weight[rows], groups, first.tasks[0].property)
    predicted = {name: one.mean for name, one in found.items()}
    combined, shares = _combined(how, predicted, truth, next(iter(found.values())).fold)
    measured = measure(study.compare, how, truth, families, predicted | combined)
    results = {"seconds": round(time.time() - began), **measured, "shares": shares}
    with whole(output / "results.json") as file:
        file.write(json.dumps(finite(results), indent=1, allow_nan=False).encode())
    with whole(output / "results.md") as file:
        file.write(page(study, results, command).encode())
    return output / "results.md"


def _recipes(study: Study, how: CrossValidation, content: dict[str, Any], output: Path) -> dict[str, Recipe]:
    """The recipe of every row."""
    found: dict[str, Recipe] = {}
    ((_, column),) = study.columns.items()
    for name, row in study.rows.items():
        recipe = design.variant(study, content, name, {**column, **row.set}, output, row.seeds or study.seeds)
        found[name] = replace(recipe, cross_validation=how.plain())
    first = next(iter(found.values()))
    for recipe in found.values():
        for what in ("dataset", "property.name", "property.unit"):
            if _of(recipe, what) != _of(first, what):
                raise Failure(Exit.CONFIG, f"{study.name}: {recipe.name}: {what} is not that of {first.name}")
        if recipe.limit != first.limit or recipe.split != first.split:
            raise Failure(Exit.CONFIG, f"{study.name}: {recipe.name}: limit or split is not that of {first.name}")
    return found


def _of(recipe: Recipe, path: str) -> Any:
    value: Any = recipe.tasks[0]
    for name in path.split("."):
        value = getattr(value, name)
    return value


def _combined(
    how: CrossValidation, predicted: dict[str, NDArray[np.float64]], truth: Truth, folds: NDArray[np.int64]
) -> tuple[dict[str, NDArray[np.float64]], dict[str, dict[str, float]]]:
    """The (repeats, n) predictions of `combine`, and the mean share of each row in them."""
    found, shares = {}, {}
    for name, parts in how.combine.items():
        stacked = np.stack([predicted[part] for part in parts], axis=-1)
        made = [combiner.nested(one, truth.value, truth.weight, fold) for one, fold in zip(stacked, folds, strict=True)]
        found[name] = np.stack([values for values, _ in made])
        mean = np.concatenate([used for _, used in made]).mean(axis=0)
        shares[name] = dict(zip(parts, mean.tolist(), strict=True))
    return found, shares


def measure(
    compare: str | None,
    how: CrossValidation,
    truth: Truth,
    families: NDArray[Any],
    predicted: dict[str, NDArray[np.float64]],
) -> dict[str, Any]:
    """The scores of every row of the study; `predicted` holds (repeats, n) values."""
    scores = {}
    errors = {name: np.abs(values - truth.value).mean(axis=0) for name, values in predicted.items()}
    for name, values in predicted.items():
        each = [metrics.regression(truth.value, one, truth.weight) for one in values]
        mean = {key: float(np.mean([one[key] for one in each])) for key in each[0]}
        columns = np.stack([truth.weight * errors[name], truth.weight], axis=1)
        low, high = metrics.bootstrap(columns, truth.groups, lambda sums: sums[:, 0] / sums[:, 1])
        by_family = {
            str(family): float(np.average(errors[name][families == family], weights=truth.weight[families == family]))
            for family in np.unique(families)
        }
        ranked = repeated.ranked(truth, values, how.threshold)
        scores[name] = {**mean, **ranked, "low": float(low), "high": float(high), "families": by_family}
        if compare and name != compare:
            pair = errors[name], errors[compare]
            scores[name]["versus"] = metrics.mae_difference(pair, truth.weight, truth.groups)
    counts = {str(family): int((families == family).sum()) for family in np.unique(families)}
    rows = {"rows": len(truth.value), "groups": len(np.unique(truth.groups)), "families": counts}
    return {**asdict(how), **rows, "scores": scores}


def page(study: Study, results: dict[str, Any], command: str) -> str:
    """The tables in Markdown."""
    titles = {
        "mae": "MAE",
        "over_groups": "mean over groups",
        "rmse": "RMSE",
        "zero_bias": "bias at 0",
        "top_bias": f"bias of the {repeated.TOP} highest",
        "precision_50": f"P@50 above {results['threshold']}",
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
        f"{results['rows']:,} rows of {results['groups']:,} groups, each tested once in each of {results['repeats']} "
        f"repeats of {results['folds']} folds. Intervals (95 %) resample groups. Differences are paired"
        + (f", against {study.compare}." if study.compare else ".")
    )
    for name, shares in results["shares"].items():
        told = ", ".join(f"{share:.2f} of {part}" for part, share in shares.items())
        legend += f" {name}: {told}, as found on the other folds (mean)."
    notes = [study.notes.strip(), ""] if study.notes else []
    return "\n".join([*lines, "", legend, "", *notes, "```", command, "```", ""])
