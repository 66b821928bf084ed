"""The embedded runner: pulls in a thread per host, and does the tasks in this one.

Enters: jobs and tasks. Leaves: the same steps and results, in the same form, as
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
from assay.screening.pulling.pull import Job, Step
from assay.screening.runners import rescue
from assay.screening.runners.runner import Do, Done, Task, blame, merge

POLL_S = 0.2
"""How often a runner that waits for a server looks whether it was asked to stop."""


class LocalRunner:
    """Does one task after the other; `do` is the worker function, `make` makes another one in a child process."""

    def __init__(self, do: Do, make: Callable[[], Do] | None = None) -> None:
        self._do, self._make = do, make

    def work(
        self, jobs: Callable[[], list[Job]], tasks: deque[Task], stopped: Callable[[], bool]
    ) -> Iterator[Step | Done]:
        """Steps and tasks by turns, so that neither a quick source nor much work makes the other wait."""
        pulls = _Pulls(pull.hosts(jobs()))
        try:
            while (pulls.alive or tasks) and not stopped():
                step = pulls.next(0.0 if tasks else POLL_S)
                if step is not None:
                    yield step
                if tasks and not stopped():
                    task = tasks.popleft()
                    yield Done(task, self._rescue(task) if task.suspect else self._do(task.kind, task.read()))
        finally:
            pulls.close()

    def _rescue(self, task: Task) -> Any:
        """Do a task that ended this process before: in a child, without the crystals that end it."""
        if self._make is None:
            return self._do(task.kind, task.read())
        table = task.read()
        with rescue.ChildProcess(rescue.Loaded(partial(_bind, self._make, task.kind))) as child:
            result, guilty = rescue.rescue(table, child, partial(merge, task.kind))
        return blame(task.kind, table, result, guilty)

    def close(self) -> None:
        """Nothing to release."""


def _bind(make: Callable[[], Do], kind: str) -> Callable[[Any], Any]:
    return partial(make(), kind)


class _Pulls:
    """Threads that pull, one per host; a page waits until the driver has taken the one before."""

    def __init__(self, hosts: list[list[Job]]) -> None:
        self._arrived: queue.Queue[Any] = queue.Queue(maxsize=2)
        self._closed = threading.Event()
        self.alive = len(hosts)
        for group in hosts:
            threading.Thread(target=self._pull, args=(group,), name=f"pull-{group[0].host}", daemon=True).start()

    def _pull(self, group: list[Job]) -> None:
        from assay.sources.databases.pace import HostPace

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
