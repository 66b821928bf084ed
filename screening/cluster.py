"""The Ray runner: source actors that pull, worker actors that hold the ensembles and score. Only this file knows Ray.

Enters: jobs and chunks. Leaves: the same events and parts, in the same form, as `screening.local`. Only tables cross
the boundary, one chunk is in flight per worker, and this driver owns every retry: Ray's own would repeat a poisonous
chunk for ever. Actors take no CPU from Ray (CPU-holding actors deadlock small machines); the pool size bounds them.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from screening import pull
from screening.local import ScoreChunk
from screening.pull import Down, Job, Page
from screening.snapshot import Chunk
from screening.worker import Part
from sources.quarantine import Quarantined, Reason, Stage

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)
OBJECT_STORE_BYTES = 256 << 20
STALL_S = 900.0
"""A worker that is silent for so long counts as dead."""


class SourceActor:
    """Pulls the sources of one host, one page per call."""

    def __init__(self, jobs: list[Job]) -> None:
        self._events = pull.events(jobs)

    def next(self) -> tuple[str, Page | Down | None] | None:
        """The next event; None after the last."""
        return next(self._events, None)


class WorkerActor:
    """Holds the loaded ensembles and scores one chunk per call."""

    def __init__(self, load: Callable[[], ScoreChunk]) -> None:
        self._load = load
        self._score: ScoreChunk | None = None

    def ready(self) -> int:
        """Load the ensembles; the process id."""
        self._score = self._score or self._load()
        return os.getpid()

    def score(self, chunk: pa.Table) -> Part:
        """Score one chunk."""
        self.ready()
        assert self._score is not None
        return self._score(chunk)


class ClusterRunner:
    """Runs the work on Ray: a cluster by address, the one around this job, or one started in this process."""

    def __init__(
        self,
        load: Callable[[], ScoreChunk],
        *,
        workers: int | None = None,
        address: str | None = None,
        stall_s: float = STALL_S,
    ) -> None:
        address = address or os.environ.get("RAY_ADDRESS")
        self._ray = _import_ray(local=address is None)
        self._owned = _connect(self._ray, address, workers)
        self._load = load
        self._workers = workers or max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        self._stall_s = stall_s
        self._spare: Any = None

    def close(self) -> None:
        """Leave the cluster; a cluster that was started here ends."""
        if self._owned:
            self._ray.shutdown()

    def pull(self, jobs: Iterable[Job]) -> Iterator[tuple[str, Page | Down | None]]:
        """One actor per host; each fetches its next page while the driver commits the one before."""
        flying = {}
        for _, found in groupby(sorted(jobs, key=lambda job: job.host), key=lambda job: job.host):
            group = list(found)
            actor = self._actor(SourceActor, group)
            flying[actor.next.remote()] = (actor, deque(group))
        while flying:
            done, _ = self._ray.wait(list(flying), num_returns=1)
            actor, left = flying.pop(done[0])
            try:
                event = self._get(done[0])
            except self._deaths() as error:
                log.warning("the process that pulls %s died: %s", left[0].host, str(error).splitlines()[0])
                yield from ((job.name, Down("the process that pulls it died")) for job in left)
                continue
            if event is None:
                continue
            if not isinstance(event[1], Page):
                left.popleft()
            flying[actor.next.remote()] = (actor, left)
            yield event

    def score(
        self, chunks: Iterable[Chunk], read: Callable[[Chunk], pa.Table], stopped: Callable[[], bool]
    ) -> Iterator[tuple[Chunk, Part]]:
        """Chunks in order of completion, one in flight per worker."""
        todo = deque(chunks)
        idle = [self._worker() for _ in range(min(self._workers, len(todo)))]
        flying: dict[Any, tuple[Any, Chunk]] = {}
        while flying or (todo and not stopped()):
            while idle and todo and not stopped():
                actor, chunk = idle.pop(), todo.popleft()
                flying[actor.score.remote(read(chunk))] = (actor, chunk)
            done, _ = self._ray.wait(list(flying), num_returns=1, timeout=self._stall_s)
            if not done:
                log.warning("no worker finished a chunk in %.0f s: ending %d workers", self._stall_s, len(flying))
                for actor, _chunk in flying.values():
                    self._ray.kill(actor)
                continue
            actor, chunk = flying.pop(done[0])
            try:
                part = self._get(done[0])
            except self._deaths() as error:
                log.warning("a worker died on chunk %s: %s", chunk.name, str(error).splitlines()[0])
                part = self._rescue(read(chunk))
                actor, self._spare = self._spare, None  # the one that succeeded last
            idle.append(actor)
            yield chunk, part

    def _rescue(self, table: pa.Table) -> Part:
        """Score a chunk whose worker died: once more alone, then without the crystals that kill workers."""
        part = self._attempt(table)
        if part is not None:
            return part
        guilty = self._guilty(table, list(range(table.num_rows)))
        if not guilty:
            return self._halves(table)
        ids = table["id"].to_pylist()
        log.warning("quarantined crystals that kill workers: %s", ", ".join(ids[row] for row in guilty))
        rest = [row for row in range(table.num_rows) if row not in set(guilty)]
        part = self._rescue(table.take(rest))  # all innocents in one batch: their bits depend on the data alone
        return Part(part.table, [*(_died(table, row) for row in guilty), *part.quarantined])

    def _guilty(self, table: pa.Table, rows: list[int]) -> list[int]:
        """Rows that kill a worker on their own, found by bisection among rows that killed one together."""
        if len(rows) == 1:
            return rows
        halves = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        return [row for half in halves if self._attempt(table.take(half)) is None for row in self._guilty(table, half)]

    def _halves(self, table: pa.Table) -> Part:
        """Score in two steps what no worker survives in one, though each half is harmless: memory."""
        import pyarrow as pa

        middle = table.num_rows // 2
        parts = [self._rescue(table.slice(0, middle)), self._rescue(table.slice(middle))]
        return Part(pa.concat_tables([p.table for p in parts]), [q for p in parts for q in p.quarantined])

    def _attempt(self, table: pa.Table) -> Part | None:
        """Score on a worker that has nothing else to do; None when it died or stayed silent."""
        actor, self._spare = self._spare or self._worker(), None
        try:
            part: Part = self._get(actor.score.remote(table), timeout=self._stall_s)
        except (*self._deaths(), self._ray.exceptions.GetTimeoutError):
            self._ray.kill(actor)
            return None
        self._spare = actor
        return part

    def _worker(self) -> Any:
        return self._actor(WorkerActor, self._load)

    def _actor(self, kind: type, *arguments: Any) -> Any:
        remote = self._ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)(kind)
        return remote.remote(*arguments)

    def _get(self, reference: Any, timeout: float | None = None) -> Any:
        """The value; an exception of the worker function is raised as itself, as in the local runner."""
        try:
            return self._ray.get(reference, timeout=timeout)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error

    def _deaths(self) -> tuple[type[Exception], ...]:
        kinds = self._ray.exceptions
        return (kinds.RayActorError, kinds.WorkerCrashedError, kinds.OutOfMemoryError, kinds.ObjectLostError)


def _died(table: pa.Table, row: int) -> Quarantined:
    origin = table["origin"][row].as_py() if "origin" in table.column_names else ""
    message = "the worker process died each time it met this crystal, also alone"
    return Quarantined(table["id"][row].as_py(), origin, Stage.PREDICT, Reason.WORKER_DIED, message)


def _import_ray(*, local: bool) -> Any:
    # before the import: no uv environment for workers, no usage reports, and nobody without the token runs code here
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if local:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    import ray

    return ray


def _connect(ray: Any, address: str | None, workers: int | None) -> bool:
    """Join or start a cluster; True when leaving it is our task (which ends only a cluster that was started here)."""
    if ray.is_initialized():
        return False
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address:
        ray.init(address=address, **quiet)
        return True
    before = os.umask(0o077)  # the token file must not be readable by others
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            num_cpus=workers,
            object_store_memory=OBJECT_STORE_BYTES,
            **quiet,
        )
    finally:
        os.umask(before)
    return True
