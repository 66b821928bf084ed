"""What the stages share that do one piece of work on every chunk: relaxing and scoring.

Enters: the ledger as the stages before left it. Leaves: a unit per chunk, and a record of each.
This module knows neither the work nor where the chunks come from.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import Any

from assay.screening.campaign.stages.stage import Stage, commit
from assay.screening.folder import snapshot
from assay.screening.folder.ledger import Ledger, Record
from assay.screening.runners.runner import Done, Unit
from assay.screening.runners.work import Work
from assay.screening.settings.progress import Board


class ByChunk(Stage):
    """Offers chunks as they come in, but for those that are done."""

    def __init__(self, ledger: Ledger, board: Board, work: Work[Any], kind: str) -> None:
        """`kind` is that of the records which the work leaves, one per chunk."""
        self._ledger, self._board, self._work, self._kind = ledger, board, work, kind
        self._records = 0  # records whose chunks were offered
        self._left: set[str] = set()  # chunks that were offered and are not done
        self._rows = 0  # in all chunks so far
        self._before = 0  # in chunks that were done before

    @abstractmethod
    def _chosen(self) -> list[Record]:
        """The records that name the chunks, in the order in which they are committed."""

    def advance(self, *, complete: bool) -> Iterator[Unit]:  # noqa: ARG002 (a chunk is offered as soon as it is there)
        """The chunks that came in and are not done."""
        for record in self._chosen()[self._records :]:
            self._records += 1
            for chunk in snapshot.chunks_in(record):
                self._rows += chunk.rows
                if self._ledger.find(self._kind, chunk.name) is None:
                    self._left.add(chunk.name)
                    self._board.begin(self._work.name)
                    yield Unit(self._work, chunk.name, chunk.rows, partial(self._ledger.read, record, chunk.path))
                else:
                    self._before += chunk.rows

    def done(self, done: Done) -> bool:
        """Commit what became of a chunk; True after the last one."""
        commit(self._ledger, done)
        self._left.discard(done.unit.key)
        self._board.advance(done.unit.work.name, done.unit.rows, self._rows, self._before)
        return not self._left

    def finished(self) -> bool:
        """Whether every chunk that was offered is done."""
        return not self._left
