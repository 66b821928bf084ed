"""From a distillation recipe to a folder of students with its card.

Enters: a `Distillation`. Leaves: labels, trained students, `quarantine.parquet`, `potential.json`,
`README.md`. This module does not know how a student learns, nor the command line.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save

from assay.models.potentials import check, potential as potentials
from assay.models.potentials.student import student as students
from assay.models.training import fingerprints, members
from assay.models.training.distil import assess, card, label, rounds, sample
from assay.models.training.distil.learn import learn
from assay.models.training.distil.split import divide, held_out, place
from assay.sources import durable
from assay.sources.durable import whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from assay.models.training.distil.recipe import Distillation
    from assay.sources.crystals import Crystals

_ON_THE_CARD = {"name", "energies", "moduli", "moduli_count"}
"""What of a recipe changes the card alone."""
_PARTS = "train", "validation", "test"
CHECKED, STEPS = 24, 200
"""Test crystals on which the card checks the students, and steps of each run of dynamics."""


def run(
    recipe: Distillation,
    output: Path,
    *,
    workers: int = 1,
    command: str = "",
    pool: Callable[[Callable[..., None], Sequence[tuple[Any, ...]]], None] | None = None,
) -> students.Student:
    """Label, train every student, measure on unseen chemical systems, and write the folder.

    Finished parts, epochs, students and rounds are kept, and a run that was stopped goes on.
    `workers` processes work at once, one thread each, or a `pool` decides where; no number depends
    on it.

    Raises:
        FileNotFoundError: when data are not there.
        ImportError: when the library of the teacher is not.
        ValueError: for an unknown teacher or dataset, or when `output` holds another run.
    """

    def spread(function: Callable[..., None], calls: Sequence[tuple[Any, ...]]) -> None:
        pool(function, calls) if pool else members.side_by_side(function, calls, workers)

    for turn in range(len(recipe.rounds) + 1):
        _claim(recipe, output, turn)
        shares = [(recipe, output, turn, k, workers) for k in range(workers)]
        if turn:
            spread(propose_share, shares)
            rounds.choose(recipe, output, turn)
        spread(label_share, shares)
        _quarantine(recipe, output, turn)
        rounds.judged(divide(recipe, output, turn))  # refuses labels that teach nothing
        spread(learn_one, [(recipe, output, turn, k) for k in range(len(recipe.students))])
    return _write(recipe, output, command)


def _claim(recipe: Distillation, output: Path, turn: int) -> None:
    """Refuse a folder of another recipe, of other crystals or of another teacher.

    Each round has a fingerprint, so that a recipe can get one more round.
    """
    if turn:
        crystals = rounds.candidates(recipe, output, turn)
        before = (output / place(turn - 1, "fingerprint")).read_text(encoding="utf-8")
        told: Any = [asdict(recipe.rounds[turn - 1]), before]
    else:
        crystals = rounds.first(recipe)
        held_out(recipe, crystals)  # refuses too few before any is labelled
        first = {name: value for name, value in asdict(recipe).items() if name not in _ON_THE_CARD | {"rounds"}}
        if not recipe.displacement.frames:
            del first["displacement"]["frames"]  # runs from before there were any go on
        told = [first, potentials.load(recipe.teacher).version]
    digest = hashlib.sha256(json.dumps(told).encode())
    for array in (crystals.lattice, crystals.frac, crystals.numbers):
        digest.update(np.ascontiguousarray(array).tobytes())
    wanted, path = digest.hexdigest()[:16], output / place(turn, "fingerprint")
    if path.exists():
        fingerprints.same_run(path.read_text(encoding="utf-8").strip(), wanted, path.parent)
    else:
        durable.write(path, f"{wanted}\n")


def propose_share(recipe: Distillation, output: Path, turn: int, k: int, of: int) -> None:
    """Let the students of the round before label every `of`-th part of the candidates."""
    torch.set_num_threads(1)
    crystals, before = rounds.candidates(recipe, output, turn), rounds.ensemble(recipe, output, turn - 1)
    moved = rounds.on_the_way(recipe, turn, {"teacher": potentials.load(recipe.teacher), "students": before})
    label.label(crystals, before, output / place(turn, "candidates"), range(k, label.parts_of(crystals), of), moved)


def label_share(recipe: Distillation, output: Path, turn: int, k: int, of: int) -> None:
    """Label every `of`-th part of a round, beginning with number `k`."""
    torch.set_num_threads(1)
    teacher, folder = potentials.load(recipe.teacher), output / place(turn, "labels")
    if turn:
        crystals = rounds.chosen(recipe, output, turn)
        label.label(crystals, teacher, folder, range(k, label.parts_of(crystals), of))
    else:
        crystals = rounds.first(recipe)
        wanted = range(k, min(label.parts_of(crystals), recipe.parts or len(crystals)), of)
        label.label(crystals, teacher, folder, wanted, rounds.on_the_way(recipe, 0, {"teacher": teacher}))


def _quarantine(recipe: Distillation, output: Path, turn: int) -> None:
    """Write a record of each crystal up to a round of which no label is learned."""
    from assay.sources import table  # which needs pyarrow

    refused = [label.read(output, place(k, "labels"), recipe.largest_force)[1] for k in range(turn + 1)]
    table.write(table.quarantine_table(chain.from_iterable(refused)), output / "quarantine.parquet")


def learn_one(recipe: Distillation, output: Path, turn: int, k: int) -> None:
    """Train student `k` in a round, unless it is there."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    path = rounds.weights(output, turn, k)
    if path.exists():
        return
    split, schedule, begun = divide(recipe, output, turn), recipe.schedule, None
    if turn:
        this = recipe.rounds[turn - 1]
        schedule = this.schedule or schedule
        begun = load_file(rounds.weights(output, turn - 1, k)) if this.students == "further" else None
    made = learn(split.train, split.validation, recipe.students[k], schedule, path.parent, begun)
    with whole(path) as file:
        file.write(save({name: tensor.contiguous() for name, tensor in made.state_dict().items()}))


