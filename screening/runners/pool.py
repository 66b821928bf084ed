"""Workers on a cluster: which unit each has, which has died of what, how many there should be.

Enters: units of work, and a `Cluster` that can start a process and call it. Leaves: results in
order of completion. Every worker has one unit at most, so a death accuses one unit only. It does
not know Ray.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from assay.screening.runners.remote import Cluster, Died
from assay.screening.runners.rescue import Tries, rescued
from assay.screening.runners.runner import Done, Unit
from assay.screening.settings.config import Ray
from assay.screening.settings.exits import Exit, Failure

log = logging.getLogger(__name__)
IDLE_S = 60.0
"""How long a worker above the least number may have nothing to do."""
REPORT_S = 30.0
"""How often it is said that no worker could start yet."""
STARTS = 20
"""Workers in a row that may die before they are ready while none works; more is no accident."""
LOSSES = 3
"""Nodes that may be lost under one try before the try itself is suspected of ending them."""


@dataclass(frozen=True)
class Try:
    """A unit, or a part of one that is being rescued, and the crystals to do it with."""

    unit: Unit
    table: pa.Table
    rescue: Tries[Any, Any] | None = None
    """Asks for the tries of this unit, once it is suspected of ending its worker."""
    losses: int = 0
    """How often the node it was tried on was lost."""

    @staticmethod
    def first(unit: Unit) -> Try:
        """Read the crystals of a unit; a suspect goes straight to its rescue."""
        table = unit.read()
        if not unit.suspect:
            return Try(unit, table)
        tries = rescued(unit.work, table)
        return Try(unit, next(tries), tries)

    def after(self, result: Any) -> Try | Done:
        """What follows on a result, None for a death: the next try, or the result of the unit.

        Raises:
            Failure: the worker dies also without crystals.
        """
        if self.rescue is None and result is not None:
            return Done(self.unit, result)
        tries = self.rescue or rescued(self.unit.work, self.table)
        try:
            return Try(self.unit, tries.send(result), tries)  # a rescue that has not begun takes None
        except StopIteration as end:
            return Done(self.unit, end.value)

    def again(self) -> Try | None:
        """The same try, whose node was lost; None when that has happened too often to be chance."""
        return None if self.losses == LOSSES else replace(self, losses=self.losses + 1)


@dataclass(eq=False)
class _Member:
    """A worker."""

    worker: Any
    since: float
    """When it was asked for, began its unit, or became idle."""
    node: str
    """Where it is, or is meant to be; empty if that is not known."""


class Workers:
    """A pool that grows and shrinks with what is to be done; empty until there is something."""

    def __init__(self, cluster: Cluster, settings: Ray, stall_s: float) -> None:
        self._cluster, self._settings, self._stall_s = cluster, settings, stall_s
        self.starting: dict[Any, _Member] = {}
        """Call of `ready` -> the worker that answers it."""
        self._idle: list[_Member] = []
        self.working: dict[Any, tuple[_Member, Try]] = {}
        """Call of `do` -> the worker that answers it, and what it works on."""
        self.urgent: deque[Try] = deque()
        """What was tried before and comes first."""
        self._most = 0
        self._measure()
        self._deaths = 0  # of starting workers in a row
        self._ready = False  # whether a worker ever was
        self._alive = self._reported = 0.0  # when there last was a worker, or nothing to do; when that was said

    def begin(self, units: deque[Unit]) -> None:
        """Give every idle worker something to do, and ask for more workers if these are too few."""
        while self._idle and (self.urgent or units):
            attempt = self.urgent.popleft() if self.urgent else Try.first(units.popleft())
            member = self._idle.pop()
            member.since = time.monotonic()
            self.working[self._cluster.call(member.worker, "do", attempt.unit.work, attempt.table)] = member, attempt
        waiting = len(units) + len(self.urgent)
        for _ in range(self._missing(waiting) if waiting else 0):
            worker, node = self._cluster.worker(self._present())
            self.starting[self._cluster.call(worker, "ready")] = _Member(worker, time.monotonic(), node)

    def _measure(self) -> None:
        self._most = self._settings.workers or int(self._cluster.room())

    def _present(self) -> Counter[str]:
        working = (member for member, _ in self.working.values())
        return Counter(member.node for member in (*self._idle, *self.starting.values(), *working))

    def _missing(self, waiting: int) -> int:
        present = len(self.starting) + len(self._idle) + len(self.working)
        return min(self._most, max(self._settings.min_workers, len(self.working) + waiting)) - present

    def take(self, ref: Any) -> Iterator[Done]:
        """The unit that a finished call completes, if it completes one."""
        if ref in self.starting:
            self._arrive(ref)
            return
        member, attempt = self.working.pop(ref)
        try:
            result = self._cluster.get(ref, member.node)
        except Died as death:
            self._cluster.end(member.worker)
            self._measure()
            again = attempt.again() if death.with_node else None
            how = "its node died with a worker" if again else "a worker died"
            log.warning("%s on %s: %s", how, attempt.unit.name, death)
            follows = again or attempt.after(None)
        else:
            self._rest(member)
            follows = attempt.after(result)
        if isinstance(follows, Try):
            self.urgent.append(follows)
        else:
            yield follows

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
            if self._deaths >= STARTS and not (self._idle or self.working):
                raise Failure(
                    Exit.CONFIG,
                    f"{self._deaths} workers in a row died before they were ready; is Assay installed on every node? "
                    f"{death!s:.500}",
                ) from death
            return
        self._deaths = 0
        member.since = self._alive = time.monotonic()
        self._ready = True
        self._idle.append(member)

    def watch(self, waiting: int) -> None:
        """End workers that are silent or not needed, and complain when none can start.

        The caller repeats it every now and then.
        """
        now, waiting = time.monotonic(), waiting + len(self.urgent)
        self._measure()
        for member, attempt in self.working.values():
            if now - member.since > self._stall_s:
                silent = now - member.since
                log.warning("a worker is silent on %s since %.0f s: ended", attempt.unit.name, silent)
                self._cluster.end(member.worker)
        self._shrink(-self._missing(waiting), now - IDLE_S)
        if not waiting or self._idle or self.working or not self._alive:
            self._alive = self._reported = now
        elif now - self._alive > self._stall_s:
            raise Failure(
                Exit.CLUSTER if self._ready else Exit.CONFIG,  # in the first case they were lost
                f"no worker could start within {self._stall_s:g} s: {self._waits()}; ask for less, or add nodes, and "
                "run again",
            )
        elif now - self._reported > REPORT_S:
            self._reported = now
            log.warning("no worker could start within %.0f s, still waiting: %s", now - self._alive, self._waits())

    def _waits(self) -> str:
        ask = self._settings
        return (
            f"asked for {len(self.starting)} with {ask.cpus:g} CPUs and {ask.gpus:g} GPUs each (ray.cpus, ray.gpus); "
            f"the cluster has {self._cluster.describe()}, part of which others may hold"
        )

    def _shrink(self, surplus: int, before: float) -> None:
        """End workers that have had nothing to do since `before`, those idle for longest first."""
        unused = sorted([*self._idle, *self.starting.values()], key=lambda member: member.since)
        leaving = [member for member in unused[: max(0, surplus)] if member.since < before]
        for member in leaving:
            self._cluster.end(member.worker)
        self._idle = [member for member in self._idle if member not in leaving]
        self.starting = {ref: member for ref, member in self.starting.items() if member not in leaving}

    def close(self) -> None:
        """End all workers."""
        for member in [*self._idle, *self.starting.values(), *(member for member, _ in self.working.values())]:
            self._cluster.end(member.worker)
