"""From a recipe to a calibrated ensemble with its card.

Enters: a `Recipe`. Leaves: an ensemble folder: members, `ensemble.json`, `README.md`.
This module does not know the training loop's inside, nor campaigns.
"""

from __future__ import annotations

import logging
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from featurize import graphs as crystal_graphs
from models import baselines, calibration, card, checkpoint, ensemble, metrics, split, train
from models.calibration import Calibration
from models.checkpoint import Checkpoint
from models.ensemble import SHORTEST_BOND, Ensemble, PropertyPrediction
from models.recipe import Recipe
from models.split import Split

if TYPE_CHECKING:
    from sources.datasets import Dataset

_log = logging.getLogger(__name__)


def run(recipe: Recipe, output: Path, *, workers: int = 1, command: str = "") -> Ensemble:
    """Train every member, calibrate, measure on the test rows beside the baselines, and write the ensemble folder.

    Finished members are kept, and an interrupted one goes on where it stopped. `workers` members learn at once, one
    thread each; the weights do not depend on it. `command` is printed on the card.

    Raises:
        FileNotFoundError: when the data are not there.
        ValueError: when `output` holds another run.
    """
    output.mkdir(parents=True, exist_ok=True)
    numbers = range(len(recipe.members))
    if workers == 1:
        torch.set_num_threads(1)
        prepared = prepare(recipe)
        for k in numbers:
            _member(recipe, prepared, k, output)
    else:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(numbers)), mp_context=spawn) as pool:
            list(pool.map(_member_in_process, [recipe] * len(numbers), numbers, [output] * len(numbers)))
        prepared = prepare(recipe)
    return _assemble(recipe, prepared, output, workers, command)


@dataclass(frozen=True)
class Prepared:
    """A dataset without crystals no network can read, its graphs without angles, and its split."""

    dataset: Dataset
    graphs: crystal_graphs.Graphs
    split: Split


def prepare(recipe: Recipe) -> Prepared:
    """Load the recipe's dataset, build its graphs and divide it; the same recipe gives the same rows."""
    from sources import datasets

    dataset = datasets.load(recipe.dataset, recipe.limit)
    graphs = crystal_graphs.build(dataset.crystals, recipe.graph)
    sound = np.flatnonzero(graphs.shortest() >= SHORTEST_BOND)
    dataset = dataset.select(sound)
    return Prepared(dataset, graphs.select(sound), split.grouped(dataset.groups, recipe.split))


def _member(recipe: Recipe, prepared: Prepared, k: int, output: Path) -> Checkpoint:
    data, rows = prepared.dataset, prepared.split
    material = train.Material(prepared.graphs, data.target, data.weight, rows.train(k), rows.validation(k))
    facts = {"data": {"name": data.name, "sha256": data.sha256}, "split": asdict(recipe.split)}
    return train.member(recipe, recipe.members[k], material, output / f"member-{k}", facts)


def _member_in_process(recipe: Recipe, k: int, output: Path) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    _member(recipe, prepare(recipe), k, output)


def _assemble(recipe: Recipe, prepared: Prepared, output: Path, workers: int, command: str) -> Ensemble:
    """Calibrate on the calibration rows, measure on the test rows, write `ensemble.json` and the card."""
    data, rows, name = prepared.dataset, prepared.split, recipe.property.name
    folders = [f"member-{k}" for k in range(len(recipe.members))]
    members = tuple(checkpoint.read(output / folder) for folder in folders)
    uncalibrated = Calibration(recipe.level, 1.0, 0.0, 0)
    draft = Ensemble(recipe.name, output, members, {name: uncalibrated}, {})
    held = _predict(draft, data, rows.calibration, name)
    fitted = calibration.fit(
        data.target[rows.calibration], held.mean, held.std, recipe.level, data.weight[rows.calibration]
    )
    tested = _predict(replace(draft, calibration={name: fitted}), data, rows.test, name)
    origin = {**asdict(data.spec), "name": data.name, "sha256": data.sha256, "refused": data.refused}
    facts = {
        "data": {**origin, "disordered": int((~data.crystals.is_ordered).sum())},
        "rows": {"development": len(rows.development()), "calibration": len(rows.calibration), "test": len(rows.test)},
        "test": _scores(prepared, tested),
        **_beside_baselines(recipe, prepared, tested, workers),
        "recipe": asdict(recipe),
    }
    ensemble.write(output, recipe.name, folders, {name: fitted}, facts)
    card.write(output, command)
    return Ensemble.load(output)


def _predict(loaded: Ensemble, data: Dataset, rows: NDArray[np.int64], name: str) -> PropertyPrediction:
    predictions, refused = loaded.predict(data.crystals.select(rows))
    if refused:
        raise ValueError(f"{len(refused)} held-out crystals could not be predicted, the first: {refused[0].message}")
    return predictions.values[name]


def _scores(prepared: Prepared, predicted: PropertyPrediction) -> dict[str, Any]:
    rows, data = prepared.split.test, prepared.dataset
    truth, weight = data.target[rows], data.weight[rows]
    alone = [metrics.regression(truth, column, weight)["mae"] for column in predicted.members.T]
    return {
        **metrics.regression(truth, predicted.mean, weight),
        "coverage": metrics.coverage(truth, predicted.lo, predicted.hi, weight),
        "mean_width": float(np.average(predicted.hi - predicted.lo, weights=weight)),
        "error_std_spearman": metrics.spearman(np.abs(truth - predicted.mean), predicted.std),
        "member_mae": alone,
    }


def _beside_baselines(recipe: Recipe, prepared: Prepared, tested: PropertyPrediction, workers: int) -> dict[str, Any]:
    """Scores of the baselines on the test rows, and how sure the difference to the best of them is."""
    data, rows = prepared.dataset, prepared.split
    predicted = baselines.predict(
        data.crystals, data.target, data.weight, rows.development(), rows.test, recipe.property, workers
    )
    truth, weight = data.target[rows.test], data.weight[rows.test]
    scores = {name: metrics.regression(truth, values, weight) for name, values in predicted.items()}
    best = min(scores, key=lambda name: scores[name]["mae"])
    errors = tested.mean - truth, predicted[best] - truth
    compared = metrics.mae_difference(errors, weight, data.groups[rows.test])
    return {"baselines": scores, "versus_best_baseline": {"name": best, **compared}}
