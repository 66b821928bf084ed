"""Writes a table into a file of the format that its name says.

Enters: a table and a path. Leaves: a Parquet, CSV or JSON file, whole or not at all. Units and
meanings of columns are kept in Parquet alone. This module does not know what the rows mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv

from assay.screening.settings.exits import Exit, Failure
from assay.screening.settings.printable import escaped
from assay.sources import table
from assay.sources.durable import whole
from assay.sources.storage import own
from assay.sources.storage.own import PREDICTED, REFUSED


def _csv(content: pa.Table) -> bytes:
    """CSV is read by people and by terminals: characters that are not seen are escaped in it."""
    for place, column in enumerate(content.schema):
        if pa.types.is_nested(column.type):  # CSV has no lists
            texts = [text if text is None else json.dumps(text) for text in content.column(place).to_pylist()]
            content = content.set_column(place, column.name, pa.array(texts, pa.string()))
        if pa.types.is_string(column.type):
            texts = [text if text is None else escaped(text) for text in content.column(place).to_pylist()]
            content = content.set_column(place, column, pa.array(texts, column.type))
    stream = pa.BufferOutputStream()
    csv.write_csv(content, stream)
    return stream.getvalue().to_pybytes()  # type: ignore[no-any-return]  # pyarrow has no types


def _json(content: pa.Table) -> bytes:
    return ("[" + ",\n ".join(_lines(content)) + "]\n").encode()


def _jsonl(content: pa.Table) -> bytes:
    return "".join(f"{line}\n" for line in _lines(content)).encode()


def _lines(content: pa.Table) -> list[str]:
    rows = ({name: _finite(value) for name, value in row.items()} for row in content.to_pylist())
    return [escaped(json.dumps(row, ensure_ascii=False, allow_nan=False)) for row in rows]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value  # JSON has no NaN


FORMATS: Mapping[str, Callable[[pa.Table], bytes]] = {
    ".parquet": lambda content: table.encode(content).to_pybytes(),
    ".csv": _csv,
    ".json": _json,
    ".jsonl": _jsonl,
}
"""How a table becomes the content of a file, by the end of its name."""


def check(path: Path, inputs: Sequence[Path] = (), first: Sequence[str] = PREDICTED, command: str = "predict") -> None:
    """Check that the table of a command can be written to a path, before there is any.

    A file that is there is replaced when it `holds` the columns `first`, and so is the file of
    refused crystals beside it. No other file is replaced or removed.

    Raises:
        Failure: as `free` does.
    """
    _check_name(path)
    for place, columns in ((path, list(first)), (refused(path), REFUSED)):
        if any(place.exists() and given.exists() and place.samefile(given) for given in inputs):
            raise Failure(Exit.CONFIG, f"{place} is one of the files to read; choose another --output")
        free(place, columns, command)


def free(path: Path, first: Sequence[str], command: str) -> None:
    """Check that a table can be written to a path: nothing is there, or a table of this command.

    `first` are the first columns of such a table.

    Raises:
        Failure: USAGE, when the name ends in none of `FORMATS`, or is that of a folder; CONFIG,
            when another file is there.
    """
    _check_name(path)
    if (path.exists() or path.is_symlink()) and not holds(path, first):
        what = f"{path} is there and holds something else than a table of assay {command}"
        raise Failure(Exit.CONFIG, f"{what}; choose another --output, or move it away")


def _check_name(path: Path) -> None:
    if path.suffix.lower() not in FORMATS:
        ending = f"ends in {path.suffix!r}" if path.suffix else "has no ending"
        raise Failure(Exit.USAGE, f"--output {path} {ending}; known endings are {', '.join(FORMATS)}")
    if path.is_dir():
        raise Failure(Exit.USAGE, f"--output {path} is a folder, expected the name of a file")


def refused(path: Path) -> Path:
    """The file of refused crystals that belongs to a file of predictions."""
    return path.with_suffix(f".quarantine{path.suffix}")


def holds(path: Path, first: Sequence[str]) -> bool:
    """Whether a file is empty, or a table in one of `FORMATS` that begins with these columns."""
    if not path.is_file():  # a device or a pipe is not opened
        return False
    return own.columns(path) is None or own.begins(path, first)


def write(content: pa.Table, path: Path) -> None:
    """Write a table to a path that `check` accepts; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = FORMATS[path.suffix.lower()](content)
    with whole(path) as file:
        file.write(encoded)
