"""Writes a crystal as CIF, POSCAR, extended XYZ or JSON of pymatgen, in the cell in which it is.

Enters: a batch of one crystal, and facts about it: a name and a number or text each. Leaves: the
text of a file, with the facts in its comment (one line of JSON, ASCII) or in fields of their own.
Shares of sites are written to 5 decimals. This module does not know paths, nor what the facts mean.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ase.io import extxyz
from pymatgen.io.cif import CifWriter
from pymatgen.io.vasp.inputs import Poscar

from assay.sources.crystals import Crystals
from assay.sources.formats import convert

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

Facts: TypeAlias = Mapping[str, str | float | None]
DIGITS = 12
"""Decimals of lengths, angles and positions in a CIF; a POSCAR has 16, extended XYZ 8."""


@dataclass(frozen=True)
class Format:
    """A format that holds one crystal in a file."""

    ending: str
    write: Callable[[Crystals, Facts], str]
    """Raises ValueError where the format cannot hold the crystal."""


def comment(facts: Facts) -> str:
    """The facts on one line of ASCII, which JSON readers understand."""
    return json.dumps(dict(facts), allow_nan=False)


def whole_atoms(crystal: Crystals, name: str) -> Structure:
    """The structure of a crystal without shared or partly empty sites, equal elements together.

    Raises:
        ValueError: when a site is shared or partly empty, which `name` cannot say.
    """
    if not crystal.is_ordered[0]:
        raise ValueError(f"its sites are shared or partly empty, and {name} holds whole atoms alone")
    return convert.to_pymatgen(crystal.without_columns())[0].get_sorted_structure()


def cif(crystal: Crystals, facts: Facts) -> str:
    """All sites of the cell, in P1; each element of a shared site is a line with its occupancy."""
    (structure,) = convert.to_pymatgen(crystal.without_columns())
    writer = CifWriter(structure, significant_figures=DIGITS)
    for block in writer.cif_file.data.values():
        block.data["_cell_formula_units_Z"] = "1"  # pymatgen's formula counts the whole cell already
    return f"# {comment(facts)}\n{writer}"


def ordered_cif(crystal: Crystals, facts: Facts) -> str:
    """A CIF of whole atoms, for readers that take one element per site.

    Raises:
        ValueError: when the crystal is disordered.
    """
    whole_atoms(crystal, "CGCNN")
    return cif(crystal, facts)


def poscar(crystal: Crystals, facts: Facts) -> str:
    """VASP 5 with fractional positions.

    Raises:
        ValueError: when the crystal is disordered.
    """
    return Poscar(whole_atoms(crystal, "POSCAR"), comment=comment(facts)).get_str(significant_figures=16)


def extended_xyz(crystal: Crystals, facts: Facts) -> str:
    """One frame; a disordered crystal has `occupancy` and `spacegroup_kinds`, as ASE writes it."""
    (atoms,) = convert.to_ase(crystal.without_columns())
    atoms.info.update({name: value for name, value in facts.items() if value is not None})
    text = io.StringIO()
    extxyz.write_extxyz(text, [atoms])
    return text.getvalue()


def structure_json(crystal: Crystals, facts: Facts) -> str:
    """`Structure.as_dict()` of pymatgen; the facts are its `properties`."""
    (structure,) = convert.to_pymatgen(crystal.without_columns())
    structure.properties = dict(facts)
    return json.dumps(structure.as_dict(), allow_nan=False) + "\n"


FORMATS: Mapping[str, Format] = {
    "cif": Format(".cif", cif),
    "poscar": Format(".vasp", poscar),
    "extxyz": Format(".extxyz", extended_xyz),
    "json": Format(".json", structure_json),
}
"""Name -> format."""
BESIDE_A_LIST: Mapping[str, Format] = {"cgcnn": Format(".cif", ordered_cif), "alignn": Format(".vasp", poscar)}
"""Name -> format of the files in a folder with a list of them, as those programs read it."""
