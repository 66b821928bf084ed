#!/usr/bin/env bash
# crystals 1.7.0: the composition of a disordered crystal ignores the occupancies that were read.
#
# Guess: a CIF of Cu0.75Au0.25 (both elements on one site) gives copper 0.75 and gold 0.25, since the
#   atoms carry the occupancies 0.75 and 0.25.
# Seen: the atoms do carry them, but chemical_composition counts every atom as one. Copper and gold
#   get 0.5 each, whatever the occupancies are. symmetry(), and with it to_cif(), raises RuntimeError,
#   because two atoms at one place are handed to spglib. gemmi reads the same file as 3 Cu and 1 Au.
# Why it matters: compositions made from such a reading describe another alloy, without a warning.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check crystals==1.7.0 gemmi==0.7.5
cd "$work"
"$work/env/bin/python" - <<'PY'
from pathlib import Path

import gemmi
from crystals import Crystal

operations = "\n".join(f"'{op.triplet()}'" for op in gemmi.SpaceGroup("F m -3 m").operations())
Path("alloy.cif").write_text(f"""data_alloy
_symmetry_space_group_name_H-M 'F m -3 m'
_symmetry_Int_Tables_number 225
_cell_length_a 3.75
_cell_length_b 3.75
_cell_length_c 3.75
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_symmetry_equiv_pos_as_xyz
{operations}
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Cu1 Cu 0 0 0 0.75
Au1 Au 0 0 0 0.25
""")
alloy = Crystal.from_cif("alloy.cif")
read = sorted({(atom.element, atom.occupancy) for atom in alloy.unitcell})
counted = dict(sorted(alloy.chemical_composition.items()))
structure = gemmi.read_small_structure("alloy.cif")
truth = {}
for site in structure.get_all_unit_cell_sites():
    truth[site.element.name] = truth.get(site.element.name, 0.0) + site.occ
try:
    alloy.symmetry()
    raised = "nothing"
except RuntimeError as error:
    raised = type(error).__name__
print("occupancies read:", read)
print("chemical_composition:", counted)
print("gemmi, atoms in the cell:", truth)
print("symmetry() raises:", raised)
assert read == [("Au", 0.25), ("Cu", 0.75)], read
assert counted == {"Au": 0.5, "Cu": 0.5}, counted
assert truth == {"Cu": 3.0, "Au": 1.0}, truth
assert raised == "RuntimeError"
PY
