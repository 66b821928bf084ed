"""The pull of a source on this machine: blocks in the order of the source.

Enters: the crystals that a kind reads or computes. Leaves: one shard per block of at most `BLOCK`
crystals, always cut at the same places; blocks that are kept already are passed over. This module
knows no server and no file format.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from assay.screening.pulling.source import Job, Source
from assay.screening.pulling.steps import Portion, ShardEnd, Sharding, SourceEnd, Step
from assay.screening.settings.exits import Exit, Failure
from assay.sources import table
from assay.sources.crystals import Crystals
from assay.sources.databases.pace import Pace
from assay.sources.quarantine import Quarantined

BLOCK = 4096
"""Crystals per shard where the source has no pages of its own."""


class LocalSource(Source):
    """A source that needs no server; a kind says what it reads."""

    @abstractmethod
    def read(self) -> Iterator[tuple[Crystals, list[Quarantined]]]:
        """Crystals and refused rows, the same ones in the same order every time."""

    def stamp(self) -> str:
        """Digest of the content that is read; empty where the keys of the config decide it."""
        return ""

    def pull(self, job: Job, pace: Pace | None) -> Iterator[Step]:  # noqa: ARG002 (nobody is asked, so nobody waits)
        """One shard per block.

        Raises:
            Failure: exit 78, when the content is not what the campaign began with.
        """
        sharding = Sharding(job.name, [], self.stamp())
        if job.sharding is None:
            yield sharding
        elif job.sharding.stamp != sharding.stamp:
            raise Failure(
                Exit.CONFIG,
                f"source {job.name} is not what this campaign began with (content {job.sharding.stamp[:12]}, now "
                f"{sharding.stamp[:12]}); put the old files back, or start again in a new --output folder",
            )
        number = -1
        for number, (crystals, bad) in enumerate(self._blocks()):
            if number > job.done or (number == job.done and not (job.kept and job.kept.whole)):
                content = table.to_table(crystals)
                yield Portion(job.name, number, 0, 0, content, bad, len(crystals) + len(bad))
            if number >= job.done:
                yield ShardEnd(job.name, number, None, "")
        yield SourceEnd(job.name, number + 1)

    def _blocks(self) -> Iterator[tuple[Crystals, list[Quarantined]]]:
        for crystals, bad in self.read():
            for start in range(0, max(len(crystals), 1), BLOCK):
                yield crystals[start : start + BLOCK], bad if start == 0 else []
