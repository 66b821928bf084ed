"""From a recipe to a calibrated ensemble with its card.

Enters: a `Recipe`. Leaves: an ensemble folder: members, `ensemble.json`, `split.json`, `README.md`.
This module does not know the training loop's inside, nor campaigns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.featurize.composition import CompositionSpec
from assay.models.ensemble import calibration, checkpoint, combine, novelty, stored, summary
from assay.models.ensemble.distribution import quantiles
from assay.models.ensemble.ensemble import Ensemble
from assay.models.ensemble.novelty import Learned, Reference
from assay.models.ensemble.stored import CalibrationRows, ErrorBars, HeldRows
from assay.models.ensemble.summary import PropertyPrediction
from assay.models.evaluation import baselines, metrics, repeated
from assay.models.evaluation.assessment import OURS, Truth
from assay.models.evaluation.repeated import OutOfFold
from assay.models.networks import registry
from assay.models.training import card, crossval, formulas, members, prepare
from assay.models.training.prepare import Prepared
from assay.models.training.recipe import Recipe
from assay.sources.elements import reduced_formulas

CROSS_VALIDATION = "cross-validation"
"""Folder of the predictions out of fold, in that of the ensemble."""

Pool = Callable[[Callable[..., None], Sequence[tuple[Any, ...]]], None]
"""Calls a function once per tuple of arguments, and returns when all have ended."""


def run(
    recipe: Recipe, output: Path, *, workers: int = 1, command: str = "", pool: Pool | None = None
) -> Ensemble | None:
    """Train every member, calibrate, measure beside the baselines, and write the ensemble folder.

    Finished members are kept, and an interrupted one goes on where it stopped. `workers` members
    learn at once, one thread each, or a `pool` decides where; the weights depend on neither, unless
    memory is short (`assay.models.training.budget`). `command` is printed on the card. Networks
    that learned without known values are no ensemble: None.

    Raises:
        FileNotFoundError: when the data or the weights to start from are not there.
        ValueError: when `output` holds another run, or nothing is learned of a task.
    """
    if not all(recipe.shares()):
        raise ValueError("a task with share 0 would leave an untrained head in the ensemble; it is for studies")
    output.mkdir(parents=True, exist_ok=True)
    calls = [(recipe, k, output) for k in range(len(recipe.members))]
    if pool is not None:
        pool(members.train_one, calls)
    else:
        members.train_all(calls, workers)
    if not registry.MODELS[recipe.members[0].network].labelled:
        return None
    if recipe.cross_validation is not None:
        return _cross_validated(recipe, prepare.prepare(recipe), output, workers, command)
    return _assemble(recipe, prepare.prepare(recipe), output, workers, command)


def _assemble(recipe: Recipe, prepared: Prepared, output: Path, workers: int, command: str) -> Ensemble:
    """Calibrate, measure on the test rows, write `ensemble.json`, the split and the card."""
    names = [task.property.name for task in recipe.tasks]
    draft = members.uncalibrated(recipe, output)
    chosen = _weigh(recipe, prepared, draft)
    shares = {name: fitted.weights for name, fitted in chosen.items() if fitted.weights}
    draft = replace(draft, weights=shares)
    held = members.predict(draft, prepared.crystals, prepared.split.calibration)
    fitted = {name: _calibrate(recipe, prepared, held[name], k, chosen[name].rest) for k, name in enumerate(names)}
    kept = CalibrationRows(
        {name: _rows(recipe, prepared, held[name], fitted[name], k, chosen[name].rest) for k, name in enumerate(names)},
        recipe.split.by,
        out_of_fold=False,
    )
    draft = replace(draft, calibration=fitted, calibration_rows=kept)
    tested = members.predict(draft, prepared.crystals, prepared.split.test)
    facts = {
        "tasks": {name: _measured(recipe, prepared, tested[name], k, workers) for k, name in enumerate(names)},
        "recipe": asdict(recipe),
        "precision": recipe.precision,
    }
    return _written(recipe, prepared, draft, facts, _reference(recipe, prepared, draft), command)


def _written(
    recipe: Recipe, prepared: Prepared, draft: Ensemble, facts: dict[str, Any], reference: Reference, command: str
) -> Ensemble:
    """Write everything but the members, and load it."""
    output, folders = draft.folder, [f"member-{k}" for k in range(len(draft.members))]
    fitted = draft.calibration, facts, draft.weights
    learned = _learned(recipe, prepared)
    stored.write(output, recipe.name, folders, *fitted, reference, draft.decisions, learned, draft.calibration_rows)
    checkpoint.write_whole(output / "split.json", prepared.split.to_json(prepared.crystals.ids).encode())
    card.write(output, command)
    return Ensemble.load(output)


def _cross_validated(recipe: Recipe, prepared: Prepared, output: Path, workers: int, command: str) -> Ensemble:
    """Calibrate and measure by predictions out of fold, and write the same files.

    The members learned from all rows, and `split.json` says so.
    """
    rows, truth, (task,) = _judged(prepared), _truth(recipe, prepared), recipe.tasks
    found = crossval.predict(recipe, output / CROSS_VALIDATION, workers)
    others = {
        name: crossval.predict(rival, output / CROSS_VALIDATION / rival.name, workers)
        for name, rival in crossval.rivals(recipe).items()
    }
    families = prepared.keys["family"][rows] if "family" in prepared.keys else None
    threshold = None if recipe.cross_validation is None else recipe.cross_validation.threshold
    means = {name: other.mean for name, other in others.items()}
    scores = repeated.measure(found, truth, means, recipe.level, families, threshold)
    if threshold is not None and found.draws is not None:
        every = {OURS: found, **others}
        scores["by_probability"] = {name: repeated.by_probability(truth, one, threshold) for name, one in every.items()}
    fitted = repeated.calibrate(found, truth, recipe.level)
    draft = replace(
        members.uncalibrated(recipe, output),
        calibration={task.property.name: fitted},
        calibration_rows=_rows_out_of_fold(found, truth, recipe.split.by, fitted),
    )
    facts = {
        "tasks": {task.property.name: {**_origin(prepared, 0), "rows": {"development": len(rows)}, **_headed(scores)}},
        "recipe": asdict(recipe),
        "precision": recipe.precision,
    }
    return _written(recipe, prepared, draft, facts, _reference(recipe, prepared, draft), command)


def _judged(prepared: Prepared) -> NDArray[np.int64]:
    """The rows of a cross-validation: all but those that every member learns from."""
    return prepared.known(np.sort(np.concatenate(prepared.split.folds)), 0)


def _truth(recipe: Recipe, prepared: Prepared) -> Truth:
    """The known values of these rows."""
    rows, (task,) = _judged(prepared), recipe.tasks
    return Truth(prepared.target[rows, 0], prepared.weight[rows], prepared.keys[recipe.split.by][rows], task.property)


def _rows_out_of_fold(found: OutOfFold, truth: Truth, by: str, fitted: ErrorBars) -> CalibrationRows:
    """The rows as the first repeat predicts them: the others are no new rows."""
    draws = None if found.draws is None else found.draws[0].astype(np.float64)
    std, _, _ = summary.error_bars(fitted, truth.property, found.mean[0], found.spread[0], draws)
    held = HeldRows(truth.value, found.mean[0], std, _numbered(truth.groups))
    return CalibrationRows({truth.property.name: held}, by, out_of_fold=True)


def _rows(
    recipe: Recipe,
    prepared: Prepared,
    held: PropertyPrediction,
    fitted: ErrorBars,
    task: int,
    rest: NDArray[np.int64],
) -> HeldRows:
    """The calibration rows of one property that its error bars were fitted on."""
    position = np.flatnonzero(np.isfinite(prepared.target[prepared.split.calibration, task]))[rest]
    rows = prepared.split.calibration[position]
    draws = None if held.draws is None else held.draws[position]
    mean, spread = held.mean[position], held.spread[position]
    std, _, _ = summary.error_bars(fitted, recipe.tasks[task].property, mean, spread, draws)
    return HeldRows(prepared.target[rows, task], mean, std, _numbered(prepared.keys[recipe.split.by][rows]))


def _numbered(groups: NDArray[Any]) -> NDArray[np.int64]:
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


def _learned(recipe: Recipe, prepared: Prepared) -> Learned:
    """The compositions that some member learned from."""
    atoms, found = prepared.crystals.composition(), set[str]()
    known = formulas.Known(atoms, prepared.target, prepared.weight, prepared.keys)
    for k, member in enumerate(recipe.members):
        rows, seen = prepared.split.train(k), atoms
        if isinstance(recipe.reads(member), CompositionSpec):
            extended = formulas.extend(recipe, known, prepared.split, k)
            rows, seen = np.concatenate([rows, extended.more]), extended.atoms
        found.update(reduced_formulas(seen[rows]).tolist())
    return Learned.of(found)


def _reference(recipe: Recipe, prepared: Prepared, draft: Ensemble) -> Reference:
    """Training crystals, and how far new ones lie from them.

    Where no row is held out, the distances are those of the first fold of the cross-validation to
    the rows outside it.
    """
    member = next((k for k, one in enumerate(draft.members) if one.kind.family == "graphs"), 0)
    if recipe.cross_validation is None:
        return _placed(recipe, prepared, draft, member, prepared.split.calibration)
    fold = prepare.prepare(recipe, (0, 0))
    apart = _placed(recipe, fold, draft, member, fold.split.test)
    return replace(_placed(recipe, prepared, draft, member, fold.split.test), quantiles=apart.quantiles)


def _placed(recipe: Recipe, prepared: Prepared, draft: Ensemble, member: int, held: NDArray[np.int64]) -> Reference:
    """Training crystals of a split, and held ones, as one member sees them."""
    embedder = draft.members[member]
    seed = recipe.members[member].seed
    rows = novelty.choose(prepared.split.train(member), seed)
    known = prepare.inputs(prepared.crystals.select(np.concatenate([rows, held])), embedder.spec, recipe.quotient)
    first = np.arange(len(rows), dtype=np.int64)
    return novelty.fit(embedder.network, known, first, len(rows) + np.arange(len(held)), seed, member=member)


def _weigh(recipe: Recipe, prepared: Prepared, draft: Ensemble) -> dict[str, combine.Fitted]:
    """Weights of the members for every property, and the calibration rows left for error bars."""
    held = members.predict(draft, prepared.crystals, prepared.split.calibration) if recipe.combine == "stacking" else {}
    errors = [float(member.facts["metrics"]["validation_mae"]) for member in draft.members]
    chosen = {}
    for k, task in enumerate(recipe.tasks):
        rows = prepared.known(prepared.split.calibration, k)
        members = np.empty((len(rows), len(draft.members)))
        if held:
            members = held[task.property.name].members[np.isfinite(prepared.target[prepared.split.calibration, k])]
        groups = prepared.keys[recipe.split.by][rows]
        truth, weight = prepared.target[rows, k], prepared.weight[rows]
        chosen[task.property.name] = combine.fit_weights(recipe.combine, members, truth, weight, errors, groups)
    return chosen


def _calibrate(
    recipe: Recipe, prepared: Prepared, held: PropertyPrediction, task: int, rest: NDArray[np.int64]
) -> ErrorBars:
    """Error bars of one property, from the rows `rest` among its known calibration rows."""
    position = np.flatnonzero(np.isfinite(prepared.target[prepared.split.calibration, task]))[rest]
    rows = prepared.split.calibration[position]
    truth, weight = prepared.target[rows, task], prepared.weight[rows]
    if held.draws is not None:
        return quantiles.fit(held.draws[position], held.mean[position], truth, weight, recipe.level)
    return calibration.fit(truth, held.mean[position], held.spread[position], recipe.level, weight)


def _measured(
    recipe: Recipe, prepared: Prepared, tested: PropertyPrediction, task: int, workers: int
) -> dict[str, Any]:
    """The card's facts of one property: data, rows, scores on the test rows, and baselines."""
    split = prepared.split
    counts = {"development": split.development(), "calibration": split.calibration, "test": split.test}
    position = np.isfinite(prepared.target[split.test, task])
    rows = split.test[position]
    truth, weight = prepared.target[rows, task], prepared.weight[rows]
    mean, lo, hi = tested.mean[position], tested.lo[position], tested.hi[position]
    scores = {
        **metrics.regression(truth, mean, weight),
        "coverage": metrics.coverage(truth, lo, hi, weight),
        "mean_width": float(np.average(hi - lo, weights=weight)),
        "error_std_spearman": metrics.spearman(np.abs(truth - mean), tested.std[position], weight),
        "member_mae": [metrics.regression(truth, alone, weight)["mae"] for alone in tested.members[position].T],
    }
    return {
        **_origin(prepared, task),
        "rows": {name: len(prepared.known(part, task)) for name, part in counts.items()},
        "test": scores,
        **_beside_baselines(recipe, prepared, mean, task, workers),
    }


