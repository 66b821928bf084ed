#!/usr/bin/env bash
# pymatgen 2026.10.24: the polarisation of three structures on a path loses its direction.
#
# Guess: get_pelecs_and_pions(convert_to_muC_per_cm2=True) divides the dipole moment of each
#   structure by its own volume, and gives a row of three for each, as without the conversion.
# Seen: with three structures it gives one number for each, the sum over the axes, of which the
#   first is divided by the volume of the first structure and the third by that of the third.
#   Dipoles that grow along a and against c: -0.8, -1.5 and -2.3 µC/cm², where both components are
#   25, 49 and 73. With any other number of structures it is an error about shapes. No message for
#   three.
# Why it matters: nonpolar, middle and polar are the shortest path there is, and a good
#   ferroelectric looks like none.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pymatgen==2026.10.24 numpy==2.4.6
cd "$work"
"$work/env/bin/python" -W ignore - <<'PY'
import numpy as np
from pymatgen.analysis.ferroelectricity.polarization import Polarization
from pymatgen.core import Lattice, Structure
from scipy.constants import e

TO_MICRO = -e * 1e6 / 1e-16  # electrons times Å per Å³, to µC/cm²; electrons are negative


def path(count):
    places = [[0, 0, 0], [0.5, 0.5, 0.5]]
    boxes = [Lattice.tetragonal(4, 4 + k / 16) for k in range(count)]
    cells = [Structure(box, ["Ba", "Ti"], places) for box in boxes]
    electrons = np.array([[1.0 + k, 0.0, -1.0 - k] for k in range(count)])
    made = Polarization(electrons, np.zeros((count, 3)), cells, p_elecs_in_cartesian=False)
    return made, electrons, np.array([cell.volume for cell in cells])


made, electrons, volumes = path(3)
seen, _ = made.get_pelecs_and_pions(convert_to_muC_per_cm2=True)
right = electrons / volumes[:, None] * TO_MICRO
print("volumes", np.round(volumes, 1), "right:", np.round(right, 1).tolist())
print("seen:", np.round(seen, 1), "of shape", np.shape(seen))
assert np.shape(made.get_pelecs_and_pions()[0]) == (3, 3), "without conversion there are three rows"
assert np.shape(seen) == (3,), "there is a row for each structure now"
assert np.allclose(seen, (electrons / volumes[None, :]).sum(axis=1) * TO_MICRO, rtol=1e-4)
assert np.max(np.abs(seen)) < 3 and np.min(np.abs(right[:, [0, 2]])) > 20
try:
    path(4)[0].get_pelecs_and_pions(convert_to_muC_per_cm2=True)
    said = "nothing"
except ValueError as error:
    said = str(error)
print("with four structures:", said)
assert "mismatch" in said
PY
