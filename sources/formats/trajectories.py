"""Reads crystals from a trajectory of ASE (`.traj`).

Enters: the stream of one file, with its name for ids and records. Leaves: one crystal per frame in
an assembler, or a record that says why there is none. This module does not know files.
"""

from __future__ import annotations

import io
import warnings
from typing import BinaryIO

from assay.sources.assemble import Assembler
from assay.sources.formats.convert import add_ase
from assay.sources.formats.records import described, numbered, scalars
from assay.sources.quarantine import Reason

MAX_PACKED_BYTES = 512 * 2**20
"""Largest packed trajectory, after unpacking: the format jumps back and forth, so it is held."""


def add_trajectory(assembler: Assembler, stream: BinaryIO, label: str, origin: str) -> None:
    """Hand the crystal of each frame to the assembler, or refuse it."""
    from ase.io.trajectory import TrajectoryReader

    try:
        frames = TrajectoryReader(_movable(stream))  # type: ignore[no-untyped-call]
        count = len(frames)
        if not count:
            raise ValueError("the trajectory has no frame")
    except Exception as error:  # noqa: BLE001 - the format reads lengths and JSON: any exception type
        assembler.refuse(numbered(label, 1), origin, Reason.UNREADABLE, f"no ASE trajectory: {described(error)}")
        return
    for number in range(1, count + 1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                atoms = frames[number - 1]
            columns = scalars({**atoms.info, **(atoms.calc.results if atoms.calc else {})})
            add_ase(assembler, atoms, numbered(label, number), origin, columns)
        except Exception as error:  # noqa: BLE001 - as above, one frame
            message = f"frame {number}: {described(error)}"
            assembler.refuse(numbered(label, number), origin, Reason.UNREADABLE, message)


def _movable(stream: BinaryIO) -> BinaryIO:
    """Return a stream that jumps quickly: the file itself, or all of a packed one."""
    try:
        stream.fileno()
    except io.UnsupportedOperation:
        content = stream.read(MAX_PACKED_BYTES + 1)
        if len(content) > MAX_PACKED_BYTES:
            raise ValueError(f"more than {MAX_PACKED_BYTES:,} bytes after unpacking; unpack the file first") from None
        return io.BytesIO(content)
    return stream
