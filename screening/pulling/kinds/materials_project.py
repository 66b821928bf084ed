"""The kind `materials-project`: crystals of the Materials Project over its own API.

Enters: criteria and a key by reference. Leaves: pages of one shard. This module does not know the
API (`assay.sources.databases.materials_project`), which serves more than OPTIMADE does: band gap,
is_stable.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import Field

from assay.screening.pulling.database import DatabaseSource, Reader, at
from assay.screening.settings.secrets import Secret
from assay.sources.databases import materials_project
from assay.sources.databases.mp_query import MPQuery
from assay.sources.databases.pace import Pace
from assay.sources.databases.paging import Shard
from assay.sources.databases.providers import Provider


class MaterialsProjectSource(DatabaseSource):
    """Crystals of the Materials Project over its own API."""

    neutral = DatabaseSource.neutral | {"key"}

    kind: Literal["materials-project"]
    criteria: Annotated[dict[str, Any], Field(min_length=1)]
    """The query in the words of mp-api: band_gap: [0.5, 2.0], is_stable: true, elements: [Nb,
    Sn]."""
    key: Secret = Secret(env="MP_API_KEY")
    """The API key by reference."""
    endpoint: str | None = None
    """Another server that speaks the same dialect; unset: the Materials Project."""

    def stem(self) -> str:
        """The provider id of the Materials Project."""
        return "mp"

    def database(self) -> Provider:
        """The Materials Project as its own API answers, or the server at `endpoint`."""
        return at(materials_project.answering(MPQuery(self.criteria)), self.endpoint)

    def check_query(self) -> None:
        """Refuse criteria that the API would pass over in silence."""
        MPQuery(self.criteria)

    @contextmanager
    def connect(self, pace: Pace | None) -> Iterator[Reader]:
        """Open the API; the query is one shard."""
        query = MPQuery(self.criteria, page_limit=self.page_limit, max_entries=self.max_entries)
        key = self.key.read()

        def count() -> int | None:
            return materials_project.count(query, key, self.endpoint, pace=pace)

        yield Reader(
            split=lambda: [Shard("", count())],
            walk=lambda _, resume: materials_project.pages(query, key, self.endpoint, resume, pace=pace),
            count=count,
            secrets=(key,),
        )
