"""Pull steps -> committed pages, shards and sources, and back: what is still to be pulled.

Enters: the steps of `assay.screening.pulling.pull`. Leaves: records in the ledger, and `Job`s that
go on behind them. Only the driver holds a journal; it does not know servers.
"""

from __future__ import annotations

import logging
import time

from assay.screening.folder import snapshot
from assay.screening.folder.ledger import Ledger, Record
from assay.screening.pulling import readers
from assay.screening.pulling.pull import Down, Job, Kept, Page, Planned, ShardEnd, SourceEnd, Step
from assay.screening.pulling.readers import Shard
from assay.screening.settings.config import Campaign, DatabaseSource
from assay.screening.settings.exits import Exit, Failure

log = logging.getLogger(__name__)


class Journal:
    """Commits what the pull of every source delivers."""

    def __init__(self, ledger: Ledger, campaign: Campaign) -> None:
        self._ledger = ledger
        self._sources = campaign.named_sources()
        self.down: dict[str, Failure] = {}
        """Sources that stopped answering in this run and may not be skipped."""

    def jobs(self) -> list[Job]:
        """The sources that are not finished, and how far each is."""
        return [self._job(name) for name in self._sources
                if self._ledger.find("source", name) is None and name not in self.down]  # fmt: skip

    def _job(self, name: str) -> Job:
        source = self._sources[name]
        host = readers.host(source, name)
        plan = self._ledger.find("plan", name)
        if plan is None:
            return Job(name, source, host)
        shards = [Shard(**row) for row in plan.detail["shards"]]
        done = snapshot.finished(self._ledger, name)
        kept = Kept()
        for record in snapshot.pages(self._ledger, name, done):
            kept.walk = record.detail["walk"]
            kept.restore(record.detail, self._ids(record))
        return Job(
            name, source, host, Planned(name, shards, plan.detail["stamp"]), done, kept, done + len(kept.cursors) > 0
        )

    def _ids(self, record: Record) -> list[str]:
        return [name for path in record.files for name in self._ledger.read(record, path, ["id"])["id"].to_pylist()]

    def take(self, step: Step) -> int:
        """Commit one step, and return how many rows came with it."""
        if isinstance(step, Page):
            self._page(step)
            return step.piece.received
        if isinstance(step, Planned):
            shards = [vars(shard) for shard in step.shards]
            self._ledger.commit("plan", step.source, {}, {"shards": len(shards)},
                                {"shards": shards, "stamp": step.stamp})  # fmt: skip
        elif isinstance(step, ShardEnd):
            self._shard(step.source, step.shard, step.announced, step.shortfall)
        elif isinstance(step, SourceEnd):
            self._source(step.source, step.shards, "")
        else:
            self._silent(step)
        return 0

    def _page(self, page: Page) -> None:
        from assay.sources import table

        piece = page.piece
        stem = f"snapshot/{page.source}/{page.shard:06d}-{page.number:06d}-{{sha}}"
        tables = {f"{stem}.parquet": piece.crystals}
        if piece.quarantined:
            tables[f"{stem}.quarantine.parquet"] = table.quarantine_table(piece.quarantined)
        counts = {"received": piece.received, "quarantined": len(piece.quarantined)}
        pulled = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        detail = {**piece.detail, "walk": page.walk, "cursor": piece.cursor, "announced": piece.announced,
                  "shortfall": piece.shortfall, "pulled": pulled}  # fmt: skip
        self._ledger.commit("page", snapshot.page_key(page.source, page.shard, page.number), tables, counts, detail)

    def _shard(self, name: str, shard: int, announced: int | None, shortfall: str) -> None:
        kept = snapshot.pages(self._ledger, name, shard)
        source = self._sources[name]
        limit = source.max_entries if isinstance(source, DatabaseSource) else None
        expected = announced if announced is None or limit is None else min(announced, limit)
        counts = {
            "pages": len(kept),
            "received": sum(page.counts["received"] for page in kept),
            "quarantined": sum(page.counts["quarantined"] for page in kept),
        }
        detail = {"expected": expected, "shortfall": shortfall}
        self._ledger.commit("shard", snapshot.shard_key(name, shard), {}, counts, detail)

    def _source(self, name: str, shards: int, error: str) -> None:
        ends = [self._ledger.find("shard", snapshot.shard_key(name, shard)) for shard in range(shards)]
        done = [end for end in ends if end is not None]
        short = [f"shard {n}: {end.detail['shortfall']}" for n, end in enumerate(done) if end.detail["shortfall"]]
        missing = error or "; ".join(short)[:500]
        if missing:
            log.warning("source %s is incomplete: %s", name, missing)
        announced = [end.detail["expected"] for end in done]
        counts = {"shards": shards, **{what: sum(end.counts[what] for end in done) for what in ("pages", "received")}}
        detail = {
            "expected": None if None in announced else sum(announced),
            "complete": not missing,
            "error": missing,
        }
        self._ledger.commit("source", name, {}, counts, detail)

    def _silent(self, step: Down) -> None:
        """Give a source up for this run; one that may be skipped is closed with what it delivered."""
        source = self._sources[step.source]
        if not (isinstance(source, DatabaseSource) and source.when_down == "skip"):
            self.down[step.source] = Failure(
                Exit.SOURCE_DOWN,
                f"source {step.source}: {step.message}; check the address and run again later (every page that arrived "
                "is kept), or set when_down: skip on this source to go on without it",
            )
            return
        shards = snapshot.finished(self._ledger, step.source)
        kept = snapshot.pages(self._ledger, step.source, shards)
        if kept:
            self._shard(step.source, shards, kept[-1].detail["announced"], step.message)
        self._source(step.source, shards + bool(kept), step.message)
