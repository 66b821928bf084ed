"""Training rows without a structure, and training rows that contradict their neighbours.

Enters: the crystals and the split of a recipe, a table of formulas. Leaves: `Extended` rows for the
members that read the composition alone, and the training rows that are left. What lies in a held
out part is never learned from, whatever table it comes from. This module does not know networks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.models.training.recipe import Contradictions, Recipe

if TYPE_CHECKING:
    from assay.models.evaluation.split import Split
    from assay.models.target import Property
    from assay.sources.datasets import Dataset, FormulaSet


@dataclass(frozen=True)
class Known:
    """The `n` crystals of a recipe."""

    atoms: NDArray[np.float64]
    """(n, 119) atoms of each atomic number."""
    target: NDArray[np.float64]
    """(n, p)"""
    weight: NDArray[np.float64]
    """(n,)"""
    keys: dict[str, NDArray[Any]]
    """(n,) labels, for example `formula`."""


@dataclass(frozen=True)
class Extended:
    """The `n` crystals of a recipe, and `m` formulas after them."""

    atoms: NDArray[np.float64]
    """(n + m, 119) atoms of each atomic number."""
    target: NDArray[np.float64]
    """(n + m, p)"""
    weight: NDArray[np.float64]
    """(n + m,)"""
    more: NDArray[np.int64]
    """(r,) rows of the formulas that one member may learn from."""


def extend(recipe: Recipe, known: Known, split: Split, member: int) -> Extended:
    """The rows of a member that needs no structure: crystals first, then formulas, if any.

    Left out of the formulas are those of a crystal of the recipe, and those that belong to what
    this member must not know: test rows, calibration rows, and its own validation rows. They belong
    there when they share what the split keeps together, with `by: row` the formula.

    Raises:
        FileNotFoundError: when the table is missing.
        ValueError: when the split holds out a family, and the table has none, or for another unit.
    """
    if recipe.formulas is None:
        return Extended(known.atoms, known.target, known.weight, np.empty(0, np.int64))
    found = load(recipe.formulas.dataset)
    task = recipe.task_of(recipe.formulas.property)
    learnable(found, recipe.tasks[task].property)
    target = np.full((len(found.target), known.target.shape[1]), np.nan)
    target[:, task] = found.target
    held = np.concatenate([split.test, split.calibration, split.validation(member)])
    barred = np.isin(found.keys["formula"], known.keys["formula"]) | _held_out(found, recipe, known.keys, held)
    more = np.flatnonzero(~barred)
    if recipe.formulas.learn_from is not None:
        drawn = np.random.default_rng([recipe.members[member].seed, 13]).permutation(more)
        more = np.sort(drawn[: recipe.formulas.learn_from])
    return Extended(
        np.concatenate([known.atoms, found.atoms]),
        np.concatenate([known.target, target]),
        np.concatenate([known.weight, found.weight]),
        len(known.atoms) + more,
    )


@lru_cache(maxsize=1)
def load(name: str) -> FormulaSet:
    """A table of formulas."""
    found: FormulaSet = datasets().load_formulas(name)
    return found


def learnable(found: Dataset | FormulaSet, learned: Property) -> None:
    """Refuse values in another unit than the property, below its minimum, or not on its scale."""
    if learned.unit and found.spec.unit not in ("unknown", learned.unit):
        said = f"{found.name} holds values in {found.spec.unit!r}, property.unit of {learned.name} is {learned.unit!r}"
        raise ValueError(f"{said}; convert the values, or say their unit")
    if len(wrong := learned.refused(found.target)):
        many = f"{len(wrong):,} values of {learned.name} in {found.name} are"
        why = f"below its minimum of {learned.minimum:g}" if learned.minimum is not None else "too low for its"
        first = f"the first is {found.target[wrong[0]]:g}"
        raise ValueError(f"{many} {why} (transform: {learned.transform}): {first}; leave them out, or change property")


def datasets() -> Any:
    """The module that reads training sets."""
    from assay.sources import datasets  # which needs pyarrow

    return datasets


def _held_out(
    found: FormulaSet, recipe: Recipe, keys: dict[str, NDArray[Any]], held: NDArray[np.int64]
) -> NDArray[np.bool_]:
    by = "formula" if recipe.split.by == "row" else recipe.split.by
    hidden = np.isin(found.keys[by], keys[by][held])
    if recipe.split.family is not None:
        if "family" not in found.keys:
            raise ValueError(
                f"split.family holds out {recipe.split.family!r}, and {found.name} does not say the family of a formula"
            )
        hidden |= found.keys["family"] == recipe.split.family
    return np.asarray(hidden, np.bool_)


def sound(
    rule: Contradictions, atoms: NDArray[np.float64], target: NDArray[np.float64], rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The training rows without zeros that contradict their neighbours among these rows.

    The distance of two compositions is the share of the atoms in which they differ. Neighbours are
    other compositions nearer than `rule.distance`; a zero contradicts them when their median is
    above `rule.above`.

    Args:
        rule: distance and value.
        atoms: (n, 119) of all rows.
        target: (n,) of all rows, NaN where unknown.
        rows: to learn from.
    """
    shares, first = np.unique(np.round(_shares(atoms[rows]), 6), axis=0, return_inverse=True)
    first = first.reshape(-1)
    values = target[rows]
    known = np.isfinite(values)
    sums = np.bincount(first[known], weights=values[known], minlength=len(shares))
    many = np.bincount(first[known], minlength=len(shares))
    mean = np.where(many > 0, sums / np.maximum(many, 1), np.nan)
    wrong = np.zeros(len(shares), bool)
    for row in np.flatnonzero(mean == 0.0):
        held = np.flatnonzero(shares[row])
        near = 1 - np.minimum(shares[:, held], shares[row, held]).sum(axis=1) < rule.distance - 1e-9
        near[row] = False
        near &= many > 0
        wrong[row] = near.any() and float(np.median(mean[near])) > rule.above
    return np.asarray(rows[~wrong[first] | ~known], np.int64)


def _shares(atoms: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(atoms / atoms.sum(axis=1, keepdims=True), np.float64)
