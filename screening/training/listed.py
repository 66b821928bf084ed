"""Training sets out of `id_prop.csv`: structure files with known values, as CGCNN and ALIGNN do.

Enters: a recipe whose task names such a list, or its folder, and `#2` for the second value of each
line. Leaves: the same recipe with a file in its place, as for the numbers of a campaign (`pulled`),
and a table of the files and lines that gave nothing. From there on it is a dataset like any other.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from assay.screening.settings.exits import Exit, Failure
from assay.screening.training import pulled
from assay.sources import files, table
from assay.sources.crystals import GIVEN

if TYPE_CHECKING:
    from assay.models.training.recipe import Recipe, Task
    from assay.sources.crystals import Crystals

Key = TypeVar("Key")
_log = logging.getLogger(__name__)
LIST = "id_prop.csv"
"""Name of the list."""


def stored(recipe: Recipe, output: Path) -> tuple[Recipe, list[str]]:
    """The recipe with a file for each list that it names, and lines about each.

    Raises:
        Failure: CONFIG, when a list has no usable line, or several values and none is chosen; when
            `output` holds other values of this task.
    """
    tasks, lines = list(recipe.tasks), []
    for number, task in enumerate(recipe.tasks):
        tasks[number], said = _stored(task, output / pulled.FOLDER / f"task-{number}")
        lines += said
    return replace(recipe, tasks=tuple(tasks)), lines


def shared(recipes: Mapping[Key, Recipe], output: Path) -> dict[Key, Recipe]:
    """Several recipes, with one file for each list that they name, and for each campaign.

    Raises:
        Failure: as `stored` and `pulled.stored` do.
    """
    known: dict[str, str] = {}
    found: dict[Key, Recipe] = {}
    for key, recipe in recipes.items():
        tasks = list(recipe.tasks)
        for number, task in enumerate(recipe.tasks):
            asked = f"{task.dataset} {task.functional} {task.property.unit}"
            if asked not in known:
                stem = output / pulled.FOLDER / f"listed-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"
                made, lines = _stored(task, stem)
                known[asked] = made.dataset
                for line in lines[1:]:
                    _log.warning("%s", line)
            tasks[number] = replace(task, dataset=known[asked])
        found[key] = replace(recipe, tasks=tuple(tasks))
    return pulled.shared(found, output)


def _stored(task: Task, stem: Path) -> tuple[Task, list[str]]:
    """The task with a file of its values, if it names a list, and lines about it."""
    path, place = _named(task.dataset)
    if path is None:
        return task, []
    crystals, refused = files.read(path)
    column = _column(task, crystals, place, refused[0].message if refused else "no line")
    known = int(np.isfinite(crystals.columns[column]).sum())
    origin = f"{known:,} of the files that {path} lists"
    beside = stem.with_suffix(".quarantine.parquet")
    gave = f" ({len(refused):,} files or lines gave nothing, see `{pulled.FOLDER}/{beside.name}`)" if refused else ""
    facts = {"unit": task.property.unit, "functional": task.functional or "unknown", "origin": f"{origin}{gave}"}
    plain = replace(crystals, columns={column: crystals.columns[column]})
    name = pulled.written(plain, column, stem, **facts)
    lines = [f"{task.property.name}: {origin} -> {name}"]
    if refused:
        table.write(table.quarantine_table(refused), beside)
        first = f"{refused[0].id}: {refused[0].message}"
        lines.append(f"{len(refused):,} files or lines gave nothing, for example {first}; all: {beside}")
    return replace(task, dataset=name), lines


def _named(dataset: str) -> tuple[Path | None, str]:
    """The list that a dataset names, if it names one, and which value of each line."""
    for text, place in ((dataset, ""), dataset.rpartition("#")[::2]):
        path = Path(text)
        if text and path.name.lower() == LIST:
            return path, place
        if text and (path / LIST).is_file():
            return path / LIST, place
    return None, ""


def _column(task: Task, crystals: Crystals, place: str, why: str) -> str:
    """The column of the chosen value."""
    names = [name for name in crystals.columns if name.startswith(GIVEN)]
    if not names:
        raise Failure(Exit.CONFIG, f"{task.dataset} gives no value to any crystal: {why}")
    if not place and len(names) > 1:
        message = f"{task.dataset} has {len(names)} values in a line; choose one: dataset: {task.dataset}#1"
        raise Failure(Exit.CONFIG, f"{message} to #{len(names)}")
    chosen = f"{GIVEN}{place or 1}"
    if chosen not in names:
        raise Failure(Exit.CONFIG, f"{task.dataset}: there is no value {place} in its lines, which have {len(names)}")
    if not np.isfinite(crystals.columns[chosen]).any():
        raise Failure(Exit.CONFIG, f"{task.dataset} gives no value to any crystal: {why}")
    return chosen
