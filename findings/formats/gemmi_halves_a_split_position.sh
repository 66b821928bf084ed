#!/usr/bin/env bash
# gemmi 0.7.5: of a split position whose halves lie within 0.4 Å of each other, the unit cell gets
#   one half.
#
# Guess: `get_all_unit_cell_sites` applies every symmetry operation, and an atom that stands half
#   occupied beside a mirror plane comes out on both sides of it, since its occupancy of 0.5 says
#   that the two are alternatives.
# Seen: Na with occupancy 0.5 beside the mirror of P m, 0.16 Å away from it, is taken for an atom
#   on the mirror: one site with occupancy 0.5, so that NaCl becomes Na0.5Cl. 0.24 Å away from it,
#   and the same file gives two sites and NaCl. pymatgen 2026.10.24 and ASE 3.29.0 give both
#   halves either way.
# Why it matters: split positions a few tenths of an ångström apart are common in refined
#   structures of ion conductors, perovskites and doped superconductors. The content of the cell
#   is halved in silence, for a small step of one coordinate.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check gemmi==0.7.5 pymatgen==2026.10.24 ase==3.29.0
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings

import ase.io
import gemmi
from pymatgen.io.cif import CifParser

warnings.simplefilter("ignore")
CIF = """data_split
_cell_length_a 4
_cell_length_b 4
_cell_length_c 6
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P m'
loop_
_symmetry_equiv_pos_as_xyz
x,y,z
x,-y,z
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Na1 Na 0 {} 0 0.5
Cl1 Cl 0.5 0.5 0.5 1
"""
for y, by_gemmi in ((0.04, 0.5), (0.06, 1.0)):
    with open("x.cif", "w") as file:
        file.write(CIF.format(y))
    sites = gemmi.read_small_structure("x.cif").get_all_unit_cell_sites()
    sodium = sum(site.occ for site in sites if site.element.name == "Na")
    whole = CifParser("x.cif").parse_structures(primitive=False)[0]
    halves = sum(symbol == "Na" for symbol in ase.io.read("x.cif").get_chemical_symbols())
    seen = f"gemmi {sodium} Na per cell, pymatgen {whole.composition}, ASE {halves} halves"
    print(f"Na {4 * y:.2f} Å beside the mirror: {seen}")
    assert sodium == by_gemmi
    assert whole.composition["Na"] == 1.0
    assert halves == 2
PY
