"""Reads crystals from the lines of an extended XYZ file.

Enters: the lines of one file, with its name for ids and records. Leaves: one crystal per frame in
an assembler, or a record that says why there is none. This module does not know files.
"""

from __future__ import annotations

from typing import Any, TextIO

import numpy as np

from assay.sources.assemble import Assembler
from assay.sources.formats.convert import add_ase
from assay.sources.formats.records import described, numbered
from assay.sources.quarantine import Reason
from assay.sources.table import RESERVED


def add_xyz(assembler: Assembler, lines: TextIO, label: str, origin: str) -> None:
    """Hand the crystal of each frame to the assembler, or refuse it."""
    from ase.io.extxyz import read_xyz

    number = 0
    try:
        for number, atoms in enumerate(read_xyz(lines, index=slice(None)), start=1):
            add_ase(assembler, atoms, numbered(label, number), origin, _extras(atoms))
    except Exception as error:  # noqa: BLE001 - frames after a broken one cannot be found: one record for the rest
        message = f"frame {number + 1} and all after it: {described(error)}"
        assembler.refuse(numbered(label, number + 1), origin, Reason.UNREADABLE, message)


def _extras(atoms: Any) -> dict[str, Any]:
    """Numbers and texts beside the structure, such as the energy of its calculator."""
    known = {**atoms.info, **(atoms.calc.results if atoms.calc else {})}
    scalar = (bool, int, float, str, np.number, np.bool_)
    return {name: value for name, value in known.items() if isinstance(value, scalar) and name not in RESERVED}
