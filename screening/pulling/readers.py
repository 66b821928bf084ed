"""One kind of source, one way to read it: shards of a database, blocks of files and prototypes.

Enters: a source of the config. Leaves: `Shard`s and `Piece`s, the same for every kind. It does not
know the ledger, nor in which process it runs.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.screening.settings.config import (
    AfluxSource,
    DatabaseSource,
    FileSource,
    MaterialsProjectSource,
    OptimadeSource,
    PrototypeSource,
    Source,
)
from assay.screening.settings.secrets import redact
from assay.sources import durable
from assay.sources.crystals import Crystals
from assay.sources.quarantine import Quarantined

if TYPE_CHECKING:
    import pyarrow as pa

    from assay.sources.databases.optimade import Query
    from assay.sources.databases.pace import Pace
    from assay.sources.databases.paging import Page, Resume
    from assay.sources.databases.providers import Provider

log = logging.getLogger(__name__)
MAX_SHARD = 100_000
BLOCK = 4096
"""Crystals per shard where the source has no pages of its own."""


class Expired(Exception):
    """The server no longer knows the address where this pull wanted to go on."""


@dataclass(frozen=True)
class Shard:
    """A disjoint part of a source."""

    filter: str
    expected: int | None
    """Rows the source announced when it was planned; None when it does not say."""


@dataclass(frozen=True)
class Piece:
    """What one page, or one block of a file, holds."""

    crystals: pa.Table
    quarantined: list[Quarantined]
    received: int
    """Rows the source sent: crystals and refused rows."""
    announced: int | None = None
    """Rows the source says match, where it says so."""
    shortfall: str = ""
    """On the last page: what is missing from what was announced."""
    cursor: dict[str, Any] | None = None
    """Where the walk goes on; None on its last page."""
    detail: dict[str, Any] = field(default_factory=dict)
    """Provenance: url and sha256 of the reply."""


@dataclass(frozen=True)
class Reader:
    """An open connection to one database."""

    shards: Callable[[], list[Shard]]
    """Disjoint parts of what was asked for; asks the server for counts only."""
    walk: Callable[[str, Resume | None], Iterator[Page]]
    """The pages that match a filter, or those behind `resume`."""
    announced: Callable[[], int | None]
    """How many rows match, without pulling them."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """What no message may quote, should a server echo it."""

    def pages(self, shard: Shard, resume: Resume | None) -> Iterator[Piece]:
        """The pages of a shard, or those behind `resume`.

        Raises:
            ConnectionError: when the source is down or refuses.
            Expired: when it no longer knows where to go on.
        """
        from assay.sources.databases.paging import CursorExpired

        try:
            for page in self.walk(shard.filter, resume):
                yield _piece(page)
        except CursorExpired as error:
            raise Expired(redact(str(error), self.secrets)) from None
        except ConnectionError as error:
            raise ConnectionError(redact(str(error), self.secrets)) from None


def provider(source: DatabaseSource) -> Provider:
    """The database that a source of the config names."""
    if isinstance(source, OptimadeSource):
        return resolve(source)[0]
    from assay.sources.databases import providers

    known = providers.resolve("aflow" if isinstance(source, AfluxSource) else "mp")
    endpoint = source.endpoint if isinstance(source, AfluxSource | MaterialsProjectSource) else None
    if endpoint is None:
        return known
    return replace(known, base_url=endpoint, local=providers.resolve(endpoint).local)


def host(source: Source, name: str) -> str:
    """The machine a source is read from; sources of one machine share its rate limit."""
    if isinstance(source, MaterialsProjectSource) and source.endpoint is None:
        return "api.materialsproject.org"
    return provider(source).host if isinstance(source, DatabaseSource) else name


def resolve(source: OptimadeSource) -> tuple[Provider, Query]:
    """The provider and the query that a source of the config stands for; `name:` of the source renames a bare URL."""
    from assay.sources.databases import optimade, providers

    renamed = source.name if "://" in source.provider else None
    found = providers.resolve(source.provider, id=renamed)
    return found, optimade.Query(source.filter, page_limit=source.page_limit, max_entries=source.max_entries)


@contextmanager
def connect(source: DatabaseSource, pace: Pace | None = None) -> Iterator[Reader]:
    """Open the database that a source of the config stands for; a reply that echoes a key is not quoted with it."""
    opened: AbstractContextManager[Reader]
    if isinstance(source, OptimadeSource):
        opened = _optimade(source, pace)
    elif isinstance(source, AfluxSource):
        opened = _aflux(source, pace)
    else:
        assert isinstance(source, MaterialsProjectSource)
        opened = _materials_project(source, pace)
    with opened as reader:
        try:
            yield reader
        except ConnectionError as error:
            raise ConnectionError(redact(str(error), reader.secrets)) from None


@contextmanager
def _optimade(source: OptimadeSource, pace: Pace | None) -> Iterator[Reader]:
    from assay.sources.databases import optimade, shards

    asked, query = resolve(source)
    headers = {name: secret.read() for name, secret in source.headers.items()}
    with optimade.connect(asked, headers or None, pace) as client:
        yield Reader(
            shards=lambda: [
                Shard(found.filter, found.expected)
                for found in shards.split(client, query, asked, min(source.shard_size, asked.max_window or MAX_SHARD))
            ],
            walk=lambda text, resume: optimade.pages(client, replace(query, shard_filter=text), asked, resume),
            announced=lambda: optimade.announced(client, query, asked),
            secrets=tuple(headers.values()),
        )


@contextmanager
def _aflux(source: AfluxSource, pace: Pace | None) -> Iterator[Reader]:
    from assay.sources.databases import aflux

    query = aflux.AfluxQuery(source.matchbook, source.page_limit, source.max_entries)
    asked = aflux.PROVIDER if source.endpoint is None else replace(
        aflux.PROVIDER, base_url=source.endpoint, local=provider(source).local)  # fmt: skip
    with aflux.connect(asked, pace=pace) as client:
        yield Reader(
            shards=lambda: [Shard(source.matchbook, aflux.announced(client, query))],
            walk=lambda text, resume: aflux.pages(client, replace(query, matchbook=text), resume),
            announced=lambda: aflux.announced(client, query),
        )


@contextmanager
def _materials_project(source: MaterialsProjectSource, pace: Pace | None) -> Iterator[Reader]:
    from assay.sources.databases import materials_project
    from assay.sources.databases.mp_query import MPQuery

    query = MPQuery(source.criteria, page_limit=source.page_limit, max_entries=source.max_entries)
    key = source.key.read()

    def count() -> int | None:
        return materials_project.count(query, key, source.endpoint, pace=pace)

    yield Reader(
        shards=lambda: [Shard("", count())],
        walk=lambda _, resume: materials_project.pages(query, key, source.endpoint, resume, pace=pace),
        announced=count,
        secrets=(key,),
    )


def _piece(page: Page) -> Piece:
    from assay.sources import table

    shortfall = ""
    if page.end is not None and not page.complete:
        announced = "an unknown number of" if page.data_returned is None else page.data_returned
        shortfall = f"{page.missing} of {announced} announced rows are missing ({page.end})"
    return Piece(
        table.to_table(page.crystals),
        page.quarantined,
        page.n_entries,
        page.data_returned,
        shortfall,
        page.cursor,
        {"url": page.url, "sha256": page.sha256},
    )


def blocks(source: FileSource | PrototypeSource) -> Iterator[Piece]:
    """Files and prototypes as blocks of at most `BLOCK` crystals, always cut at the same places."""
    from assay.sources import prototypes
    from assay.sources.files import reading

    if isinstance(source, FileSource):
        for path in source.paths:
            yield from _cut(*reading.read(Path(path)))
        return
    crystals = prototypes.generate(source.n, source.seed, source.prototypes, source.elements)
    if len(crystals) < source.n:
        log.warning("only %d of %d hypothetical crystals exist for this choice", len(crystals), source.n)
    yield from _cut(crystals, [])


def _cut(crystals: Crystals, quarantined: list[Quarantined]) -> Iterator[Piece]:
    from assay.sources import table

    for start in range(0, max(len(crystals), 1), BLOCK):
        block = crystals[start : start + BLOCK]
        bad = quarantined if start == 0 else []
        yield Piece(table.to_table(block), bad, len(block) + len(bad))


def stamp(source: FileSource | PrototypeSource) -> str:
    """Digest of the content of the files that are read, names aside; empty for prototypes, which have none."""
    if not isinstance(source, FileSource):
        return ""
    digest = hashlib.sha256()
    for path in map(Path, source.paths):
        for file in sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]:
            digest.update(durable.sha256(file).encode())
    return digest.hexdigest()
