"""The stage that finds the same crystal in several sources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from assay.screening.campaign import identify
from assay.screening.campaign.stages.rounds import Rounds
from assay.screening.campaign.stages.shards import NewShards
from assay.screening.campaign.stages.stage import Stage, commit
from assay.screening.folder import snapshot
from assay.screening.folder.ledger import Ledger
from assay.screening.runners.runner import Done, Unit
from assay.screening.settings.config import Campaign
from assay.screening.settings.progress import Board


class Identifying(Stage):
    """Takes fingerprints as shards come in; compares crystals round by round once it has all."""

    def __init__(self, campaign: Campaign, ledger: Ledger, board: Board) -> None:
        self._campaign, self._ledger, self._board = campaign, ledger, board
        self._shards = NewShards(campaign, ledger)
        self._taken = snapshot.taken_ids(campaign)
        self._left: set[str] = set()  # names of units that were offered and are not done
        self._rounds: Rounds | None = None

    def advance(self, *, complete: bool) -> Iterator[Unit]:
        """Units that take fingerprints; after the last of them, units that compare."""
        if self.finished():
            return
        yield from self._offered(self._fingerprints())
        if not complete or self._left:
            return
        if self._rounds is None:
            self._rounds = Rounds(self._ledger, self._campaign)
        yield from self._offered(self._rounds.units())
        if not self._left:
            identify.resolve(self._ledger, self._campaign)
            self._taken, self._rounds = snapshot.taken_ids(self._campaign), None

    def _fingerprints(self) -> Iterator[Unit]:
        for source, shard in self._shards:
            found = snapshot.unique(self._ledger, source, shard, self._taken)
            wanted = found.crystals.select(snapshot.keep(self._campaign, source, found.crystals))
            yield from identify.units(self._ledger, source, shard, wanted)

    def _offered(self, units: Iterable[Unit]) -> Iterator[Unit]:
        for unit in units:
            self._left.add(unit.name)
            self._board.begin(unit.work.name)
            yield unit

    def done(self, done: Done) -> bool:
        """Commit fingerprints or pairs."""
        commit(self._ledger, done)
        self._board.advance(done.unit.work.name, done.unit.rows)
        self._left.discard(done.unit.name)
        return not self._left

    def finished(self) -> bool:
        """Whether it is decided which crystals are the same."""
        return self._ledger.find("identity", "all") is not None
