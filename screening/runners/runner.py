"""What a campaign asks of whoever runs its work: the contract of `assay.screening.runners.local` and `assay.screening.runners.cluster`.

Enters: jobs to pull and tasks to do. Leaves: pull steps and results, in any order. It knows no
campaign.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from assay.screening.pulling.pull import Job, Step
from assay.screening.runners import rescue, worker
from assay.screening.runners.worker import Part

if TYPE_CHECKING:
    import pyarrow as pa

Do = Callable[[str, "pa.Table"], Any]
"""The worker function: (kind, crystals) -> result; `assay.screening.runners.worker.Worker` is
one."""


@dataclass(frozen=True)
class Task:
    """One unit of work."""

    kind: str
    """score, score:0 (of a cheap tier, `assay.screening.runners.worker.tier_kind`), label or
    match."""
    key: str
    """Unique among the tasks of its kind."""
    rows: int
    read: Callable[[], pa.Table]
    """Its crystals; called by the driver each time the task begins."""
    suspect: bool = False
    """Begun before and never finished, more than once: it may kill the process that works on it."""


@dataclass(frozen=True)
class Done:
    """A finished task."""

    task: Task
    result: Any
    """`assay.screening.runners.worker.Part` of a score task, a table otherwise."""


def merge(kind: str, results: Sequence[Any]) -> Any:
    """The results of consecutive rows as one."""
    return rescue.merge_parts(results) if worker.scores(kind) else rescue.merge_tables(results)


def blame(kind: str, table: pa.Table, result: Any, guilty: Sequence[int]) -> Any:
    """The result for all rows of a task when some kill every process: quarantined, unlabelled, or like no other."""
    if not guilty or kind == "match":
        return result
    if worker.scores(kind):
        return Part(result.table, [*result.quarantined, *rescue.died(table, guilty)])
    rows = [{"id": table["id"][row].as_py(), "formula": "", "spacegroup": 0, "label": "", "label_fine": ""}
            for row in guilty]  # fmt: skip
    return rescue.merge_tables([result, type(result).from_pylist(rows, schema=result.schema)])


class Runner(Protocol):
    """Pulls and works at once."""

    def work(
        self, jobs: Callable[[], list[Job]], tasks: deque[Task], stopped: Callable[[], bool]
    ) -> Iterator[Step | Done]:
        """Every step of every job (those of one source in order) and every finished task, until there is no more.

        The caller adds to `tasks` while it consumes; `jobs` says what is unfinished as the ledger
        stands. Once `stopped` says so, nothing further is begun.
        """

    def close(self) -> None:
        """Release what the runner holds."""
