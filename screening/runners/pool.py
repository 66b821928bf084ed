"""Processes on a cluster: who pulls, who works, who has died of what, how many there should be.

Enters: jobs and tasks, and a `Cluster` that can start a process and call it. Leaves: steps and
results in order of completion. Every worker has one task at most, so a death accuses one task only.
It does not know Ray.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

from assay.screening.pulling import pull
from assay.screening.pulling.pull import Down, Job, Step
from assay.screening.runners import rescue
from assay.screening.runners.runner import Done, Task, blame, merge
from assay.screening.settings.config import DatabaseSource, Ray
from assay.screening.settings.exits import Exit, Failure, one_line

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)
IDLE_S = 60.0
"""How long a worker above the least number may have nothing to do."""
DEATHS = 5
"""Processes in a row that may die over one host without a step in between."""
STARTS = 20
"""Workers in a row that may die before they are ready while nobody works; more is no accident."""
LOSSES = 3
"""Nodes that may be lost under one try before the try itself is suspected of ending them."""


class _Closed(BaseException):
    """Ends the thread of a rescue that nobody goes on with."""


class Rescue:
    """One rescue of one task: says which table to try, is told what became of it, until there is a result.

    `assay.screening.runners.rescue` calls what it tries; here the caller has other work to do
    meanwhile, so it runs in a thread that waits whenever the caller does not.
    """

    def __init__(self, task: Task, table: pa.Table) -> None:
        self.task = task
        self.result: Any = None
        """The result of the task, guilty crystals set apart; None until then."""
        self._error: BaseException | None = None
        self._wanted: SimpleQueue[pa.Table | None] = SimpleQueue()
        self._answers: SimpleQueue[Any] = SimpleQueue()
        threading.Thread(target=self._run, args=(table,), name=f"rescue-{task.key}", daemon=True).start()

    def wanted(self) -> pa.Table | None:
        """The table to try now, or None: the task is done. Call it once, then after every `answer`.

        Raises:
            Failure: no crystal is to blame.
        """
        table = self._wanted.get()
        if table is None and self._error is not None:
            raise self._error
        return table

    def answer(self, result: Any) -> None:
        """Tell the result of the try, None when the worker died."""
        self._answers.put(result)

    def close(self) -> None:
        """Give the task up."""
        self._answers.put(_Closed())

    def _run(self, table: pa.Table) -> None:
        kind = self.task.kind
        try:
            result, guilty = rescue.rescue(table, self._attempt, partial(merge, kind))
            self.result = blame(kind, table, result, guilty)
        except BaseException as error:  # noqa: BLE001 (raised again by `wanted`)
            self._error = error
        self._wanted.put(None)

    def _attempt(self, table: pa.Table) -> Any:
        self._wanted.put(table)
        answer = self._answers.get()
        if isinstance(answer, _Closed):
            raise answer
        return answer


@dataclass(frozen=True)
class Try:
    """A task, or a part of one that is being rescued, and the crystals to do it with."""

    task: Task
    table: pa.Table
    rescue: Rescue | None = None
    losses: int = 0
    """How often the node it was tried on was lost."""

    @staticmethod
    def first(task: Task) -> Any:
        """Read the crystals of a task; a suspect goes straight to its rescue."""
        plain = Try(task, task.read())
        return plain.suspected() if task.suspect else plain

    def suspected(self) -> Any:
        """The first try of the rescue of this task."""
        return self._next(Rescue(self.task, self.table))

    def after(self, result: Any) -> Try | Any:
        """What follows on a result, None for a death: another `Try`, or the result of the whole task."""
        if self.rescue is None:
            return self.suspected() if result is None else result
        self.rescue.answer(result)
        return self._next(self.rescue)

    def again(self) -> Try | None:
        """The same try, whose node was lost; None when that has happened too often to be chance."""
        return None if self.losses == LOSSES else Try(self.task, self.table, self.rescue, self.losses + 1)

    def close(self) -> None:
        """Give it up."""
        if self.rescue is not None:
            self.rescue.close()

    def _next(self, rescue: Rescue) -> Try | Any:
        table = rescue.wanted()
        return rescue.result if table is None else Try(self.task, table, rescue)


class Died(Exception):
    """The process that was called ended, or cannot be reached any more."""

    def __init__(self, message: str, *, with_node: bool) -> None:
        super().__init__(one_line(message))
        self.with_node = with_node
        """Its node, or the way to it, went and took it along."""


class Cluster(Protocol):
    """Starts and calls processes elsewhere."""

    def worker(self, present: Mapping[str, int]) -> tuple[Any, str]:
        """Ask for another worker and return at once: it, and the node it is meant for, if that is known.

        There may be no place for it yet. `present` says how many there are on each node.
        """

    def source(self, jobs: list[Job], *, remote: bool) -> Any:
        """Ask for another process that pulls the jobs of one host; `remote`, if that is another machine."""

    def call(self, process: Any, method: str, *arguments: Any) -> Any:
        """Begin a call, and return the reference of what it will give.

        Of a worker `ready`, which gives the id of its node, or `do`. Of one that pulls `next`,
        which gives the next step or None, or `silent_s` at the same time.
        """

    def arrived(self, refs: list[Any], wait_s: float) -> list[Any]:
        """Which calls are finished, after waiting so long for the first of them."""

    def get(self, ref: Any, node: str = "") -> Any:
        """The value of a finished call to a process, which is on that node.

        Raises:
            Died: the process is dead.
            Exception: what the call raised.
        """

    def end(self, process: Any) -> None:
        """End a process, started or not; what was called of it raises `Died`."""

    def room(self, node: str | None = None) -> float:
        """How many workers there is room for now, on all nodes or on one."""

    def describe(self) -> str:
        """What the cluster has."""


@dataclass(eq=False)
class _Member:
    """A worker."""

    worker: Any
    since: float
    """When it was asked for, began its task, or became idle."""
    node: str
    """Where it is, or is meant to be; empty if that is not known."""


class Workers:
    """A pool that grows and shrinks with what is to be done; empty until there is something."""

    def __init__(self, cluster: Cluster, settings: Ray, stall_s: float) -> None:
        self._cluster, self._settings, self._stall_s = cluster, settings, stall_s
        self.starting: dict[Any, _Member] = {}
        """Sign of life on the way -> who gives it."""
        self._idle: list[_Member] = []
        self.flying: dict[Any, tuple[_Member, Try]] = {}
        """Result on the way -> who makes it of what."""
        self.urgent: deque[Try] = deque()
        """What was tried before and comes first."""
        self._most = 0
        self._measure()
        self._deaths = 0  # of starting workers in a row
        self._alive = 0.0  # when there last was a worker, or nothing to do

    def begin(self, tasks: deque[Task]) -> None:
        """Give every idle worker something to do, and ask for more workers where that is not enough."""
        while self._idle and (self.urgent or tasks):
            attempt = self.urgent.popleft() if self.urgent else Try.first(tasks.popleft())
            member = self._idle.pop()
            member.since = time.monotonic()
            self.flying[self._cluster.call(member.worker, "do", attempt.task.kind, attempt.table)] = member, attempt
        waiting = len(tasks) + len(self.urgent)
        for _ in range(self._missing(waiting) if waiting else 0):
            worker, node = self._cluster.worker(self._present())
            self.starting[self._cluster.call(worker, "ready")] = _Member(worker, time.monotonic(), node)

    def _measure(self) -> None:
        self._most = self._settings.workers or int(self._cluster.room())

    def _present(self) -> Counter[str]:
        working = (member for member, _ in self.flying.values())
        return Counter(member.node for member in (*self._idle, *self.starting.values(), *working))

    def _missing(self, waiting: int) -> int:
        present = len(self.starting) + len(self._idle) + len(self.flying)
        return min(self._most, max(self._settings.min_workers, len(self.flying) + waiting)) - present

    def take(self, ref: Any) -> Iterator[Done]:
        """What a finished call brought."""
        if ref in self.starting:
            self._arrive(ref)
            return
        member, attempt = self.flying.pop(ref)
        try:
            result = self._cluster.get(ref, member.node)
        except Died as death:
            self._cluster.end(member.worker)
            self._measure()
            again = attempt.again() if death.with_node else None
            what = "its node died with a worker" if again else "a worker died"
            log.warning("%s on %s %s: %s", what, attempt.task.kind, attempt.task.key, death)
            follows = again or attempt.after(None)
        else:
            self._rest(member)
            follows = attempt.after(result)
        if isinstance(follows, Try):
            self.urgent.append(follows)
        else:
            yield Done(attempt.task, follows)

    def _rest(self, member: _Member) -> None:
        if self._settings.workers is None and self._present()[member.node] >= self._cluster.room(member.node):
            self._cluster.end(member.worker)  # a node was lost, or came: the next one starts where there is more room
            return
        member.since = time.monotonic()
        self._idle.append(member)

    def _arrive(self, ref: Any) -> None:
        member = self.starting.pop(ref)
        try:
            member.node = self._cluster.get(ref)
        except Died as death:
            self._cluster.end(member.worker)
            self._measure()
            self._deaths += not death.with_node
            log.warning("a worker died before it was ready: %s", death)
            if self._deaths >= STARTS and not (self._idle or self.flying):
                raise Failure(Exit.CONFIG, f"{self._deaths} workers in a row died before they were ready; is Assay "
                              f"installed on every node? {death!s:.500}") from death  # fmt: skip
            return
        self._deaths = 0
        member.since = self._alive = time.monotonic()
        self._idle.append(member)

    def watch(self, waiting: int) -> None:
        """Look who is silent or not needed, and complain when nobody can start; call it every now and then."""
        now, waiting = time.monotonic(), waiting + len(self.urgent)
        self._measure()
        for member, attempt in self.flying.values():
            if now - member.since > self._stall_s:
                log.warning("a worker is silent on %s %s since %.0f s: ended", attempt.task.kind, attempt.task.key,
                            now - member.since)  # fmt: skip
                self._cluster.end(member.worker)
        self._shrink(-self._missing(waiting), now - IDLE_S)
        if not waiting or self._idle or self.flying or not self._alive:
            self._alive = now
        elif now - self._alive > self._stall_s:
            ask = self._settings
            raise Failure(
                Exit.CONFIG,
                f"no worker could start within {self._stall_s:g} s: asked for {len(self.starting)} with {ask.cpus:g} "
                f"CPUs and {ask.gpus:g} GPUs each (ray.cpus, ray.gpus); the cluster has {self._cluster.describe()}, "
                "part of which others may hold; ask for less, or add nodes",
            )

    def _shrink(self, surplus: int, before: float) -> None:
        """End workers that have had nothing to do since then, those idle for longest first."""
        unused = sorted([*self._idle, *self.starting.values()], key=lambda member: member.since)
        leaving = [member for member in unused[: max(0, surplus)] if member.since < before]
        for member in leaving:
            self._cluster.end(member.worker)
        self._idle = [member for member in self._idle if member not in leaving]
        self.starting = {ref: member for ref, member in self.starting.items() if member not in leaving}

    def close(self) -> None:
        """End all workers."""
        for attempt in [*self.urgent, *(attempt for _, attempt in self.flying.values())]:
            attempt.close()
        for member in [*self._idle, *self.starting.values(), *(member for member, _ in self.flying.values())]:
            self._cluster.end(member.worker)


@dataclass
class _Pull:
    """The process that pulls from one host."""

    host: str
    actor: Any
    patience_s: float
    deaths: int
    """In a row, without a step in between."""
    heard: float
    """When it was last known to get on."""
    question: Any = None
    """Its answer to how long it has been silent, on the way."""


class Pulls:
    """One actor per host; each takes its next step while the driver commits the one before."""

    def __init__(
        self, cluster: Cluster, jobs: Callable[[], list[Job]], stopped: Callable[[], bool], stall_s: float
    ) -> None:
        self._cluster, self._jobs, self._stopped, self._stall_s = cluster, jobs, stopped, stall_s
        self.flying: dict[Any, _Pull] = {}
        """Step on the way -> who takes it."""
        for group in pull.hosts(jobs()):
            self._start(group, deaths=0)

    def _start(self, group: list[Job], deaths: int) -> None:
        patience = [job.source.patience_s for job in group if isinstance(job.source, DatabaseSource)]
        actor = self._cluster.source(group, remote=bool(patience))
        source = _Pull(group[0].host, actor, max(patience, default=0.0), deaths, time.monotonic())
        self.flying[self._cluster.call(actor, "next")] = source

    def take(self, ref: Any) -> Iterator[Step]:
        """What a finished call brought."""
        source = self.flying.pop(ref)
        try:
            step = self._cluster.get(ref)
        except Died as death:
            yield from self._died(source, death)
            return
        if step is None:
            self._cluster.end(source.actor)
            return
        source.deaths, source.heard = 0, time.monotonic()
        if not self._stopped():
            self.flying[self._cluster.call(source.actor, "next")] = source
        yield step

    def _died(self, source: _Pull, death: Died) -> Iterator[Step]:
        """Another process goes on behind the last page that is committed."""
        log.warning("the process that pulls from %s died: %s", source.host, death)
        self._cluster.end(source.actor)
        left = [job for job in self._jobs() if job.host == source.host]
        if left and source.deaths + 1 < DEATHS:
            self._start(left, source.deaths + 1)
            return
        for job in left:
            yield Down(job.name, f"the process that pulls it died {DEATHS} times in a row, at last: {death!s:.300}")

    def watch(self) -> None:
        """End who has been silent for longer than a source may be; call it every now and then."""
        for source in self.flying.values():
            if source.question is not None and self._cluster.arrived([source.question], 0.0):
                with suppress(Died):
                    source.heard = time.monotonic() - self._cluster.get(source.question)
                source.question = None
            silent, most = time.monotonic() - source.heard, source.patience_s + self._stall_s
            if silent > most:
                log.warning("the process that pulls from %s is silent since %.0f s: ended", source.host, silent)
                self._cluster.end(source.actor)
            elif silent > most / 4 and source.question is None:
                source.question = self._cluster.call(source.actor, "silent_s")

    def close(self) -> None:
        """End all; what they hold was not committed."""
        for source in self.flying.values():
            self._cluster.end(source.actor)
