"""The contract of a runner: it pulls, and it does units of work, in this process or on Ray.

Enters: jobs to pull and units to do. Leaves: pull steps and results, in any order. It knows no
campaign. `assay.screening.runners.local` and `assay.screening.runners.cluster` keep the contract.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from assay.screening.pulling.source import Job
from assay.screening.pulling.steps import Step
from assay.screening.runners.work import Work

Do = Callable[[Work[Any], pa.Table], Any]
"""The worker function: (work, crystals) -> result. `assay.screening.runners.worker` has one."""
STALL_S = 900.0
"""A process that is silent for so long counts as dead."""


@dataclass(frozen=True)
class Unit:
    """Work on some crystals: what a worker is given at once."""

    work: Work[Any]
    key: str
    """Unique among the units of its work."""
    rows: int
    read: Callable[[], pa.Table]
    """Its crystals; called by the driver each time the unit begins."""
    suspect: bool = False
    """Begun before and never finished, more than once: it may kill the process that works on it."""

    @property
    def name(self) -> str:
        """How the log of attempts and warnings call it."""
        return f"{self.work.name} {self.key}"


@dataclass(frozen=True)
class Done:
    """A finished unit."""

    unit: Unit
    result: Any
    """What its work gives: a `Part` of a score, a table of a label or match."""


class Runner(Protocol):
    """Pulls and works at once."""

    def work(
        self, jobs: Callable[[], list[Job]], units: deque[Unit], stopped: Callable[[], bool]
    ) -> Iterator[Step | Done]:
        """Every step of every job and every finished unit, until there is no more.

        The steps of one source come in order. `jobs` lists what is unfinished as the ledger stands.
        The caller adds to `units` while it consumes. Nothing begins once `stopped` returns True.
        """

    def close(self) -> None:
        """Release what the runner holds."""
