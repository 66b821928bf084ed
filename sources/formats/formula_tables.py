"""Tables with a column of formulas: CSV and Parquet.

Enters: a path and the name of a column. Leaves: the texts of that column, and an id for each row.
This module does not read formulas.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from assay.sources import table

ID = "id"
"""Column that names the rows, where a table has one."""


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    texts: list[str]
    """As they stand in the file; "" where a row has none."""
    ids: list[str]
    """Of the rows: those of the column `id` where they are distinct, else `FILE/ROW` from 1 on."""


def read(path: Path, column: str) -> Column:
    """Read a column of formulas; where a CSV file has one column, an empty line is a row of it.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is no regular file, no CSV or Parquet file, is damaged, or has no such
            column of texts.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} not found; a table of formulas ends in .csv or .parquet")
    if not path.is_file():
        raise ValueError(f"{path} is no regular file; a table of formulas ends in .csv or .parquet")
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise ValueError(f"{path} is no table of formulas: its name must end in .csv or .parquet")
    content = _csv(path, column) if path.suffix.lower() == ".csv" else _parquet(path, column)
    kind = content.schema.field(column).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if kind not in (pa.string(), pa.large_string(), pa.string_view()):
        raise ValueError(f"column {column!r} of {path} holds {kind}, not texts")
    texts = _texts(content[column])
    names = [str(name) for name in content[ID].to_pylist() if name] if ID in content.column_names else []
    distinct = len(set(names)) == len(texts) == len(names)
    return Column(texts, names if distinct else [f"{path.name}/{row}" for row in range(1, len(texts) + 1)])


def _texts(column: pa.ChunkedArray) -> list[str]:
    """The texts, "" where there is none; equal ones share their memory."""
    coded = pc.fill_null(column.cast(pa.large_string()), "").combine_chunks().dictionary_encode()
    known = coded.dictionary.to_pylist()
    return [known[number] for number in coded.indices.to_numpy()]


def _parquet(path: Path, column: str) -> pa.Table:
    return table.read(path, _kept(path, table.schema(path).names, column))


def _csv(path: Path, column: str) -> pa.Table:
    """The column as texts: `NaN`, `Inf` and `1e5` are no numbers here."""
    try:
        with csv.open_csv(path) as stream:
            names = stream.schema.names
        kept = _kept(path, names, column)
        convert = csv.ConvertOptions(include_columns=kept, column_types=dict.fromkeys(kept, pa.string()))
        if len(names) > 1:
            return csv.read_csv(path, convert_options=convert)
        every = csv.ParseOptions(ignore_empty_lines=False)  # an empty line is a row without a formula
        head = csv.ReadOptions(skip_rows=_empty_lines(path))
        return csv.read_csv(path, head, every, convert)
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no intact CSV file: {str(error).splitlines()[0]}") from error


def _empty_lines(path: Path) -> int:
    """The number of empty lines before the first other one."""
    with path.open("rb") as file:
        return next(place for place, line in enumerate(file) if line.strip(b"\r\n"))


def _kept(path: Path, names: list[str], column: str) -> list[str]:
    """The columns to read: that of the formulas, and that of ids where there is one."""
    if column not in names:
        raise ValueError(f"{path} has no column {column!r}; it has {', '.join(names)}")
    if names.count(column) > 1:
        raise ValueError(f"{path} has {names.count(column)} columns {column!r}; rename one of them")
    return list(dict.fromkeys([column, *([ID] if names.count(ID) == 1 else [])]))
