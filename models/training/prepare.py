"""From a recipe's data to the material of its members: crystals, targets, inputs, split.

Enters: a `Recipe`. Leaves: `Prepared`. This module does not know the training loop or ensembles.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.featurize import graphs as crystal_graphs
from assay.featurize.alternatives import united
from assay.featurize.composition import CompositionSpec
from assay.featurize.graphs import GraphSpec
from assay.featurize.readable import readable
from assay.models.ensemble.reading import Unbuilt
from assay.models.evaluation import split
from assay.models.evaluation.split import Split
from assay.models.networks import kinds, registry
from assay.models.networks.inputs import CompositionInputs, Inputs
from assay.models.networks.kinds import Spec
from assay.models.training import formulas
from assay.models.training.recipe import Measured, Recipe, Task
from assay.models.training.train import Material
from assay.sources import crystals as batches

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
    measured: Dataset | None = None
    """The values that came later, whose rows are the last ones."""

    def later(self) -> NDArray[np.int64]:
        """The rows of `measured`, ascending."""
        if self.measured is None:
            return np.empty(0, np.int64)
        rows = len(self.crystals)
        return np.arange(rows - len(self.measured.target), rows, dtype=np.int64)

    def known(self, rows: NDArray[np.int64], task: int) -> NDArray[np.int64]:
        """Those of `rows` whose value of a task is known."""
        return np.asarray(rows[np.isfinite(self.target[rows, task])], np.int64)


Fold = tuple[int, int]
"""Of a repeated cross-validation: number of the repeat, and of the fold in it."""


def prepare(recipe: Recipe, fold: Fold | None = None) -> Prepared:
    """Load the crystals of the recipe that networks can read, and divide them, always alike.

    With `cross_validation` a `fold` has the test rows; without one there are none, and all members
    learn from all rows.

    Raises:
        FileNotFoundError: when the data are not there.
        ValueError: when the split cannot be made, when two datasets give one id to two crystals, or
            a dataset holds values in another unit than its task, or values that it cannot learn.
    """
    loaded = _loaded(recipe, _graph(recipe))
    first = sum(len(dataset.target) for dataset in loaded.datasets)
    divided = _divided(recipe, {name: labels[:first] for name, labels in loaded.keys.items()}, fold)
    if recipe.measured is not None:
        divided = divided.opened(loaded.keys["formula" if recipe.split.by == "row" else recipe.split.by], first)
    if len(recipe.tasks) > 1 or recipe.measured is not None:
        _check_ids(loaded, divided)
    return replace(loaded, split=divided)


def _divided(recipe: Recipe, keys: dict[str, NDArray[Any]], fold: Fold | None) -> Split:
    """The split of the rows of the datasets."""
    if recipe.cross_validation is None:
        return split.divide(keys, recipe.split)
    test, spec = np.empty(0, np.int64), recipe.split
    if fold is not None:
        spec = replace(spec, seed=spec.seed + fold[0])
        test = split.parts(keys, spec, recipe.cross_validation.folds)[fold[1]]
    stopping = any(registry.MODELS[member.network].gradients for member in recipe.members)
    return split.without(keys, spec, test, spec.folds if stopping else 1)


def _check_ids(loaded: Prepared, divided: Split) -> None:
    """Refuse an id in two parts: the file of the split, and whoever reads it, know rows by ids."""
    ids, inverse = np.unique(loaded.crystals.ids, return_inverse=True)
    part, low, high = np.empty(len(inverse), np.int64), np.full(len(ids), len(inverse)), np.full(len(ids), -1)
    for number, rows in enumerate([*divided.parts(), divided.always]):
        part[rows] = number
    np.minimum.at(low, inverse, part)
    np.maximum.at(high, inverse, part)
    if (torn := np.flatnonzero(low < high)).size:
        rows = np.flatnonzero(inverse == torn[0])
        held = " and of ".join(np.unique(loaded.keys["formula"][rows]).tolist())
        more = f" (and {len(torn) - 1:,} more ids)" if len(torn) > 1 else ""
        raise ValueError(
            f"id {str(ids[torn[0]])!r}{more} lies in two parts of the split: it is that of {held}; equal ids in two "
            "datasets mean one crystal, so name the crystals of one of them otherwise"
        )


def for_member(recipe: Recipe, member: int, fold: Fold | None = None) -> tuple[Prepared, Material]:
    """All rows, and the material of member number `member`; its inputs are kept for the next."""
    prepared, reads = prepare(recipe, fold), recipe.reads(recipe.members[member])
    if isinstance(reads, CompositionSpec):
        known = formulas.Known(prepared.crystals.composition(), prepared.target, prepared.weight, prepared.keys)
        rows = formulas.extend(recipe, known, prepared.split, member)
        whole = replace(prepared, target=rows.target, weight=rows.weight)
        return prepared, material(recipe, whole, member, CompositionInputs(rows.atoms, reads), rows.more)
    made = _inputs(recipe.tasks, recipe.measured, reads, recipe.limit, recipe.quotient, recipe.graph)
    return prepared, material(recipe, prepared, member, made.varied(recipe.augment))


def material(
    recipe: Recipe, prepared: Prepared, member: int, made: Inputs, more: NDArray[np.int64] | None = None
) -> Material:
    """What member number `member` learns from: its part of the split, and the rows `more`."""
    train, seed = prepared.split.train(member), recipe.members[member].seed
    if more is not None:
        train = np.concatenate([train, more])
    if recipe.contradictions is not None:
        atoms = made.atoms if isinstance(made, CompositionInputs) else prepared.crystals.composition()
        target = prepared.target[:, recipe.task_of(recipe.contradictions.property)]
        train = formulas.sound(recipe.contradictions, atoms, target, train)
    if recipe.learn_from is not None:
        train = np.sort(np.random.default_rng([seed, 11]).permutation(train)[: recipe.learn_from])
    if (later := prepared.later()).size:  # which no rule leaves out
        train = np.union1d(train, later)
    if recipe.bootstrap:
        train = np.random.default_rng([seed, 7]).choice(train, len(train))
    return Material(made, prepared.target, prepared.weight, train, prepared.split.validation(member))


def files(recipe: Recipe, prepared: Prepared) -> list[dict[str, str]]:
    """Name and digest of the files that members learn from."""
    every = [*prepared.datasets, *([prepared.measured] if prepared.measured else [])]
    found = [{"name": dataset.name, "sha256": dataset.sha256} for dataset in every]
    if recipe.formulas:
        found.append({"name": recipe.formulas.dataset, "sha256": formulas.load(recipe.formulas.dataset).sha256})
    return found


def inputs(crystals: Crystals, spec: Spec, tolerance: float) -> Inputs:
    """Crystals as a network reads them in training; equal atoms are merged, see `Kind.inputs`."""
    return kinds.of(spec).inputs(crystals, spec, tolerance)


def _loaded(recipe: Recipe, spec: GraphSpec | None) -> Prepared:
    """All rows of a recipe, those that were measured last."""
    loaded = _load(recipe.tasks, spec, recipe.limit)
    if recipe.measured is None:
        return loaded
    task, more = recipe.task_of(recipe.measured.property), _measured(recipe.measured, spec)
    formulas.learnable(more, recipe.tasks[task].property)
    return _joined(loaded, task, more)


def _joined(loaded: Prepared, task: int, more: Dataset) -> Prepared:
    """The rows with those of one more dataset, whose values are of one task."""
    target = np.full((len(more.target), len(loaded.datasets)), np.nan)
    target[:, task] = more.target
    unlike = np.full(len(more.target), "unknown")
    return replace(
        loaded,
        crystals=batches.concat([replace(part, columns={}) for part in (loaded.crystals, more.crystals)]),
        target=np.concatenate([loaded.target, target]),
        weight=np.concatenate([loaded.weight, more.weight]),
        keys={name: np.concatenate([labels, more.keys.get(name, unlike)]) for name, labels in loaded.keys.items()},
        measured=more,
    )


@lru_cache(maxsize=1)
def _load(tasks: tuple[Task, ...], spec: GraphSpec | None, limit: int | None) -> Prepared:
    loaded = [_readable(_said(formulas.datasets().load(task.dataset, limit), task), spec) for task in tasks]
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
def _measured(measured: Measured, spec: GraphSpec | None) -> Dataset:
    return _readable(formulas.datasets().load(measured.dataset), spec)


@lru_cache(maxsize=1)
def _inputs(
    tasks: tuple[Task, ...],
    measured: Measured | None,
    spec: Spec,
    limit: int | None,
    tolerance: float,
    graph: GraphSpec,
) -> Inputs:
    crystals = _load(tasks, graph, limit).crystals
    if measured is not None:
        parts = crystals, _measured(measured, graph).crystals
        crystals = batches.concat([replace(part, columns={}) for part in parts])
    return inputs(crystals, spec, tolerance)


def _graph(recipe: Recipe) -> GraphSpec | None:
    """The graphs that tell which rows can be read; None where no member reads a structure."""
    return recipe.graph if recipe.structural() else None


def _said(dataset: Dataset, task: Task) -> Dataset:
    """The dataset, with the level of theory and the unit of its task where it names none itself."""
    found = dataset.spec.functional
    if task.functional and found not in ("unknown", task.functional):
        raise ValueError(f"{task.dataset} holds values by {found!r}, its task says functional: {task.functional!r}")
    formulas.learnable(dataset, task.property)
    named = {"functional": task.functional, "unit": task.property.unit}
    said: dict[str, Any] = {
        fact: name for fact, name in named.items() if name and getattr(dataset.spec, fact) == "unknown"
    }
    return replace(dataset, spec=replace(dataset.spec, **said)) if said else dataset


def _readable(dataset: Dataset, spec: GraphSpec | None) -> Dataset:
    """The rows that a network can read."""
    if spec is None:
        rows = readable(dataset.crystals, Unbuilt.of).rows
        return dataset.select(rows[dataset.crystals.composition()[rows].any(axis=1)], "no network can read it")
    dataset = replace(dataset, crystals=united(dataset.crystals))
    found = readable(dataset.crystals, partial(crystal_graphs.build, spec=replace(spec, angles=False)))
    return dataset.select(found.rows, "no network can read it")
