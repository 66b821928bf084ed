#!/usr/bin/env bash
# pymatgen 2026.10.24: in another cell of the same crystal its atoms vibrate in another direction.
#
# Guess: the powder pattern of a crystal with displacement matrices is the same in its reduced cell
#   and in a supercell with other axes; pymatgen turns the matrices with the axes.
# Seen: U11_cif to U12_cif are carried over as they are, as if they were numbers without axes. An
#   iron cell of 5 x 4 x 3 Å whose atoms vibrate along the longest axis: in the reduced cell, where
#   this axis is called c, they vibrate along the shortest one, and the fourth line falls from 29 to
#   21 % of the first. A cell that is only repeated keeps its pattern. No message.
# Why it matters: reading, reducing and then simulating is the usual way, and the line that tells
#   how atoms vibrate is the one that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pymatgen==2026.10.24 numpy==2.4.6
cd "$work"
"$work/env/bin/python" -W ignore - <<'PY'
import numpy as np
from pymatgen.analysis.diffraction.xrd import XRDCalculator
from pymatgen.core import Lattice, Structure

NAMES = ["U11_cif", "U22_cif", "U33_cif", "U23_cif", "U13_cif", "U12_cif"]


def crystal(lengths, *diagonal):
    matrix = dict(zip(NAMES, [[float(x)] for x in (*diagonal, 0, 0, 0)]))
    return Structure(Lattice.orthorhombic(*lengths), ["Fe"], [[0, 0, 0]], site_properties=matrix)


def heights(cell):
    pattern = XRDCalculator(wavelength=1.54).get_pattern(cell, scaled=False)
    return np.round(100 * pattern.y / pattern.y[0], 1)[:8].tolist()


along = crystal((5, 4, 3), 0.06, 0.005, 0.005)  # along the axis of 5 Å
by_hand = crystal((3, 4, 5), 0.005, 0.005, 0.06)  # the same crystal, axes named the other way
reduced = along.get_reduced_structure()
repeated = along * [2, 1, 1]
print("as given        ", heights(along))
print("axes by hand    ", heights(by_hand))
print("repeated        ", heights(repeated))
print("reduced by pymatgen", reduced.lattice.abc, heights(reduced))
print({name: reduced.site_properties[name] for name in NAMES[:3]})
assert np.allclose(heights(along), heights(by_hand), atol=0.2), "the same crystal"
assert np.allclose(heights(along), heights(repeated), atol=0.2), "repeating was right"
assert np.allclose(reduced.lattice.abc, (3, 4, 5))
assert reduced.site_properties["U11_cif"] == [0.06], "the matrices are turned now"
assert np.max(np.abs(np.subtract(heights(reduced), heights(along)))) > 5, "the pattern is right now"
PY
