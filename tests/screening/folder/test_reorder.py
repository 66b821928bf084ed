"""Rows are put into order through files, and the bytes are those of the whole table written at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assay.screening.folder import reorder
from assay.sources import table


def content(rows: int, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "id": [f"db/{row * 7919}" for row in range(rows)],
            "formula": [None if row % 5 == 0 else f"Al{row % 30}O" for row in range(rows)],
            "nsites": pa.array(rng.integers(1, 9, rows), pa.int32()),
            "gap": pa.array([None if row % 3 == 0 else row / 7 for row in range(rows)], pa.float64()),
            "ood": rng.random(rows) > 0.5,
            "nothing": pa.nulls(rows),
            "ids": pa.array([["a"] * (row % 3) for row in range(rows)], pa.list_(pa.string())),
            "blank": [""] * rows,
        }
    )


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reorder, "PORTION", 64)
    monkeypatch.setattr(reorder, "FORGOTTEN", 100)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 1000])
def test_rows_come_in_the_order_of_their_places(tmp_path: Path, rows: int) -> None:
    whole = content(rows)
    place = np.random.default_rng(1).permutation(rows)
    place[rows // 2 : rows // 2 + 3] = -1
    kept = np.argsort(place)[np.sort(place).searchsorted(0) :]
    place[kept] = np.arange(len(kept))
    pieces = [whole.slice(start, 50) for start in range(0, max(rows, 1), 50)]
    found = list(reorder.reordered(pieces, place, tmp_path / "a.parquet"))
    assert pa.concat_tables(found).equals(whole.take(pa.array(kept)))
    assert max(portion.num_rows for portion in found) <= 64
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("rows", [0, 1, 64, 1000])
def test_portions_give_the_bytes_of_the_whole(tmp_path: Path, rows: int) -> None:
    whole = content(rows)
    portions = [whole.slice(start, 64) for start in range(0, max(rows, 1), 64)]
    digest = reorder.write(portions, tmp_path / "portions.parquet")
    assert digest == table.write(whole, tmp_path / "whole.parquet")
    assert (tmp_path / "portions.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"portions.parquet", "whole.parquet"}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["GROUP", "MOST_TEXT"])
def test_a_row_group_that_is_full_is_followed_by_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(reorder, name, 2048)
    whole = content(5000)
    reorder.write([whole.slice(start, 64) for start in range(0, 5000, 64)], tmp_path / "a.parquet")
    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups > 2
    assert table.read(tmp_path / "a.parquet").equals(whole)


def test_a_failure_leaves_no_file(tmp_path: Path) -> None:
    def portions() -> Iterator[pa.Table]:
        yield content(10)
        raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        reorder.write(portions(), tmp_path / "a.parquet")
    assert not list(tmp_path.iterdir())
