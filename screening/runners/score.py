"""Work that scores crystals with the ensembles of a campaign, or of one cheap tier of its cascade.

Enters: a chunk of crystals. Leaves: a `Part`: one row per scored crystal, and a quarantine record
for every other one. `Chunked` is what this work shares with `assay.screening.runners.relax`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa

from assay.models.ensemble.kept.members import code
from assay.models.ensemble.kept.store import Kept
from assay.screening.runners import worker
from assay.screening.runners.work import Entry, Models, Work, merge_tables
from assay.screening.runners.worker import Part
from assay.screening.settings.exits import Exit, Failure
from assay.sources import table as tables
from assay.sources.quarantine import Quarantined, Reason, Stage

if TYPE_CHECKING:
    from assay.featurize.standard import Standard
    from assay.models.ensemble.ensemble import Ensemble

ROOMS = ("sources", "featurize", "models", "screening")
"""Whose code decides what stands in a part."""
TABLES = ("scored", "refused")
"""The tables of a part that a store keeps, as Arrow streams."""


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
        standard = models.standard if self.tier is None else None
        key = "" if models.store is None else _key(table, ensembles, standard)
        if models.store is not None and (kept := models.store.get(key)) is not None:
            return _part(kept)
        crystals, _ = tables.from_table(table, "chunk", sifted=True)
        part = worker.score(crystals, ensembles, standard, models.store)
        part = replace(part, table=_described(part.table, table.schema))
        if models.store is not None and part.plain:
            models.store.put(key, _kept(part))
        return part

    def entry(self, key: str, rows: int, result: Part) -> Entry:
        """A record of the kind `part`.

        Raises:
            Failure: a crystal is neither scored nor quarantined.
        """
        kept = {f"parts/{key}.parquet": result.table}
        if result.quarantined:
            kept[f"quarantine/{key}.parquet"] = tables.quarantine_table(result.quarantined)
        return Entry("part", kept, self.counted(key, rows, result))


def _key(table: pa.Table, ensembles: Sequence[Ensemble], standard: Standard | None) -> str:
    """What the part of a chunk depends on."""
    said = repr((code(ROOMS), [ensemble.identity for ensemble in ensembles], standard))
    return hashlib.sha256(said.encode() + _bytes(table)).hexdigest()


def _bytes(table: pa.Table) -> memoryview:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return memoryview(sink.getvalue())


def _kept(part: Part) -> Kept:
    made = (part.table, tables.quarantine_table(part.quarantined))
    arrays = [np.frombuffer(_bytes(table), np.uint8) for table in made]
    return Kept(dict(zip(TABLES, arrays, strict=True)), {"network": "whole chunks"})


def _part(kept: Kept) -> Part:
    scored, refused = (pa.ipc.open_stream(pa.py_buffer(kept.arrays[name])).read_all() for name in TABLES)
    return Part(scored, tables.quarantine_rows(refused))


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
