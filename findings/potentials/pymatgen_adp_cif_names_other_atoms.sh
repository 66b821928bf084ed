#!/usr/bin/env bash
# pymatgen 2026.10.24, gemmi 0.7.5: displacement matrices in a CIF bear the labels of other atoms.
#
# Guess: ThermalDisplacementMatrices.write_cif writes U_ij under the labels that the atoms have in
#   the same file, so that a reader finds them.
# Seen: the U_ij go under the element and the running number (O0, Zn1). The atoms have these labels
#   only where the structure has none of its own. A structure that was read from a CIF keeps its
#   labels: the file has the atoms Zn1, Zn2, O1 and O2, and matrices for Zn0, Zn1, O2 and O3.
#   gemmi reads Zn1 with the matrix of Zn2, O2 with that of O1, and the other two without
#   displacements. No message.
# Why it matters: atoms of one element change places with plausible numbers; a refinement or a
#   diffraction pattern starts from them.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pymatgen==2026.10.24 gemmi==0.7.5
cd "$work"
"$work/env/bin/python" - <<'PY'
import gemmi
from pymatgen.core import Structure
from pymatgen.phonon.thermal_displacements import ThermalDisplacementMatrices

CIF = """data_oxide
_cell_length_a 4.0
_cell_length_b 5.0
_cell_length_c 6.0
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_symmetry_equiv_pos_as_xyz
'x, y, z'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Zn1 Zn 0.0 0.0 0.0
Zn2 Zn 0.5 0.5 0.5
O1 O 0.5 0.0 0.25
O2 O 0.0 0.5 0.75
"""
structure = Structure.from_str(CIF, fmt="cif")
right = dict(zip(structure.labels, (0.01, 0.02, 0.03, 0.04)))  # U11 = U22 = U33 in Å^2
print("given:", right)
matrices = [[right[site.label]] * 3 + [0.0] * 3 for site in structure]
ThermalDisplacementMatrices(matrices, structure, 300).write_cif("out.cif")
read = gemmi.read_small_structure("out.cif")
seen = {site.label: round(site.aniso.u11, 4) for site in read.sites}
print("read by gemmi:", seen)
text = open("out.cif").read().split("_atom_site_aniso_U_12")[1]
print("labels of the matrices:", [line.split()[0] for line in text.splitlines()[2:]])
assert right == {"Zn1": 0.01, "Zn2": 0.02, "O1": 0.03, "O2": 0.04}
assert seen != right, "the labels agree now"
assert seen == {"Zn1": 0.02, "Zn2": 0.0, "O1": 0.0, "O2": 0.03}, "the mistake is another one now"
PY
