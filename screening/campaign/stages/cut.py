"""The stage that cuts pulled shards into chunks, in the order of the plan."""

from __future__ import annotations

from collections.abc import Iterable

from assay.screening.campaign import identify
from assay.screening.campaign.stages.shards import NewShards
from assay.screening.campaign.stages.stage import Stage
from assay.screening.folder import snapshot
from assay.screening.folder.ledger import Ledger
from assay.screening.runners.runner import Unit
from assay.screening.settings.config import Campaign


class Cutting(Stage):
    """Commits chunks, and offers no units; where twins are merged it waits until they are known."""

    def __init__(self, campaign: Campaign, ledger: Ledger) -> None:
        self._campaign, self._ledger = campaign, ledger
        self._shards = NewShards(campaign, ledger)
        self._taken, self._columns = snapshot.taken_ids(campaign), snapshot.Columns(ledger)

    def advance(self, *, complete: bool) -> Iterable[Unit]:
        """Cut the shards that came in."""
        merges = self._campaign.merges()
        if merges and not complete:
            return ()
        same = identify.others(self._ledger) if merges else frozenset[str]()
        for source, shard in self._shards:
            if self._ledger.find("chunks", snapshot.shard_key(source, shard)) is None:
                found = snapshot.unique(self._ledger, source, shard, self._taken)
                snapshot.seal(self._ledger, self._campaign, (source, shard), found, self._columns, same)
            else:
                snapshot.note(self._ledger, source, shard, self._taken)
        return ()

    def finished(self) -> bool:
        """Whether every shard is cut into chunks."""
        return snapshot.sealed(self._ledger, self._campaign)
