"""The local runner: pulls in a thread per host, and does the units of work in this one.

Enters: jobs and units of work. Leaves: the same steps and results, in the same form, as
`assay.screening.runners.cluster`.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from assay.screening.pulling import pull
from assay.screening.pulling.source import Job
from assay.screening.pulling.steps import Step
from assay.screening.runners import rescue
from assay.screening.runners.child import ChildProcess, Loaded
from assay.screening.runners.runner import Do, Done, Unit
from assay.screening.runners.work import Work
from assay.sources.databases.pace import HostPace

POLL_S = 0.2
"""How often a runner that waits for a server looks whether it was asked to stop."""


class LocalRunner:
    """Does one unit after the other."""

    def __init__(self, do: Do, make: Callable[[], Do] | None = None) -> None:
        """`do` is the worker function; `make` makes another one in a child process."""
        self._do, self._make = do, make

    def work(
        self, jobs: Callable[[], list[Job]], units: deque[Unit], stopped: Callable[[], bool]
    ) -> Iterator[Step | Done]:
        """Steps and units by turns, so that neither pulling nor working makes the other wait."""
        pulls = _Pulls(pull.hosts(jobs()))
        try:
            while (pulls.alive or units) and not stopped():
                step = pulls.next(0.0 if units else POLL_S)
                if step is not None:
                    yield step
                if units and not stopped():
                    unit = units.popleft()
                    yield Done(unit, self._rescue(unit) if unit.suspect else self._do(unit.work, unit.read()))
        finally:
            pulls.close()

    def _rescue(self, unit: Unit) -> Any:
        """Do a unit that ended this process before in a child, without the crystals that end it."""
        if self._make is None:
            return self._do(unit.work, unit.read())
        with ChildProcess(Loaded(partial(_bind, self._make, unit.work))) as child:
            return rescue.answer(rescue.rescued(unit.work, unit.read()), child)

    def close(self) -> None:
        """Nothing to release."""


def _bind(make: Callable[[], Do], work: Work[Any]) -> Callable[[Any], Any]:
    return partial(make(), work)


class _Pulls:
    """Threads that pull, one per host; a page waits until the driver has taken the one before."""

    def __init__(self, hosts: list[list[Job]]) -> None:
        self._arrived: queue.Queue[Any] = queue.Queue(maxsize=2)
        self._closed = threading.Event()
        self.alive = len(hosts)
        for group in hosts:
            threading.Thread(target=self._pull, args=(group,), name=f"pull-{group[0].host}", daemon=True).start()

    def _pull(self, group: list[Job]) -> None:
        try:
            for step in pull.events(group, HostPace()):
                if not self._put(step):
                    return
            self._put(None)
        except BaseException as error:  # noqa: BLE001 (raised again in the driver's thread)
            self._put(error)

    def _put(self, item: Any) -> bool:
        while not self._closed.is_set():
            try:
                self._arrived.put(item, timeout=POLL_S)
            except queue.Full:
                continue
            return True
        return False

    def next(self, wait_s: float) -> Step | None:
        """The next step; None when there is none yet, or a host has come to its end."""
        try:
            item = self._arrived.get(timeout=wait_s) if self.alive and wait_s else self._arrived.get_nowait()
        except queue.Empty:
            return None
        if isinstance(item, BaseException):
            raise item
        if item is None:
            self.alive -= 1
        return item  # type: ignore[no-any-return]

    def close(self) -> None:
        """Let the threads end; what they hold was not committed."""
        self._closed.set()
