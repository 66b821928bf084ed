#!/usr/bin/env bash
# pymatgen 2026.10.24: an alloy in a .res file is read with all its atoms, on top of each other.
#
# Guess: ResIO writes a mixed site as two atoms with their occupancies, and reads it back as one
#   site, or refuses it.
# Seen: the file is right: iron 0.5 and nickel 0.5 at one place. The reader parses the occupancies
#   and drops them: two full atoms at a distance of 0 Å, an ordered structure. A half-empty site
#   is full. Fe0.5Ni0.5 in a cubic cell of two sites has 16.1 g/cm^3 for 8.0. No message.
# Why it matters: the composition stays FeNi, so that a table of formulas looks right; density,
#   volume per atom and every distance are wrong.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pymatgen==2026.10.24
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings

from pymatgen.core import Lattice, Structure
from pymatgen.io.res import ResIO

warnings.simplefilter("error")
places = [[0, 0, 0], [0.5, 0.5, 0.5]]
alloy = Structure(Lattice.cubic(2.87), [{"Fe": 0.5, "Ni": 0.5}] * 2, places)
porous = Structure(Lattice.cubic(2.87), ["Fe", {"Ni": 0.25}], places)
for name, structure in (("alloy", alloy), ("porous", porous)):
    text = ResIO.structure_to_str(structure)
    back = ResIO.structure_from_str(text)
    for word, crystal in (("given", structure), ("read", back)):
        print(f"{name} {word}: {crystal.composition}, {len(crystal)} sites, {crystal.density:.1f} g/cm^3")
    written = [float(line.split()[5]) for line in text.splitlines() if line[:2] in ("Fe", "Ni")]
    shares = [0.5] * 4 if name == "alloy" else [1.0, 0.25]
    assert written == shares, "other occupancies are written now"
    if name == "alloy":
        assert len(back) == 4 and back.is_ordered, "the occupancies are read now"
        assert back.get_distance(0, 1) == 0.0, "the atoms are apart now"
        assert abs(back.density / structure.density - 2) < 1e-9
    else:
        assert back.composition["Ni"] == 1.0, "the occupancy is read now"
PY
