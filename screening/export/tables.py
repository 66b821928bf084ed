"""Writes candidates into one file: CSV, Parquet or OPTIMADE JSON lines.

Enters: `Best`, and a path. Leaves: a file with every column of the ranking and the columns
`assay_...`, which say property, unit, model, campaign and cell; OPTIMADE also holds the crystals.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from assay.screening.export.best import Best
from assay.screening.prediction import output as written
from assay.screening.settings.exits import Exit, Failure
from assay.sources.durable import whole
from assay.sources.formats.writing import optimade

ENDINGS = {"csv": ".csv", "parquet": ".parquet", "optimade": ".jsonl"}
"""Name in `--format` -> end of the name of the file."""
STATED = {
    "property": "the predicted property that ranks",
    "unit": "unit of the predicted property",
    "model": "ensemble that predicted it",
    "campaign": "name of the campaign",
    "cell": "where the scored cell comes from",
}
"""Facts that stand in each row, behind rank, id and formula, and their meanings."""
FIRST = ["rank", "id", "formula", *(f"assay_{name}" for name in STATED)]
"""First columns of an exported table, by which it is known."""


def check(path: Path, format: str) -> None:
    """Check that a table can be written to a path; an earlier export there is replaced.

    Raises:
        Failure: USAGE, when the ending is not that of the format, or the path is a folder; CONFIG,
            when another file is there.
    """
    ending = ENDINGS[format]
    if path.is_dir():
        raise Failure(Exit.USAGE, f"--output {path} is a folder; --format {format} is one file, {path.name}{ending}")
    if path.suffix.lower() != ending:
        raise Failure(Exit.USAGE, f"--output {path}: the name of a file of --format {format} ends in {ending}")
    first = list(optimade.HEADER) if format == "optimade" else FIRST
    if (path.exists() or path.is_symlink()) and not written.holds(path, first):
        what = f"{path} is there and holds something else than an export"
        raise Failure(Exit.CONFIG, f"{what}; choose another --output, or move it away")


def write(best: Best, format: str, path: Path) -> None:
    """Write all candidates to a path that `check` accepts."""
    if format != "optimade":
        written.write(rows(best), path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    content = rows(best).drop_columns(["id", "formula"])
    properties = {field.name: optimade.described(field) for field in content.schema}
    with whole(path) as file:
        for line in optimade.lines(best.crystals, properties, content.to_pylist()):
            file.write(f"{line}\n".encode())


def rows(best: Best) -> pa.Table:
    """The rows of the ranking; the columns `FIRST` come first."""
    beside = best.table.drop_columns([name for name in best.table.column_names if name in FIRST])
    stated = {f"assay_{name}": pa.array([facts[name] for facts in best.facts], pa.string()) for name in STATED}
    first = {**{name: best.table[name] for name in ("rank", "id", "formula")}, **stated}
    fields = [
        *(best.table.schema.field(name) for name in ("rank", "id", "formula")),
        *(pa.field(f"assay_{name}", pa.string(), metadata={"meaning": told}) for name, told in STATED.items()),
        *beside.schema,
    ]
    return pa.table([*first.values(), *beside.columns], schema=pa.schema(fields))
