"""Rows of many tables sorted, and written as one Parquet file, through temporary files.

Enters: tables one after the other, twice: first their keys, then all columns. Leaves: the bytes
that `assay.sources.table.encode` gives for the whole output at once. Memory holds a few portions of
the rows, the keys of every 1,024th row, and one column of a row group. The temporary files have no
name, so that a crash leaves none. This module does not know what the keys mean.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from assay.sources import durable, table

PORTION = 2**15
"""Rows in memory at once."""
SAMPLED = 2**10
"""One key in so many tells where the portions of the output end; it divides `PORTION`."""
GROUP = 2**20
"""Rows of a row group, as `assay.sources.table.encode` cuts them."""
FORGOTTEN = 2**20
"""Bytes written, after which the pages of the temporary files are given back to the kernel."""
MOST_TEXT = 2**31 - 1
"""Bytes of texts in one Arrow array."""


class Order:
    """An order of rows, learnt from their keys, in which the whole rows are then sorted.

    >>> order = Order([("score", "descending")])
    >>> content = pa.table({"score": [1.0, 3.0, 2.0], "id": ["a", "b", "c"]})
    >>> order.learn(content)
    >>> [portion["id"].to_pylist() for portion in order.sort([content], Path("sorted.parquet"))]
    [['b', 'c', 'a']]
    """

    def __init__(self, keys: Sequence[tuple[str, str]]) -> None:
        """`keys` are names of columns, each with `ascending` or `descending`."""
        self._keys = list(keys)
        self.rows = 0
        """Rows that were learnt."""
        self._held: list[pa.Table] = []
        self._samples: list[pa.Table] = []

    def learn(self, content: pa.Table) -> None:
        """Look at the keys of some rows, which memory holds for every `SAMPLED`-th row."""
        if not content.num_rows:
            return
        self._held.append(content.select([name for name, _ in self._keys]))
        self.rows += content.num_rows
        if sum(each.num_rows for each in self._held) >= PORTION:
            self._samples.append(self._sorted(self._held)[SAMPLED // 2 :: SAMPLED])
            self._held = []

    def sort(self, tables: Iterable[pa.Table], path: Path) -> Iterator[pa.Table]:
        """The rows that were learnt in their order, `PORTION` rows in each table but the last.

        `tables` have one schema, and at least one of them is given. `path` is the file that they
        are for: the temporary file lies beside it.
        """
        if self.rows <= PORTION:
            yield self._sorted(tables)
            return
        borders = self._sorted(self._samples)[PORTION // SAMPLED :: PORTION // SAMPLED]
        with durable.unnamed(path) as file:
            pieces: list[list[tuple[int, int]]] = [[] for _ in range(borders.num_rows + 1)]
            for content in _even(tables):
                for number, piece in self._split(content, borders):
                    start = file.tell()
                    with pa.ipc.new_stream(file, piece.schema) as stream:
                        stream.write_table(piece)
                    pieces[number].append((start, file.tell() - start))
            yield from _even(self._sorted(_stored(file, *spot) for spot in spots) for spots in pieces if spots)

    def _sorted(self, tables: Iterable[pa.Table]) -> pa.Table:
        return pa.concat_tables(tables).combine_chunks().sort_by(self._keys)

    def _split(self, content: pa.Table, borders: pa.Table) -> Iterator[tuple[int, pa.Table]]:
        """The rows between each border and the next one, with the number of that portion."""
        keys = pa.concat_tables([content.select(borders.column_names), borders])
        order = pc.sort_indices(keys, sort_keys=self._keys).to_numpy()
        own = order < content.num_rows
        ends = [*np.cumsum(own)[~own].tolist(), content.num_rows]
        content = content.take(pa.array(order[own]))
        for number, (start, end) in enumerate(zip([0, *ends], ends)):
            if start < end:
                yield number, content.slice(start, end - start).combine_chunks()


def _even(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows in tables of `PORTION` rows; the last one may hold less."""
    left: list[pa.Table] = []
    for content in filter(len, tables):
        left.append(content)
        if sum(each.num_rows for each in left) < PORTION:
            continue
        held = pa.concat_tables(left)
        whole = held.num_rows - held.num_rows % PORTION
        for start in range(0, whole, PORTION):
            yield held.slice(start, PORTION).combine_chunks()
        left = [held.slice(whole)]
    if any(each.num_rows for each in left):
        yield pa.concat_tables(left).combine_chunks()


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
            content = group.table()
            writer = writer or pq.ParquetWriter(sink, content.schema, **table.ENCODING)
            writer.write_table(content, row_group_size=GROUP)
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
    """A column of numbers, which lie in a file; memory holds a bit per row for the nulls."""

    def __init__(self, kind: pa.DataType, path: Path) -> None:
        super().__init__(kind)
        self._valid: list[pa.BooleanArray] = [pa.array([], pa.bool_())]
        self._files = [_Mapped(path)]

    def add(self, piece: pa.Array) -> None:
        self._valid.append(piece.is_valid())
        self._put(piece)

    def _put(self, piece: pa.Array) -> None:
        width = self._kind.bit_width // 8
        values = memoryview(piece.buffers()[1] or b"")
        self._files[0].write(values[piece.offset * width : (piece.offset + len(piece)) * width])

    def array(self) -> pa.Array:
        valid = pa.concat_arrays(self._valid)
        mask = None if pc.all(valid).as_py() else valid.buffers()[1]
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
