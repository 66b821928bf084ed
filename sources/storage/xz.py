"""Unpacks `.xz` within a limit on memory.

Enters: a packed stream. Leaves: a stream of its content. The head of an xz stream announces how
much memory its unpacking takes, up to 4 GiB in a file of 100 bytes; Python's `lzma.open` takes all
of it. This module does not know what the content is.
"""

from __future__ import annotations

import io
import lzma
from typing import Any, BinaryIO

from assay.sources.checks import limits

AT_ONCE = 2**16
"""Packed bytes that are read at once."""


class XzFile(io.RawIOBase):
    """The content of one or more xz streams, one after the other; a step back begins again."""

    def __init__(self, stream: BinaryIO) -> None:
        """Unpack `stream` from where it stands."""
        self._stream, self._start = stream, stream.tell()
        self._rewind()

    def _rewind(self) -> None:
        self._at, self._rest = 0, b""
        self._unpacker = self._new()

    def _new(self) -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(memlimit=limits.most("dictionary"))

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True where the packed stream can move."""
        return self._stream.seekable()

    def tell(self) -> int:
        """Return the position in the content."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move in the content, backwards by unpacking it again."""
        target = offset + (self._at if whence == io.SEEK_CUR else 0)
        if whence == io.SEEK_END or target < 0:
            raise io.UnsupportedOperation("a packed stream knows no end")
        if target < self._at:
            self._stream.seek(self._start)
            self._rewind()
        while self._at < target and self.read(min(target - self._at, AT_ONCE)):
            pass
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Unpack up to the size of the buffer.

        Raises:
            Exceeded: when the content announces more memory than accepted.
            lzma.LZMAError: when it is damaged.
            EOFError: when it is torn.
        """
        content = self._unpack(len(buffer))
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def _unpack(self, size: int) -> bytes:
        while size:
            if self._unpacker.eof:
                self._rest = (self._unpacker.unused_data or self._stream.read(AT_ONCE)).lstrip(b"\0")
                if not self._rest:
                    return b""
                self._unpacker = self._new()
            elif self._unpacker.needs_input and not self._rest:
                self._rest = self._stream.read(AT_ONCE)
                if not self._rest:
                    raise EOFError("the packed stream ends before its content")
            packed, self._rest = self._rest, b""
            try:
                content = self._unpacker.decompress(packed, size)
            except lzma.LZMAError as error:
                if "Memory usage limit" in str(error):
                    limit = limits.LIMITS["dictionary"]
                    raise limits.Exceeded(f"announces more than {limit.most:,} {limit.unit}") from None
                raise
            if content:
                return content
        return b""
