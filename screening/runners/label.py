"""Work that labels crystals, so that the same crystal in several sources can be found.

Enters: crystals. Leaves: one row of labels per crystal (`assay.sources.identity.labels`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from assay.screening.runners.work import Entry, Models, Work, merge_tables
from assay.sources import identity, table as tables


@dataclass(frozen=True)
class Label(Work[pa.Table]):
    """Labels that two rows of the same crystal share; a crystal that kills workers gets none."""

    @property
    def name(self) -> str:
        """`label`."""
        return "label"

    def do(self, models: Models, table: pa.Table) -> pa.Table:  # noqa: ARG002 (labels need no ensemble)
        """One row of labels per crystal."""
        return identity.labels(tables.from_table(table, "label")[0])

    def merge(self, results: Sequence[pa.Table]) -> pa.Table:
        """Rows in order."""
        return merge_tables(results)

    def blame(self, table: pa.Table, result: pa.Table, guilty: Sequence[int]) -> pa.Table:
        """Add an empty label for each guilty row."""
        if not guilty:
            return result
        blank = {"formula": "", "spacegroup": 0, "label": "", "label_fine": ""}
        rows = [{"id": table["id"][row].as_py(), **blank} for row in guilty]
        return merge_tables([result, pa.Table.from_pylist(rows, schema=result.schema)])

    def entry(self, key: str, rows: int, result: pa.Table) -> Entry:  # noqa: ARG002 (a refused row has no label)
        """A record of the kind `labels`."""
        return Entry("labels", {f"identity/label/{key}.parquet": result}, {"rows": result.num_rows})
