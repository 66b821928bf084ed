"""Processes on a cluster that pull: one per host, another one when it died or fell silent.

Enters: jobs, and a `Cluster` that can start a process and call it. Leaves: steps. It does not know
Ray, nor workers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from assay.screening.pulling import pull
from assay.screening.pulling.source import Job
from assay.screening.pulling.steps import Down, Step
from assay.screening.runners.remote import Cluster, Died

log = logging.getLogger(__name__)
DEATHS = 5
"""Processes in a row that may die over one host without a step in between."""


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
    """One process per host; each takes its next step while the driver commits the one before."""

    def __init__(
        self, cluster: Cluster, jobs: Callable[[], list[Job]], stopped: Callable[[], bool], stall_s: float
    ) -> None:
        self._cluster, self._jobs, self._stopped, self._stall_s = cluster, jobs, stopped, stall_s
        self.pulling: dict[Any, _Pull] = {}
        """Call of `next` -> the process that answers it."""
        for group in pull.hosts(jobs()):
            self._start(group, deaths=0)

    def _start(self, group: list[Job], deaths: int) -> None:
        actor = self._cluster.source(group, remote=any(job.source.remote for job in group))
        patience_s = max(job.source.wait_s for job in group)
        source = _Pull(group[0].host, actor, patience_s, deaths, time.monotonic())
        self.pulling[self._cluster.call(actor, "next")] = source

    def take(self, ref: Any) -> Iterator[Step]:
        """The step that a finished call brought, if it brought one."""
        source = self.pulling.pop(ref)
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
            self.pulling[self._cluster.call(source.actor, "next")] = source
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
        """End processes that have been silent for longer than a source may be.

        The caller repeats it every now and then.
        """
        for source in self.pulling.values():
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
        for source in self.pulling.values():
            self._cluster.end(source.actor)
