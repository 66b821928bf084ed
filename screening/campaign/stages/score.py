"""The stage that scores chunks: those of the snapshot, or those of a later tier of a cascade."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from assay.screening.campaign.stages.stage import Stage, commit
from assay.screening.folder.ledger import Ledger, Record
from assay.screening.folder.snapshot import Chunk
from assay.screening.runners.runner import Done, Unit
from assay.screening.runners.score import Score
from assay.screening.settings.config import Campaign
from assay.screening.settings.progress import Board


class Scoring(Stage):
    """Offers the chunks of one tier as they are cut; without a cascade there is only tier 0."""

    def __init__(self, campaign: Campaign, ledger: Ledger, board: Board, tier: int) -> None:
        self._ledger, self._board, self._tier = ledger, board, tier
        self._work = Score(None if tier == len(campaign.tiers()) else tier)
        self._records = 0  # records whose chunks were offered
        self._left: set[str] = set()  # chunks that were offered and are not scored
        self._rows = 0  # in all chunks so far
        self._before = 0  # in chunks that were scored before

    def advance(self, *, complete: bool) -> Iterator[Unit]:  # noqa: ARG002 (a chunk is scored as soon as it is cut)
        """The chunks that came in and are not scored."""
        for record in self._chosen()[self._records :]:
            self._records += 1
            for chunk in (Chunk(**row) for row in record.detail["chunks"]):
                self._rows += chunk.rows
                if self._ledger.find("part", chunk.name) is None:
                    self._left.add(chunk.name)
                    yield Unit(self._work, chunk.name, chunk.rows, partial(self._ledger.read, record, chunk.path))
                else:
                    self._before += chunk.rows

    def _chosen(self) -> list[Record]:
        """The records that name the chunks of this tier."""
        if self._tier == 0:
            return self._ledger.all("chunks")
        record = self._ledger.find("selection", str(self._tier))
        return [] if record is None else [record]

    def done(self, done: Done) -> bool:
        """Commit a part; a later tier waits for the last one."""
        commit(self._ledger, done)
        self._left.discard(done.unit.key)
        self._board.advance(done.unit.work.name, done.unit.rows, self._rows, self._before)
        return not self._left

    def finished(self) -> bool:
        """Whether every chunk that was offered is scored."""
        return not self._left
