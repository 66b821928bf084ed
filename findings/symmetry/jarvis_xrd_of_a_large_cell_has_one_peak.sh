#!/usr/bin/env bash
# jarvis-tools 2026.6.12: the powder pattern of rock salt in a supercell has one peak of eight.
#
# Guess: XRD.simulate gives a crystal one pattern, whichever cell describes it: Miller indices go as
#   far as the wavelength reaches, and `max_index` is where the search for that limit starts.
# Seen: the search multiplies a tuple by a number, which repeats the tuple, and scales nothing. The
#   limit stays at 5 for every index, however long the axes are. Rock salt has eight peaks up to 90
#   degrees in its cubic cell, four in 2 x 2 x 2 cells, and one, of 100 %, in 3 x 3 x 3 cells. No
#   message.
# Why it matters: zeolites, garnets and relaxed supercells with a defect have such axes. The pattern
#   ends early, and since it is scaled to its own sum, its first peaks look too strong as well.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check jarvis-tools==2026.6.12
cd "$work"
"$work/env/bin/python" - <<'PY'
import math

import numpy as np
from jarvis.analysis.diffraction.xrd import XRD
from jarvis.core.atoms import Atoms

WAVELENGTH, EDGE = 1.54184, 5.64  # Å
sodium = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
places = sodium + [[(x + 0.5) % 1, y, z] for x, y, z in sodium]
salt = Atoms(
    lattice_mat=np.eye(3) * EDGE, coords=places, elements=["Na"] * 4 + ["Cl"] * 4, cartesian=False
)


def bragg(h, k, l):  # noqa: E741
    return math.degrees(2 * math.asin(WAVELENGTH * math.sqrt(h * h + k * k + l * l) / (2 * EDGE)))


seen = {}
for times in (1, 2, 3):
    cell = salt if times == 1 else salt.make_supercell([times] * 3)
    angles, _, heights = XRD(wavelength=WAVELENGTH, thetas=[0, 90]).simulate(atoms=cell)
    seen[times] = [round(float(x), 2) for x in angles]
    print(f"{cell.num_atoms} atoms: {seen[times]}, highest {max(heights):.0f} %")
expected = [(1, 1, 1), (2, 0, 0), (2, 2, 0), (3, 1, 1), (2, 2, 2), (4, 0, 0), (4, 2, 0), (4, 2, 2)]
assert np.allclose(seen[1], [bragg(*hkl) for hkl in expected], atol=0.02), "other peaks now"
assert seen[2] != seen[1], "the supercell has all peaks now"
assert seen[3] == [round(bragg(1, 1, 1), 2)], "the larger supercell has more peaks now"
PY
