"""The embedded runner: pulls and scores in this process, one thing after the other.

Enters: jobs and chunks. Leaves: the same events and parts, in the same form, as `screening.cluster`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

from screening import pull
from screening.pull import Down, Job, Page
from screening.snapshot import Chunk
from screening.worker import Part

if TYPE_CHECKING:
    import pyarrow as pa

ScoreChunk = Callable[["pa.Table"], Part]


class Runner(Protocol):
    """What a campaign asks of whoever runs its work."""

    def pull(self, jobs: Iterable[Job]) -> Iterator[tuple[str, Page | Down | None]]:
        """The events of `screening.pull.events`; those of one source come in order."""

    def score(
        self, chunks: Iterable[Chunk], read: Callable[[Chunk], pa.Table], stopped: Callable[[], bool]
    ) -> Iterator[tuple[Chunk, Part]]:
        """(chunk, part) for every chunk in any order; once `stopped` says so no further chunk is begun."""

    def close(self) -> None:
        """Release what the runner holds."""


class LocalRunner:
    """Folds the worker function over the chunks; `load` makes it, when the first chunk needs it."""

    def __init__(self, load: Callable[[], ScoreChunk]) -> None:
        self._load = load

    def pull(self, jobs: Iterable[Job]) -> Iterator[tuple[str, Page | Down | None]]:
        """One source after the other."""
        return pull.events(jobs)

    def score(
        self, chunks: Iterable[Chunk], read: Callable[[Chunk], pa.Table], stopped: Callable[[], bool]
    ) -> Iterator[tuple[Chunk, Part]]:
        """One chunk after the other."""
        score_chunk: ScoreChunk | None = None
        for chunk in chunks:
            if stopped():
                return
            score_chunk = score_chunk or self._load()
            yield chunk, score_chunk(read(chunk))

    def close(self) -> None:
        """Nothing to release."""
