"""Rows of many tables put into one order, and written as one Parquet file, through temporary files.

Enters: tables one after the other, and the place of each of their rows in the output. Leaves: the
bytes that `assay.sources.table.encode` gives for the whole output at once. Memory holds a portion
of the rows, one column of a row group, and 8 bytes per row. The temporary files have no name, so
that a crash leaves none. This module does not know how an order is found.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from assay.sources import durable

PORTION = 2**16
"""Rows in memory at once."""
GROUP = 2**20
"""Rows of a row group, as `assay.sources.table.encode` cuts them."""
FORGOTTEN = 2**20
"""Bytes written, after which the pages of the temporary files are given back to the kernel."""
MOST_TEXT = 2**31 - 1
"""Bytes of texts in one Arrow array."""


def reordered(tables: Iterable[pa.Table], place: NDArray[np.int64], path: Path) -> Iterator[pa.Table]:
    """The rows in the order of their places, in portions; a place below 0 leaves a row out.

    `tables` have one schema, and at least one of them is given. `path` is the file that they are
    for: the temporary file lies beside it.
    """
    portions = -(-(int(place.max(initial=-1)) + 1) // PORTION)
    if portions <= 1:
        kept = [content.filter(pa.array(places >= 0)) for content, places in _placed(tables, place)]
        yield pa.concat_tables(kept).take(pa.array(np.argsort(place[place >= 0])))
        return
    with durable.unnamed(path) as file:
        pieces: list[list[tuple[int, int]]] = [[] for _ in range(portions)]
        for content, places in _placed(_gathered(tables), place):
            for number, piece in _split(content, places):
                start = file.tell()
                with pa.ipc.new_stream(file, piece.schema) as stream:
                    stream.write_table(piece)
                pieces[number].append((start, file.tell() - start))
        for spots in pieces:
            content = pa.concat_tables(_stored(file, *spot) for spot in spots)
            order = np.argsort(content["place"].to_numpy())
            yield content.drop_columns(["place"]).take(pa.array(order)).combine_chunks()


def _placed(tables: Iterable[pa.Table], place: NDArray[np.int64]) -> Iterator[tuple[pa.Table, NDArray[np.int64]]]:
    """The tables, each with the places of its rows."""
    start = 0
    for content in tables:
        yield content, place[start : start + content.num_rows]
        start += content.num_rows


def _gathered(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The tables in groups of at least `PORTION` rows."""
    held: list[pa.Table] = []
    for content in tables:
        held.append(content)
        if sum(each.num_rows for each in held) >= PORTION:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def _split(content: pa.Table, places: NDArray[np.int64]) -> Iterator[tuple[int, pa.Table]]:
    """The rows by the portion that they belong to, with their places."""
    order = np.argsort(places, kind="stable")
    order = order[np.searchsorted(places[order], 0) :]
    content = content.take(pa.array(order)).append_column("place", pa.array(places[order]))
    numbers, starts = np.unique(places[order] // PORTION, return_index=True)
    for number, start, end in zip(numbers.tolist(), starts, [*starts[1:], len(order)], strict=True):
        yield number, content.slice(start, end - start).combine_chunks()


def _stored(file: IO[bytes], start: int, length: int) -> pa.Table:
    file.seek(start)
    return pa.ipc.open_stream(file.read(length)).read_all()


def write(portions: Iterable[pa.Table], path: Path) -> str:
    """Write tables of one schema as one Parquet file, whole or not at all; its sha256 in hex.

    At least one table is given.
    """
    writer: pq.ParquetWriter | None = None
    with durable.whole(path) as file:
        sink = _Sink(file)
        for group in _groups(portions, path):
            sink.forget = group.forget
            table = group.table()
            writer = writer or pq.ParquetWriter(
                sink, table.schema, compression="zstd", write_page_checksum=True, write_statistics=False
            )
            writer.write_table(table, row_group_size=GROUP)
        assert writer is not None
        writer.close()
    return sink.digest.hexdigest()


class _Sink:
    """A file that takes the digest of what is written; what was read for it is forgotten."""

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self.digest = hashlib.sha256()
        self.forget: Callable[[], None] = lambda: None
        self._file, self._written, self._since = file, 0, 0

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        self._written += len(content)
        self._since += len(content)
        if self._since >= FORGOTTEN:
            self.forget()
            self._since = 0
        return self._file.write(content)

    def tell(self) -> int:
        return self._written

    def flush(self) -> None:
        """The file is flushed when it is whole."""

    def close(self) -> None:
        """The file is closed when it is whole."""


def _groups(portions: Iterable[pa.Table], path: Path) -> Iterator[_Group]:
    """The rows of one row group after the other."""
    group: _Group | None = None
    for portion in portions:
        for start in range(0, max(portion.num_rows, 1), PORTION):
            piece = portion.slice(start, PORTION).combine_chunks()
            if group is not None and not group.fits(piece):
                yield group
                group = None
            group = group or _Group(piece.schema, path)
            group.add(piece)
    if group is not None:
        yield group


class _Group:
    """The columns of one row group: whole arrays that lie in files."""

    def __init__(self, schema: pa.Schema, path: Path) -> None:
        self.rows = 0
        self._schema = schema
        self._columns = [_column(field.type, path) for field in schema]

    def fits(self, piece: pa.Table) -> bool:
        return self.rows + piece.num_rows <= GROUP and all(
            column.bytes + content.nbytes <= MOST_TEXT
            for column, content in zip(self._columns, piece.columns, strict=True)
        )

    def add(self, piece: pa.Table) -> None:
        self.rows += piece.num_rows
        for column, content in zip(self._columns, piece.columns, strict=True):
            for array in content.chunks:
                column.add(array)

    def table(self) -> pa.Table:
        return pa.Table.from_arrays([column.array() for column in self._columns], schema=self._schema)

    def forget(self) -> None:
        """Give the pages of the files back; they are read again when they are needed."""
        for column in self._columns:
            column.forget()


def _column(kind: pa.DataType, path: Path) -> _Held:
    if pa.types.is_string(kind):
        return _Texts(kind, path)
    return _Numbers(kind, path) if pa.types.is_integer(kind) or pa.types.is_floating(kind) else _Held(kind)


class _Held:
    """A column in memory: flags, lists or nulls."""

    def __init__(self, kind: pa.DataType) -> None:
        self.bytes = 0
        self._kind = kind
        self._pieces: list[pa.Array] = []

    def add(self, piece: pa.Array) -> None:
        self.bytes += piece.nbytes
        self._pieces.append(piece)

    def array(self) -> pa.Array:
        return pa.concat_arrays(self._pieces) if self._pieces else pa.array([], self._kind)

    def forget(self) -> None:
        """Nothing lies in a file."""


class _Numbers(_Held):
    """A column of numbers, which lie in a file; memory holds a byte per row for the nulls."""

    def __init__(self, kind: pa.DataType, path: Path) -> None:
        super().__init__(kind)
        self._valid: list[NDArray[np.bool_]] = []
        self._files = [_Mapped(path)]

    def add(self, piece: pa.Array) -> None:
        self._valid.append(np.asarray(piece.is_valid()))
        self._put(piece)

    def _put(self, piece: pa.Array) -> None:
        width = self._kind.bit_width // 8
        values = memoryview(piece.buffers()[1] or b"")
        self._files[0].write(values[piece.offset * width : (piece.offset + len(piece)) * width])

    def array(self) -> pa.Array:
        valid = np.concatenate([np.empty(0, np.bool_), *self._valid])
        mask = None if valid.all() else pa.py_buffer(np.packbits(valid, bitorder="little"))
        return pa.Array.from_buffers(self._kind, len(valid), [mask, *(file.mapped() for file in self._files)])

    def forget(self) -> None:
        for file in self._files:
            file.forget()


class _Texts(_Numbers):
    """A column of texts: their ends lie in one file, their bytes in another one."""

    def __init__(self, kind: pa.DataType, path: Path) -> None:
        super().__init__(kind, path)
        self._files = [_Mapped(path), _Mapped(path)]
        self._files[0].write(memoryview(bytes(4)))

    def _put(self, piece: pa.Array) -> None:
        if not len(piece):
            return
        _, ends, texts = piece.buffers()
        borders = np.frombuffer(ends, np.int32)[piece.offset : piece.offset + len(piece) + 1]
        self._files[0].write((borders[1:] - borders[0] + np.int32(self.bytes)).data)
        self._files[1].write(memoryview(texts or b"")[borders[0] : borders[-1]])
        self.bytes += int(borders[-1] - borders[0])


class _Mapped:
    """A temporary file without a name, and its content as a buffer."""

    def __init__(self, path: Path) -> None:
        self._file = durable.unnamed(path)
        self._map: mmap.mmap | None = None

    def write(self, content: memoryview) -> None:
        self._file.write(content)

    def mapped(self) -> pa.Buffer:
        self._file.flush()
        if self._file.tell() == 0:
            return pa.py_buffer(b"")
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return pa.py_buffer(self._map)

    def forget(self) -> None:
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
