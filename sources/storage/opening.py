"""Opens files for reading: regular files alone, packed ones unpacked, all within bounds.

Enters: a path, or a stream with a limit. Leaves: streams and texts. A pipe or a device is never
opened, because it may never end. This module does not know what the files hold.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePath
from typing import Any, BinaryIO, TextIO

MAX_TEXT_BYTES = 10 * 2**20
"""Largest CIF or POSCAR that is read, after it was unpacked."""
MAX_UNPACKED_BYTES = 4 * 2**30
"""Most bytes that come out of one packed file."""

_UNPACK: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".tgz": gzip.open}
_SORTS = {
    stat.S_IFIFO: "a FIFO (named pipe)",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


class Bounded(io.RawIOBase):
    """A binary stream that raises a ValueError beyond a limit, and where its content is damaged."""

    def __init__(self, stream: BinaryIO, most: int, at_once: int | None = None, below: BinaryIO | None = None) -> None:
        """Bound `stream` to `most` bytes, each read to `at_once` bytes; close `below` with it."""
        self._stream, self._most, self._at_once, self._below = stream, most, at_once, below

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return whether the stream below can move."""
        return self._stream.seekable()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the stream below."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """Return the position of the stream below."""
        return self._stream.tell()

    def readinto(self, buffer: Any) -> int:
        """Read up to the size of the buffer.

        Raises:
            ValueError: beyond the limit, for too much at once, and for damaged content.
        """
        if self._at_once is not None and len(buffer) > self._at_once:
            raise ValueError(f"asks for {len(buffer):,} bytes at once, at most {self._at_once:,} accepted")
        try:
            content = self._stream.read(len(buffer))
        except (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError) as error:
            raise ValueError(f"the packed content is torn or damaged ({' '.join(str(error).split())})") from error
        if self._stream.tell() > self._most:
            raise ValueError(f"more than {self._most:,} bytes after unpacking, which is the most accepted")
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        """Close the streams below, too."""
        self._stream.close()
        if self._below is not None:
            self._below.close()
        super().close()


def sort_of(mode: int) -> str | None:
    """Name what is no regular file, as in "a FIFO (named pipe)"; None for a regular file."""
    return None if stat.S_ISREG(mode) else _SORTS.get(stat.S_IFMT(mode), "a special file")


def regular(path: Path) -> BinaryIO:
    """Open a regular file.

    Raises:
        ValueError: for anything else, which is not opened.
        OSError: when the file is absent or may not be read.
    """
    _refuse(path.stat().st_mode, path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe put here since does not block
    try:
        _refuse(os.fstat(descriptor).st_mode, path)
    except ValueError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _refuse(mode: int, path: Path) -> None:
    sort = sort_of(mode)
    if sort is not None:
        raise ValueError(f"{path} is {sort}, expected a regular file")


def unpacked(path: Path) -> BinaryIO:
    """Open a regular file, through its unpacker where the name ends in `.gz`, `.bz2` or `.xz`.

    Raises:
        ValueError: as `regular` does; later, as `Bounded` does.
        OSError: as `regular` does.
    """
    return through(regular(path), path.name)


def through(stream: BinaryIO, name: str, most: int = MAX_UNPACKED_BYTES) -> BinaryIO:
    """Return the stream, behind its unpacker where the name ends in `.gz`, `.bz2` or `.xz`."""
    unpack = _UNPACK.get(PurePath(name).suffix.lower())
    return stream if unpack is None else bounded(unpack(stream), most, below=stream)


def bounded(stream: BinaryIO, most: int, at_once: int | None = None, below: BinaryIO | None = None) -> BinaryIO:
    """Return the stream with a limit; see `Bounded`."""
    return io.BufferedReader(Bounded(stream, most, at_once, below), 2**16)


def read_text(stream: BinaryIO, most: int = MAX_TEXT_BYTES) -> str:
    """Read a whole text; bytes that are no UTF-8 become `\N{REPLACEMENT CHARACTER}`.

    Raises:
        ValueError: when it is longer than `most` bytes.
    """
    content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"more than {most:,} bytes of text, which is the most accepted")
    return as_text(io.BytesIO(content)).read()


def as_text(stream: BinaryIO) -> TextIO:
    """Return a stream of text: UTF-8, or UTF-16 behind its byte-order mark; any end of line."""
    wide = stream.peek(2)[:2] if isinstance(stream, io.BufferedReader) else _first(stream)
    encoding = "utf-16" if wide in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return io.TextIOWrapper(stream, encoding=encoding, errors="replace")


def _first(stream: BinaryIO) -> bytes:
    start = stream.read(2)
    stream.seek(0)
    return start