def _origin(prepared: Prepared, task: int) -> dict[str, Any]:
    data = prepared.datasets[task]
    origin = {**asdict(data.spec), "name": data.name, "sha256": data.sha256, "dropped": data.dropped}
    found: dict[str, Any] = {"data": {**origin, "disordered": int((~data.crystals.is_ordered).sum())}}
    if prepared.measured is not None and len(rows := prepared.known(prepared.split.always, task)):
        first = len(prepared.target) - len(prepared.measured.target)
        found["measured"] = {"rows": int((rows >= first).sum()), "sha256": prepared.measured.sha256}
    return found


def _headed(scores: dict[str, Any]) -> dict[str, Any]:
    """Scores of a cross-validation under the names that those of test rows have."""
    plain = ("mae", "rmse", "r2")
    best = min(scores["rivals"], key=lambda name: scores["rivals"][name]["mae"])
    return {
        "test": {
            **{name: scores["scores"][name] for name in plain},
            "coverage": scores["coverage"],
            "mean_width": scores["mean_width"],
            "error_std_spearman": scores["spearman"],
            "member_mae": scores["member_mae"],
        },
        "baselines": {other: {name: one[name] for name in plain} for other, one in scores["rivals"].items()},
        "versus_best_baseline": {"name": best, **scores["compared"][best]},
        "cross_validation": scores,
    }


def _beside_baselines(
    recipe: Recipe, prepared: Prepared, mean: NDArray[np.float64], task: int, workers: int
) -> dict[str, Any]:
    """Scores of the baselines on the test rows, and a comparison with the best of them."""
    split, target = prepared.split, prepared.target[:, task]
    train_rows, rows = prepared.known(split.development(), task), prepared.known(split.test, task)
    prop = recipe.tasks[task].property
    predicted = baselines.predict(prepared.crystals, target, prepared.weight, train_rows, rows, prop, workers)
    truth, weight = target[rows], prepared.weight[rows]
    scores = {name: metrics.regression(truth, values, weight) for name, values in predicted.items()}
    best = min(scores, key=lambda name: scores[name]["mae"])
    errors = mean - truth, predicted[best] - truth
    compared = metrics.mae_difference(errors, weight, prepared.keys[recipe.split.by][rows])
    return {"baselines": scores, "versus_best_baseline": {"name": best, **compared}}
