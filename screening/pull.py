"""Sources -> pages -> the immutable snapshot.

Enters: a source of the config. Leaves: `Page`s, committed one by one under `snapshot/<source>/`. A pull that is run
again keeps finished sources and begins the unfinished one anew: servers need not page the same way twice.
It does not know Ray: both runners call `read`, and only the driver commits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from screening.config import Campaign, FileSource, OptimadeSource, PrototypeSource
from screening.exits import Exit, Failure, one_line
from screening.ledger import Ledger
from sources.crystals import Crystals
from sources.quarantine import Quarantined

if TYPE_CHECKING:
    import pyarrow as pa

    from sources.optimade import Query
    from sources.providers import Provider

log = logging.getLogger(__name__)
BLOCK = 4096
"""Crystals per snapshot page where the source has no pages of its own."""


@dataclass(frozen=True)
class Page:
    """What one step of a source delivered."""

    crystals: pa.Table
    quarantined: list[Quarantined]
    received: int
    """Rows the source sent: crystals and refused rows."""
    announced: int | None = None
    """Rows the source says match, where it says so."""
    shortfall: str = ""
    """On the last page: what is missing from what was announced."""
    detail: dict[str, Any] = field(default_factory=dict)
    """Provenance: url and sha256 of the reply."""


@dataclass(frozen=True)
class Down:
    """The source stopped answering."""

    message: str


@dataclass(frozen=True)
class Job:
    """One source that is not finished."""

    name: str
    source: OptimadeSource | FileSource | PrototypeSource
    host: str
    """Jobs of one host run one after the other: the host's rate limit is never multiplied."""


def jobs(ledger: Ledger, campaign: Campaign) -> list[Job]:
    """The sources that are not finished yet."""
    todo = {n: s for n, s in campaign.named_sources().items() if ledger.find("source", n) is None}
    return [Job(n, s, s.provider if isinstance(s, OptimadeSource) else n) for n, s in todo.items()]


def read(job: Job) -> Iterator[Page]:
    """The pages of one source.

    Raises:
        ConnectionError: when the source is down or refuses.
    """
    if isinstance(job.source, OptimadeSource):
        yield from _read_optimade(job.source)
    elif isinstance(job.source, FileSource):
        yield from _read_files(job.source)
    else:
        yield from _read_prototypes(job.source)


def events(todo: Iterable[Job]) -> Iterator[tuple[str, Page | Down | None]]:
    """(source, page) for every page, then (source, None), or (source, Down) where it stopped answering."""
    for job in todo:
        end: Down | None = None
        try:
            for page in read(job):
                yield job.name, page
        except ConnectionError as error:
            end = Down(one_line(error))
        yield job.name, end


class Journal:
    """Commits what `events` yields, source by source."""

    def __init__(self, ledger: Ledger, todo: list[Job]) -> None:
        self._ledger = ledger
        self._jobs = {job.name: job for job in todo}
        self._pages = dict.fromkeys(self._jobs, 0)
        self._received = dict.fromkeys(self._jobs, 0)
        self._announced: dict[str, int | None] = dict.fromkeys(self._jobs)
        self._shortfall = dict.fromkeys(self._jobs, "")

    def page(self, name: str, page: Page) -> None:
        """Commit one page; it replaces the page of the same number of an earlier, unfinished attempt."""
        from sources import table

        key = f"{name}/{self._pages[name]:06d}"
        tables = {f"snapshot/{key}.parquet": page.crystals}
        if page.quarantined:
            tables[f"snapshot/{key}.quarantine.parquet"] = table.quarantine_table(page.quarantined)
        counts = {"received": page.received, "quarantined": len(page.quarantined)}
        pulled = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._ledger.commit("page", key, tables, counts, {**page.detail, "pulled": pulled})
        self._pages[name] += 1
        self._received[name] += page.received
        self._announced[name] = page.announced if page.announced is not None else self._announced[name]
        self._shortfall[name] = page.shortfall

    def end(self, name: str, down: Down | None = None) -> None:
        """Close a source: finished, or down.

        Raises:
            Failure: when it is down and the config does not say to skip it.
        """
        source, received = self._jobs[name].source, self._received[name]
        if down is not None and not (isinstance(source, OptimadeSource) and source.when_down == "skip"):
            raise Failure(
                Exit.SOURCE_DOWN,
                f"source {name}: {down.message}; check the address and run again later (finished sources are kept), or "
                "set when_down: skip on this source to go on without it",
            )
        missing = down.message if down else self._shortfall[name]
        if missing:
            log.warning("source %s is incomplete after %d rows: %s", name, received, missing)
        detail = {"expected": self._expected(name), "complete": not missing, "error": missing}
        self._ledger.commit("source", name, {}, {"pages": self._pages[name], "received": received}, detail)

    def _expected(self, name: str) -> int | None:
        announced, source = self._announced[name], self._jobs[name].source
        limit = source.max_entries if isinstance(source, OptimadeSource) else None
        return announced if announced is None or limit is None else min(announced, limit)


def _read_files(source: FileSource) -> Iterator[Page]:
    from sources import files

    for path in source.paths:
        crystals, quarantined = files.read(Path(path))
        yield from _blocks(crystals, quarantined)


def _read_prototypes(source: PrototypeSource) -> Iterator[Page]:
    from sources import prototypes

    crystals = prototypes.generate(source.n, source.seed, source.prototypes, source.elements)
    if len(crystals) < source.n:
        log.warning("only %d of %d hypothetical crystals exist for this choice", len(crystals), source.n)
    yield from _blocks(crystals, [])


def _blocks(crystals: Crystals, quarantined: list[Quarantined]) -> Iterator[Page]:
    from sources import table

    for start in range(0, max(len(crystals), 1), BLOCK):
        block = crystals[start : start + BLOCK]
        bad = quarantined if start == 0 else []
        yield Page(table.to_table(block), bad, len(block) + len(bad))


def _read_optimade(source: OptimadeSource) -> Iterator[Page]:
    from sources import optimade, table

    provider, query = resolve(source)
    with optimade.connect(provider) as client:
        for page in optimade.pages(client, query, provider):
            shortfall = ""
            if page.end is not None and not page.complete:
                announced = "an unknown number of" if page.data_returned is None else page.data_returned
                shortfall = f"{page.missing} of {announced} announced rows are missing ({page.end})"
            yield Page(
                table.to_table(page.crystals),
                page.quarantined,
                page.n_entries,
                page.data_returned,
                shortfall,
                {"url": page.url, "sha256": page.sha256},
            )


def resolve(source: OptimadeSource) -> tuple[Provider, Query]:
    """The provider and the query that a source of the config stands for; `name:` of the source renames a bare URL."""
    from sources import optimade, providers

    renamed = source.name if "://" in source.provider else None
    provider = providers.resolve(source.provider, id=renamed)
    return provider, optimade.Query(source.filter, page_limit=source.page_limit, max_entries=source.max_entries)


def announced(source: OptimadeSource) -> int | None:
    """How many rows a source says match, without pulling them."""
    from sources import optimade

    provider, query = resolve(source)
    with optimade.connect(provider) as client:
        return optimade.announced(client, query, provider)
