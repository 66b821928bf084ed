"""Sources -> shards -> pages: what the pull of one host does, and how the driver keeps it.

Enters: sources of the config and what the ledger already holds of them. Leaves: steps (planned,
page, shard, source), committed one by one under `snapshot/<source>/`. A pull that is run again goes
on behind the last committed page. It does not know Ray: both runners call `events`, and only the
driver commits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from assay.screening.pulling import readers
from assay.screening.pulling.readers import Expired, Piece, Shard
from assay.screening.settings.config import DatabaseSource, FileSource, PrototypeSource, Source
from assay.screening.settings.exits import Exit, Failure, one_line

if TYPE_CHECKING:
    from assay.sources.databases.pace import Pace
    from assay.sources.databases.paging import Resume

log = logging.getLogger(__name__)
MAX_WALKS = 3
"""Times a shard may begin again because its server forgot the way."""
COOL_DOWN_S = 20.0
"""First pause before a source that stopped answering is asked again; it doubles up to ten
minutes."""


@dataclass(frozen=True)
class Planned:
    """A source was cut into shards, once and for good."""

    source: str
    shards: list[Shard]
    """Empty where the shards show only as they are read (files, prototypes)."""
    stamp: str = ""
    """What the source read, by content; a pull that goes on must read the same."""


@dataclass(frozen=True)
class Page:
    """What one request, or one block of a file, delivered."""

    source: str
    shard: int
    walk: int
    """Counts the walks through this shard: a walk that has to begin again replaces the pages of the
    one before."""
    number: int
    """Position in the walk, from 0."""
    piece: Piece


@dataclass(frozen=True)
class ShardEnd:
    """Every page of a shard has been delivered."""

    source: str
    shard: int
    announced: int | None
    shortfall: str
    """What is missing from what was announced; empty when nothing is."""


@dataclass(frozen=True)
class SourceEnd:
    """Every shard of a source has been delivered."""

    source: str
    shards: int


@dataclass(frozen=True)
class Down:
    """The source stopped answering."""

    source: str
    message: str


Step = Planned | Page | ShardEnd | SourceEnd | Down


@dataclass(frozen=True)
class Job:
    """One source that is not finished, and how far it is."""

    name: str
    source: Source
    host: str
    """Jobs of one host run one after the other: the host's rate limit is never multiplied."""
    plan: Planned | None = None
    done: int = 0
    """Shards delivered whole; they are the first ones."""
    kept: Kept | None = None
    """Pages of the shard after these."""
    delivered: bool = False
    """Some page has arrived: a later silence is an outage to wait out, not a wrong address."""


@dataclass
class Kept:
    """The pages of an unfinished shard that are kept already."""

    walk: int = 0
    announced: int | None = None
    shortfall: str = ""
    cursors: list[dict[str, Any] | None] = field(default_factory=list)
    """Where the walk went on after each page; None after its last one."""
    seen: list[str] = field(default_factory=list)
    """Ids of every row, good or refused."""

    @property
    def whole(self) -> bool:
        """Whether the last page is among them."""
        return bool(self.cursors) and self.cursors[-1] is None

    def resume(self) -> Resume | None:
        """What the reader needs to go on; None at the start."""
        from assay.sources.databases.paging import Resume

        cursors = [cursor for cursor in self.cursors if cursor is not None]
        return Resume.after(cursors, set(self.seen)) if cursors else None

    def add(self, piece: Piece) -> None:
        """Remember one more page."""
        ids = [*piece.crystals["id"].to_pylist(), *(row.id for row in piece.quarantined)]
        self.restore({"cursor": piece.cursor, "announced": piece.announced, "shortfall": piece.shortfall}, ids)

    def restore(self, detail: dict[str, Any], ids: list[str]) -> None:
        """Remember one more page as the ledger keeps it."""
        self.cursors.append(detail["cursor"])
        self.announced = detail["announced"] if detail["announced"] is not None else self.announced
        self.shortfall = detail["shortfall"]
        self.seen += ids


def events(jobs: Iterable[Job], pace: Pace | None = None) -> Iterator[Step]:
    """The steps of some sources of one host, one source after the other; `pace` is the host's."""
    for job in jobs:
        try:
            source = job.source
            yield from _remote(job, source, pace) if isinstance(source, DatabaseSource) else _local(job, source)
        except ConnectionError as error:
            yield Down(job.name, one_line(error))


def _remote(job: Job, source: DatabaseSource, pace: Pace | None) -> Iterator[Step]:
    with readers.connect(source, pace) as reader:
        plan = job.plan or Planned(job.name, reader.shards())
        if job.plan is None:
            yield plan
        delivered = job.delivered
        for number in range(job.done, len(plan.shards)):
            kept = job.kept if job.kept is not None and number == job.done else Kept()
            left_s = _patience(job) if delivered else 0.0
            yield from _shard(job, number, reader, plan.shards[number], kept, left_s)
            delivered = True
        yield SourceEnd(job.name, len(plan.shards))


def _shard(
    job: Job, number: int, reader: readers.Reader, shard: Shard, kept: Kept, left_s: float
) -> Iterator[Page | ShardEnd]:
    """The rest of one shard. A source that falls silent is asked again after a pause, while `left_s` lasts."""
    cool_down = COOL_DOWN_S
    while not kept.whole:
        try:
            for piece in reader.pages(shard, kept.resume()):
                yield Page(job.name, number, kept.walk, len(kept.cursors), piece)
                kept.add(piece)
                left_s, cool_down = _patience(job), COOL_DOWN_S
        except Expired as error:
            if kept.walk >= MAX_WALKS:
                raise ConnectionError(one_line(error)) from None
            log.warning("source %s, shard %d: %s; it begins again", job.name, number, one_line(error))
            kept = Kept(walk=kept.walk + 1)
        except ConnectionError as error:
            if cool_down > left_s:
                raise
            log.warning("source %s: %s; asked again in %.0f s", job.name, one_line(error), cool_down)
            time.sleep(cool_down)
            left_s, cool_down = left_s - cool_down, min(2 * cool_down, 600.0)
    yield ShardEnd(job.name, number, kept.announced, kept.shortfall)


def _patience(job: Job) -> float:
    return job.source.patience_s if isinstance(job.source, DatabaseSource) else 0.0


def _local(job: Job, source: FileSource | PrototypeSource) -> Iterator[Step]:
    """Files and prototypes: blocks in the order of the source; blocks that are kept already are passed over."""
    plan = Planned(job.name, [], readers.stamp(source))
    if job.plan is None:
        yield plan
    elif job.plan.stamp != plan.stamp:
        raise Failure(
            Exit.CONFIG,
            f"source {job.name} is not what this campaign began with (content {job.plan.stamp[:12]}, now "
            f"{plan.stamp[:12]}); put the old files back, or start again in a new --output folder",
        )
    number = -1
    for number, piece in enumerate(readers.blocks(source)):
        if number > job.done or (number == job.done and not (job.kept and job.kept.whole)):
            yield Page(job.name, number, 0, 0, piece)
        if number >= job.done:
            yield ShardEnd(job.name, number, None, "")
    yield SourceEnd(job.name, number + 1)


def hosts(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs grouped by host, in config order."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.host, []).append(job)
    return list(groups.values())
