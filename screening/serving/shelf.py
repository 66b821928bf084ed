"""The campaigns that are served, each with an index of its candidates.

Enters: campaign folders. Leaves: `Served` campaigns: their results, and one Parquet file each that
holds every column of the candidates, best first, with the properties that OPTIMADE derives from a
composition. The index lies in a folder of its own and is made at the start: a campaign that is
ranked again is seen after the next start. This module does not know HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from assay.screening.folder.results import Results
from assay.screening.settings.exits import Exit, Failure
from assay.sources import table
from assay.sources.crystals import Crystals
from assay.sources.formats.writing import optimade

GROUP, AT_ONCE = 2**11, 64
"""Rows of a row group of the index, and groups that are read at once: a page reads few of them."""
DERIVED = pa.schema(
    [
        ("id", pa.string()),
        (":chunk", pa.string()),
        (":elements", pa.list_(pa.string())),
        (":nelements", pa.int32()),
        (":elements_ratios", pa.list_(pa.float64())),
        (":chemical_formula_reduced", pa.string()),
        (":chemical_formula_anonymous", pa.string()),
    ]
)
"""Columns of the index beside those of the candidates; no column of a campaign has a colon."""


@dataclass(frozen=True)
class Served:
    """One campaign that is served."""

    name: str
    """Its name in URLs: letters, digits, dots, dashes, underscores; no two are equal."""
    results: Results
    index: Path
    """Parquet file of all candidates in the order of their ranks."""

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns of the candidates, with unit and meaning of each."""
        return table.schema(self.results.outputs())

    @cached_property
    def count(self) -> int:
        """How many candidates there are."""
        return int(self._metadata.num_rows)

    @cached_property
    def _metadata(self) -> pq.FileMetaData:
        return pq.read_metadata(self.index)

    @cached_property
    def _groups(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The first row of each row group of the index; at the end the number of all rows."""
        sizes = (self._metadata.row_group(number).num_rows for number in range(self._metadata.num_row_groups))
        return np.cumsum([0, *sizes])

    def scan(self) -> pl.LazyFrame:
        """All candidates, unread."""
        return pl.scan_parquet(self.index)

    def rows(self, ranks: Sequence[int], columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The candidates of some ranks, in their order; with all columns where none are named.

        Only the row groups that hold them are read, a few at once.
        """
        places = np.asarray(ranks, np.int64) - 1
        groups = np.searchsorted(self._groups, places, side="right") - 1
        wanted = np.unique(groups)
        found, order = [], []
        with pq.ParquetFile(self.index, metadata=self._metadata) as file:
            for first in range(0, len(wanted), AT_ONCE):
                some = wanted[first : first + AT_ONCE]
                starts = np.cumsum([0, *np.diff(self._groups)[some]])
                here = np.flatnonzero(np.isin(groups, some))
                offsets = starts[np.searchsorted(some, groups[here])] + places[here] - self._groups[groups[here]]
                found.append(file.read_row_groups(some.tolist(), columns).take(pa.array(offsets)))
                order.append(here)
            whole = pa.concat_tables(found) if found else file.schema_arrow.empty_table()
        frame = pl.from_arrow(whole.take(pa.array(np.argsort(np.concatenate([*order, []]).astype(np.int64)))))
        assert isinstance(frame, pl.DataFrame)
        return frame if columns is None else frame.select(columns)

    def row(self, rank: int) -> dict[str, Any] | None:
        """Every column of one candidate; None when nothing has this rank."""
        return self.rows([rank]).row(0, named=True) if 0 < rank <= self.count else None

    def crystals(self, rows: Sequence[dict[str, Any]]) -> Crystals:
        """The crystals of some rows of the index, in their order."""
        return self.results.crystals([row["id"] for row in rows], {row[":chunk"] for row in rows})


def serve(folders: Sequence[Path], place: Path) -> list[Served]:
    """Open campaigns, and write their indexes into the folder `place`.

    Raises:
        Failure: when a folder is no ranked campaign, or a file in it is damaged.
    """
    found: list[Served] = []
    for folder in folders:
        results = Results(folder)
        name = _named(results.summary.campaign, {served.name for served in found})
        found.append(Served(name, results, _indexed(results, place / f"{name}.parquet")))
    return found


def write(index: pl.LazyFrame, path: Path) -> None:
    """Write an index so that few of many rows are read quickly."""
    index.sink_parquet(path, row_group_size=GROUP, compression="lz4", statistics=True)


def _named(campaign: str, taken: set[str]) -> str:
    name = stem = re.sub(r"[^A-Za-z0-9._-]", "-", campaign).lstrip(".")[:60] or "campaign"
    number = 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    return name


def _indexed(results: Results, path: Path) -> Path:
    """Write the index of a campaign; memory holds a chunk and the ids."""
    beside = path.with_suffix(".chunks")
    with pq.ParquetWriter(beside, DERIVED) as file:
        for name, crystals in results.chunks():
            file.write_table(_derived(name, crystals))
    candidates = pl.scan_parquet(results.outputs(), low_memory=True)
    floats = pl.selectors.float()
    whole = candidates.with_columns(floats.replace([float("inf"), float("-inf")], None).fill_nan(None))
    joined = whole.join(pl.scan_parquet(beside), on="id", how="left", maintain_order="left")
    write(joined, path)
    beside.unlink()
    lost = pl.scan_parquet(path).filter(pl.col(":chunk").is_null()).select("id").head(1).collect()
    if len(lost):
        raise Failure(Exit.DISK, f"{results.folder} lacks the structure of {lost['id'][0]!r}; check it: assay verify")
    return path


def _derived(chunk: str, crystals: Crystals) -> pa.Table:
    amounts = crystals.composition()
    rows = list(_composed(amounts))
    columns = [pa.array(crystals.ids.astype(object), pa.string()), pa.array([chunk] * len(crystals), pa.string())]
    columns += [pa.array([row[field.name[1:]] for row in rows], field.type) for field in list(DERIVED)[2:]]
    return pa.Table.from_arrays(columns, schema=DERIVED)


def _composed(amounts: Any) -> Iterator[dict[str, Any]]:
    for row in np.asarray(amounts, np.float64):
        yield optimade.composed(row)
