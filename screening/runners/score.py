"""Work that scores crystals with the ensembles of a campaign, or of one cheap tier of its cascade.

Enters: a chunk of crystals. Leaves: a `Part`: one row per scored crystal, and a quarantine record
for every other one. `Chunked` is what this work shares with `assay.screening.runners.relax`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from assay.screening.runners import worker
from assay.screening.runners.work import Entry, Models, Work, merge_tables
from assay.screening.runners.worker import Part
from assay.screening.settings.exits import Exit, Failure
from assay.sources import table as tables
from assay.sources.quarantine import Quarantined, Reason, Stage


class Chunked(Work[Part]):
    """Work on a chunk, after which each crystal stands in a table or is quarantined."""

    stage: ClassVar[Stage]
    """Where a crystal that kills workers is refused."""
    done: ClassVar[str]
    """What it calls the crystals in the table."""

    def merge(self, results: Sequence[Part]) -> Part:
        """Rows and records in order."""
        quarantined = [row for part in results for row in part.quarantined]
        return Part(merge_tables([part.table for part in results]), quarantined)

    def blame(self, table: pa.Table, result: Part, guilty: Sequence[int]) -> Part:
        """Add a quarantine record for each guilty row."""
        return Part(result.table, [*result.quarantined, *died(table, guilty, self.stage)])

    def counted(self, key: str, rows: int, result: Part) -> dict[str, int]:
        """How many crystals became what.

        Raises:
            Failure: a crystal is neither in the table nor quarantined.
        """
        done, quarantined = result.table.num_rows, len(result.quarantined)
        if done + quarantined != rows:
            raise Failure(
                Exit.BALANCE_BROKEN,
                f"chunk {key}: {rows} crystals became {done} {self.done} and {quarantined} quarantined; "
                "report this as a defect",
            )
        return {self.done: done, "quarantined": quarantined}


@dataclass(frozen=True)
class Score(Chunked):
    """Predictions for a chunk; a crystal that kills workers is quarantined."""

    stage, done = Stage.PREDICT, "scored"
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
        part = worker.score(crystals, ensembles, models.standard if self.tier is None else None, models.store)
        return Part(_described(part.table, table.schema), [*refused, *part.quarantined])

    def entry(self, key: str, rows: int, result: Part) -> Entry:
        """A record of the kind `part`.

        Raises:
            Failure: a crystal is neither scored nor quarantined.
        """
        kept = {f"parts/{key}.parquet": result.table}
        if result.quarantined:
            kept[f"quarantine/{key}.parquet"] = tables.quarantine_table(result.quarantined)
        return Entry("part", kept, self.counted(key, rows, result))


def _described(scored: pa.Table, chunk: pa.Schema) -> pa.Table:
    """The scored rows, with what the fields of a relaxed chunk say of unit and scale."""
    said = {field.name: field.metadata for field in chunk if field.metadata and field.name not in tables.RESERVED}
    fields = [field.with_metadata(said.get(field.name)) for field in scored.schema]
    return scored.cast(pa.schema(fields)) if said else scored


def died(table: pa.Table, rows: Sequence[int], stage: Stage) -> list[Quarantined]:
    """Quarantine records of guilty rows of a table with `id` and maybe `origin`."""
    message = "the worker process died each time it met this crystal, also alone"
    records = []
    for row in rows:
        origin = table["origin"][row].as_py() if "origin" in table.column_names else None
        records.append(Quarantined(table["id"][row].as_py(), origin or "", stage, Reason.WORKER_DIED, message))
    return records
