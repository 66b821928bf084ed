"""Steps of a pull -> records in the ledger, and back: the jobs that are still to be done.

Enters: the steps of `assay.screening.pulling.steps`. Leaves: records of pages, shards and sources,
and `Job`s that go on behind them. Only the driver holds a journal; it does not know servers.
"""

from __future__ import annotations

import logging
import time

from assay.screening.folder import snapshot
from assay.screening.folder.ledger import Ledger, Record
from assay.screening.pulling.source import Job, named
from assay.screening.pulling.steps import Down, Kept, Portion, ShardEnd, Sharding, SourceEnd, Step
from assay.screening.settings.config import Campaign
from assay.screening.settings.exits import Exit, Failure
from assay.sources import table

log = logging.getLogger(__name__)


class Journal:
    """Commits what the pull of every source delivers."""

    def __init__(self, ledger: Ledger, campaign: Campaign) -> None:
        self._ledger = ledger
        self._sources = named(campaign)
        self.down: dict[str, Failure] = {}
        """Sources that stopped answering in this run and may not be skipped."""

    def jobs(self) -> list[Job]:
        """The sources that are not finished, and how far each is."""
        left = [name for name in self._sources if self._ledger.find("source", name) is None and name not in self.down]
        return [self._job(name) for name in left]

    def _job(self, name: str) -> Job:
        source = self._sources[name]
        host = source.host(name)
        record = self._ledger.find("plan", name)
        if record is None:
            return Job(name, source, host)
        sharding = Sharding.restore(name, record.detail)
        done = snapshot.finished(self._ledger, name)
        kept = Kept()
        for page in snapshot.pages(self._ledger, name, done):
            detail = page.detail
            kept.walk = detail["walk"]
            kept.restore(detail["cursor"], detail["announced"], detail["shortfall"], self._ids(page))
        return Job(name, source, host, sharding, done, kept, delivered=done + len(kept.cursors) > 0)

    def _ids(self, record: Record) -> list[str]:
        return [name for path in record.files for name in self._ledger.read(record, path, ["id"])["id"].to_pylist()]

    def take(self, step: Step) -> int:
        """Commit one step, and return how many rows came with it."""
        if isinstance(step, Portion):
            self._page(step)
            return step.received
        if isinstance(step, Sharding):
            self._ledger.commit("plan", step.source, {}, {"shards": len(step.shards)}, step.detail())
        elif isinstance(step, ShardEnd):
            self._shard(step.source, step.shard, step.announced, step.shortfall)
        elif isinstance(step, SourceEnd):
            self._source(step.source, step.shards)
        else:
            self._silent(step)
        return 0

    def _page(self, portion: Portion) -> None:
        stem = f"snapshot/{portion.source}/{portion.shard:06d}-{portion.number:06d}-{{sha}}"
        tables = {f"{stem}.parquet": portion.crystals}
        if portion.quarantined:
            tables[f"{stem}.quarantine.parquet"] = table.quarantine_table(portion.quarantined)
        counts = {"received": portion.received, "quarantined": len(portion.quarantined)}
        detail = {
            **portion.detail,
            "walk": portion.walk,
            "cursor": portion.cursor,
            "announced": portion.announced,
            "shortfall": portion.shortfall,
            "pulled": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        self._ledger.commit(
            "page", snapshot.page_key(portion.source, portion.shard, portion.number), tables, counts, detail
        )

    def _shard(self, name: str, shard: int, announced: int | None, shortfall: str) -> None:
        kept = snapshot.pages(self._ledger, name, shard)
        limit = self._sources[name].limit
        expected = announced if announced is None or limit is None else min(announced, limit)
        counts = {
            "pages": len(kept),
            "received": sum(page.counts["received"] for page in kept),
            "quarantined": sum(page.counts["quarantined"] for page in kept),
        }
        detail = {"expected": expected, "shortfall": shortfall}
        self._ledger.commit("shard", snapshot.shard_key(name, shard), {}, counts, detail)

    def _cut(self, name: str) -> list[int | None]:
        """The rows that each shard had when the query was cut, as far as the server said."""
        plan = self._ledger.find("plan", name)
        return [] if plan is None else [shard["expected"] for shard in plan.detail["shards"]]

    def _source(self, name: str, shards: int, down: str = "") -> None:
        ends = [self._ledger.find("shard", snapshot.shard_key(name, shard)) for shard in range(shards)]
        done = [end for end in ends if end is not None]
        short = [f"shard {n}: {end.detail['shortfall']}" for n, end in enumerate(done) if end.detail["shortfall"]]
        missing = down or "; ".join(short)[:500]
        if missing:
            log.warning("source %s is incomplete: %s", name, missing)
        announced = [end.detail["expected"] for end in done] + (self._cut(name)[shards:] if down else [])
        known = [count for count in announced if count is not None]
        counts = {"shards": shards, **{what: sum(end.counts[what] for end in done) for what in ("pages", "received")}}
        detail = {
            "expected": sum(known) if announced and len(known) == len(announced) else None,
            "complete": not missing,
            "error": missing,
            "down": bool(down),
        }
        self._ledger.commit("source", name, {}, counts, detail)

    def _silent(self, step: Down) -> None:
        """Give a source up for this run; one that may be skipped ends, until it is asked again."""
        if not self._sources[step.source].skippable:
            self.down[step.source] = Failure(
                Exit.SOURCE_DOWN,
                f"source {step.source}: {step.message}; check the address and run again later (every page that arrived "
                "is kept), or set when_down: skip on this source to go on without it",
            )
            return
        shards = snapshot.finished(self._ledger, step.source)
        kept = snapshot.pages(self._ledger, step.source, shards)
        if kept:
            counts = [kept[-1].detail["announced"], *self._cut(step.source)[shards : shards + 1]]
            announced = max((count for count in counts if count is not None), default=None)
            self._shard(step.source, shards, announced, step.message)
        self._source(step.source, shards + bool(kept), step.message)
