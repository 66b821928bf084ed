"""From a distillation recipe to a folder of students with its card.

Enters: a `Distillation`. Leaves: labels, trained students, `potential.json`, `README.md`. This
module does not know how a student learns, nor the command line.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save

from assay.models.potentials import check, potential as potentials
from assay.models.potentials.student import student as students
from assay.models.potentials.student.painn import PaiNN
from assay.models.training import fingerprints, members
from assay.models.training.distil import assess, card, label, sample
from assay.models.training.distil.learn import learn
from assay.sources import durable
from assay.sources.durable import whole
from assay.sources.elements import NUMBERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from assay.models.training.distil.label import Labels
    from assay.models.training.distil.recipe import Distillation
    from assay.sources.crystals import Crystals

_LABELS = "labels"
_ON_THE_CARD = {"name", "energies", "moduli", "moduli_count"}
"""What of a recipe changes the card alone."""
CHECKED, STEPS = 24, 200
"""Test crystals on which the card checks the students, and steps of each run of dynamics."""
_LEAST = 10
"""Training crystals that must hold an element before a student is asked about it."""


def run(
    recipe: Distillation,
    output: Path,
    *,
    workers: int = 1,
    command: str = "",
    pool: Callable[[Callable[..., None], Sequence[tuple[Any, ...]]], None] | None = None,
) -> students.Student:
    """Label, train every student, measure on unseen chemical systems, and write the folder.

    Finished parts, epochs and students are kept, and a run that was stopped goes on. `workers`
    processes work at once, one thread each, or a `pool` decides where; no number depends on it.

    Raises:
        FileNotFoundError: when data are not there.
        ImportError: when the library of the teacher is not.
        ValueError: for an unknown teacher or dataset, or when `output` holds another run.
    """
    output.mkdir(parents=True, exist_ok=True)
    _claim(recipe, output)

    def spread(function: Callable[..., None], calls: Sequence[tuple[Any, ...]]) -> None:
        pool(function, calls) if pool else members.side_by_side(function, calls, workers)

    spread(label_share, [(recipe, output, k, workers) for k in range(workers)])
    spread(learn_one, [(recipe, output, k) for k in range(len(recipe.students))])
    return _write(recipe, output, command)


def _claim(recipe: Distillation, output: Path) -> None:
    """Refuse a folder of another recipe, of other crystals or of another teacher."""
    crystals = _crystals(recipe)
    told = {name: value for name, value in asdict(recipe).items() if name not in _ON_THE_CARD}
    digest = hashlib.sha256(json.dumps([told, potentials.load(recipe.teacher).version]).encode())
    for array in (crystals.lattice, crystals.frac, crystals.numbers):
        digest.update(np.ascontiguousarray(array).tobytes())
    wanted, path = digest.hexdigest()[:16], output / "fingerprint"
    if path.exists():
        fingerprints.same_run(path.read_text(encoding="utf-8").strip(), wanted, output)
    else:
        durable.write(path, f"{wanted}\n")


def label_share(recipe: Distillation, output: Path, k: int, of: int) -> None:
    """Label every `of`-th part, beginning with number `k`."""
    torch.set_num_threads(1)
    crystals = _crystals(recipe)
    wanted = range(k, _parts(recipe, crystals), of)
    label.label(crystals, potentials.load(recipe.teacher), output / _LABELS, wanted)


def learn_one(recipe: Distillation, output: Path, k: int) -> None:
    """Train student `k`, unless it is there."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    path = _weights(output, k)
    if path.exists():
        return
    split = divide(recipe, output)
    made = learn(split.train, split.validation, recipe.students[k], recipe.schedule, path.parent)
    with whole(path) as file:
        file.write(save({name: tensor.contiguous() for name, tensor in made.state_dict().items()}))


@dataclass(frozen=True)
class Divided:
    """The labels, by what they are for; no chemical system is in two of them."""

    train: Labels
    validation: Labels
    test: Labels
    left_out: int
    """Crystals with a larger force than `Distillation.largest_force`, or without a label."""


def divide(recipe: Distillation, output: Path) -> Divided:
    """Read the labels, and divide them by chemical system."""
    crystals = _crystals(recipe)
    parts = _parts(recipe, crystals)
    every = label.read(output / _LABELS, range(parts))
    if not len(every.crystals):
        raise ValueError(f"{recipe.teacher} could label none of {parts * label.PART} crystals; see {output / _LABELS}")
    longest = np.maximum.reduceat(np.linalg.norm(every.forces, axis=1), every.crystals.site_ptr[:-1])
    labels = every.select(np.flatnonzero(longest <= recipe.largest_force))
    names, which = np.unique(sample.systems(labels.crystals), return_inverse=True)
    place = np.random.default_rng([recipe.seed, 3]).permutation(len(names))[which] / len(names)
    test, validation = place < recipe.test, place >= 1 - recipe.validation
    if not (test.any() and validation.any() and (~test & ~validation).any()):
        said = f"{len(names)} chemical systems of labelled crystals are too few to learn, watch and test"
        raise ValueError(f"{said}; raise count or sites of crystals, or the shares test and validation")
    train, checked, tested = (labels.select(np.flatnonzero(rows)) for rows in (~test & ~validation, validation, test))
    given = min(parts * label.PART, len(crystals))
    return Divided(train, checked, tested, given - len(labels.crystals))


