"""The kind `aflux`: crystals of AFLOW over AFLUX, its own search language.

Enters: a matchbook. Leaves: pages of one shard. AFLUX works when the OPTIMADE server of AFLOW does
not. This module does not know how it is spoken (`assay.sources.databases.aflux`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

from assay.screening.pulling.database import DatabaseSource, Reader, at
from assay.sources.databases import aflux
from assay.sources.databases.pace import Pace
from assay.sources.databases.paging import Shard
from assay.sources.databases.providers import Provider


class AfluxSource(DatabaseSource):
    """Crystals of AFLOW over AFLUX, its own search language."""

    kind: Literal["aflux"]
    matchbook: str
    """AFLUX matchbook without directives, for example species(Nb,Sn),nspecies(2)."""
    endpoint: str | None = None
    """Another server that speaks the same dialect; unset: aflow.org."""

    def stem(self) -> str:
        """The provider id of AFLOW."""
        return "aflow"

    def database(self) -> Provider:
        """AFLOW as AFLUX answers, or the server at `endpoint`."""
        return at(aflux.PROVIDER, self.endpoint)

    def check_query(self) -> None:
        """Refuse a matchbook with directives."""
        self._query()

    @contextmanager
    def connect(self, pace: Pace | None) -> Iterator[Reader]:
        """Open the server; the query is one shard."""
        query = self._query()
        with aflux.connect(self.database(), pace=pace) as client:
            yield Reader(
                split=lambda: [Shard(self.matchbook, aflux.announced(client, query))],
                walk=lambda part, resume: aflux.pages(client, replace(query, matchbook=part), resume),
                count=lambda: aflux.announced(client, query),
            )

    def _query(self) -> aflux.AfluxQuery:
        return aflux.AfluxQuery(self.matchbook, self.page_limit, self.max_entries)
