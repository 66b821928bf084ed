"""Opens files for reading: regular files alone, packed ones unpacked, all within limits.

Enters: a path, or a stream. Leaves: streams and texts. A pipe or a device is never opened, because
it may never end. This module does not know what the files hold, nor how far a limit goes
(`assay.sources.checks.limits`).
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
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, BinaryIO, TextIO

from assay.sources.checks import limits
from assay.sources.storage.xz import XzFile

_UNPACK: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": XzFile, ".tgz": gzip.open}
_PACKED = {"\x1f\ufffd": ".gz", "BZh": ".bz2", "\ufffd7zXZ": ".xz", "PK\x03\x04": ".zip"}
"""Ending of the name by the first characters of packed content, read as UTF-8."""
_HEAD = 4096
"""Characters that tell a text from binary data."""
_SORTS = {
    stat.S_IFIFO: "a FIFO (named pipe)",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


class Bounded(io.RawIOBase):
    """A binary stream that raises a ValueError beyond a limit, and where its content is damaged."""

    def __init__(self, stream: BinaryIO, limit: str, packed: int, below: BinaryIO | None, careful: bool) -> None:
        """Bound `stream` by a limit and by the ratio to its `packed` bytes; close `below` with it.

        A `careful` stream gives no more at once than a table of contents may have.
        """
        self._stream, self._limit, self._packed, self._below, self._careful = stream, limit, packed, below, careful

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
            Exceeded: beyond a limit.
            ValueError: for damaged content.
        """
        if self._careful:
            limits.check("contents", len(buffer), "asks for too much at once")
        try:
            content = self._stream.read(len(buffer))
        except (EOFError, OSError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError) as error:
            raise ValueError(f"the packed content is torn or damaged ({' '.join(str(error).split())})") from error
        limits.check(self._limit, self._stream.tell())
        limits.check_growth("ratio", self._stream.tell(), self._packed)
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
    return through(regular(path), path.name, path.stat().st_size)


def through(stream: BinaryIO, name: str, size: int, limit: str = "unpacked") -> BinaryIO:
    """Return the stream of `size` bytes, unpacked where the name ends in `.gz`, `.bz2` or `.xz`."""
    unpack = _UNPACK.get(PurePath(name).suffix.lower())
    return stream if unpack is None else bounded(unpack(stream), limit, size, below=stream)


def bounded(
    stream: BinaryIO, limit: str, packed: int, below: BinaryIO | None = None, careful: bool = False
) -> BinaryIO:
    """Return the stream within a limit; see `Bounded`."""
    return io.BufferedReader(Bounded(stream, limit, packed, below, careful), 2**16)


def read_text(stream: BinaryIO, limit: str = "text") -> str:
    """Read a whole text; bytes that are no UTF-8 become `\N{REPLACEMENT CHARACTER}`.

    Raises:
        Exceeded: beyond the limit.
        ValueError: for binary data.
    """
    most = limits.most(limit)
    content = stream.read(most + 1)
    if len(content) > most:
        raise limits.Exceeded(f"more than {most:,} {limits.LIMITS[limit].unit}, which is the most accepted")
    text = as_text(io.BytesIO(content)).read()
    refuse_binary(text)
    return text


def refuse_binary(text: str) -> None:
    r"""Refuse what is no text by its beginning, without quoting it.

    >>> refuse_binary("\x1f\ufffd\x08\x00")
    Traceback (most recent call last):
        ...
    ValueError: a text expected, found packed data: let the name of the file end in .gz

    Raises:
        ValueError: for a NUL, and where over a tenth of the characters cannot be shown.
    """
    head = text[:_HEAD]
    unseen = sum(sign == "\ufffd" or not (sign.isprintable() or sign.isspace()) for sign in head)
    if "\0" in head or unseen > len(head) / 10:
        ending = next((ending for start, ending in _PACKED.items() if head.startswith(start)), None)
        found = "binary data" if ending is None else f"packed data: let the name of the file end in {ending}"
        raise ValueError(f"a text expected, found {found}")


def lines(stream: BinaryIO) -> Iterator[str]:
    """Yield the lines of a text of any length.

    Raises:
        Exceeded: for a line beyond its limit.
        ValueError: for binary data.
    """
    most = limits.most("line")
    with as_text(stream) as text:
        number = 0
        while line := text.readline(most + 1):
            number += 1
            if number == 1:
                refuse_binary(line)
            if len(line) > most:
                message = f"line {number} has more than {most:,} bytes, which is the most accepted"
                raise limits.Exceeded(f"{message}; it and all after it are not read")
            yield line


def as_text(stream: BinaryIO) -> TextIO:
    """Return a stream of text: UTF-8, or UTF-16 behind its byte-order mark; any end of line."""
    wide = stream.peek(2)[:2] if isinstance(stream, io.BufferedReader) else _first(stream)
    encoding = "utf-16" if wide in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    return io.TextIOWrapper(stream, encoding=encoding, errors="replace")


def _first(stream: BinaryIO) -> bytes:
    start = stream.read(2)
    stream.seek(0)
    return start
