"""How a command ends: the exit codes, and the exceptions that carry one of them to the user.

Enters: any exception, or a signal. Leaves: an exit code and one line that says what, why and what
to do.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
from contextlib import suppress
from enum import IntEnum
from typing import Any, NoReturn

from assay.screening.settings.printable import escaped


class Exit(IntEnum):
    """Exit codes of every command; the list is part of the interface."""

    DONE = 0
    DEFECT = 1
    """A defect of Assay: the only end with a traceback."""
    USAGE = 2
    INCOMPLETE = 3
    """Done, but a source delivered less than it announced, or none reports what is filtered on."""
    TOO_MANY_BAD = 65
    """More bad rows than `max_bad`."""
    SOURCE_DOWN = 69
    BALANCE_BROKEN = 70
    """The rows do not balance: some were lost or doubled."""
    LOCKED = 73
    DISK = 74
    """The disk is full, read-only, or holds something else than was written."""
    CLUSTER = 75
    """The Ray cluster is not there, or was lost on the way; run again to go on."""
    CONFIG = 78
    """Config, schema or fingerprint mismatch."""
    STOPPED = 85
    """Stopped by SIGTERM or Ctrl-C; run again to go on. A server that is asked to end has 0."""


class Failure(Exception):
    """A failure the user can act on: exit code, and one line with what, why and what to do."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type[Failure], tuple[Exit, str]]:
        """Keep the code where another process raised it."""
        return Failure, (self.code, str(self))


STOPPED = "stopped; what was committed is kept, run again to go on"
"""What is said of a command that was stopped."""


class Stopped(BaseException):
    """SIGTERM or Ctrl-C, raised in the main thread so that it ends as an error does."""


def listen() -> None:
    """Turn SIGTERM and Ctrl-C into `Stopped`, and end the child processes that learn or read.

    A signal that is ignored, as under nohup, stays ignored. Only the main thread can call it.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    sys.unraisablehook = _unraisable


def _unraisable(what: sys.UnraisableHookArgs) -> None:
    """Send the signal again where `Stopped` was raised in code that swallows what is raised.

    Python calls finalizers and callbacks of weak references so. It is sent by a thread, because
    what is raised in this function is swallowed too.
    """
    if isinstance(what.exc_value, Stopped):
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
    else:
        sys.__unraisablehook__(what)


def _stop(_number: int, _frame: Any) -> NoReturn:
    for child in multiprocessing.active_children():
        child.terminate()
    raise Stopped


def _was_stopped(error: BaseException | None) -> bool:
    """Whether an error came out of `Stopped`: compiled code wraps it, and cleaning up may fail."""
    while error is not None and not isinstance(error, Stopped):
        error = error.__cause__ or error.__context__
    return error is not None


def explain(error: BaseException) -> Failure | None:
    """The failure behind an exception, or None when it is a defect that deserves its traceback."""
    if isinstance(error, Failure):
        return error
    if _was_stopped(error):
        return Failure(Exit.STOPPED, STOPPED)
    text = one_line(error)
    if isinstance(error, ConnectionError | TimeoutError):
        return Failure(Exit.SOURCE_DOWN, f"source down: {text}; run again later, finished sources are kept")
    if isinstance(error, FileNotFoundError):
        return Failure(
            Exit.CONFIG, text if "check" in text else f"{text}; check the path, relative to the current folder"
        )
    if isinstance(error, OSError):
        advice = "free space, fix permissions or choose another --output, and run again: what is committed is kept"
        return Failure(Exit.DISK, f"{text}; {advice}")
    return Failure(Exit.CONFIG, text) if isinstance(error, ValueError) else None


def one_line(error: object) -> str:
    """The text of an error on a single line, with escapes for what is not seen."""
    return escaped(" ".join(str(error).split())) or type(error).__name__


def leave(code: Exit) -> NoReturn:
    """End this process with a code after the `atexit` handlers, but leave the interpreter as it is.

    A thread that waits for a slow server cannot be joined in time, and one that is inside C++ when
    the interpreter winds down under it ends the process by `std::terminate`, with -6 in place of
    the promised code (Python < 3.14).
    """
    atexit._run_exitfuncs()  # noqa: SLF001 (what the interpreter calls when it winds down)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a closed pipe: nobody reads it
            stream.flush()
    os._exit(code)
