"""Work that kills the process that does it: what can be saved, and which rows are to blame.

Enters: a table, and a way to try the work on any part of it somewhere else. Leaves: the result for
the innocent rows, and the row numbers of the guilty ones. It does not know what the work is, nor
where it is tried: on a Ray actor (`assay.screening.runners.cluster`), or in a child of the embedded
runner (`ChildProcess`).
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import resource_tracker, util
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from assay.screening.runners.worker import Part
from assay.screening.settings.exits import Exit, Failure
from assay.sources.quarantine import Quarantined, Reason, Stage

if TYPE_CHECKING:
    import pyarrow as pa

R = TypeVar("R")
Rows = tuple[int, ...]
log = logging.getLogger(__name__)
STALL_S = 900.0
"""A process that is silent for so long counts as dead."""


def rescue(
    table: pa.Table, attempt: Callable[[pa.Table], R | None], merge: Callable[[Sequence[R]], R]
) -> tuple[R, list[int]]:
    """Do work whose process died before: once more, then without the rows that kill whoever works on them.

    A row is guilty when it kills on its own, twice (once may be an accident). All innocent rows are
    worked on again in one batch, so that their bits depend on the data alone. Only what dies as a
    whole though no row of it is guilty (memory) is done in halves, and `merge` puts the results
    together in row order.

    Args:
        table: n rows; with a column `id`, the guilty are named in the log.
        attempt: None when the process that tried it died or fell silent. What it raises goes to the
            caller.
        merge: results of consecutive rows -> their common result.

    Returns:
        The result for the other rows, in their order, and the sorted numbers of the guilty rows. At
            most about 3 n
        attempts; for one guilty row about 2 log2(n) + 4.

    Raises:
        Failure: the process dies also on a table without rows: no crystal is to blame.
    """
    trial = _Trial(table, attempt, merge)
    result, guilty = trial.solve(tuple(range(table.num_rows)))
    if guilty:
        names = table["id"].take(guilty).to_pylist() if "id" in table.column_names else guilty
        log.warning("rows that kill the process that works on them: %s", ", ".join(map(str, names)))
    return result, guilty


def died(table: pa.Table, rows: Sequence[int], stage: Stage = Stage.PREDICT) -> list[Quarantined]:
    """Quarantine records of guilty rows of a table with `id` and maybe `origin`."""
    message = "the worker process died each time it met this crystal, also alone"
    records = []
    for row in rows:
        origin = table["origin"][row].as_py() if "origin" in table.column_names else None
        records.append(Quarantined(table["id"][row].as_py(), origin or "", stage, Reason.WORKER_DIED, message))
    return records


def merge_parts(parts: Sequence[Part]) -> Part:
    """One part of the parts of consecutive rows."""
    return Part(merge_tables([part.table for part in parts]), [row for part in parts for row in part.quarantined])


def merge_tables(tables: Sequence[pa.Table]) -> pa.Table:
    """One table of the tables of consecutive rows."""
    import pyarrow as pa

    return pa.concat_tables(tables)


class _Trial(Generic[R]):
    """One rescue: what was tried is not tried again, unless a second death decides something."""

    def __init__(
        self, table: pa.Table, attempt: Callable[[pa.Table], R | None], merge: Callable[[Sequence[R]], R]
    ) -> None:
        self._table = table
        self._attempt = attempt
        self._merge = merge
        self._known: dict[Rows, R | None] = {}

    def solve(self, rows: Rows) -> tuple[R, list[int]]:
        """Result and guilty rows."""
        if not rows:
            return self._nothing(), []
        result = self._try(rows)
        if result is not None:
            return result, []
        guilty = self._guilty(rows)
        if guilty:
            rest, more = self.solve(tuple(row for row in rows if row not in set(guilty)))
            return rest, sorted([*guilty, *more])
        result = self._again(rows)  # halves may differ from the whole in the last bits: not because of an accident
        if result is not None:
            return result, []
        (left, blamed), (right, others) = (self.solve(half) for half in _halves(rows))
        return self._merge([left, right]), [*blamed, *others]

    def _guilty(self, rows: Rows) -> list[int]:
        """Rows that kill on their own, by bisection among rows that killed together."""
        if len(rows) == 1:
            return [*rows] if self._again(rows) is None else []
        deadly = [half for half in _halves(rows) if self._try(half) is None]
        if len(deadly) > 1:
            self._nothing()  # two deaths in different rows: is it the rows at all?
        return [row for half in deadly for row in self._guilty(half)]

    def _nothing(self) -> R:
        """The result for no rows."""
        result = self._try(())
        result = self._again(()) if result is None else result
        if result is None:
            raise Failure(
                Exit.CONFIG,
                "the worker process dies before it meets a crystal: too little memory, or a broken installation; "
                "give it more memory, or look into its output above",
            )
        return result

    def _try(self, rows: Rows) -> R | None:
        if rows not in self._known:
            self._known[rows] = self._attempt(_take(self._table, rows))
        return self._known[rows]

    def _again(self, rows: Rows) -> R | None:
        if self._known.get(rows) is None:
            self._known.pop(rows, None)
        return self._try(rows)


def _take(table: pa.Table, rows: Rows) -> pa.Table:
    import pyarrow as pa

    whole = len(rows) == table.num_rows
    return table if whole else table.take(pa.array(rows, pa.int64()))  # an empty list would have no type


def _halves(rows: Rows) -> tuple[Rows, Rows]:
    return rows[: len(rows) // 2], rows[len(rows) // 2 :]


class Loaded(Generic[R]):
    """Work that needs something loaded first: loads on the first call, in the process that works."""

    def __init__(self, load: Callable[[], Callable[[pa.Table], R]]) -> None:
        self._load = load
        self._work: Callable[[pa.Table], R] | None = None

    def __call__(self, table: pa.Table) -> R:
        """Do the work."""
        self._work = self._work or self._load()
        return self._work(table)


class ChildProcess(Generic[R]):
    """An `attempt` that lets a spawned child do the work: what kills the child cannot kill this process.

    The child is kept from one attempt to the next, and replaced when it died. It ends with this
    process, whatever ends that, and gets no Ctrl-C and no SIGTERM sent to the process group: who
    stops is decided here.
    """

    def __init__(self, work: Callable[[pa.Table], R], stall_s: float = STALL_S) -> None:
        self._work = work
        self._stall_s = stall_s
        self._end: Callable[[], Any] | None = None
        self._pipe: Connection | None = None

    def __call__(self, table: pa.Table) -> R | None:
        """Work on a table in the child; None when the child died or was silent for `stall_s`.

        Raises:
            Exception: what the work raised.
        """
        try:
            pipe = self._pipe or self._start()
            pipe.send(table)
            good, result = self._receive(pipe)
        except (EOFError, OSError) as error:
            log.warning("a child process died: %s", str(error) or type(error).__name__)
            self.close()
            return None
        except BaseException:
            self.close()  # its answer must not be taken for that to the next table
            raise
        if not good:
            raise result
        value: R = result
        return value

    def close(self) -> None:
        """End the child, if there is one."""
        if self._end is not None:
            self._end()
        self._end = self._pipe = None

    def _start(self) -> Connection:
        """Start a child and wait until it listens: a table larger than the pipe would wait for ever."""
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, self._work), daemon=True)
        # before multiprocessing's own end of the interpreter, which would wait for a child that
        # listens to no SIGTERM
        self._end = util.Finalize(self, _kill, (process, ours), exitpriority=1)
        with theirs:
            _start_masked(process)
        self._receive(ours)
        self._pipe = ours
        return ours

    def _receive(self, pipe: Connection) -> Any:
        if not pipe.poll(self._stall_s):
            raise TimeoutError(f"silent for {self._stall_s:g} s")
        return pipe.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _start_masked(process: SpawnProcess) -> None:
    """Start a process that inherits a mask, so that no signal to the group hits it even while it starts."""
    resource_tracker.ensure_running()  # would undo the mask, if `start` had to start it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill(process: SpawnProcess, pipe: Connection) -> None:
    pipe.close()
    if process.pid is not None:  # None when it could not even be started
        process.kill()
        process.join()


def _serve(pipe: Connection, work: Callable[[pa.Table], Any]) -> None:
    """The child: one answer per table, (True, result) or (False, exception)."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(OSError):  # should memory run out, the kernel takes this process and not its parent
        Path("/proc/self/oom_score_adj").write_text("1000")
    pipe.send(None)
    while True:
        try:
            table = pipe.recv()
        except EOFError:
            return
        try:
            answer = True, work(table)
        except Exception as error:  # noqa: BLE001 - raised as itself in the parent
            answer = False, _portable(error)
        pipe.send(answer)


def _portable(error: Exception) -> Exception:
    """The error with its traceback as a note; its text alone, if it cannot be rebuilt in another process."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:  # noqa: BLE001 - whatever its constructor does with other arguments
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
