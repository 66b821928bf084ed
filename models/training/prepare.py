"""From a recipe's data to what its members learn from: crystals, targets, graphs or pictures, split.

Enters: a `Recipe`. Leaves: `Prepared`. This module does not know the training loop or ensembles.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.featurize import graphs as crystal_graphs
from assay.featurize.graphs import GraphSpec
from assay.featurize.pictures import scene
from assay.featurize.pictures.scene import ViewSpec
from assay.featurize.quotient import of_crystals
from assay.models.ensemble.ensemble import SHORTEST_BOND
from assay.models.evaluation import split
from assay.models.evaluation.split import Split
from assay.models.networks.inputs import GraphInputs, Inputs, PictureInputs
from assay.models.training.recipe import Recipe, Task
from assay.models.training.train import Material

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals
    from assay.sources.datasets import Dataset

_UNDIVIDED = Split(np.empty(0, np.int64), np.empty(0, np.int64), ())


@dataclass(frozen=True)
class Prepared:
    """The `n` crystals of all tasks of a recipe, in the order of the tasks."""

    datasets: tuple[Dataset, ...]
    """One per task, with the rows that a network can read."""
    crystals: Crystals
    """All of them."""
    target: NDArray[np.float64]
    """(n, p) one column per task, NaN where a crystal belongs to another task."""
    weight: NDArray[np.float64]
    """(n,) row weights."""
    keys: dict[str, NDArray[Any]]
    """(n,) labels by which rows can be grouped, for example `formula`."""
    split: Split
    """Which rows are for what."""

    def known(self, rows: NDArray[np.int64], task: int) -> NDArray[np.int64]:
        """Those of `rows` whose value of a task is known."""
        return np.asarray(rows[np.isfinite(self.target[rows, task])], np.int64)


def prepare(recipe: Recipe) -> Prepared:
    """Load the recipe's datasets without crystals no network can read, and divide them; the same rows every time.

    Raises:
        FileNotFoundError: when the data are not there.
        ValueError: when the split cannot be made.
    """
    loaded = _load(recipe.tasks, recipe.graph, recipe.limit)
    return replace(loaded, split=split.divide(loaded.keys, recipe.split))


def for_member(recipe: Recipe, member: int) -> tuple[Prepared, Material]:
    """All rows, and what member number `member` learns from; what it reads is kept for the next member."""
    prepared = prepare(recipe)
    made = _inputs(recipe.tasks, recipe.reads(recipe.members[member]), recipe.limit, recipe.quotient, recipe.graph)
    if isinstance(made, PictureInputs):
        made = replace(made, augment=recipe.augment)
    return prepared, material(recipe, prepared, member, made)


def material(recipe: Recipe, prepared: Prepared, member: int, made: Inputs) -> Material:
    """What member number `member` learns from."""
    train, seed = prepared.split.train(member), recipe.members[member].seed
    if recipe.learn_from is not None:
        train = np.sort(np.random.default_rng([seed, 11]).permutation(train)[: recipe.learn_from])
    if recipe.bootstrap:
        train = np.random.default_rng([seed, 7]).choice(train, len(train))
    return Material(made, prepared.target, prepared.weight, train, prepared.split.validation(member))


def inputs(crystals: Crystals, spec: GraphSpec | ViewSpec, tolerance: float) -> Inputs:
    """Crystals as a network reads them in training: views, quotients, or full graphs where the tolerance is 0.

    Full graphs carry no angles, they are added to each batch; those of a quotient are merged with
    it, once.
    """
    if isinstance(spec, ViewSpec):
        return PictureInputs(crystals, scene.build(crystals, spec), spec)
    full = crystal_graphs.build(crystals, replace(spec, angles=False))
    return GraphInputs(of_crystals(full, tolerance, angles=spec.angles) if tolerance else full, spec.angles)


@lru_cache(maxsize=1)
def _load(tasks: tuple[Task, ...], spec: GraphSpec, limit: int | None) -> Prepared:
    from assay.sources import crystals as batches, datasets

    loaded = []
    for task in tasks:
        dataset = datasets.load(task.dataset, limit)
        loaded.append(dataset.select(_readable(dataset.crystals, spec), "atoms on top of each other"))
    sizes = [len(dataset.target) for dataset in loaded]
    target = np.full((sum(sizes), len(loaded)), np.nan)
    first = np.cumsum([0, *sizes])
    for k, dataset in enumerate(loaded):
        target[first[k] : first[k + 1], k] = dataset.target
    shared = set.intersection(*(set(dataset.keys) for dataset in loaded))
    return Prepared(
        datasets=tuple(loaded),
        crystals=loaded[0].crystals if len(loaded) == 1 else batches.concat([d.crystals for d in loaded]),
        target=target,
        weight=np.concatenate([dataset.weight for dataset in loaded]),
        keys={name: np.concatenate([dataset.keys[name] for dataset in loaded]) for name in sorted(shared)},
        split=_UNDIVIDED,
    )


@lru_cache(maxsize=1)
def _inputs(
    tasks: tuple[Task, ...], spec: GraphSpec | ViewSpec, limit: int | None, tolerance: float, graph: GraphSpec
) -> Inputs:
    return inputs(_load(tasks, graph, limit).crystals, spec, tolerance)


def _readable(crystals: Crystals, spec: GraphSpec) -> NDArray[np.int64]:
    """Rows whose atoms are not on top of each other."""
    shortest = crystal_graphs.build(crystals, replace(spec, angles=False)).shortest()
    return np.flatnonzero(shortest >= SHORTEST_BOND)
