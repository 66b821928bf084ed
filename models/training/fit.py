"""From a recipe to a calibrated ensemble with its card.

Enters: a `Recipe`. Leaves: an ensemble folder: members, `ensemble.json`, `split.json`, `README.md`.
This module does not know the training loop's inside, nor campaigns.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from assay.models.ensemble import calibration, checkpoint, combine, novelty, stored
from assay.models.ensemble.calibration import Calibration
from assay.models.ensemble.distribution import quantiles
from assay.models.ensemble.ensemble import Ensemble
from assay.models.ensemble.novelty import Reference
from assay.models.ensemble.stored import ErrorBars
from assay.models.ensemble.summary import PropertyPrediction
from assay.models.evaluation import baselines, metrics
from assay.models.networks import registry
from assay.models.training import card, prepare, train
from assay.models.training.prepare import Prepared
from assay.models.training.recipe import Recipe

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals

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
        ValueError: when `output` holds another run.
    """
    output.mkdir(parents=True, exist_ok=True)
    calls = [(recipe, k, output) for k in range(len(recipe.members))]
    if pool is not None:
        pool(train_member, calls)
    else:
        train_members(calls, workers)
    if not registry.MODELS[recipe.members[0].network].labelled:
        return None
    return _assemble(recipe, prepare.prepare(recipe), output, workers, command)


def train_members(calls: Sequence[tuple[Recipe, int, Path]], workers: int) -> None:
    """Train (recipe, member, folder) of one or of many recipes, `workers` at once."""
    if workers == 1:
        for call in calls:
            train_member(*call)
        return
    how: dict[str, Any] = {
        "mp_context": multiprocessing.get_context("spawn"),
        "initializer": signal.signal,  # Ctrl-C reaches every process of a terminal: this one ends the others
        "initargs": (signal.SIGINT, signal.SIG_IGN),
    }
    with ProcessPoolExecutor(min(workers, max(1, len(calls))), **how) as executor:
        for future in [executor.submit(train_member, *call) for call in calls]:
            future.result()


def train_member(recipe: Recipe, k: int, output: Path) -> None:
    """Train member `k` into its folder below `output`, in this process, on one thread."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    prepared, material = prepare.for_member(recipe, k)
    if registry.MODELS[recipe.members[k].network].labelled:
        _check_calibration(recipe, prepared)
    facts = {
        "data": prepare.files(recipe, prepared),
        "split": asdict(recipe.split),
        "start": begun.folder if (begun := recipe.start_of(recipe.members[k])) else None,
    }
    train.member(recipe, k, material, output / f"member-{k}", facts)


def _check_calibration(recipe: Recipe, prepared: Prepared) -> None:
    """Refuse, before any training, data that give an infinite interval."""
    for k, task in enumerate(recipe.tasks):
        rows = len(prepared.known(prepared.split.calibration, k))
        kept = rows // 2 if recipe.combine == "stacking" else rows
        if not calibration.suffices(kept, recipe.level):
            raise ValueError(
                f"{kept} calibration rows of {task.property.name} are too few for intervals at level {recipe.level:g}; "
                "raise split.calibration, or lower level"
            )


def uncalibrated(recipe: Recipe, output: Path) -> Ensemble:
    """The trained members in `output`, as an ensemble whose intervals mean nothing yet."""
    members = tuple(checkpoint.read(output / f"member-{k}", recipe.precision) for k in range(len(recipe.members)))
    names = [task.property.name for task in recipe.tasks]
    bare = {name: Calibration(recipe.level, 1.0, 0.0, 0) for name in names}
    decisions = {} if recipe.decision is None else dict.fromkeys(names, recipe.decision)
    return Ensemble(recipe.name, output, members, bare, {}, decisions=decisions)


def _assemble(recipe: Recipe, prepared: Prepared, output: Path, workers: int, command: str) -> Ensemble:
    """Calibrate, measure on the test rows, write `ensemble.json`, the split and the card."""
    folders = [f"member-{k}" for k in range(len(recipe.members))]
    names = [task.property.name for task in recipe.tasks]
    draft = uncalibrated(recipe, output)
    chosen = _weigh(recipe, prepared, draft)
    shares = {name: fitted.weights for name, fitted in chosen.items() if fitted.weights}
    draft = replace(draft, weights=shares)
    held = predict(draft, prepared.crystals, prepared.split.calibration)
    fitted = {name: _calibrate(recipe, prepared, held[name], k, chosen[name].rest) for k, name in enumerate(names)}
    draft = replace(draft, calibration=fitted)
    tested = predict(draft, prepared.crystals, prepared.split.test)
    facts = {
        "tasks": {name: _measured(recipe, prepared, tested[name], k, workers) for k, name in enumerate(names)},
        "recipe": asdict(recipe),
        "precision": recipe.precision,
    }
    reference = _reference(recipe, prepared, draft)
    stored.write(output, recipe.name, folders, fitted, facts, shares, reference, draft.decisions)
    checkpoint.write_whole(output / "split.json", prepared.split.to_json(prepared.crystals.ids).encode())
    card.write(output, command)
    return Ensemble.load(output)


def _reference(recipe: Recipe, prepared: Prepared, draft: Ensemble) -> Reference:
    """Training crystals as the first network that reads graphs sees them, or the first of all."""
    member = next((k for k, one in enumerate(draft.members) if one.kind.family == "graphs"), 0)
    embedder = draft.members[member]
    seed = recipe.members[member].seed
    rows = novelty.choose(prepared.split.train(member), seed)
    held = prepared.split.calibration
    known = prepare.inputs(prepared.crystals.select(np.concatenate([rows, held])), embedder.spec, recipe.quotient)
    first = np.arange(len(rows), dtype=np.int64)
    return novelty.fit(embedder.network, known, first, len(rows) + np.arange(len(held)), seed, member=member)


def _weigh(recipe: Recipe, prepared: Prepared, draft: Ensemble) -> dict[str, combine.Fitted]:
    """Weights of the members for every property, and the calibration rows left for error bars."""
    held = predict(draft, prepared.crystals, prepared.split.calibration) if recipe.combine == "stacking" else {}
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


def predict(ensemble: Ensemble, crystals: Crystals, rows: NDArray[np.int64]) -> dict[str, PropertyPrediction]:
    """Predictions for the given rows, by property.

    Raises:
        ValueError: when one of them cannot be predicted: held-out rows must all count.
    """
    predictions, refused = ensemble.predict(crystals.select(rows))
    if refused:
        raise ValueError(f"{len(refused)} held-out crystals could not be predicted, the first: {refused[0].message}")
    return predictions.values


def _measured(
    recipe: Recipe, prepared: Prepared, tested: PropertyPrediction, task: int, workers: int
) -> dict[str, Any]:
    """The card's facts of one property: data, rows, scores on the test rows, and baselines."""
    data, split = prepared.datasets[task], prepared.split
    counts = {"development": split.development(), "calibration": split.calibration, "test": split.test}
    origin = {**asdict(data.spec), "name": data.name, "sha256": data.sha256, "dropped": data.dropped}
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
        "data": {**origin, "disordered": int((~data.crystals.is_ordered).sum())},
        "rows": {name: len(prepared.known(part, task)) for name, part in counts.items()},
        "test": scores,
        **_beside_baselines(recipe, prepared, mean, task, workers),
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
