"""Reads a crystal from the JSON of an `Atoms` of ASE, or of a row of its JSON database.

Enters: the dictionary, as JSON gives it. Leaves: a crystal in an assembler, or a record that says
why there is none. Occupancies are kept where `info["occupancy"]` and `spacegroup_kinds` give them;
momenta, constraints and tags are dropped. This module does not import ASE and does not know files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.sources.assemble import Assembler
from assay.sources.formats.convert import site_species
from assay.sources.formats.records import scalars
from assay.sources.quarantine import Reason

ENERGIES = ("energy", "free_energy", "magmom")
"""Numbers of a row that become columns, beside its key-value pairs."""


def is_atoms(item: Mapping[str, Any]) -> bool:
    """Tell whether a dictionary is an `Atoms`, or a row, of ASE."""
    return {"numbers", "positions", "cell"} <= item.keys()


def add_atoms(assembler: Assembler, atoms: Mapping[str, Any], id: str, origin: str, columns: Mapping[str, Any]) -> None:
    """Hand one `Atoms` to the assembler, or refuse it."""
    notes = [atoms.get(name) for name in ("info", "key_value_pairs")]
    info, pairs = (note if isinstance(note, dict) else {} for note in notes)
    try:
        numbers, positions, cell, pbc, kinds = (
            _array(atoms.get(name), name) for name in ("numbers", "positions", "cell", "pbc", "spacegroup_kinds")
        )
        if numbers is None or positions is None or cell is None or numbers.dtype.kind != "i":
            raise ValueError("numbers, positions and cell are needed, numbers as integers")
        if pbc is None or pbc.dtype.kind != "b" or not pbc.all():
            told = None if pbc is None else pbc.tolist()
            assembler.refuse(id, origin, Reason.NOT_PERIODIC, f"pbc is {told}, three dimensions are needed")
            return
        species = site_species(numbers.tolist(), info.get("occupancy"), None if kinds is None else kinds.tolist())
    except ValueError as error:
        assembler.refuse(id, origin, Reason.MALFORMED, str(error))
        return
    values = {name: atoms[name] for name in ENERGIES if name in atoms}
    every = {**scalars({**info, **pairs, **values}), **columns}
    assembler.add(id, origin, cell, positions, species, every, cartesian=True)


def _array(value: Any, name: str) -> NDArray[Any] | None:
    """Return an array that ASE wrote, plain or wrapped; None where there is none."""
    if isinstance(value, dict) and "array" in value:  # a cell
        value = value["array"]
    if isinstance(value, dict):
        value = value.get("__ndarray__")
        if not (
            isinstance(value, list) and len(value) == 3 and isinstance(value[0], list) and isinstance(value[2], list)
        ):
            raise ValueError(f"{name} is no array as ASE writes it")
        shape, _, flat = value
        if not all(isinstance(size, int) for size in shape) or math.prod(shape) != len(flat):
            raise ValueError(f"{name} has {len(flat)} values for the shape {shape}")
        return np.array(flat).reshape(shape)
    return None if value is None else np.array(value)
