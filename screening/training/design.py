"""The design of a study: rows, columns, and the recipe of each cell.

Enters: a YAML file. Leaves: a `Study` that is sound, and a checked `Recipe` per cell. Nothing is
trained or measured here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from assay.models.evaluation import baselines
from assay.models.training import recipe as training
from assay.models.training.recipe import Recipe
from assay.screening.settings import bundled, yamlfile
from assay.screening.settings.exits import Exit, Failure
from assay.screening.training import recipes


@dataclass(frozen=True)
class Row:
    """One way to learn."""

    set: dict[str, Any] = field(default_factory=dict)
    """Dotted path in the recipe -> value; `{column}` in a text is the name of the column."""
    columns: list[str] | None = None
    """Columns that this row is tried on; unset: all."""
    seeds: list[int] | None = None
    """One network per seed; unset: those of the study."""
    zero_shot: str | None = None
    """Folder or name of a trained ensemble for any property. Nothing is trained: a straight line,
    fitted on the development rows, maps its prediction to the target; a trained row should do
    better."""


@dataclass(frozen=True)
class CrossValidation(training.CrossValidation):
    """How every row of the data becomes a test row, and which rows of the study are combined."""

    combine: dict[str, list[str]] = field(default_factory=dict)
    """Name -> rows that are combined by shares with the least absolute error on the other folds of
    the repeat (`assay.models.evaluation.combiner`); a row that adds nothing gets none."""

    def plain(self) -> training.CrossValidation:
        """The same for one row of the study."""
        return training.CrossValidation(self.folds, self.repeats, self.threshold)


@dataclass(frozen=True)
class Study:
    """Rows and columns of a table."""

    name: str
    title: str
    recipe: str
    """The recipe that is varied: a file beside this one, or the name of a bundled recipe."""
    member: dict[str, Any]
    """Network and sizes of every row that does not set its own."""
    seeds: list[int]
    """One network per seed; member k stops early on fold k."""
    columns: dict[str, dict[str, Any]]
    """Name -> dotted path in the recipe -> value: splits of one property, or properties."""
    rows: dict[str, Row]
    """Name -> way to learn."""
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name -> task of a recipe; `"@name"` in a list of tasks stands for it."""
    pretraining: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Name -> dotted paths of a recipe that is trained first, with the first two seeds; rows with
    `start.folder: "@name"` start from it."""
    mixtures: dict[str, list[str]] = field(default_factory=dict)
    """Name -> rows whose networks are averaged; a baseline may be one of them."""
    cross_validation: CrossValidation | None = None
    """Repeated grouped cross-validation in place of one split; needs exactly one column."""
    compare: str | None = None
    """The row that the others are compared with, on average over the columns."""
    notes: str = ""
    """Text under the table."""


def load(path: Path) -> Study:
    """Read and check a study."""
    study = yamlfile.validate(Study, yamlfile.read(path), str(path))
    if len(study.seeds) < 2:
        raise Failure(Exit.CONFIG, f"{path}: seeds lists {len(study.seeds)}, expected at least 2")
    _check_cross_validation(study, path)
    for name, row in study.rows.items():
        if strange := [column for column in row.columns or [] if column not in study.columns]:
            known = ", ".join(study.columns)
            raise Failure(Exit.CONFIG, f"{path}: rows.{name}.columns: {strange[0]!r} is no column: {known}")
    if study.compare is not None and (study.compare not in study.rows or study.rows[study.compare].columns is not None):
        raise Failure(Exit.CONFIG, f"{path}: compare: {study.compare!r} is no row that is tried on all columns")
    for name, parts in study.mixtures.items():
        unknown = [part for part in parts if part not in study.rows and part not in baselines.NAMES]
        if unknown:
            known = ", ".join([*study.rows, *baselines.NAMES])
            raise Failure(Exit.CONFIG, f"{path}: mixtures.{name}: {unknown[0]!r} is neither row nor baseline: {known}")
    return study


def _check_cross_validation(study: Study, path: Path) -> None:
    how = study.cross_validation
    if how is None:
        return
    for name, parts in how.combine.items():
        if unknown := [part for part in parts if part not in study.rows]:
            reason = f"{unknown[0]!r} is no row: {', '.join(study.rows)}"
            raise Failure(Exit.CONFIG, f"{path}: cross_validation.combine.{name}: {reason}")
        if name in study.rows or len(parts) < 2:
            reason = "needs a name of its own and at least two rows"
            raise Failure(Exit.CONFIG, f"{path}: cross_validation.combine.{name} {reason}")
    if len(study.columns) != 1:
        raise Failure(Exit.CONFIG, f"{path}: columns: cross_validation needs one, there are {len(study.columns)}")
    if study.mixtures or study.pretraining or any(row.zero_shot or row.columns for row in study.rows.values()):
        raise Failure(
            Exit.CONFIG, f"{path}: mixtures, pretraining, zero_shot and columns of rows are not for cross_validation"
        )


def recipe_file(study: Study, path: Path) -> Path:
    """The file of the recipe that the study at `path` varies."""
    beside = path.parent / study.recipe
    return beside if beside.is_file() else bundled.recipe(study.recipe)


def trained(study: Study) -> list[tuple[str, str]]:
    """(row, column) of every cell that needs networks of its own."""
    return [
        (name, column)
        for column in study.columns
        for name, row in study.rows.items()
        if row.zero_shot is None and (row.columns is None or column in row.columns)
    ]


def cell(study: Study, content: dict[str, Any], row: str, column: str, output: Path) -> Recipe:
    """The recipe of one cell; `content` is what the recipe file says."""
    varied = {path: _named(value, column) for path, value in study.rows[row].set.items()}
    seeds = study.rows[row].seeds or study.seeds
    return variant(study, content, f"{row}, {column}", {**study.columns[column], **varied}, output, seeds)


def check_rows(study: Study, cells: dict[tuple[str, str], Recipe]) -> None:
    """Refuse rows of one column that would be measured on different test rows."""
    for column in study.columns:
        first, *others = [(row, recipe) for (row, where), recipe in cells.items() if where == column]
        for row, recipe in others:
            for name in ("tasks", "split", "limit", "graph"):
                if _divided(recipe, name) != _divided(first[1], name):
                    reason = f"{name} is not that of {first[0]!r}"
                    advice = "what decides which rows are tested belongs to the column"
                    raise Failure(Exit.CONFIG, f"{study.name}: {row}, {column}: {reason}; {advice}")


def _divided(recipe: Recipe, name: str) -> Any:
    """A part of a recipe as far as it decides which rows are tested; shares of tasks do not."""
    return [replace(task, share=None) for task in recipe.tasks] if name == "tasks" else getattr(recipe, name)


def _named(value: Any, column: str) -> Any:
    return value.replace("{column}", column) if isinstance(value, str) else value


def variant(
    study: Study, content: dict[str, Any], name: str, paths: dict[str, Any], output: Path, seeds: list[int]
) -> Recipe:
    """The recipe with the member of the study once per seed, and a value at each dotted path."""
    members = [{**study.member, "seed": seed} for seed in seeds]
    varied = recipes.vary({**content, "name": name, "members": members}, paths)
    varied["tasks"] = [_task(study, name, task) for task in varied["tasks"]]
    start = varied.get("start")
    if start and str(start.get("folder", "")).startswith("@"):
        if start["folder"][1:] not in study.pretraining:
            known = ", ".join(study.pretraining) or "nothing"
            raise Failure(Exit.CONFIG, f"{study.name}: {name}: {start['folder']} is not pre-trained; known: {known}")
        varied["start"] = {**start, "folder": str(folder(output, "pretraining", start["folder"][1:]))}
    return recipes.check(varied, f"{study.name}: {name}")


def _task(study: Study, name: str, task: Any) -> Any:
    if not isinstance(task, str):
        return task
    if task[1:] not in study.tasks:
        raise Failure(
            Exit.CONFIG, f"{study.name}: {name}: {task} is no task; known: {', '.join(study.tasks) or 'none'}"
        )
    return study.tasks[task[1:]]


def folder(output: Path, *names: str) -> Path:
    """The folder of a cell or a pre-training; names become file names."""
    return output.joinpath(*("".join(c if c.isalnum() or c in "-+." else "_" for c in name) for name in names))
