"""Processes on other machines, as far as the pool of workers and the pulls need them.

It names the calls that a cluster must offer; `assay.screening.runners.cluster` offers them on Ray.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from assay.screening.pulling.source import Job
from assay.screening.settings.exits import one_line


class Died(Exception):
    """The process that was called ended, or cannot be reached any more."""

    def __init__(self, message: str, *, with_node: bool) -> None:
        super().__init__(one_line(message))
        self.with_node = with_node
        """Its node, or the way to it, went and took it along."""


class Cluster(Protocol):
    """Starts and calls processes elsewhere."""

    def worker(self, present: Mapping[str, int]) -> tuple[Any, str]:
        """Ask for another worker and return at once, with the node it is meant for, if known.

        There may be no place for it yet. `present` counts the workers on each node.
        """

    def source(self, jobs: list[Job], *, remote: bool) -> Any:
        """Ask for another process that pulls the jobs of one host, which may be `remote`."""

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
