"""A Parquet file read in blocks gives what the whole file gives, in memory that does not grow with it."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assay.sources import files, prototypes, table
from assay.sources.assemble import join
from assay.sources.formats import parquet

PEAK = """
import resource, sys
from assay.sources import files
for block in {read}:
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
"""A program that reads a file and says how many bytes it took at most."""


def peak(read: str, path: Path) -> int:
    program = PEAK.format(read=read)
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    return int(done.stdout)


def odd_columns(rows: int) -> dict[str, Any]:
    """Columns whose blocks alone do not show what the whole column is."""
    rng = random.Random(1)

    def some(value: Any, kind: pa.DataType, start: int = 0) -> pa.Array:
        return pa.array([value(row) if row >= start and rng.random() > 0.2 else None for row in range(rows)], kind)

    return {
        "count": some(lambda row: row, pa.int64(), rows // 2),
        "whole": pa.array(range(rows)),
        "label": some(lambda row: f"t{row}", pa.string(), rows // 2),
        "kind": some(lambda row: f"k{row % 3}", pa.string(), rows // 2).dictionary_encode(),
        "flag": some(lambda row: row % 2 == 0, pa.bool_(), rows // 2),
        "gap": some(lambda row: row / 7, pa.float32(), rows // 2),
        "day": some(lambda row: row * 86_400_000_000, pa.timestamp("us"), rows // 2),
        "nothing": pa.array([None] * rows, pa.float64()),
        "warnings": pa.array(["odd" if row == rows - 1 else None for row in range(rows)]),
        "ragged": pa.array([[1] * (row % 3) for row in range(rows)]),
    }


@pytest.mark.parametrize("groups", [7, 1000])
@pytest.mark.parametrize("triple", [False, True])
def test_blocks_are_those_of_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: int, triple: bool
) -> None:
    monkeypatch.setattr(parquet, "ROWS", 30)
    content = table.to_table(prototypes.generate(200))
    for name, column in odd_columns(200).items():
        content = content.append_column(name, column)
    if triple:
        content = content.append_column("triple", pa.array([None, *[[1.0, 2.0, 3.0]] * 199], pa.list_(pa.float64(), 3)))
    cells = content["lattice_vectors"].to_pylist()
    for row in (3, 64, 65, 199):
        cells[row] = [0.0] * 9
    cells[5] = [1.0]
    ids = content["id"].to_pylist()
    ids[150] = None
    content = content.set_column(0, content.schema.field(0), pa.array(ids))
    place = content.column_names.index("lattice_vectors")
    content = content.set_column(place, content.schema.field(place), pa.array(cells, content.schema.types[place]))
    pq.write_table(content, tmp_path / "a.parquet", row_group_size=groups)

    crystals, refused = files.read(tmp_path / "a.parquet")
    blocks = list(files.blocks(tmp_path / "a.parquet", 64))

    assert [len(block) for block, _ in blocks] == [64, 64, 64, 2]
    assert [len(bad) for _, bad in blocks] == [0, 0, 0, 6]
    assert sorted(blocks[-1][1], key=str) == sorted(refused, key=str)
    joined = table.to_table(join(block for block, _ in blocks))
    assert joined.schema == table.to_table(crystals).schema
    assert table.encode(joined) == table.encode(table.to_table(crystals))


def test_a_damaged_file_gives_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table.write(table.to_table(prototypes.generate(300)), path)
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 4] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="no intact Parquet file"):
        next(files.blocks(path, 10))


@pytest.mark.parametrize("bad", [0, 3])
def test_a_file_without_crystals_is_one_block(tmp_path: Path, bad: int) -> None:
    content = table.to_table(prototypes.generate(bad))
    cells = pa.array([[0.0] * 9] * bad, content.schema.field("lattice_vectors").type)
    table.write(content.set_column(2, content.schema.field(2), cells), tmp_path / "a.parquet")
    ((crystals, refused),) = files.blocks(tmp_path / "a.parquet", 10)
    assert (len(crystals), len(refused)) == (0, bad or 1)  # a file without rows is a record itself


def test_one_long_id_does_not_widen_the_others(tmp_path: Path) -> None:
    few = table.to_table(prototypes.generate(30))
    ids = [f"run/{row}" for row in range(30_000)]
    peaks = []
    for longest in ("run/0", "x" * 4000):
        content = few.take(pa.array([row % 30 for row in range(30_000)]))
        content = content.set_column(0, content.schema.field(0), pa.array([longest, *ids[1:]]))
        table.write(content, tmp_path / "a.parquet")
        peaks.append(peak("[files.read(sys.argv[1])]", tmp_path / "a.parquet"))
    assert peaks[1] - peaks[0] < 50e6  # fixed-width texts take 480 MB for each copy of the ids


def test_memory_does_not_grow_with_the_rows_of_a_file(tmp_path: Path) -> None:
    few = table.to_table(prototypes.generate(4000))
    peaks = []
    for times in (3, 30):
        with pq.ParquetWriter(tmp_path / "a.parquet", few.schema) as writer:
            for _ in range(times):
                writer.write_table(few)
        peaks.append(peak("files.blocks(sys.argv[1], 4096)", tmp_path / "a.parquet"))
    assert (peaks[1] - peaks[0]) / (27 * 4000) < 150  # bytes; a crystal of this file takes about 700
