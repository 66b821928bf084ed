"""Shards that a stage has not dealt with yet, in the order of the plan."""

from __future__ import annotations

from collections.abc import Iterator

from assay.screening.folder import snapshot
from assay.screening.folder.ledger import Ledger
from assay.screening.settings.config import Campaign


class NewShards:
    """Shards that are pulled whole, as far as all before them are pulled too; each comes once."""

    def __init__(self, campaign: Campaign, ledger: Ledger) -> None:
        self._campaign, self._ledger = campaign, ledger
        self._before: set[tuple[str, int]] = set()

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """(source, shard) of the shards that came since the last time."""
        for shard in list(snapshot.plan_order(self._ledger, self._campaign)):
            if shard not in self._before:
                self._before.add(shard)
                yield shard
