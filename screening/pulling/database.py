"""The pull of a database: shard by shard, page by page, with patience for a silent server.

Enters: the connection that a kind opens. Leaves: one `Portion` per page; no message quotes a key. A
shard whose server forgot the way begins again. This module knows no protocol.
"""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from pydantic import Field

from assay.screening.pulling.source import Job, Provenance, Source
from assay.screening.pulling.steps import Kept, Portion, ShardEnd, Sharding, SourceEnd, Step
from assay.screening.settings.exits import one_line
from assay.screening.settings.secrets import redact
from assay.screening.settings.section import Count
from assay.sources import table
from assay.sources.databases import providers
from assay.sources.databases.pace import Pace
from assay.sources.databases.paging import CursorExpired, Page, Resume, Shard
from assay.sources.databases.providers import Provider

log = logging.getLogger(__name__)
MAX_WALKS = 3
"""Times a shard may begin again in one run because its server forgot the way."""
COOL_DOWN_S = 20.0
"""First pause before a source that stopped answering is asked again; it doubles up to
`MAX_COOL_DOWN_S`."""
MAX_COOL_DOWN_S = 600.0


@dataclass(frozen=True)
class Reader:
    """An open connection to one database; a reply that echoes a key is not quoted with it."""

    split: Callable[[], list[Shard]]
    walk: Callable[[str, Resume | None], Iterator[Page]]
    count: Callable[[], int | None]
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Values that no message may quote."""

    def shards(self) -> list[Shard]:
        """Disjoint parts of the query; the server is asked for counts only."""
        with self._redacted():
            return self.split()

    def announced(self) -> int | None:
        """Number of rows that match, without pulling them; None where the server does not say."""
        with self._redacted():
            return self.count()

    def pages(self, shard: Shard, resume: Resume | None) -> Iterator[Page]:
        """The pages of a shard, or those behind `resume`.

        Raises:
            CursorExpired: when the server no longer knows where to go on.
            ConnectionError: when the source is down or refuses.
        """
        with self._redacted():
            yield from self.walk(shard.filter, resume)

    @contextmanager
    def _redacted(self) -> Iterator[None]:
        try:
            yield
        except CursorExpired as error:
            raise CursorExpired(redact(str(error), self.secrets)) from None
        except ConnectionError as error:
            raise ConnectionError(redact(str(error), self.secrets)) from None


class DatabaseSource(Source):
    """A source behind a network; a kind says which database it is and how it is asked."""

    neutral = Source.neutral | {"when_down", "page_limit", "patience_s"}

    max_entries: Count | None = None
    """Stop after this many entries; unset: all that match."""
    page_limit: Count | None = None
    """Entries per page; unset: the size that suits the provider."""
    when_down: Literal["stop", "skip"] = "stop"
    """A dead server stops the campaign (exit 69, resumable), or is skipped and marks it incomplete
    (exit 3); the next run asks a skipped one again."""
    patience_s: Annotated[float, Field(ge=0)] = 300.0
    """s a source that has delivered before may stay silent before it counts as down."""

    @abstractmethod
    def database(self) -> Provider:
        """The database that is asked."""

    @abstractmethod
    def check_query(self) -> None:
        """Refuse a query that the database does not understand, or is known to answer wrongly.

        Raises:
            ValueError: one line with the wrong word.
        """

    @abstractmethod
    def connect(self, pace: Pace | None) -> AbstractContextManager[Reader]:
        """Open the database; secrets are looked up now."""

    @property
    def remote(self) -> bool:
        """A server is asked."""
        return True

    @property
    def needs_licence(self) -> bool:
        """A server on this machine is the user's own; rows of any other one need a licence."""
        return not self.database().local

    @property
    def wait_s(self) -> float:
        """S that the server may stay silent, once it has delivered."""
        return self.patience_s

    @property
    def limit(self) -> int | None:
        """Most rows that are taken."""
        return self.max_entries

    @property
    def skippable(self) -> bool:
        """Whether the config says so."""
        return self.when_down == "skip"

    def host(self, name: str) -> str:  # noqa: ARG002 (the server's name, not the source's)
        """The machine that is asked."""
        return self.database().host

    def check(self, licences: Sequence[str], *, begun: bool) -> None:  # noqa: ARG002 (a server is there or it is not)
        """Refuse a query that would be answered wrongly, and a licence that is not accepted."""
        database = self.database()
        self.check_query()
        if database.licence not in licences and self.needs_licence:
            raise ValueError(
                f"{database.title} is under the licence {database.licence!r}, which `licences` of this config "
                f"does not accept ({', '.join(licences)}); add it there if you may use it"
            )

    def describe(self) -> list[str]:
        """The number of rows that the server announces, and what to know about it."""
        with self.connect(None) as reader:
            count = reader.announced()
        taken = f", at most {self.max_entries:,} taken" if self.max_entries else ""
        lines = [f"{'unknown' if count is None else f'{count:,}'} rows announced{taken}"]
        caveat = self.database().caveat
        return [*lines, f"note that {caveat}"] if caveat else lines

    def probe(self) -> None:
        """Ask for the number of rows, which every kind of server can be asked for."""
        with self.connect(None) as reader:
            reader.announced()

    def provenance(self) -> Provenance:
        """Title, licence and functionals of the database."""
        database = self.database()
        functionals = sorted({item.functional for item in database.properties if item.functional})
        return Provenance(database.title, database.licence, "; ".join(functionals))

    def pull(self, job: Job, pace: Pace | None) -> Iterator[Step]:
        """The shards that are not done yet, from the page after the last one kept."""
        with self.connect(pace) as reader:
            sharding = job.sharding or Sharding(job.name, reader.shards())
            if job.sharding is None:
                yield sharding
            delivered = job.delivered
            for number in range(job.done, len(sharding.shards)):
                kept = job.kept if job.kept is not None and number == job.done else Kept()
                left_s = self.wait_s if delivered else 0.0
                yield from self._shard(job.name, number, reader, sharding.shards[number], kept, left_s)
                delivered = True
            yield SourceEnd(job.name, len(sharding.shards))

    def _shard(
        self, name: str, number: int, reader: Reader, shard: Shard, kept: Kept, left_s: float
    ) -> Iterator[Portion | ShardEnd]:
        """The rest of one shard; a silent server is asked again while `left_s` lasts."""
        cool_down, walks = COOL_DOWN_S, 0
        while not kept.whole:
            try:
                for page in reader.pages(shard, kept.resume()):
                    portion = _portion(page, name, number, kept.walk, len(kept.cursors))
                    yield portion
                    kept.add(portion)
                    left_s, cool_down = self.wait_s, COOL_DOWN_S
            except CursorExpired as error:
                walks += 1
                if walks > MAX_WALKS:
                    raise ConnectionError(one_line(error)) from None
                log.warning("source %s, shard %d: %s; it begins again", name, number, one_line(error))
                kept = Kept(walk=kept.walk + 1)
            except ConnectionError as error:
                if cool_down > left_s:
                    raise
                log.warning("source %s: %s; asked again in %.0f s", name, one_line(error), cool_down)
                time.sleep(cool_down)
                left_s, cool_down = left_s - cool_down, min(2 * cool_down, MAX_COOL_DOWN_S)
        yield self._end(name, number, shard, kept)

    def _end(self, name: str, number: int, shard: Shard, kept: Kept) -> ShardEnd:
        """The end of a shard; the count that cut the query is an announcement, too."""
        promised, announced, shortfall = shard.expected or 0, kept.announced, kept.shortfall
        if self.limit is not None:
            promised = 0 if len(kept.seen) >= self.limit else min(promised, self.limit)
        came = len(set(kept.seen))
        if promised > max(came, announced or 0):
            change = f"{promised} rows were announced when the query was cut, and {came} came"
            announced, shortfall = promised, f"{shortfall}; {change}" if shortfall else change
        return ShardEnd(name, number, announced, shortfall)


def at(known: Provider, endpoint: str | None) -> Provider:
    """A known database, or another server that speaks its dialect."""
    if endpoint is None:
        return known
    return replace(known, base_url=endpoint, local=providers.resolve(endpoint).local)


def _portion(page: Page, source: str, shard: int, walk: int, number: int) -> Portion:
    return Portion(
        source,
        shard,
        walk,
        number,
        table.to_table(page.crystals),
        page.quarantined,
        page.n_entries,
        announced=page.data_returned,
        shortfall=page.shortfall,
        cursor=page.cursor,
        detail={"url": page.url, "sha256": page.sha256},
    )
