"""Reads crystals from a trajectory of ASE (`.traj`), a file of the kind that ASE calls ULM.

Enters: the stream of one file, with its name for ids and records. Leaves: one crystal per frame in
an assembler, or a record that says why there is none. A file begins with a table of the places of
its frames. A frame is a JSON that names its arrays by shape, type and place; what does not change
stands in the first frame only. Each number that a file announces is held against its size before
anything is read. This module does not know files.
"""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from assay.sources.assemble import Assembler
from assay.sources.checks import limits
from assay.sources.formats.documents.atoms import ENERGIES, add_atoms
from assay.sources.formats.records import described, numbered
from assay.sources.quarantine import Reason

MAGIC = (b"- of Ulm", b"AFFormat")
TAG = b"ASE-Trajectory"
HEADER = ("numbers", "pbc")
"""What later frames take from the first one unless they have numbers of their own."""
KINDS = {"b": np.bool_, "i": np.int64, "u": np.int64, "f": np.float64}
"""Kinds of types that an array of a frame may have, and what they become."""


class _File:
    """The bytes of a file; all that is read of it together is no more than it has."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream, self._size, self._left = stream, size, size

    def read(self, place: int, size: int, name: str) -> bytes:
        """Read exactly `size` bytes at a place.

        Raises:
            ValueError: when the file does not hold them, or gave as many bytes as it has before.
        """
        if place < 0 or size < 0 or place + size > self._size:
            raise ValueError(f"{name}: {size:,} bytes at {place:,} are announced, the file has {self._size:,}")
        if size > self._left:
            raise ValueError(f"{name}: frames and arrays announce more bytes together than the file has")
        self._left -= size
        self._stream.seek(place)
        content = self._stream.read(size)
        if len(content) != size:
            raise ValueError(f"{name}: the file ends early")
        return content


def add_trajectory(assembler: Assembler, stream: BinaryIO, label: str, origin: str) -> None:
    """Hand the crystal of each frame to the assembler, or refuse it.

    Raises:
        Exceeded: when a packed file is too large to be held.
    """
    file = _movable(stream)
    try:
        places = _places(file)
    except ValueError as error:
        assembler.refuse(numbered(label, 1), origin, Reason.UNREADABLE, f"no ASE trajectory: {described(error)}")
        return
    shared: dict[str, Any] | None = None
    for number, place in enumerate(places.tolist(), start=1):
        id = numbered(label, number)
        try:
            frame, order = _frame(file, place)
            if number == 1:
                shared = _arrays(file, frame, order, HEADER)
            if not frame.keys() & {"numbers", "numbers."} and shared is None:
                raise ValueError("the first frame, which holds its elements, cannot be read")
            atoms = {**_arrays(file, frame, order, ("positions", "cell", "spacegroup_kinds", "info")), **(shared or {})}
            if number > 1 and frame.keys() & {"numbers", "numbers."}:
                atoms |= _arrays(file, frame, order, HEADER)
        except (ValueError, RecursionError) as error:
            assembler.refuse(id, origin, Reason.UNREADABLE, f"frame {number}: {described(error)}")
        else:
            add_atoms(assembler, atoms, id, origin, _results(frame.get("calculator.", frame.get("calculator"))))


def _places(file: _File) -> NDArray[np.int64]:
    """Place of each frame, each once.

    Raises:
        ValueError: when this is no trajectory, or it announces more frames than it can hold.
    """
    head = file.read(0, 48, "the head")
    if head[:8] not in MAGIC or head[8:24].rstrip() != TAG:
        raise ValueError("the file does not begin as one")
    _, count, table = struct.unpack("<3q", head[24:])
    if count == 0:
        raise ValueError("the trajectory has no frame")
    places = np.frombuffer(file.read(table, 8 * count, f"{count:,} frames"), dtype="<i8")
    if len(np.unique(places)) != count:
        raise ValueError(f"{count:,} frames are announced, but several stand at one place")
    return places


def _frame(file: _File, place: int) -> tuple[dict[str, Any], str]:
    """The JSON of a frame, and the order of the bytes in its arrays.

    Raises:
        ValueError: when it is no frame, or announces more than the file holds.
    """
    (size,) = struct.unpack("<q", file.read(place, 8, "a frame"))
    text = file.read(place + 8, size, "a frame")
    limits.check("entry values", sum(map(text.count, (b",", b"[", b"{"))))
    frame = json.loads(text)
    if not isinstance(frame, dict):
        raise ValueError("a frame is no JSON object")  # noqa: TRY004 (content of a file, no argument)
    return frame, "<" if frame.get("_little_endian", True) else ">"


def _arrays(file: _File, frame: Mapping[str, Any], order: str, names: Sequence[str]) -> dict[str, Any]:
    """The values of these names that a frame has; its other arrays stay in the file."""
    found = {name: frame[name] for name in names if name in frame}
    for name in names:
        value = frame.get(f"{name}.")
        if isinstance(value, dict) and "ndarray" in value:
            found[name] = _array(file, value["ndarray"], order, name)
    return found


def _array(file: _File, said: Any, order: str, name: str) -> NDArray[Any]:
    try:
        shape, kind, place = said
        sizes, dtype, place = [int(size) for size in shape], np.dtype(kind).newbyteorder(order), int(place)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} is no array: {described(error)}") from None
    if dtype.kind not in KINDS or dtype.subdtype or len(sizes) > 2 or min(sizes, default=0) < 0:
        raise ValueError(f"{name} is no array of numbers in one or two dimensions")
    content = file.read(place, math.prod(sizes) * dtype.itemsize, f"{name} of shape {sizes}")
    return np.frombuffer(content, dtype=dtype).reshape(sizes).astype(KINDS[dtype.kind])


def _results(calculator: Any) -> dict[str, Any]:
    """Numbers that the calculator of a frame gave, its name and parameters left out."""
    given = calculator if isinstance(calculator, dict) else {}
    return {name: given[name] for name in ENERGIES if isinstance(given.get(name), int | float)}


def _movable(stream: BinaryIO) -> _File:
    """The file itself, or all of a packed one: the places in it lead back and forth."""
    try:
        stream.fileno()
    except io.UnsupportedOperation:
        most = limits.most("held")
        content = stream.read(most + 1)
        if len(content) > most:
            raise limits.Exceeded(f"more than {most:,} {limits.LIMITS['held'].unit}; unpack the file first") from None
        return _File(io.BytesIO(content), len(content))
    return _File(stream, stream.seek(0, io.SEEK_END))
