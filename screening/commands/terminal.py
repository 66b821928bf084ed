"""The one place where text leaves for the terminal.

Enters: lines of text, which may hold ids, names and messages of files and servers. Leaves: the same
lines on standard output or standard error, with escapes for characters that are not seen, also in
logs, warnings and tracebacks. A reader that went away is no failure of a command.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from assay.screening.settings.printable import escaped

STDERR = 2
"""The number of standard error; standard input and output come before it."""


def say(*lines: object, err: bool = False) -> None:
    """Write lines: data to standard output, all else to standard error."""
    _write(sys.stderr if err else sys.stdout, "".join(f"{escaped(str(line))}\n" for line in lines))


def set_up() -> None:
    """Escape what is logged or warned of, and write what an encoding lacks as an escape.

    A stream that was closed before the command began leads nowhere: else the first file that a
    command opens would take its number, and with it what libraries write there.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        os.set_inheritable(number, True)  # noqa: FBT003 (it has no name)
    os.close(number)
    sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):  # a stream that somebody put in its place
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # TextIO lacks it
    handler = _Logged(sys.stderr)
    handler.setFormatter(_OneLine("%(levelname)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    warnings.showwarning = _warned


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w")  # it stays open until the process ends


def trace(error: BaseException) -> None:
    """Write the traceback of a defect."""
    say(*"".join(traceback.format_exception(error)).rstrip("\n").split("\n"), err=True)


def finish() -> None:
    """Flush both streams, so that the end of the interpreter finds nothing to complain about."""
    for stream in (sys.stdout, sys.stderr):
        _write(stream, "")


class _Logged(logging.StreamHandler[TextIO]):
    """Writes records to the standard error of the moment, and survives a reader that went away."""

    def emit(self, record: logging.LogRecord) -> None:
        _write(sys.stderr, f"{self.format(record)}\n")


class _OneLine(logging.Formatter):
    """A record on one line; a traceback keeps its lines."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(escaped, super().format(record).split("\n")))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (a name of logging)
        return escaped(super().formatMessage(record))


def _warned(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    say(f"{category.__name__}: {' '.join(str(message).split())}", err=True)


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        with suppress(OSError, ValueError):  # what is left in the stream goes where nobody reads it
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
