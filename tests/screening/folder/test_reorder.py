"""Rows are put into order through files, and the bytes are those of the whole table written at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assay.screening.folder import reorder
from assay.screening.folder.reorder import Order
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
    monkeypatch.setattr(reorder, "SAMPLED", 8)
    monkeypatch.setattr(reorder, "FORGOTTEN", 100)


KEYS = [("gap", "descending"), ("ood", "ascending"), ("id", "ascending")]


def in_order(whole: pa.Table, path: Path, size: int = 50) -> list[pa.Table]:
    order = Order(KEYS)
    pieces = [whole.slice(start, size) for start in range(0, max(whole.num_rows, 1), size)]
    for piece in pieces:
        order.learn(piece)
    assert order.rows == whole.num_rows
    return list(order.sort(pieces, path))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 128, 1000])
@pytest.mark.parametrize("size", [1, 50, 500])
def test_rows_are_sorted_in_portions(tmp_path: Path, rows: int, size: int) -> None:
    whole = content(rows)
    found = in_order(whole, tmp_path / "a.parquet", size)
    assert pa.concat_tables(found).equals(whole.sort_by(KEYS))
    assert [portion.num_rows for portion in found[:-1]] == [64] * (len(found) - 1)
    assert found[-1].num_rows <= 64
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("direction", ["ascending", "descending"])
def test_rows_that_are_sorted_already_are_sorted_in_portions(tmp_path: Path, direction: str) -> None:
    whole = content(1000).sort_by([("id", direction)])
    order = Order([("id", "ascending")])
    order.learn(whole)
    assert pa.concat_tables(order.sort([whole], tmp_path / "a")).equals(whole.sort_by("id"))


def test_the_memory_of_a_sort_does_not_grow_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reorder, "PORTION", 2048)
    monkeypatch.setattr(reorder, "SAMPLED", 32)

    def most(blocks: int) -> int:
        """Bytes of Arrow at the most, as blocks of 1,024 rows go in and sorted portions come out."""
        order, before, seen = Order(KEYS), pa.total_allocated_bytes(), [0]

        def made() -> Iterator[pa.Table]:
            for seed in range(blocks):
                yield content(1024, seed)
                seen.append(pa.total_allocated_bytes() - before)

        for block in made():
            order.learn(block)
        sort = order.sort(made(), tmp_path / "a.parquet")
        seen.extend(pa.total_allocated_bytes() - before for _ in sort)
        return max(seen)

    few, many = most(8), most(80)
    assert many < 1.5 * few


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
