"""Work that compares crystals whose labels agree.

Enters: crystals with a column `block`. Leaves: the pairs of ids that are the same crystal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from assay.screening.runners.work import Entry, Models, Work, merge_tables
from assay.sources import identity, table as tables


@dataclass(frozen=True)
class Match(Work[pa.Table]):
    """Pairs of the same crystal; a crystal that kills workers is in no pair."""

    @property
    def name(self) -> str:
        """`match`."""
        return "match"

    def do(self, models: Models, table: pa.Table) -> pa.Table:  # noqa: ARG002 (a comparison needs no ensemble)
        """Pairs (a, b) of ids that are the same crystal, among rows of one `block`."""
        crystals, _ = tables.from_table(table, "match")
        pairs = identity.confirm(crystals, crystals.columns["block"].astype(np.int64))
        ids = crystals.ids.astype(object)
        return pa.table({side: pa.array(ids[pairs[:, k]], pa.string()) for k, side in enumerate("ab")})

    def merge(self, results: Sequence[pa.Table]) -> pa.Table:
        """Pairs in order."""
        return merge_tables(results)

    def blame(self, table: pa.Table, result: pa.Table, guilty: Sequence[int]) -> pa.Table:  # noqa: ARG002
        """The pairs that were found: a guilty row is like no other."""
        return result

    def entry(self, key: str, rows: int, result: pa.Table) -> Entry:  # noqa: ARG002 (rows are pairs here)
        """A record of the kind `matches`."""
        return Entry("matches", {f"identity/match/{key}.parquet": result}, {"rows": result.num_rows})
