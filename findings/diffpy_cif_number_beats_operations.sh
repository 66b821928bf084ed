#!/usr/bin/env bash
# diffpy.structure 3.3.1: a group number in a CIF wins over the operations that the CIF lists.
#
# Guess: a CIF that writes out its symmetry operations is read with these operations; name and number
#   only describe them.
# Seen: the operations are compared with a table of settings. Where the setting is not in it (here
#   anatase with its second origin, I 41/a m d :2), the list is dropped and the number's first setting
#   is used. Anatase gets 16 Ti and 16 O in place of 4 and 8: the formula TiO and 3.2 times the mass.
#   Without the line of the number the same file is read well. gemmi reads 4 and 8 from both. No
#   message.
# Why it matters: files that carry most information are read worst, and the formula looks possible.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check diffpy.structure==3.3.1 gemmi==0.7.5
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings
from collections import Counter
from pathlib import Path

import gemmi
from diffpy.structure import loadStructure

warnings.simplefilter("ignore", ResourceWarning)
operations = "\n".join(f"'{op.triplet()}'" for op in gemmi.SpaceGroup("I 41/a m d:2").operations())
NUMBER = "_symmetry_Int_Tables_number 141\n"


def written(number):
    return f"""data_anatase
_symmetry_space_group_name_H-M 'I 41/a m d :2'
{number}_cell_length_a 3.785
_cell_length_b 3.785
_cell_length_c 9.514
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
Ti1 Ti 0 0.25 0.375
O1 O 0 0.25 0.1666
"""


seen = {}
for name, number in (("with number", NUMBER), ("without", "")):
    Path("anatase.cif").write_text(written(number))
    seen[name] = dict(Counter(atom.element for atom in loadStructure("anatase.cif")))
    sites = gemmi.read_small_structure("anatase.cif").get_all_unit_cell_sites()
    truth = dict(Counter(site.element.name for site in sites))
    print(f"{name}: diffpy {seen[name]}, gemmi {truth}")
    assert truth == {"Ti": 4, "O": 8}, truth
assert seen["with number"] == {"Ti": 16, "O": 16}, seen
assert seen["without"] == {"Ti": 4, "O": 8}, seen
PY
