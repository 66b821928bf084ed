"""Work that compares crystals whose fingerprints are near.

Enters: crystals, each with its `place` in the batch and the places of its `partners`. Leaves: pairs
of ids that are the same crystal, or related.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from assay.screening.runners.work import Entry, Models, Work, merge_tables
from assay.sources import table as tables
from assay.sources.checks import importing

if TYPE_CHECKING:
    from assay.featurize import identity
else:
    identity = importing.later("assay.featurize.identity")

PAIRS = pa.schema(
    [
        pa.field("a", pa.string(), metadata={"unit": "", "meaning": "id of one row"}),
        pa.field("b", pa.string(), metadata={"unit": "", "meaning": "id of a row that is like it"}),
        pa.field("same", pa.bool_(), metadata={"unit": "", "meaning": "the same crystal; false: related"}),
        pa.field("distance", pa.float64(), metadata={"unit": "Å", "meaning": "how far a site or the cell moves"}),
        pa.field("volume_ratio", pa.float64(), metadata={"unit": "", "meaning": "volume per site of b over that of a"}),
    ]
)
"""One row per pair; `distance` and `volume_ratio` of the same crystal are 0 and 1, not measured."""


@dataclass(frozen=True)
class Match(Work[pa.Table]):
    """Pairs of the same crystal or of related ones; a crystal that kills workers is in no pair."""

    @property
    def name(self) -> str:
        """`match`."""
        return "match"

    def do(self, models: Models, table: pa.Table) -> pa.Table:  # noqa: ARG002 (a comparison needs no ensemble)
        """Rows of `PAIRS` among those of the batch, equal pairs first."""
        crystals, _ = tables.from_table(table.drop_columns(["partners"]), "match")
        here = {int(place): row for row, place in enumerate(crystals.columns["place"])}
        listed = dict(zip(table["place"].to_pylist(), table["partners"].to_pylist(), strict=True))
        pairs = [(row, here[other]) for place, row in here.items() for other in listed[place] if other in here]
        found = identity.confirm(crystals, np.array(pairs, np.int64))
        same, related = len(found.same), len(found.related)
        a, b = crystals.ids.astype(object)[np.concatenate([found.same, found.related]).T]
        distance = np.concatenate([np.zeros(same), found.distance])
        ratio = np.concatenate([np.ones(same), found.volume_ratio])
        columns = [a, b, np.arange(same + related) < same, distance, ratio]
        return pa.table([pa.array(values, field.type) for values, field in zip(columns, PAIRS, strict=True)], PAIRS)

    def merge(self, results: Sequence[pa.Table]) -> pa.Table:
        """Pairs in order."""
        return merge_tables(results)

    def blame(self, table: pa.Table, result: pa.Table, guilty: Sequence[int]) -> pa.Table:  # noqa: ARG002
        """The pairs that were found: a guilty row is like no other."""
        return result

    def entry(self, key: str, rows: int, result: pa.Table) -> Entry:  # noqa: ARG002 (rows are pairs here)
        """A record of the kind `matches`."""
        counts = {"rows": result.num_rows, "related": len(result.filter(pc.invert(result["same"])))}
        return Entry("matches", {f"identity/match/{key}.parquet": result}, counts)