def _write(recipe: Distillation, output: Path, command: str) -> students.Student:
    """Measure the students, and write their description and card."""
    last = len(recipe.rounds)
    split = divide(recipe, output, last)
    draft = rounds.ensemble(recipe, output, last, split)
    every = [*(rounds.ensemble(recipe, output, turn) for turn in range(last)), draft]
    rows = rounds.judged(split)
    test = split.test.select(rows)
    errors = [assess.beside_teacher(one, test) for one in every]
    facts: dict[str, Any] = {
        "teacher": recipe.teacher,
        "recipe": asdict(recipe),
        "command": command,
        "rows": {name: len(one.crystals) for name, one in zip(_PARTS, (split.train, split.validation, test))},
        "unlearned": len(split.test.crystals) - len(rows),
        "left_out": sum(map(len, split.refused)),
        "rounds": [
            {"learned": learned, "left_out": len(refused), **found}
            for learned, refused, found in zip(split.learned, split.refused, errors, strict=True)
        ],
        "test": errors[-1],
        "alone": [assess.beside_teacher(students.alone(draft, k), test) for k in range(len(recipe.students))],
        "dft": _beside_dft(recipe, {"students": draft, recipe.teacher: potentials.load(recipe.teacher)}),
        "checks": _checks(draft, test.crystals[:CHECKED]),
    }
    facts |= _energy_error(recipe, draft)
    students.write(draft.networks, draft.elements, draft.scale, facts, output)
    with whole(output / "README.md") as file:
        file.write(card.text(recipe.name, facts, draft.scale, draft.elements).encode())
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
        for name, found in assess.beside_dft(compared, relaxed.crystals, relaxed.target).items():
            errors[name] |= found
    if recipe.moduli:
        stiff = sample.known(recipe.moduli)
        drawn = np.random.default_rng([recipe.seed, 4]).permutation(len(stiff.target))[: recipe.moduli_count]
        stiff = stiff.select(np.sort(drawn))
        stiff = stiff.select(assess.common(compared.values(), stiff.crystals))
        for name, one in compared.items() if len(stiff.target) else ():
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
