"""A child process that works for this one: work that kills the child cannot kill its parent.

Enters: a work function and tables. Leaves: its results, or None for a death. It does not know what
the work is, nor which rows are to blame (`assay.screening.runners.rescue`).
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import resource_tracker, util
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import pyarrow as pa

from assay.screening.runners.runner import STALL_S

R = TypeVar("R")
log = logging.getLogger(__name__)


class Loaded(Generic[R]):
    """Work that needs something loaded first: it loads on the first call, where it is done."""

    def __init__(self, load: Callable[[], Callable[[pa.Table], R]]) -> None:
        self._load = load
        self._work: Callable[[pa.Table], R] | None = None

    def __call__(self, table: pa.Table) -> R:
        """Do the work."""
        self._work = self._work or self._load()
        return self._work(table)


class ChildProcess(Generic[R]):
    """Lets a spawned child do the work.

    The child is kept from one table to the next, and replaced when it died. It ends with this
    process, whatever ends that. It gets no Ctrl-C and no SIGTERM that is sent to the process group:
    this process decides when work stops.
    """

    def __init__(self, work: Callable[[pa.Table], R], stall_s: float = STALL_S) -> None:
        self._work = work
        self.stall_s = stall_s
        """For how long the child may be silent."""
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
        """Start a child, and wait until it listens: no table fits into the pipe before."""
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
        if not pipe.poll(self.stall_s):
            raise TimeoutError(f"silent for {self.stall_s:g} s")
        return pipe.recv()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _start_masked(process: SpawnProcess) -> None:
    """Start a process that inherits a mask, so that no signal to the group hits it at its start."""
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
    """The error with its traceback as a note; its text alone, if it cannot be unpickled."""
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
