"""The scored rows of a campaign, with what its hull says of them.

Enters: a plan and the ledger of its folder. Leaves: the parts of the last tier as tables of one
schema. Compositions come from the chunks, not from formulas, whose amounts are rounded. This module
does not rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.models.potentials.columns import FORMED
from assay.screening.campaign.plan import Plan
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.results import Scored
from assay.screening.folder.summary import Stability
from assay.screening.ranking.stability import MEAN
from assay.screening.runners import worker
from assay.sources import table
from assay.sources.crystals import empty

STRUCTURE = [field.name for field in table.CRYSTAL_FIELDS]


class Judged:
    """What the last tier has scored so far, part by part, beside the hull; read like `Scored`."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        """The phases of the hull are read here."""
        assert plan.stability is not None
        self._ledger, self._reference = ledger, plan.stability
        self._scored = Scored(ledger, len(plan.tiers))
        self._judge = plan.stability.judge(ledger)
        self._added = {field.name for field in self._judge.fields}
        self._counts: dict[str, tuple[int, int, int]] = {}  # chunk -> judged, without a hull, near it
        records = [*ledger.all("chunks"), *ledger.all("selection")]
        self._places = {
            chunk["name"]: (record, chunk["path"]) for record in records for chunk in record.detail["chunks"]
        }
        none = empty().with_columns(**{name: np.empty(0) for name in self._judge.reads if name in FORMED})
        self.blank = self._of_none(worker.score(none, plan.ensembles).table)
        """The part of no crystals, where nothing is reported."""
        self.schema: pa.Schema = self._of_none(self._scored.schema.empty_table()).schema if self else self.blank.schema
        """Its columns."""

    def _of_none(self, rows: pa.Table) -> pa.Table:
        return self._judge.judged(rows, empty().composition())

    def __bool__(self) -> bool:
        """Whether anything is scored."""
        return bool(self._scored)

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The parts in the order of the snapshot, all columns or some."""
        if columns is not None and self._added.isdisjoint(columns):
            yield from self._scored.tables(columns)
            return
        read = columns and sorted({"id", *columns, *self._judge.reads} - self._added)
        for chunk, rows in zip(self._scored.chunks, self._scored.tables(read), strict=True):
            found = self._judge.judged(rows, self._amounts(chunk, rows), columns)
            if MEAN in found.column_names:
                self._count(chunk, found)
            yield found if columns is None else found.select(columns)

    def _amounts(self, chunk: str, rows: pa.Table) -> NDArray[np.float64]:
        """(n, 119) compositions of scored rows."""
        record, path = self._places[chunk]
        crystals, _ = table.from_table(self._ledger.read(record, path, STRUCTURE), "chunk")
        place = {name: row for row, name in enumerate(crystals.ids.tolist())}
        rows_of_chunk = np.array([place[name] for name in rows["id"].to_pylist()], np.int64)
        return crystals.composition()[rows_of_chunk]

    def _count(self, chunk: str, rows: pa.Table) -> None:
        above = rows[MEAN].to_numpy()
        near = int((above <= self._judge.threshold).sum())
        self._counts[chunk] = (len(above), int(np.isnan(above).sum()), near)

    def summary(self) -> Stability:
        """The crystals beside the hull in numbers, once all tables were asked for."""
        judged, unknown, near = (sum(counts) for counts in zip((0, 0, 0), *self._counts.values(), strict=True))
        phases, reference = self._judge.hull.phases, self._reference
        counts = phases.given, phases.refused, judged, unknown, near
        return Stability(reference.settings, reference.functional, reference.energy.model, *counts)
