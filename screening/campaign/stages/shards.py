"""Shards that a stage has not dealt with yet, in the order of the plan."""

from __future__ import annotations

from collections.abc import Iterator

from assay.screening.folder import snapshot
from assay.screening.folder.ledger import Ledger
from assay.screening.settings.config import Campaign


class NewShards:
    """Shards that are pulled whole, as far as all before them are pulled too; each comes once."""

    def __init__(self, campaign: Campaign, ledger: Ledger) -> None:
        self._ledger = ledger
        self._next = dict.fromkeys(campaign.named_sources(), 0)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """(source, shard) of the shards that came since the last time."""
        for source in self._next:
            while self._ledger.find("shard", snapshot.shard_key(source, self._next[source])) is not None:
                self._next[source] += 1
                yield source, self._next[source] - 1
            if self._ledger.find("source", source) is None:
                return
