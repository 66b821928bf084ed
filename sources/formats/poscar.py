"""Reads the crystal in the text of a POSCAR or CONTCAR.

Enters: the text of one file, with its name for ids and records. Leaves: a crystal in an assembler,
or a record that says why there is none. This module does not know files.
"""

from __future__ import annotations

import warnings

from assay.sources.assemble import Assembler
from assay.sources.formats.convert import add_pymatgen
from assay.sources.formats.records import described, numbered
from assay.sources.quarantine import Reason


def add_poscar(assembler: Assembler, text: str, label: str, origin: str) -> None:
    """Hand the crystal of a POSCAR to the assembler, or refuse it."""
    from pymatgen.io.vasp.inputs import BadPoscarWarning, Poscar

    id = numbered(label, 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", BadPoscarWarning)  # a guess at the elements is no reading
            poscar = Poscar.from_str(text)
        add_pymatgen(assembler, poscar.structure, id, origin)
    except Exception as error:  # noqa: BLE001 - as for CIF: one crystal, any exception type
        assembler.refuse(id, origin, Reason.UNREADABLE, described(error))
