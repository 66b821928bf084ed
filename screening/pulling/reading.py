"""Files read in a process of their own, which the kernel ends when a file takes too long.

Enters: paths. Leaves: what `assay.sources.files` gives for them, a block at a time. A file that
exceeds its share of processor time, or whose reader dies twice, becomes one quarantine record, and
the others are read. This module knows no format.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from assay.sources import files, table
from assay.sources.assemble import Kinds
from assay.sources.checks import importing, limits

DEATHS = 2
"""How often the process may die over one file, other than by the time limit."""
_PATH = [str(Path(entry).absolute()) for entry in sys.path]
"""Where modules are found; the current folder of today, not that of a later start."""
START = """import json, sys
sys.path[:] = json.loads(sys.argv[1])
from assay.screening.pulling import reading
reading.serve(int(sys.argv[2]))"""
"""The program of the process; its arguments are the path of modules and the end of a pipe."""

Block = tuple[table.Sifted, str]
"""Crystals with the refused rows, and the contradiction between the columns so far, or ""."""
Sent = tuple[int, Block]
"""The number of the path that a block comes from, and the block."""


def blocks(paths: Sequence[str], size: int, most_s: int | None = None) -> Iterator[Block]:
    """Read the crystals of some paths in order, at most `size` at once.

    A file may take `most_s` of processor time; None: what its size allows.

    Raises:
        FileNotFoundError: as `assay.sources.files.blocks` does.
        ValueError: as `assay.sources.files.blocks` does.
        RuntimeError: when the process cannot be started.
    """
    paths = [str(Path(path)) for path in paths]
    lost: dict[str, Exception] = {}
    deaths: Counter[str] = Counter()
    given: Counter[int] = Counter()
    done = False
    while not done:
        reader = _free()
        try:
            reader.connection.send((paths, size, lost, most_s))
            again: Counter[int] = Counter()
            for path, block in reader.blocks():
                again[path] += 1
                if again[path] > given[path] or paths[path] in lost:  # all of a lost file is its record
                    given[path] += 1
                    yield block
            done = True
        except (EOFError, ConnectionError):
            deaths[reader.current] += bool(reader.current) or not reader.waited
        finally:
            if done:
                _idle.append(reader)
            else:
                reader.end()
        if not done and (why := _why(reader, deaths[reader.current])):
            lost[reader.current] = why
            if given[reader.path] and reader.current not in paths:
                raise RuntimeError(f"{paths[reader.path]} was read in part; {why}")


def _why(reader: _Reader, deaths: int) -> Exception | None:
    """Why a file is not tried again; None when it is."""
    if reader.code == -signal.SIGXCPU:
        return limits.Exceeded(f"reading it took more than {reader.allowed_s} s of processor time")
    if deaths < DEATHS:
        return None
    how = signal.Signals(-reader.code).name if reader.code < 0 else f"exit code {reader.code}"
    if not reader.current:
        raise RuntimeError(f"the process that reads files cannot be started: {how}")
    return limits.Exceeded(f"the process that read it ended {deaths} times: {how}; was the memory full?")


class _Reader:
    """A process that waits for paths."""

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        self.current, self.path = "", 0
        """The file that it reads, and the number of the path that holds it."""
        self.allowed_s = 0
        """The processor time that it may use for this file."""
        self.code = 0
        """Its exit code, once it has ended; below 0: the signal that ended it."""
        self.waited = False
        """Whether it has read before: that one ended while it waited tells nothing of a path."""
        words = [sys.executable, "-I", "-c", START, json.dumps(_PATH), str(theirs.fileno())]
        self._process = subprocess.Popen(words, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])  # noqa: S603
        theirs.close()

    def blocks(self) -> Iterator[Sent]:
        """What it sends, until it says that it is done."""
        self.current, self.path = "", 0
        while True:
            said, content = self.connection.recv()
            if said == "block":
                yield content
            elif said == "begin":
                self.current, self.path, self.allowed_s = content
            elif said == "log":
                name, level, message = content
                logging.getLogger(name).log(level, message)
            elif said == "error":
                raise content
            else:
                return

    @property
    def alive(self) -> bool:
        """Whether nothing has ended it while it waited."""
        return self._process.poll() is None

    def end(self) -> None:
        """End the process, if it still runs."""
        self.connection.close()
        try:
            self.code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self.code = self._process.wait()

    def forget(self) -> None:
        """Leave the process to the one that this one was forked from."""
        self.connection.close()
        self._process.returncode = 0


_idle: list[_Reader] = []


def _free() -> _Reader:
    while _idle:
        reader = _idle.pop()
        if reader.alive:
            reader.current, reader.waited = "", True
            return reader
        reader.end()
    return _Reader()


def _end_all() -> None:
    while _idle:
        _idle.pop().end()


def _forget_all() -> None:
    while _idle:
        _idle.pop().forget()


atexit.register(_end_all)
os.register_at_fork(after_in_child=_forget_all)


# In the process that reads.


def serve(descriptor: int) -> None:
    """Read paths that arrive through a pipe until its other end is closed."""
    for number in (signal.SIGINT, signal.SIGTERM):  # whoever ends the campaign closes the pipe
        signal.signal(number, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    importing.spare_pandas()
    connection = Connection(descriptor)
    logging.basicConfig(level=logging.INFO, handlers=[_Forwarded(connection)])
    try:
        while True:
            _answer(connection, *connection.recv())
    except (EOFError, ConnectionError):
        os._exit(0)


def _answer(
    connection: Connection, paths: Sequence[str], size: int, lost: dict[str, Exception], most_s: int | None
) -> None:
    kinds = Kinds()
    number = allowed = 0

    def begin(origin: str, length: int) -> None:
        nonlocal allowed
        if origin in lost:
            raise lost[origin]
        allowed = limits.seconds(length) if most_s is None else most_s
        connection.send(("begin", (origin, number, allowed)))
        _allow(allowed)

    try:
        for number, path in enumerate(paths):
            for crystals, refused in files.blocks(Path(path), size, kinds=kinds, begin=begin):
                _allow(None)
                for start in range(0, max(len(crystals), 1), size):
                    sifted = crystals[start : start + size], refused if start == 0 else []
                    connection.send(("block", (number, (sifted, kinds.contradiction))))
                _allow(allowed)
    except ConnectionError:
        raise
    except Exception as error:  # noqa: BLE001 (it is raised where it was asked for)
        connection.send(("error", error))
    else:
        connection.send(("done", None))
    finally:
        _allow(None)


def _allow(seconds: int | None) -> None:
    """Let the kernel end this process after so much more processor time."""
    most = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = most if seconds is None else int(time.process_time()) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft if most == resource.RLIM_INFINITY else min(soft, most), most))


class _Forwarded(logging.Handler):
    """Sends what the readers note to the process that asked."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        said: Any = ("log", (record.name, record.levelno, record.getMessage()))
        self._connection.send(said)
