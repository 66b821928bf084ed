#!/usr/bin/env bash
# pymatgen 2026.10.24, ASE 3.29.0: a crystal in a left-handed cell is written as its mirror image.
#
# Guess: a CIF keeps lengths and angles, and may lose the handedness of a cell. A POSCAR keeps three
#   vectors, so the crystal survives it.
# Seen: quartz in a left-handed cell (two rows of a supercell swapped) is P3_121 to both libraries.
#   pymatgen's POSCAR reverses the three vectors and leaves the fractional coordinates as they are,
#   which is an inversion: read back, it is P3_221, the other quartz. So are pymatgen's CIF and res,
#   and ASE's CIF, res and lammps-data. pymatgen's JSON and XSF, and ASE's VASP, extxyz, XSF and traj
#   keep the crystal. Nobody warns.
# Why it matters: of a chiral crystal (tellurium, MnSi, a cobalt silicide with Weyl points) the input
#   of the next calculation is the enantiomorph, and its handedness, circular dichroism or the sign
#   of a Dzyaloshinskii-Moriya vector come out reversed. A comparison of files by space group
#   (152 against 154) calls the same crystal two.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pymatgen==2026.10.24 ase==3.29.0 spglib==2.8.0
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings

import numpy as np
import spglib
from ase.io import read, write
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor

quartz = Structure.from_spacegroup(
    "P3_121", Lattice.hexagonal(4.9137, 5.4047), ["Si", "O"], [[0.4697, 0, 1 / 3], [0.4135, 0.2669, 0.4524]]
)
quartz.make_supercell([[0, 1, 0], [1, 0, 0], [0, 0, 1]])
assert len(quartz) == 9 and np.linalg.det(quartz.lattice.matrix) < 0
atoms = AseAtomsAdaptor.get_atoms(quartz)


def group(atoms):
    return spglib.get_spacegroup((atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers), 1e-3)


found = {"as made": (quartz.get_space_group_info()[1], group(atoms))}
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for kind in ("poscar", "cif", "res", "json", "xsf"):
        back = Structure.from_str(quartz.to(fmt=kind), fmt=kind)
        found[f"pymatgen {kind}"] = back.get_space_group_info()[1]
    for kind in ("cif", "res", "lammps-data", "vasp", "extxyz", "xsf", "traj"):
        write(f"quartz.{kind}", atoms, format=kind)
        how = {"Z_of_type": {1: 8, 2: 14}} if kind == "lammps-data" else {}
        found[f"ase {kind}"] = group(read(f"quartz.{kind}", format=kind, **how))
print(found)
print([str(one.message) for one in said])
same, mirrored = "P3_121 (152)", "P3_221 (154)"
wanted = {
    "as made": (152, same),
    "pymatgen poscar": 154, "pymatgen cif": 154, "pymatgen res": 154, "pymatgen json": 152, "pymatgen xsf": 152,
    "ase cif": mirrored, "ase res": mirrored, "ase lammps-data": mirrored,
    "ase vasp": same, "ase extxyz": same, "ase xsf": same, "ase traj": same,
}
assert found == wanted, {name: value for name, value in found.items() if value != wanted[name]}
assert not any("hand" in str(one.message) or "mirror" in str(one.message) for one in said)
PY
