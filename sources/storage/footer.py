"""What a Parquet file announces, held against its size before anything is expanded.

Enters: a path. Leaves: its number of rows, or `Exceeded`. Repeated values cost a Parquet file
nothing, so a file of a few kB can announce rows and lists of many GB. This module does not know the
meaning of a column (`assay.sources.table`).
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from assay.sources.checks import limits

WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "INT96": 12}
"""Bytes of a value of a physical type; others have 8, texts without their length in the file."""


def rows(path: Path) -> int:
    """The number of rows of a Parquet file; one that would grow beyond the limit is refused.

    Raises:
        Exceeded: when it announces too much.
        ValueError: when it is no Parquet.
    """
    try:
        metadata = pq.read_metadata(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError) as error:
        raise ValueError(f"{path} is no intact Parquet file: {str(error).splitlines()[0]}") from error
    limits.check("items", metadata.num_columns)
    grown = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            width = WIDTHS.get(column.physical_type, 8)
            grown += max(column.num_values * width, column.total_uncompressed_size)
    limits.check_growth("cells", grown, path.stat().st_size)
    return int(metadata.num_rows)
