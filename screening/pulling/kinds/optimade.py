"""The kind `optimade`: crystals of one OPTIMADE server.

Enters: a provider and a filter. Leaves: pages, shard by shard. This module does not know how
OPTIMADE is spoken (`assay.sources.databases.optimade`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field

from assay.screening.pulling.database import DatabaseSource, Reader
from assay.screening.settings.secrets import Secret
from assay.sources.databases import optimade, providers, shards
from assay.sources.databases.filters import grammar
from assay.sources.databases.pace import Pace
from assay.sources.databases.providers import Provider

MAX_SHARD = 100_000
"""Entries per shard at most, where the server sets no limit of its own."""


class OptimadeSource(DatabaseSource):
    """Crystals of one OPTIMADE server."""

    neutral = DatabaseSource.neutral | {"headers"}

    kind: Literal["optimade"]
    provider: str
    """Provider id (mp, oqmd, alexandria, ...) or the base URL of any OPTIMADE server."""
    filter: str = ""
    """OPTIMADE filter; validated before the first request."""
    shard_size: Annotated[int, Field(ge=10, le=MAX_SHARD)] = 4000
    """Entries per shard: the database is pulled in disjoint parts of at most so many entries, where
    it can be cut."""
    headers: dict[str, Secret] = {}
    """HTTP headers by reference, for example X-API-KEY: {env: MY_KEY}; sent to this server only."""

    def stem(self) -> str:
        """The provider id, or the host of a base URL."""
        if "://" not in self.provider:
            return self.provider
        host = self.provider.partition("://")[2]
        return "".join(char if char.isalnum() else "-" for char in host).strip("-")[:60] or "optimade"

    def database(self) -> Provider:
        """The provider; a server given by its URL is called by the `name` of the source."""
        return providers.resolve(self.provider, id=self.name if "://" in self.provider else None)

    def check_query(self) -> None:
        """Refuse a filter that is not OPTIMADE, or that this provider answers wrongly."""
        grammar.validate_filter(self.filter)
        grammar.check_dialect(self.database(), self.filter)

    @contextmanager
    def connect(self, pace: Pace | None) -> Iterator[Reader]:
        """Open the server, with the headers of the config."""
        asked = self.database()
        query = optimade.Query(self.filter, page_limit=self.page_limit, max_entries=self.max_entries)
        most = min(self.shard_size, asked.max_window or MAX_SHARD)
        headers = {name: secret.read() for name, secret in self.headers.items()}
        with optimade.connect(asked, headers or None, pace) as client:
            yield Reader(
                split=lambda: shards.split(client, query, asked, most),
                walk=lambda part, resume: optimade.pages(client, replace(query, shard_filter=part), asked, resume),
                count=lambda: optimade.announced(client, query, asked),
                secrets=tuple(headers.values()),
            )
