"""The stage that pulls: steps of the sources become pages, shards and finished sources."""

from __future__ import annotations

from collections.abc import Iterable

from assay.screening.campaign.stages.stage import Stage
from assay.screening.folder import snapshot
from assay.screening.folder.journal import Journal
from assay.screening.folder.ledger import Ledger
from assay.screening.pulling.source import Job
from assay.screening.pulling.steps import Portion, Sharding, Step
from assay.screening.runners.runner import Unit
from assay.screening.settings.config import Campaign
from assay.screening.settings.exits import Exit, Failure
from assay.screening.settings.progress import Board


class Pulling(Stage):
    """Keeps what the sources deliver; it has jobs for a runner, and no units."""

    def __init__(self, campaign: Campaign, ledger: Ledger, board: Board) -> None:
        self._campaign, self._ledger, self._board = campaign, ledger, board
        self._journal = Journal(ledger, campaign)
        self._before = sum(page.counts["received"] for page in ledger.all("page"))

    def jobs(self) -> list[Job]:
        """The sources that are not finished."""
        return self._journal.jobs()

    def pulled(self, step: Step) -> bool:
        """Commit a step; later stages wait for the end of a shard."""
        rows = self._journal.take(step)
        if rows:
            self._board.advance("pull", rows, self._announced(), self._before)
        return not isinstance(step, Portion | Sharding)

    def advance(self, *, complete: bool) -> Iterable[Unit]:  # noqa: ARG002 (it is the first stage)
        """No units."""
        return ()

    def finished(self) -> bool:
        """Whether every source is finished, and not all of them were down."""
        return snapshot.pulled(self._ledger, self._campaign) and not self._nothing()

    def failures(self) -> list[Failure]:
        """The sources that stopped answering in this run; one failure where all were skipped."""
        return [*self._journal.down.values(), *self._nothing()]

    def _nothing(self) -> list[Failure]:
        """The failure of a campaign whose sources are all down, and none of which sent a row."""
        ends = [self._ledger.find("source", name) for name in self._campaign.named_sources()]
        if not all(end is not None and end.detail["down"] and not end.counts["received"] for end in ends):
            return []
        what = "; ".join(f"{end.key}: {end.detail['error']}" for end in ends if end is not None)
        return [Failure(Exit.SOURCE_DOWN, f"all sources are down, nothing was pulled ({what}); run again later")]

    def _announced(self) -> int | None:
        """How many rows all sources announce; None while that is not known."""
        plans = [record.detail["shards"] for record in self._ledger.all("plan")]
        counts = [shard["expected"] for shards in plans for shard in shards]
        known = len(plans) == len(self._campaign.sources) and all(plans)
        return None if None in counts or not known else sum(counts)
