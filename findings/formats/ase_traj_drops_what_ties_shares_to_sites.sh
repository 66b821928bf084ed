#!/usr/bin/env bash
# ASE 3.29.0: partial occupancies survive extended XYZ, but not ASE's own formats, nor
#   `make_supercell`.
#
# Guess: what ASE reads of the occupancies of a CIF stays with the atoms in .traj and .json, its
#   own lossless formats, and in a supercell, at least as well as in a text format for molecules.
# Seen: occupancies are a dictionary in `info`, and an array `spacegroup_kinds` ties the sites to
#   it. Extended XYZ keeps both. A .traj keeps the dictionary and drops the array, .json drops
#   both, and `make_supercell` drops the dictionary while `atoms * (2, 1, 1)` keeps it. Where one
#   is missing, `write` makes a CIF of whole atoms, without a warning: K0.7 Na0.3 Cl0.75 became
#   KCl.
# Why it matters: a doped crystal that went through a trajectory, a database or a supercell comes
#   back as an undoped one, which is valid, ordered and another compound.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check ase==3.29.0 gemmi==0.7.5
cd "$work"
"$work/env/bin/python" -W error - <<'PY'
import ase.io
import gemmi
import numpy as np
from ase.build import make_supercell

with open("doped.cif", "w") as file:
    file.write("""data_doped
_cell_length_a 4
_cell_length_b 4
_cell_length_c 4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_symmetry_equiv_pos_as_xyz
x,y,z
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
K1 K 0 0 0 0.7
Na1 Na 0 0 0 0.3
Cl1 Cl 0.5 0.5 0.5 0.75
""")
doped = ase.io.read("doped.cif")


def content(atoms):
    """Atoms of each element in the CIF that ASE writes, by another reader."""
    ase.io.write("out.cif", atoms)
    found = {}
    for site in gemmi.read_small_structure("out.cif").sites:
        found[site.element.name] = round(found.get(site.element.name, 0) + site.occ, 5)
    return dict(sorted(found.items()))


def through(name):
    ase.io.write(name, doped)
    return ase.io.read(name)


whole, shares = {"Cl": 1.0, "K": 1.0}, {"Cl": 0.75, "K": 0.7, "Na": 0.3}
cases = [
    ("as read", doped, shares),
    ("through extended XYZ", through("x.extxyz"), shares),
    ("through .traj", through("x.traj"), whole),
    ("through .json", through("x.json"), whole),
    ("repeated", doped * (2, 1, 1), {symbol: 2 * share for symbol, share in shares.items()}),
    ("make_supercell", make_supercell(doped, np.diag([2, 1, 1])), {"Cl": 2.0, "K": 2.0}),
]
for name, atoms, expected in cases:
    found = content(atoms)
    kept = "occupancy" in atoms.info, "spacegroup_kinds" in atoms.arrays
    print(f"{name}: {found}; occupancies, kinds kept: {kept}")
    assert found == expected, (name, found)
PY
