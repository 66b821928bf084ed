"""A journal of attempts, so that blame survives a driver that dies.

Enters: the key of a piece of work when it is begun, and again when it is done. Leaves: how often it
was begun and never finished, over this run and all before it. What was begun twice in vain is a
suspect: it may have killed the process that worked on it. Nothing is fsynced, because the kernel
keeps what a killed process wrote; after a power cut lines may be missing, which costs one more
attempt. It does not know what a key stands for.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from assay.sources import durable

SUSPECT = 2
"""Attempts in vain after which a unit is done where it cannot end the driver."""
_MODE = 0o666
"""Less the umask, as `open` does."""


class Attempts:
    """The journal in one file; one writer at a time (`assay.screening.folder.lock`)."""

    def __init__(self, path: Path) -> None:
        content = _read(path)
        self._open = replay(content)
        compact = "".join(f"begin {key}\n" * times for key, times in self._open.items())
        if compact.encode() != content:  # finished work, a torn last line
            durable.write(path, compact)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE)

    def begin(self, key: str) -> None:
        """Note that work on `key` begins; the note is in the file before the work begins."""
        self._append("begin", key)
        self._open[key] = self._open.get(key, 0) + 1

    def done(self, key: str) -> None:
        """Note that work on `key` ended, good or bad, while this process lived: no suspect."""
        self._append("done", key)
        self._open.pop(key, None)

    def count(self, key: str) -> int:
        """How often `key` was begun since it was last done, over all runs."""
        return self._open.get(key, 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _append(self, event: str, key: str) -> None:
        if not key or "\n" in key:
            raise ValueError(f"the key of an attempt is one line of text, not {key!r}")
        os.write(self._file, f"{event} {key}\n".encode())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return b""


def replay(content: bytes) -> dict[str, int]:
    """Key -> attempts begun and not done; what is no whole line of ours is passed over."""
    begun: dict[str, int] = {}
    for line in content.decode("utf-8", "replace").split("\n")[:-1]:
        event, _, key = line.partition(" ")
        if event == "begin" and key:
            begun[key] = begun.get(key, 0) + 1
        elif event == "done":
            begun.pop(key, None)
    return begun