def _write(recipe: Distillation, output: Path, command: str) -> students.Student:
    """Measure the students, and write their description and card."""
    split = divide(recipe, output)
    networks = [_network(recipe, output, k) for k in range(len(recipe.students))]
    seen = (split.train.crystals.composition() > 0).sum(axis=0)
    elements = frozenset(int(z) for z in np.flatnonzero(seen >= _LEAST))
    scale = split.train.scale
    draft = students.Student("", scale, elements, tuple(networks), {})
    facts: dict[str, Any] = {
        "teacher": recipe.teacher,
        "recipe": asdict(recipe),
        "command": command,
        "rows": {name: len(getattr(split, name).crystals) for name in ("train", "validation", "test")},
        "left_out": split.left_out,
        "test": assess.beside_teacher(draft, split.test),
        "alone": [assess.beside_teacher(students.alone(draft, k), split.test) for k in range(len(networks))],
        "dft": _beside_dft(recipe, {"students": draft, recipe.teacher: potentials.load(recipe.teacher)}),
        "checks": _checks(draft, split.test.crystals[:CHECKED]),
    }
    facts |= _energy_error(recipe, draft)
    students.write(networks, elements, scale, facts, output)
    with whole(output / "README.md") as file:
        file.write(card.text(recipe.name, facts, scale, elements).encode())
    return students.load(str(output))


def _checks(draft: students.Student, crystals: Crystals) -> list[dict[str, Any]]:
    """What `assay check-potential` would find: how many failed, the median, the largest."""
    seen = check.check(crystals, draft, check.Settings(steps=STEPS))
    found = []
    for one in (*seen.checks, seen.pairs):
        size = abs(one.value[np.isfinite(one.value)])
        middle = (float(np.median(size)), float(size.max())) if len(size) else (None, None)
        counted = {"asked": one.asked, "failed": len(one.failed), "median": middle[0], "largest": middle[1]}
        found.append({"name": one.name, "unit": one.unit, "meaning": one.meaning, **counted})
    return found


def _beside_dft(recipe: Distillation, compared: dict[str, potentials.Potential]) -> dict[str, dict[str, float]]:
    """Errors of some potentials against DFT, by name."""
    errors: dict[str, dict[str, float]] = {name: {} for name in compared}
    if recipe.energies:
        relaxed = sample.known(recipe.energies)
        for name, one in compared.items():
            errors[name] |= assess.beside_dft(one, relaxed.crystals, relaxed.target)
    if recipe.moduli:
        stiff = sample.known(recipe.moduli)
        drawn = np.random.default_rng([recipe.seed, 4]).permutation(len(stiff.target))[: recipe.moduli_count]
        stiff = stiff.select(np.sort(drawn))
        for name, one in compared.items():
            found = assess.bulk_moduli(one, stiff.crystals, stiff.target)
            errors[name] |= {
                f"moduli_{key}" if key in {"rows", "without"} else key: value for key, value in found.items()
            }
    return errors


def _energy_error(recipe: Distillation, draft: students.Student) -> dict[str, Any]:
    """How far energies of relaxed crystals err, where DFT has energies of some; else nothing."""
    relaxed = sample.known(recipe.energies) if recipe.energies else None
    found = assess.energy_error(draft, relaxed.crystals, relaxed.target) if relaxed else None
    return {} if found is None else {"calibration": found}


def _network(recipe: Distillation, output: Path, k: int) -> PaiNN:
    spec = recipe.students[k]
    network = PaiNN(spec.features, spec.layers, spec.radial, spec.cutoff)
    network.load_state_dict(load_file(_weights(output, k)))
    return network.eval()


def _weights(output: Path, k: int) -> Path:
    return output / "training" / f"student-{k}" / "weights.safetensors"


@cache
def _crystals(recipe: Distillation) -> Crystals:
    """All crystals of a recipe, displaced, in the order in which they are labelled."""
    elements = potentials.load(recipe.teacher).elements
    if recipe.elements:
        elements &= {NUMBERS[symbol] for symbol in recipe.elements}
    drawn = [sample.draw(one, elements, recipe.seed) for one in recipe.crystals]
    if not sum(map(len, drawn)):
        raise ValueError("no ordered crystal of these elements and sizes is in the sources of the recipe")
    return sample.displaced(sample.together(drawn, recipe.seed), recipe.displacement, recipe.seed)


def _parts(recipe: Distillation, crystals: Crystals) -> int:
    every = -(-len(crystals) // label.PART)
    return every if recipe.parts is None else min(recipe.parts, every)
