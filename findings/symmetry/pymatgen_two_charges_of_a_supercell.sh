#!/usr/bin/env bash
# pymatgen 2026.10.24: the spelling sets the charge of a supercell, and the reader that of a JSON.
#
# Guess: a structure of charge +1, repeated eight times, has charge +8 by `structure * 2`, by
#   `make_supercell(2)` and by SupercellTransformation; or keeps +1 by all three. Its JSON keeps the
#   charge.
# Seen: `*` and the transformation give +8, make_supercell gives +1. The JSON holds charge 1:
#   from_file and from_dict give 1, from_str of the same text gives 0. The only message is that the
#   charge differs from the sum of oxidation states, and it comes where the charge is right, too.
# Why it matters: input sets with use_structure_charge count the electrons from it (NELECT), so one
#   crystal is calculated with charge 8, 1 or 0 by the way it came.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pymatgen==2026.10.24
cd "$work"
"$work/env/bin/python" - <<'PY'
import json
import warnings

from pymatgen.core import Lattice, Structure
from pymatgen.transformations.standard_transformations import SupercellTransformation

warnings.simplefilter("error")
warnings.filterwarnings("ignore", message=r"Structure charge \(.*\) is set to be not equal to the sum")
cell = Structure(Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]], charge=1)
text = cell.to(fmt="json")
cell.to("cell.json")
double = [[2, 0, 0], [0, 2, 0], [0, 0, 2]]
seen = {
    "structure * 2": (cell * 2).charge,
    "SupercellTransformation": SupercellTransformation(double).apply_transformation(cell).charge,
    "make_supercell(2)": cell.copy().make_supercell(2).charge,
    "text of the JSON": json.loads(text)["charge"],
    "from_dict": Structure.from_dict(json.loads(text)).charge,
    "from_str": Structure.from_str(text, fmt="json").charge,
    "from_file": Structure.from_file("cell.json").charge,
}
for name, charge in seen.items():
    print(f"{name}: {round(charge, 6)}")
found = [round(charge, 6) for charge in seen.values()]
assert found == [8, 8, 1, 1, 1, 0, 1], found
PY
