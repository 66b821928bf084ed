"""Writes a table into a file of the format that its name says.

Enters: a table and a path. Leaves: a Parquet, CSV or JSON file, whole or not at all. Units and
meanings of columns are kept in Parquet alone. This module does not know what the rows mean.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv

from assay.screening.settings.exits import Exit, Failure
from assay.sources import table
from assay.sources.durable import whole


def _csv(content: pa.Table) -> bytes:
    stream = pa.BufferOutputStream()
    csv.write_csv(content, stream)
    return stream.getvalue().to_pybytes()  # type: ignore[no-any-return]  # pyarrow has no types


def _json(content: pa.Table) -> bytes:
    return ("[" + ",\n ".join(_lines(content)) + "]\n").encode()


def _jsonl(content: pa.Table) -> bytes:
    return "".join(f"{line}\n" for line in _lines(content)).encode()


def _lines(content: pa.Table) -> list[str]:
    rows = ({name: _finite(value) for name, value in row.items()} for row in content.to_pylist())
    return [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows]


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value  # JSON has no NaN


FORMATS: Mapping[str, Callable[[pa.Table], bytes]] = {
    ".parquet": lambda content: table.encode(content).to_pybytes(),
    ".csv": _csv,
    ".json": _json,
    ".jsonl": _jsonl,
}
"""How a table becomes the content of a file, by the end of its name."""


def check(path: Path) -> None:
    """Check that a table can be written to a path, before there is one.

    Raises:
        Failure: USAGE, when the name ends in none of `FORMATS`, or is that of a folder.
    """
    if path.suffix.lower() not in FORMATS:
        ending = f"ends in {path.suffix!r}" if path.suffix else "has no ending"
        raise Failure(Exit.USAGE, f"--output {path} {ending}; known endings are {', '.join(FORMATS)}")
    if path.is_dir():
        raise Failure(Exit.USAGE, f"--output {path} is a folder, expected the name of a file")


def write(content: pa.Table, path: Path) -> None:
    """Write a table to a path that `check` accepts; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = FORMATS[path.suffix.lower()](content)
    with whole(path) as file:
        file.write(encoded)
