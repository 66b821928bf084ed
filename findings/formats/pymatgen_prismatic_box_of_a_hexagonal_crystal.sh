#!/usr/bin/env bash
# pymatgen 2026.10.24: a hexagonal crystal in an input of Prismatic is in a rectangular box.
#
# Guess: the format knows three lengths and no angles, so Prismatic(structure).to_str() refuses a
#   cell that is not rectangular, as ASE's writer of the same format does.
# Seen: it writes the three lengths and leaves the positions where they are. MgB2 gets 33.6 Å³ in
#   place of 29.1, and magnesium, repeated by that box, has one boron at 2.19 Å and the other at
#   2.51, which is the distance of all. A cubic crystal is written well. No message.
# Why it matters: images of an electron microscope are simulated from this file. They show a
#   crystal that is not there, at the right composition.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check \
  pymatgen==2026.10.24 ase==3.29.0 numpy==2.4.6
cd "$work"
"$work/env/bin/python" -W ignore - <<'PY'
import io

import numpy as np
from ase import Atoms
from ase.io import write
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.prismatic import Prismatic


def from_text(text):
    """The crystal as the file has it: lengths of a box, then Z, x, y, z, occupancy, vibration."""
    _, box, *lines, end = text.splitlines()
    assert end == "-1"
    rows = np.array([line.split()[:4] for line in lines], float)
    return Atoms(rows[:, 0].astype(int), rows[:, 1:], cell=np.array(box.split(), float), pbc=True)


made = {
    "MgB2": ("P6/mmm", Lattice.hexagonal(3.086, 3.524), ["Mg", "B"], [[0, 0, 0], [1/3, 2/3, 0.5]]),
    "CsCl": ("Pm-3m", Lattice.cubic(4.12), ["Cs", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
}
found = {}
for name, arguments in made.items():
    crystal = Structure.from_spacegroup(*arguments)
    read = from_text(Prismatic(crystal).to_str())
    others = range(1, len(crystal))
    right = [round(float(crystal.get_distance(0, k)), 2) for k in others]
    seen = [round(float(x), 2) for x in read.get_distances(0, list(others), mic=True)]
    found[name] = sorted(seen), sorted(right), read.get_volume() / crystal.volume
    print(name, "distances", *found[name][:2], "volume by the right one", round(found[name][2], 3))

try:
    hexagonal = AseAtomsAdaptor.get_atoms(Structure.from_spacegroup(*made["MgB2"]))
    write(io.StringIO(), hexagonal, format="prismatic", debye_waller_factors=0.1)
    said = "written"
except ValueError as error:
    said = str(error)
print("ASE:", said)
assert found["CsCl"][0] == found["CsCl"][1] and abs(found["CsCl"][2] - 1) < 1e-9
assert found["MgB2"][1] == [2.51, 2.51] and "orthorhombic" in said
assert found["MgB2"][0] == [2.19, 2.51] and found["MgB2"][2] > 1.15, "the box is right now"
PY
