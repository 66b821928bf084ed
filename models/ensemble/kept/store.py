"""A folder of kept outputs, each named for everything that it depends on.

Enters: a key and arrays. Leaves: the same arrays, or nothing where they were never kept, were
damaged or had to make room. Any number of processes may read and write one folder: a file appears
whole, and two writers of one key write the same. This module does not know members or crystals.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from assay.sources import durable

DIGEST = 32
"""Bytes of the sha256 with which a file begins: of its key and of all bytes after these."""
UNFINISHED_S = 3600.0
"""A file that is being written is left alone for so long."""
_NAME = re.compile(r"[0-9a-f]{64}\.safetensors")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """What the store keeps under one key."""

    arrays: dict[str, NDArray[Any]]
    notes: dict[str, str] = field(default_factory=dict)
    """Texts beside them."""


@dataclass(frozen=True)
class File:
    """One file of a store, as a listing shows it."""

    path: Path
    size: int
    """Bytes."""
    used: float
    """Unix time at which it was last written or read."""

    @property
    def key(self) -> str:
        """Of what it keeps."""
        return self.path.stem

    def read(self) -> Kept:
        """Its content.

        Raises:
            FileNotFoundError: when it had to make room meanwhile.
            ValueError: when it is damaged, or lies under another key.
        """
        with self.path.open("rb", buffering=0) as file:
            digest, payload = file.read(DIGEST), file.read()
        if digest != _digest(self.key, payload):
            raise ValueError(f"{self.path} is damaged")
        try:
            return Kept(load(payload), _notes(payload))
        except SafetensorError as error:
            raise ValueError(f"{self.path} holds no arrays: {error}") from None

    def notes(self) -> dict[str, str]:
        """The texts alone, unchecked; none where they cannot be read."""
        try:
            with self.path.open("rb") as file:
                file.seek(DIGEST)
                start = file.read(8)
                return _notes(start + file.read(min(int.from_bytes(start, "little"), self.size)))
        except (OSError, ValueError):
            return {}


class Store:
    """The store in a folder, which is made when something is put into it."""

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        """`limit` is in bytes; above it, outputs that were not used for longest make room."""
        self.folder, self.limit = folder, limit
        self._unseen = limit or 0  # bytes put since its size was looked at: the first one looks
        self._writes = True

    def get(self, key: str) -> Kept | None:
        """What is kept under a key; a damaged file is removed, and counts as nothing."""
        file = File(self._path(key), 0, 0.0)
        try:
            found = file.read()
        except FileNotFoundError:
            return None
        except (ValueError, OSError) as error:
            _log.warning("%s; what it kept is computed again", error)
            with suppress(OSError):
                file.path.unlink()
            return None
        with suppress(OSError):  # a store that others may only read
            os.utime(file.path)
        return found

    def put(self, key: str, kept: Kept) -> None:
        """Keep arrays under a key. Where the disk takes none, a warning says so, once."""
        if not self._writes:
            return
        payload = save(kept.arrays, metadata=kept.notes)
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with durable.whole(path, synced=False) as file:  # `get` notices what a crash damaged
                file.write(_digest(key, payload))
                file.write(payload)
            self._unseen += len(payload)
            if self.limit is not None and self._unseen > self.limit // 16:
                self.prune(self.limit)
                self._unseen = 0
        except OSError as error:
            self._writes = False
            _log.warning("the store takes nothing more from this process: %s", error)

    def files(self) -> Iterator[File]:
        """Every kept output, in no order; other files are passed over."""
        for path in self.folder.glob("??/*.safetensors"):
            if _NAME.fullmatch(path.name) and path.name.startswith(path.parent.name):
                with suppress(FileNotFoundError):
                    stat = path.stat()
                    yield File(path, stat.st_size, stat.st_mtime)

    def damaged(self) -> Iterator[File]:
        """The files that are damaged; all are read."""
        for file in self.files():
            try:
                file.read()
            except FileNotFoundError:
                continue
            except ValueError:
                yield file

    def prune(self, most: int) -> list[File]:
        """Remove what was not used for longest until `most` bytes are left; returns what went.

        What killed processes began to write goes too.
        """
        for path in self.folder.glob("??/.*.tmp"):
            name = durable.final_name(path.name)
            with suppress(OSError):
                if name and _NAME.fullmatch(name) and path.stat().st_mtime < time.time() - UNFINISHED_S:
                    path.unlink()
        found = sorted(self.files(), key=lambda file: (file.used, file.path.name))
        left, gone = sum(file.size for file in found), []
        for file in found:
            if left <= most:
                break
            file.path.unlink(missing_ok=True)
            left -= file.size
            gone.append(file)
        return gone

    def _path(self, key: str) -> Path:
        return self.folder / f"{key[:2]}/{key}.safetensors"


def _digest(key: str, payload: bytes) -> bytes:
    digest = hashlib.sha256(key.encode())
    digest.update(payload)
    return digest.digest()


def _notes(payload: bytes) -> dict[str, str]:
    size = int.from_bytes(payload[:8], "little")
    header: Mapping[str, Any] = json.loads(payload[8 : 8 + size])
    return dict(header.get("__metadata__", {}))
