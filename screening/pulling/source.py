"""A source of a campaign, and how far its pull is.

Enters: the `sources` section of a config. Leaves: `Source`s, which answer every question that
depends on their kind, and `Job`s. This module knows no kind: `assay.screening.settings.sources`
lists the kinds, `assay.screening.pulling.kinds` holds one file per kind.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

from assay.screening.pulling.steps import Kept, Sharding, Step
from assay.screening.settings.config import Campaign
from assay.screening.settings.sources import SourceSection
from assay.sources.databases.pace import Pace


@dataclass(frozen=True)
class Provenance:
    """Where the crystals of a source come from, for the report."""

    title: str
    licence: str
    """SPDX identifier, `unknown`, or `none needed`."""
    functional: str = ""
    """Density functionals behind the reported energies and gaps, separated by semicolons."""


class Source(SourceSection, ABC):
    """One source of a campaign: its section of the config, and everything that its kind decides.

    Its fields are the keys that a config may set. A kind derives from `DatabaseSource` or
    `LocalSource`, which know how to pull.
    """

    neutral: ClassVar[frozenset[str]] = frozenset({"name"})
    """Keys that change no number: the fingerprint leaves them out."""

    @abstractmethod
    def check(self, licences: Sequence[str], *, begun: bool) -> None:
        """Refuse, before the first request, everything that cannot be pulled.

        `licences` are those that the campaign accepts; `begun` says that its folder exists already.

        Raises:
            ValueError: one line with the wrong value and the accepted ones.
        """

    @abstractmethod
    def describe(self) -> list[str]:
        """Lines for --dry-run; a database is asked how many rows match."""

    @abstractmethod
    def provenance(self) -> Provenance:
        """Where the crystals come from."""

    @abstractmethod
    def pull(self, job: Job, pace: Pace | None) -> Iterator[Step]:
        """Deliver the rows that `job` still lacks; `pace` is the rate limit of the host.

        Raises:
            ConnectionError: when the source is down or refuses.
        """

    def reports(self) -> frozenset[str] | None:
        """The names of the columns that rows can have; None where only reading shows them."""
        return None

    def probe(self) -> None:
        """Ask the server, if there is one, whether it answers.

        Raises:
            ConnectionError: when it is down or refuses.
        """

    def content(self) -> dict[str, str]:
        """Name of each file that is read -> start of its sha256; empty where no file is read."""
        return {}

    def tables(self) -> list[Path]:
        """The Parquet files that are read; their columns are compared before anything is read."""
        return []

    def host(self, name: str) -> str:
        """The machine that is asked, or `name`; sources of one host are pulled in turn."""
        return name

    def fingerprint(self) -> str:
        """The keys that change a number, as text."""
        return json.dumps(self.model_dump(mode="json", exclude=set(self.neutral)), sort_keys=True)

    @property
    def remote(self) -> bool:
        """Whether a server is asked."""
        return False

    @property
    def needs_licence(self) -> bool:
        """Whether each row must be under a licence that the campaign accepts."""
        return False

    @property
    def wait_s(self) -> float:
        """S that the source may stay silent, once it has delivered, before it counts as down."""
        return 0.0

    @property
    def limit(self) -> int | None:
        """Most rows that are taken; None: all."""
        return None

    @property
    def skippable(self) -> bool:
        """Whether the campaign goes on without this source when it is down."""
        return False


@dataclass(frozen=True)
class Job:
    """One source that is not finished, and how far it is."""

    name: str
    source: Source
    host: str
    """Jobs of one host run one after the other: the host's rate limit is never multiplied."""
    sharding: Sharding | None = None
    done: int = 0
    """Shards delivered whole; they are the first ones."""
    kept: Kept | None = None
    """Portions of the shard after these."""
    delivered: bool = False
    """Some rows have arrived: a later silence is an outage to wait out, not a wrong address."""


def named(campaign: Campaign) -> dict[str, Source]:
    """Folder name under snapshot/ -> source, in config order."""
    return cast("dict[str, Source]", campaign.named_sources())  # every kind of the registry derives from Source
