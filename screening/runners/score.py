"""Work that scores crystals with the ensembles of a campaign, or of one cheap tier of its cascade.

Enters: a chunk of crystals. Leaves: a `Part`: one row per scored crystal, and a quarantine record
for every other one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from assay.screening.runners import worker
from assay.screening.runners.work import Entry, Models, Work, merge_tables
from assay.screening.runners.worker import Part
from assay.screening.settings.exits import Exit, Failure
from assay.sources import table as tables
from assay.sources.quarantine import Quarantined, Reason, Stage


@dataclass(frozen=True)
class Score(Work[Part]):
    """Predictions for a chunk; a crystal that kills workers is quarantined."""

    tier: int | None = None
    """A cheap tier of a cascade, from 0; None for the ensembles of `models`."""

    @property
    def name(self) -> str:
        """The name of the work; with the number of a cheap tier behind it.

        >>> Score().name, Score(tier=0).name
        ('score', 'score:0')
        """
        return "score" if self.tier is None else f"score:{self.tier}"

    def do(self, models: Models, table: pa.Table) -> Part:
        """Score the crystals of one chunk; only the ensembles of `models` see standard cells."""
        ensembles = models.ensembles(self.tier)
        crystals, refused = tables.from_table(table, "chunk")
        part = worker.score(crystals, ensembles, models.standard if self.tier is None else None)
        return Part(part.table, [*refused, *part.quarantined])

    def merge(self, results: Sequence[Part]) -> Part:
        """Rows and records in order."""
        quarantined = [row for part in results for row in part.quarantined]
        return Part(merge_tables([part.table for part in results]), quarantined)

    def blame(self, table: pa.Table, result: Part, guilty: Sequence[int]) -> Part:
        """Add a quarantine record for each guilty row."""
        return Part(result.table, [*result.quarantined, *died(table, guilty)])

    def entry(self, key: str, rows: int, result: Part) -> Entry:
        """A record of the kind `part`.

        Raises:
            Failure: a crystal is neither scored nor quarantined.
        """
        scored, quarantined = result.table.num_rows, len(result.quarantined)
        if scored + quarantined != rows:
            raise Failure(
                Exit.BALANCE_BROKEN,
                f"chunk {key}: {rows} crystals became {scored} scored and {quarantined} quarantined; "
                "report this as a defect",
            )
        kept = {f"parts/{key}.parquet": result.table}
        if result.quarantined:
            kept[f"quarantine/{key}.parquet"] = tables.quarantine_table(result.quarantined)
        return Entry("part", kept, {"scored": scored, "quarantined": quarantined})


def died(table: pa.Table, rows: Sequence[int]) -> list[Quarantined]:
    """Quarantine records of guilty rows of a table with `id` and maybe `origin`."""
    message = "the worker process died each time it met this crystal, also alone"
    records = []
    for row in rows:
        origin = table["origin"][row].as_py() if "origin" in table.column_names else None
        records.append(Quarantined(table["id"][row].as_py(), origin or "", Stage.PREDICT, Reason.WORKER_DIED, message))
    return records
