"""Training sets out of campaigns: numbers that their sources reported, and their crystals.

Enters: a recipe whose task names `FOLDER#COLUMN`, a campaign folder and a reported number; or one
of a distillation that names `FOLDER`. Leaves: the same recipe with a file in its place, which lies
in the output folder and is named by its content. From there on it is a dataset like any other: this
module does not know how it is learned.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from assay.screening.folder.results import Results
from assay.screening.pulling import columns
from assay.screening.settings.exits import Exit, Failure
from assay.screening.settings.names import SOURCE
from assay.sources import datasets, durable

if TYPE_CHECKING:
    from assay.models.training.distil.recipe import Distillation
    from assay.models.training.recipe import Recipe, Task
    from assay.sources.crystals import Crystals

Key = TypeVar("Key")
FOLDER = "data"
"""Folder of the files, in that of the ensemble or the force field."""
_ROW = "row"
"""Column with the place of a crystal in a snapshot."""


def stored(recipe: Recipe, output: Path) -> tuple[Recipe, list[str]]:
    """The recipe with a file for each campaign that it names, and a line about each.

    Raises:
        Failure: CONFIG, when the snapshot is not finished or reports no such number; when
            the unit is another one, or the values are not of one known functional; when `output`
            holds other values of this task.
    """
    tasks, lines = list(recipe.tasks), []
    for number, task in enumerate(recipe.tasks):
        if of_campaign(task):
            tasks[number], line = _stored(task, output / FOLDER / f"task-{number}")
            lines.append(line)
    return replace(recipe, tasks=tuple(tasks)), lines


def drawn(recipe: Distillation, output: Path) -> Distillation:
    """A distillation with a file for each campaign folder from which it draws crystals.

    Raises:
        Failure: CONFIG, when a snapshot is not finished, or when `output` holds another one.
    """
    places = list(recipe.crystals)
    for number, one in enumerate(places):
        if one.dataset not in datasets.DATASETS and one.dataset != "prototypes" and Path(one.dataset).is_dir():
            crystals = Results(one.dataset).delivered()
            crystals = crystals.with_columns(**{_ROW: np.arange(len(crystals))})
            origin = f"campaign {Path(one.dataset).absolute().name}"
            name = written(crystals, _ROW, output / FOLDER / f"crystals-{number}", origin=origin)
            places[number] = replace(one, dataset=name)
    return replace(recipe, crystals=tuple(places))


def shared(recipes: Mapping[Key, Recipe], output: Path) -> dict[Key, Recipe]:
    """Several recipes, with one file for each campaign and functional that they name.

    Raises:
        Failure: as `stored` does.
    """
    known: dict[str, str] = {}
    found: dict[Key, Recipe] = {}
    for key, recipe in recipes.items():
        tasks = list(recipe.tasks)
        for number, task in enumerate(recipe.tasks):
            if of_campaign(task):
                asked = f"{task.dataset} {task.functional} {task.property.unit}"
                stem = output / FOLDER / f"pulled-{hashlib.sha256(asked.encode()).hexdigest()[:8]}"
                known[asked] = known.get(asked) or _stored(task, stem)[0].dataset
                tasks[number] = replace(task, dataset=known[asked])
        found[key] = replace(recipe, tasks=tuple(tasks))
    return found


def of_campaign(task: Task) -> bool:
    """Whether a task learns what a campaign pulled."""
    folder, mark, _ = task.dataset.rpartition("#")
    return bool(mark) and not folder.endswith(".parquet")


def _stored(task: Task, stem: Path) -> tuple[Task, str]:
    """The task with a file of its values, and a line about it."""
    folder, _, column = task.dataset.rpartition("#")
    if not Path(folder).is_dir():
        kinds = "a campaign FOLDER#COLUMN, FILE.parquet#COLUMN, FOLDER/id_prop.csv, or a named set"
        raise _refused(task, f"is no dataset: {folder} is no folder; expected {kinds}")
    every = Results(folder).reported(column)
    functional = _functional(task, every, column)
    crystals, origin = _of(functional, every, column, Path(folder).absolute().name)
    facts = {"unit": task.property.unit, "functional": functional, "origin": origin}
    facts["licence"] = " and ".join(np.unique(crystals.columns.get("licence", ["unknown"])).tolist())
    plain = replace(crystals, columns={column: crystals.columns[column]})
    name = written(plain, column, stem, **facts)
    return replace(task, dataset=name), f"{task.property.name}: {origin} -> {name}"


def _functional(task: Task, crystals: Crystals, column: str) -> str:
    """The functional whose values a task learns."""
    unit = columns.unit(column)
    if unit not in (None, task.property.unit):
        raise _refused(task, f"is in {unit}, property.unit says {task.property.unit!r}")
    found = Counter(_names(crystals, column)[_known(crystals, column)].tolist())
    if not found:
        raise _refused(task, "has no value in any row")
    named = ", ".join(f"{count:,} by {name or 'one that is not named'}" for name, count in sorted(found.items()))
    if task.functional:
        if task.functional not in found and set(found) != {""}:
            raise _refused(task, f"has no value by {task.functional!r} ({named})")
        return task.functional
    if len(found) > 1:
        raise _refused(task, f"has values by several functionals ({named}); choose one in the task: functional: ...")
    if set(found) == {""}:
        raise _refused(task, "does not say by which functional; say it in the task: functional: ...")
    (functional,) = map(str, found)
    return functional


def _of(functional: str, crystals: Crystals, column: str, campaign: str) -> tuple[Crystals, str]:
    """The crystals with a value by a functional, and those without any; and what they are."""
    known, names = _known(crystals, column), _names(crystals, column)
    chosen = known & (names == (functional if functional in names[known] else ""))
    sources = " and ".join(np.unique(crystals.columns[SOURCE][chosen]).tolist())
    origin = f"{column} of {int(chosen.sum()):,} crystals of the campaign {campaign}, reported by {sources}"
    if others := int((known & ~chosen).sum()):
        origin += f" ({others:,} values by other functionals left out)"
    return crystals.select(np.flatnonzero(chosen | ~known)), origin


def written(crystals: Crystals, column: str, stem: Path, **facts: str) -> str:
    """Write crystals with a column of values to `STEM-DIGEST.parquet`; the name of the dataset.

    `facts` are those of `assay.sources.datasets.save`.

    Raises:
        Failure: CONFIG, when a file of this stem has another content.
    """
    draft = stem.with_suffix(".parquet")
    durable.make_folder(stem.parent)
    datasets.save(draft, crystals, column, crystals.columns[column], **facts)
    path = stem.with_name(f"{stem.name}-{durable.sha256(draft)[:16]}.parquet")
    if earlier := [file.name for file in stem.parent.glob(f"{stem.name}-*.parquet") if file != path]:
        draft.unlink()
        what = f"{stem.parent} holds other values: {earlier[0]} when this training began, now {path.name}"
        raise Failure(Exit.CONFIG, f"{what}; choose another --output")
    draft.replace(path)
    return f"{path}#{column}"


def _known(crystals: Crystals, column: str) -> NDArray[np.bool_]:
    return np.isfinite(crystals.columns[column].astype(np.float64))


def _names(crystals: Crystals, column: str) -> NDArray[np.object_]:
    """(n,) the functional of each row, empty where nobody names it."""
    said = crystals.columns.get(f"{column}_functional", np.full(len(crystals), ""))
    return np.array([name or "" for name in said.tolist()], object)


def _refused(task: Task, why: str) -> Failure:
    return Failure(Exit.CONFIG, f"{task.dataset} {why}")
