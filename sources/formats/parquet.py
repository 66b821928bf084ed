"""The crystals of a Parquet file, a block at a time.

Enters: a Parquet file in one of the layouts of `assay.sources.table`. Leaves: blocks of `Crystals`,
cut at the places and with the column types that the whole file at once would give, and a quarantine
record for each refused row. Memory holds a few blocks, whatever the size of the file. This module
does not know folders, archives or other formats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assay.sources import table
from assay.sources.assemble import join
from assay.sources.crystals import empty
from assay.sources.quarantine import Quarantined
from assay.sources.sift import MAX_SITES
from assay.sources.table import Sifted

ROWS = 4096
"""Rows that are read at once."""
BUFFER = 2**18
"""Bytes of each column that are read at once."""


def blocks(path: Path, size: int, origin: str, max_sites: int = MAX_SITES) -> Iterator[Sifted]:
    """Blocks of `size` accepted crystals in order, and at least one block, which may be empty.

    The records of all refused rows come with the last block. The file is read twice: the first
    reading checks every page before anything is given away, and finds the columns with nulls.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is damaged, no Parquet, or holds no crystals.
    """
    nulls: Counter[str] = Counter()
    rows = 0
    for content in tables(path):
        nulls.update({name: content[name].null_count for name in content.column_names})
        rows += content.num_rows
    held, refused, first = empty(), list[Quarantined](), 0
    for content in tables(path) if _even(table.schema(path), nulls) else [table.read(path)]:
        crystals, bad = table.from_table(_as_in_whole(content, nulls, rows), origin, max_sites, first=first)
        held, first = join([held, crystals]), first + content.num_rows
        refused += bad
        while len(held) > size:
            yield held[:size], []
            held = held[size:]
    yield held, refused


def tables(path: Path) -> Iterator[pa.Table]:
    """The rows of a Parquet file, `ROWS` at a time, each page checked; first a table without rows.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is damaged or no Parquet.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True, buffer_size=BUFFER, pre_buffer=False) as file:
            yield file.schema_arrow.empty_table()
            for batch in file.iter_batches(ROWS):
                yield pa.Table.from_batches([batch])
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError) as error:
        raise ValueError(f"{path} is no intact Parquet file: {str(error).splitlines()[0]}") from error


def _even(schema: pa.Schema, nulls: Mapping[str, int]) -> bool:
    """Whether each piece of a file gives columns of the shape that the whole file gives."""
    return not any(pa.types.is_fixed_size_list(field.type) and nulls[field.name] for field in schema)


def _as_in_whole(content: pa.Table, nulls: Mapping[str, int], rows: int) -> pa.Table:
    """A piece of a file, with nulls written so that `from_table` reads them as in the whole file.

    A column of nulls alone is None throughout there; else a null is NaN or "".
    """
    structure = {"id", "nsites" if set(content.column_names) >= table.RESERVED else "n_sites"}
    for place, field in enumerate(content.schema):
        if field.name in structure or not nulls[field.name]:
            continue
        column, kind = content[field.name], table.kind_of(field.type)
        if pa.types.is_dictionary(field.type):
            column = column.cast(field.type.value_type)
        if nulls[field.name] == rows and kind is not None:
            column = pa.chunked_array([pa.nulls(len(column))])
        elif kind == "text":
            column = pc.fill_null(column.cast(pa.string()), "")
        elif kind == "number":
            column = column if pa.types.is_floating(column.type) else column.cast(pa.float64(), safe=False)
            column = pc.fill_null(column, pa.scalar(np.nan, column.type))
        content = content.set_column(place, field.name, column)
    return content
