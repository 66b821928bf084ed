"""How a command ends: the exit codes, and the exception that carries one of them to the user.

Enters: any exception. Leaves: an exit code and one line that says what, why and what to do.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from enum import IntEnum
from typing import NoReturn


class Exit(IntEnum):
    """Exit codes of every command; the list is part of the interface."""

    DONE = 0
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
    """Stopped by SIGTERM or Ctrl-C after the running chunk was committed; run again to go on."""


class Failure(Exception):
    """A failure the user can act on: exit code, and one line with what, why and what to do."""

    def __init__(self, code: Exit, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type[Failure], tuple[Exit, str]]:
        """Keep the code where another process raised it."""
        return Failure, (self.code, str(self))


def explain(error: BaseException) -> Failure | None:
    """The failure behind an exception, or None when it is a defect that deserves its traceback."""
    if isinstance(error, Failure):
        return error
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
    """The text of an error on a single line, without control characters."""
    text = " ".join(str(error).split())
    return "".join(char for char in text if char.isprintable()) or type(error).__name__


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
