"""The labels of all rounds, by what they are for: to learn from, to watch, to test.

Enters: a `Distillation` and its folder. Leaves: `Divided`. The first round says which chemical
systems watch and test; later rounds are learned from alone. This module does not know students, and
loads no teacher.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from assay.models.training.distil import label, sample

if TYPE_CHECKING:
    from pathlib import Path

    from assay.models.training.distil.label import Labels
    from assay.models.training.distil.recipe import Distillation
    from assay.sources.crystals import Crystals
    from assay.sources.quarantine import Quarantined


PARTS = 3
"""What the chemical systems are divided into: to learn from, to watch, to test."""


@dataclass(frozen=True)
class Divided:
    """The labels up to a round; no chemical system is in two of the three."""

    train: Labels
    validation: Labels
    test: Labels
    learned: tuple[int, ...]
    """Crystals of `train` from each round."""
    refused: tuple[list[Quarantined], ...]
    """Of each round: crystals without a label, or with a larger force than
    `Distillation.largest_force`."""


def place(turn: int, what: str) -> str:
    """Where round `turn`, from 0, keeps something, below the folder of the distillation."""
    return what if turn == 0 else f"round-{turn + 1}/{what}"


def held_out(recipe: Distillation, crystals: Crystals) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(n,) the crystals of the first round that test, and those by which training is watched.

    Raises:
        ValueError: when their chemical systems are too few.
    """
    names, which = np.unique(sample.systems(crystals), return_inverse=True)
    where = np.random.default_rng([recipe.seed, 3]).permutation(len(names))[which] / len(names)
    test, validation = where < recipe.test, where >= 1 - recipe.validation
    if not (test.any() and validation.any() and (~test & ~validation).any()):
        many = "1 chemical system is" if len(names) == 1 else f"{len(names)} chemical systems are"
        advice = "raise count or sites of crystals, or the shares test and validation"
        if len(names) < PARTS:
            advice = "each of the three needs systems of its own: name more elements"
        raise ValueError(f"{many} too few to learn, watch and test; {advice}")
    return test, validation


def divide(recipe: Distillation, output: Path, turn: int = 0) -> Divided:
    """Read the labels of the rounds up to `turn`, and divide them by chemical system.

    Raises:
        FileNotFoundError: when a round has no labels yet.
        ValueError: when they are too few.
    """
    rounds = [label.read(output, place(k, "labels"), recipe.largest_force) for k in range(turn + 1)]
    labels, refused = zip(*rounds, strict=True)
    if not len(labels[0].crystals):
        said = f"{recipe.teacher} could label none of {len(refused[0])} crystals"
        raise ValueError(f"{said}; {output / 'quarantine.parquet'} has the reasons")
    test, validation = held_out(recipe, labels[0].crystals)
    first, watched, tested = (
        labels[0].select(np.flatnonzero(rows)) for rows in (~(test | validation), validation, test)
    )
    learned = [first, *labels[1:]]
    return Divided(label.joined(learned), watched, tested, tuple(len(one.crystals) for one in learned), refused)
