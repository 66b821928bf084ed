"""The comparisons of a campaign, round by round, in units of bounded size.

Enters: the ledger with all fingerprints. Leaves: units that compare pairs of crystals; a round
begins when the ledger holds every pair of the one before. The fingerprints are in memory, some
hundred bytes per crystal; the crystals are in a temporary file without a name.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from assay.featurize import identity
from assay.screening.campaign import identify
from assay.screening.folder import snapshot
from assay.screening.folder.ledger import Ledger
from assay.screening.runners.fingerprint import from_table
from assay.screening.runners.match import Match
from assay.screening.runners.runner import Unit
from assay.screening.settings.config import Campaign
from assay.sources import durable, table

COMPARED = 512
"""Pairs that are compared at once: at most twice as many crystals."""


class Rounds:
    """What is left to compare, see `assay.featurize.identity.Search`."""

    def __init__(self, ledger: Ledger, campaign: Campaign) -> None:
        self._ledger = ledger
        rows = identify.fingerprints(ledger)
        self._ids = rows["id"].combine_chunks()
        self._search = identity.Search(from_table(rows))
        self._keys: list[str] = []  # units of the round that runs
        self._round = 0
        self._crystals = _Pool(ledger, campaign, self._ids, self._search.compared)

    def units(self) -> list[Unit]:
        """The units of the next round that are not committed; none once all rounds are done."""
        while True:
            self._learn()
            pairs = self._search.pairs()
            if not len(pairs):
                return []
            units = list(self._cut(pairs))
            self._round += 1
            self._keys = [unit.key for unit in units]
            left = [unit for unit in units if self._ledger.find("matches", unit.key) is None]
            if left:
                return left

    def _learn(self) -> None:
        """Hand the equal pairs of the round before to the search."""
        records = [self._ledger.find("matches", key) for key in self._keys]
        tables = [self._ledger.read(record, path) for record in records if record for path in record.files]
        if tables:
            found = pa.concat_tables(tables).filter(pc.field("same"))
            ends = [pc.index_in(found[side], self._ids).to_numpy() for side in ("a", "b")]
            self._search.learn(np.stack(ends, axis=1).astype(np.int64).reshape(-1, 2))

    def _cut(self, pairs: NDArray[np.int64]) -> Iterator[Unit]:
        for number, start in enumerate(range(0, len(pairs), COMPARED)):
            part = pairs[start : start + COMPARED]
            key, rows = f"{self._round:02d}/{number:06d}", len(np.unique(part))
            yield Unit(Match(), key, rows, partial(self._content, part))

    def _content(self, pairs: NDArray[np.int64]) -> pa.Table:
        """The crystals of some pairs, by id, each with its place and those of its partners."""
        rows, place = np.unique(pairs, return_inverse=True)
        partners: list[list[int]] = [[] for _ in rows]
        for one, other in place.reshape(-1, 2).tolist():
            partners[one].append(other)
        content = self._crystals.take(rows).append_column("place", pa.array(np.arange(len(rows))))
        return content.append_column("partners", pa.array(partners, pa.list_(pa.int64())))


_SCHEMA = pa.schema([pa.field(field.name, field.type) for field in table.CRYSTAL_FIELDS])


class _Pool:
    """The crystals that are compared, structures only, in a temporary file."""

    def __init__(self, ledger: Ledger, campaign: Campaign, ids: pa.Array, wanted: NDArray[np.bool_]) -> None:
        """`ids` are those of all rows, in order; `wanted` (n,) those that are compared."""
        names = [field.name for field in table.CRYSTAL_FIELDS]
        taken, done, file = snapshot.taken_ids(campaign), 0, durable.unnamed(ledger.folder / identify.PATH)
        self._place = np.full(len(ids), -1)
        with file:
            writer = pa.ipc.new_file(file, _SCHEMA)
            for source, shard in snapshot.plan_order(ledger, campaign):
                content = snapshot.rows(ledger, source, shard, taken, names, out=False)
                row = pc.fill_null(pc.index_in(content["id"], ids), -1).to_numpy()
                kept = (row >= 0) & wanted[row]
                content = content.select(names).filter(pa.array(kept)).cast(_SCHEMA)
                self._place[row[kept]] = np.arange(done, done + content.num_rows)
                done += content.num_rows
                writer.write_table(content.combine_chunks())
            writer.close()
            file.flush()
            self._rows = pa.ipc.open_file(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)).read_all()

    def take(self, rows: NDArray[np.int64]) -> pa.Table:
        """The crystals of some rows, in their order."""
        return self._rows.take(pa.array(self._place[rows]))
