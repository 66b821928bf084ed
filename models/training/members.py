"""The members of an ensemble: trained side by side, put together before they are calibrated.

Enters: recipes, numbers of members, folders. Leaves: checkpoint folders, an ensemble whose
intervals mean nothing yet, and its predictions of held-out rows. This module does not know the
training loop's inside, scores or cards.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from assay.models.ensemble import calibration, checkpoint
from assay.models.ensemble.calibration import Calibration
from assay.models.ensemble.ensemble import Ensemble
from assay.models.ensemble.summary import PropertyPrediction
from assay.models.networks import registry
from assay.models.training import prepare, train
from assay.models.training.prepare import Fold, Prepared
from assay.models.training.recipe import Recipe

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals

Call = tuple[Recipe, int, Path] | tuple[Recipe, int, Path, Fold]
"""What `train_one` takes."""


def train_all(calls: Sequence[Call], workers: int) -> None:
    """Train members of one or of many recipes, `workers` at once, one thread each."""
    side_by_side(train_one, calls, workers)


def side_by_side(function: Callable[..., None], calls: Sequence[tuple[Any, ...]], workers: int) -> None:
    """Call a function once per tuple of arguments, in `workers` processes at once."""
    if workers == 1:
        for call in calls:
            function(*call)
        return
    how: dict[str, Any] = {
        "mp_context": multiprocessing.get_context("spawn"),
        "initializer": signal.signal,  # Ctrl-C reaches every process of a terminal: this one ends the others
        "initargs": (signal.SIGINT, signal.SIG_IGN),
    }
    with ProcessPoolExecutor(min(workers, max(1, len(calls))), **how) as executor:
        for future in [executor.submit(function, *call) for call in calls]:
            future.result()


def train_one(recipe: Recipe, k: int, output: Path, fold: Fold | None = None) -> None:
    """Train member `k` into its folder below `output`, in this process, on one thread."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    prepared, material = prepare.for_member(recipe, k, fold)
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
    if recipe.cross_validation is not None:
        return
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


def predict(ensemble: Ensemble, crystals: Crystals, rows: NDArray[np.int64]) -> dict[str, PropertyPrediction]:
    """Predictions for the given rows, by property.

    Raises:
        ValueError: when one of them cannot be predicted: held-out rows must all count.
    """
    predictions, refused = ensemble.predict(crystals.select(rows))
    if refused:
        raise ValueError(f"{len(refused)} held-out crystals could not be predicted, the first: {refused[0].message}")
    return predictions.values
