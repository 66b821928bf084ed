"""Out-of-fold predictions of a recipe: each row by members that learned nothing of its group.

Enters: a recipe with `cross_validation`, a folder. Leaves: `OutOfFold`, and one file per fold in
the folder, so that a stopped run goes on. This module does not know scores or cards.
"""

from __future__ import annotations

import io
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from assay.featurize.composition import CompositionSpec
from assay.models.ensemble.checkpoint import write_whole
from assay.models.ensemble.distribution.decision import Decision
from assay.models.evaluation.repeated import OutOfFold
from assay.models.training import fingerprints, members, prepare
from assay.models.training.prepare import Fold
from assay.models.training.recipe import MemberSpec, Recipe

_log = logging.getLogger(__name__)


def predict(recipe: Recipe, output: Path, workers: int = 1) -> OutOfFold:
    """Train the members of every fold that is not in `output`, and predict all rows.

    The members of a fold are removed when its predictions are on disk.

    Raises:
        FileNotFoundError: when the data are not there.
        ValueError: when `output` holds predictions of another recipe or other data.
    """
    how = recipe.cross_validation
    if how is None:
        raise ValueError(f"{recipe.name} has no cross_validation")
    output.mkdir(parents=True, exist_ok=True)
    repeats = [
        _joined([_fold(recipe, (repeat, fold), output, workers) for fold in range(how.folds)])
        for repeat in range(how.repeats)
    ]
    stacked: dict[str, Any] = {name: np.stack([one[name] for one in repeats]) for name in repeats[0]}
    return OutOfFold(**{"draws": None, **stacked})


def rivals(recipe: Recipe) -> dict[str, Recipe]:
    """The strongest simple recipes for the same property, to be tested in the same folds, by name.

    All are forests of a hundred trees on statistics of element properties and the share of each
    element. Two learn from all formulas on a square-root scale and take the median of their trees:
    extremely randomised trees, and a random forest. The third learns from the crystals alone and
    takes the mean.
    """
    (task,) = recipe.tasks
    prop = replace(task.property, transform="identity")
    bent = replace(prop, transform="sqrt") if prop.minimum is not None and prop.minimum >= 0 else prop
    plain = replace(recipe, members=_hundred(), composition=CompositionSpec(), bootstrap=False)
    plain = replace(plain, contradictions=None, start=None)
    every = "all formulas, medians" if recipe.formulas else "medians"
    medians = replace(plain, tasks=(replace(task, property=bent),), decision=Decision("median"))
    means = replace(plain, tasks=(replace(task, property=prop),), decision=Decision("mean"), formulas=None)
    return {
        f"extra trees, {every}": replace(medians, name="medians"),
        f"random forest, {every}": replace(medians, name="forest", members=_hundred(splits="best", bootstrap=True)),
        "extra trees, crystals only, means": replace(means, name="means"),
    }


def _hundred(**sizes: Any) -> tuple[MemberSpec, ...]:
    """Two members of fifty trees."""
    return tuple(MemberSpec("trees", seed, {"trees": 50, "max_features": 0.3, **sizes}) for seed in range(2))


def _fold(recipe: Recipe, fold: Fold, output: Path, workers: int) -> dict[str, Any]:
    """Arrays of the predicted test rows of one fold, from its file."""
    prepared = prepare.prepare(recipe, fold)
    rows = prepared.known(prepared.split.test, 0)
    ids = prepared.crystals.ids[rows]
    fingerprint = fingerprints.of_fold(recipe, prepare.files(recipe, prepared), ids)
    folder = output / f"{fold[0]}-{fold[1]}"
    file = folder.with_name(f"{folder.name}.npz")
    if not file.is_file():
        members.train_all([(recipe, k, folder, fold) for k in range(len(recipe.members))], workers)
        found = members.predict(members.uncalibrated(recipe, folder), prepared.crystals, rows)
        one = found[recipe.tasks[0].property.name]
        parts: dict[str, Any] = {"rows": rows, "fold": np.full(len(rows), fold[1])}
        parts |= {"mean": one.mean, "spread": one.spread, "members": one.members}
        if one.draws is not None:
            parts["draws"] = one.draws.astype(np.float32)
        content = io.BytesIO()
        np.savez(content, fingerprint=np.array(fingerprint), **parts)
        write_whole(file, content.getvalue())
        error = np.average(np.abs(one.mean - prepared.target[rows, 0]), weights=prepared.weight[rows])
        _log.info("%s, repeat %d, fold %d: %d rows, MAE %.4f", recipe.name, *fold, len(rows), error)
    shutil.rmtree(folder, ignore_errors=True)
    with np.load(file, allow_pickle=False) as stored:
        read = {name: stored[name] for name in stored.files}
    fingerprints.same_run(str(read.pop("fingerprint")), fingerprint, file)
    return read


def _joined(folds: list[dict[str, Any]]) -> dict[str, Any]:
    """The folds of one repeat in the order of the rows."""
    joined = {name: np.concatenate([fold[name] for fold in folds]) for name in folds[0]}
    order = np.argsort(joined.pop("rows"))
    return {name: part[order] for name, part in joined.items()}
