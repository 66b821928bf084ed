"""Work that takes fingerprints, so that the same crystal in several sources can be found.

Enters: crystals. Leaves: one row per crystal (`assay.featurize.identity.fingerprints`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from assay.screening.runners.work import Entry, Models, Work, merge_tables
from assay.sources import table as tables
from assay.sources.checks import importing

if TYPE_CHECKING:
    from assay.featurize import identity
else:
    identity = importing.later("assay.featurize.identity")

DISTANCES = tables.list_of(pa.float32())
FINGERPRINTS = pa.schema(
    [
        pa.field("id", pa.string(), metadata={"unit": "", "meaning": "id of the crystal"}),
        pa.field("composition", pa.string(), metadata={"unit": "", "meaning": "kinds of sites and their ratio"}),
        pa.field("distances", DISTANCES, metadata={"unit": "(V/N)^(1/3)", "meaning": "mean distances"}),
    ]
)
"""One row per crystal; the composition of a crystal that cannot be compared is empty."""


def to_table(found: identity.Fingerprints) -> pa.Table:
    """Rows of `FINGERPRINTS`."""
    lists = pa.ListArray.from_arrays(pa.array(found.pointer, pa.int32()), pa.array(found.values), DISTANCES)
    columns = [pa.array(found.ids.astype(object), pa.string()), pa.array(found.compositions, pa.string()), lists]
    return pa.Table.from_arrays(columns, schema=FINGERPRINTS)


def from_table(rows: pa.Table) -> identity.Fingerprints:
    """The fingerprints of such rows."""
    lists = rows["distances"].combine_chunks()
    pointer = np.concatenate([[0], np.cumsum(lists.value_lengths().to_numpy())]).astype(np.int64)
    ids = np.array(rows["id"].to_pylist(), dtype=object)
    return identity.Fingerprints(ids, rows["composition"].to_pylist(), pointer, lists.flatten().to_numpy())


@dataclass(frozen=True)
class Fingerprint(Work[pa.Table]):
    """Distances that two rows of one crystal share; a crystal that kills workers has none."""

    @property
    def name(self) -> str:
        """`fingerprint`."""
        return "fingerprint"

    def do(self, models: Models, table: pa.Table) -> pa.Table:  # noqa: ARG002 (distances need no ensemble)
        """One row of `FINGERPRINTS` per crystal."""
        return to_table(identity.fingerprints(tables.from_table(table, "fingerprint")[0]))

    def merge(self, results: Sequence[pa.Table]) -> pa.Table:
        """Rows in order."""
        return merge_tables(results)

    def blame(self, table: pa.Table, result: pa.Table, guilty: Sequence[int]) -> pa.Table:
        """Add an empty fingerprint for each guilty row."""
        if not guilty:
            return result
        rows = [{"id": table["id"][row].as_py(), "composition": "", "distances": []} for row in guilty]
        return merge_tables([result, pa.Table.from_pylist(rows, schema=result.schema)])

    def entry(self, key: str, rows: int, result: pa.Table) -> Entry:  # noqa: ARG002 (a refused row has none)
        """A record of the kind `fingerprints`."""
        return Entry("fingerprints", {f"identity/fingerprint/{key}.parquet": result}, {"rows": result.num_rows})
