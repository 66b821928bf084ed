"""The crystals of each round: drawn in the first, chosen by the students in a later one.

Enters: a `Distillation`, its folder, a round, counted from 0. Leaves: crystals for the teacher. A
later round draws candidates of chemical systems that neither watch nor test, and takes those on
which the students disagree most. This module does not know how labels are made or learned.
"""

from __future__ import annotations

import json
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np
from safetensors.torch import load_file

from assay.models.potentials import potential as potentials
from assay.models.potentials.student.painn import PaiNN
from assay.models.potentials.student.student import Student
from assay.models.training.distil import frames, label, sample
from assay.models.training.distil.split import divide, place
from assay.sources import durable
from assay.sources.crystals import concat
from assay.sources.elements import NUMBERS, SYMBOLS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from assay.models.potentials.potential import Potential
    from assay.models.training.distil.recipe import Distillation
    from assay.models.training.distil.sample import Displacement
    from assay.models.training.distil.split import Divided
    from assay.sources.crystals import Crystals

_LEAST = 10
"""Training crystals that must hold an element before a student is asked about it."""


@cache
def first(recipe: Distillation) -> Crystals:
    """All crystals of the first round, displaced, in the order in which they are labelled."""
    return sample.displaced(_drawn(recipe, recipe.seed), recipe.displacement, recipe.seed)


@cache
def candidates(recipe: Distillation, output: Path, turn: int) -> Crystals:
    """Other draws from the same places, displaced; none is of a system that watches or tests.

    Raises:
        ValueError: when none is left.
    """
    split, every = divide(recipe, output), _drawn(recipe, _seed(recipe, turn))
    held = {*sample.systems(split.validation.crystals), *sample.systems(split.test.crystals)}
    rows = np.flatnonzero(~np.isin(sample.systems(every), list(held)))
    if not len(rows):
        raise ValueError(f"round {turn + 1} has no candidates: all {len(every)} crystals are of held-out systems")
    some = every.select(rows[: recipe.rounds[turn - 1].candidates])
    return sample.displaced(some, _displacement(recipe, turn), _seed(recipe, turn))


def on_the_way(recipe: Distillation, turn: int, drivers: Mapping[str, Potential]) -> Callable[[Crystals], Crystals]:
    """What moves some displaced crystals of a round along a path."""
    wanted = _displacement(recipe, turn).frames
    return partial(frames.moved, frames=wanted, drivers=drivers, seed=_seed(recipe, turn))


def choose(recipe: Distillation, output: Path, turn: int) -> None:
    """Write `chosen.json`, unless it is there: the candidates on which the students disagree most.

    The measure is the largest disagreement about the force on an atom
    (`assay.models.potentials.student.student.Student.disagreement`). A crystal on which the
    students find a longer force than `Distillation.largest_force` is no candidate.
    """
    path = output / place(turn, "chosen.json")
    if path.exists():
        return
    some = _asked(recipe, output, turn)
    if not len(some):
        said = f"round {turn + 1}: the students find no candidate without a force above largest_force"
        raise ValueError(f"{said} ({recipe.largest_force:g} eV/Å)")
    _, shaky = ensemble(recipe, output, turn - 1).disagreement(some)
    spread = np.maximum.reduceat(shaky, some.site_ptr[:-1])
    rows = np.argsort(-spread, kind="stable")[: recipe.rounds[turn - 1].labels]
    told = {"rows": rows.tolist(), "ids": some.ids[rows].tolist(), "force_disagreement": spread[rows].tolist()}
    durable.write(path, durable.canonical(told))


def chosen(recipe: Distillation, output: Path, turn: int) -> Crystals:
    """The crystals that `choose` has chosen."""
    told = json.loads((output / place(turn, "chosen.json")).read_text(encoding="utf-8"))
    return _asked(recipe, output, turn).select(told["rows"])


def ensemble(recipe: Distillation, output: Path, turn: int, split: Divided | None = None) -> Student:
    """The students of a round as one potential, which has no name yet."""
    train = (split or divide(recipe, output, turn)).train
    elements, networks = learned(train.crystals), []
    for k, spec in enumerate(recipe.students):
        network = PaiNN(spec.features, spec.layers, spec.radial, spec.cutoff)
        network.load_state_dict(load_file(weights(output, turn, k)))
        networks.append(network.eval())
    return Student("", train.scale, elements, tuple(networks), {})


def learned(train: Crystals) -> frozenset[int]:
    """The elements that enough of these crystals hold for students to have learned them."""
    seen = (train.composition() > 0).sum(axis=0)
    return frozenset(int(z) for z in np.flatnonzero(seen >= _LEAST))


def judged(split: Divided) -> NDArray[np.int64]:
    """The test crystals of learned elements alone: the students refuse the others.

    Raises:
        ValueError: when there is none.
    """
    elements = learned(split.train.crystals)
    strange = split.test.crystals.composition() > 0
    strange[:, sorted(elements)] = False
    rows = np.flatnonzero(~strange.any(axis=1))
    if not len(rows):
        known = ", ".join(SYMBOLS[z] for z in sorted(elements)) or "no element"
        raise ValueError(
            f"{known} is in {_LEAST} or more of the {len(split.train.crystals):,} crystals to learn from, and none of "
            f"the {len(strange):,} test crystals holds nothing else; raise count of crystals, or name fewer elements"
        )
    return rows


def weights(output: Path, turn: int, k: int) -> Path:
    """Where the trained weights of student `k` are."""
    return output / place(turn, f"training/student-{k}") / "weights.safetensors"


def _asked(recipe: Distillation, output: Path, turn: int) -> Crystals:
    """The candidates about which the students can say something, where the paths have left them."""
    return label.read(output, place(turn, "candidates"), recipe.largest_force)[0].crystals


def _drawn(recipe: Distillation, seed: int) -> Crystals:
    elements = potentials.load(recipe.teacher).elements
    if recipe.elements:
        elements &= {NUMBERS[symbol] for symbol in recipe.elements}
    drawn = [sample.draw(one, elements, seed) for one in recipe.crystals]
    if not sum(map(len, drawn)):
        raise ValueError("no ordered crystal of these elements and sizes is in the sources of the recipe")
    every = concat(drawn)
    _, first = np.unique(every.ids.astype(str), return_index=True)  # two places may overlap
    return sample.together([every.select(np.sort(first))], seed)


def _displacement(recipe: Distillation, turn: int) -> Displacement:
    return (recipe.rounds[turn - 1].displacement if turn else None) or recipe.displacement


def _seed(recipe: Distillation, turn: int) -> int:
    return int(np.random.SeedSequence([recipe.seed, turn]).generate_state(1)[0]) if turn else recipe.seed
