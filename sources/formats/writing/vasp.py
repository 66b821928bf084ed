"""Writes the inputs of a VASP calculation, by the recipes in pymatgen.

Enters: a batch of one crystal, and facts about it. Leaves: the texts of INCAR, KPOINTS, POSCAR, and
of POTCAR.spec, which names the pseudopotentials: these are licensed, and none is read or written.
This module does not know paths.
"""

from __future__ import annotations

from pymatgen.io.vasp import sets

from assay.sources.crystals import Crystals
from assay.sources.formats.writing.structures import Facts, comment, whole_atoms


def inputs(crystal: Crystals, recipe: str, title: str, facts: Facts) -> dict[str, str]:
    """Name of each file -> its text, by a recipe with the name that it has in pymatgen.

    A recipe with KSPACING in INCAR, as MPScanRelaxSet, has no KPOINTS.
    INCAR has the title as SYSTEM; POSCAR and KPOINTS have the facts in their comments.

    Raises:
        ValueError: when the crystal is disordered, or holds an element that the recipe lacks.
    """
    structure = whole_atoms(crystal, recipe)
    try:
        made = getattr(sets, recipe)(structure, user_incar_settings={"SYSTEM": title})
        found = {name: held for name, held in made.get_input_set(potcar_spec=True).items() if held is not None}
    except KeyError as error:
        raise ValueError(f"{recipe} names no pseudopotential or setting for {error.args[0]}") from error
    found["POSCAR"].comment = comment(facts)
    if "KPOINTS" in found:
        found["KPOINTS"].comment += f"; {comment(facts)}"
    return {name: f"{str(held).rstrip()}\n" for name, held in found.items()}
