#!/usr/bin/env bash
# pymatgen 2026.10.24: the CONTROL file of ShengBTE for CaF2 describes Ca2F.
#
# Guess: Control.from_structure writes `elements` and `types` so that elements(types(i)) is the
#   element of atom i, as ShengBTE reads them.
# Seen: `elements` follow the structure (Ca, F), `types` number the elements by atomic number (F is
#   1, Ca is 2). Wherever the two orders differ, all atoms change their element: CaF2 becomes Ca2F,
#   GaN has nitrogen on the sites of gallium. NaCl comes out right, by luck. The class's own
#   get_structure reads the swapped crystal. No message.
# Why it matters: ShengBTE takes the masses from this file and the force constants from another
#   one, in the right order of atoms. The lattice conductivity is that of a wrong crystal.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pymatgen==2026.10.24 f90nml==1.5
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings

import f90nml
from pymatgen.core import Lattice, Structure
from pymatgen.io.shengbte import Control

warnings.simplefilter("error", UserWarning)
CRYSTALS = {
    "CaF2": ("Fm-3m", 5.46, ["Ca", "F"], [[0, 0, 0], [0.25, 0.25, 0.25]]),
    "GaN": ("F-43m", 4.50, ["Ga", "N"], [[0, 0, 0], [0.25, 0.25, 0.25]]),
    "NaCl": ("Fm-3m", 5.64, ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
}
given, written, own = {}, {}, {}
for name, (group, length, elements, places) in CRYSTALS.items():
    cell = Structure.from_spacegroup(group, Lattice.cubic(length), elements, places)
    control = Control.from_structure(cell, None, ngrid=[8, 8, 8], temperature=300, scell=[4, 4, 4])
    control.to_file("CONTROL")
    file = f90nml.read("CONTROL")["crystal"]
    given[name] = [site.specie.symbol for site in cell]
    written[name] = [file["elements"][kind - 1] for kind in file["types"]]
    own[name] = control.get_structure().formula
    first, last = written[name][0], written[name][-1]
    print(f"{name}: {given[name][0]} .. {given[name][-1]}, CONTROL {first} .. {last}; {own[name]}")
assert given["CaF2"] == ["Ca"] * 4 + ["F"] * 8
assert written["CaF2"] == ["F"] * 4 + ["Ca"] * 8, "CaF2 is kept now"
assert written["GaN"] == given["GaN"][::-1] == ["N"] * 4 + ["Ga"] * 4, "GaN is kept now"
assert written["NaCl"] == given["NaCl"]
assert own["CaF2"] == "Ca8 F4", "the class reads CaF2 back now"
PY
