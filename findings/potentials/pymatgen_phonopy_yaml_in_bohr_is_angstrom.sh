#!/usr/bin/env bash
# pymatgen 2026.10.24, phonopy 4.10.0: phonons from Quantum ESPRESSO get 6.7 times the volume.
#
# Guess: get_complete_ph_dos and get_ph_bs_symm_line give the crystal of phonopy's files in Å, as
#   a Structure is in Å. phonopy.yaml names the unit of its lengths.
# Seen: phonopy keeps the unit of the force calculator: `length: "au"` for Quantum ESPRESSO, ABINIT,
#   SIESTA and others. pymatgen takes every number for Å. Rock salt has 0.32 g/cm^3 for 2.16, in
#   the DOS and in the bands; reciprocal vectors are off by 1.89. Frequencies are right.
#   No message.
# Why it matters: heat capacities per volume, sound velocities and thermal expansion that start
#   from this structure are wrong; a match with the relaxed crystal fails, or is scaled away.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pymatgen==2026.10.24 phonopy==4.10.0
cd "$work"
"$work/env/bin/python" - <<'PY'
from itertools import product

import numpy as np
import yaml
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms
from pymatgen.io.phonopy import get_complete_ph_dos, get_ph_bs_symm_line

BOHR = 0.529177210903
LENGTH = 5.64  # Å, rock salt
places = [[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
places += [[(x + 0.5) % 1, y, z] for x, y, z in places]
cell = PhonopyAtoms(
    symbols=["Na"] * 4 + ["Cl"] * 4, cell=np.eye(3) * LENGTH / BOHR, scaled_positions=places
)
phonon = Phonopy(cell, supercell_matrix=np.eye(3, dtype=int), primitive_matrix="F", calculator="qe")
springs = np.zeros((8, 8, 3, 3))  # neighbours at half the edge, Ry/bohr^2
for i, j in product(range(8), repeat=2):
    for shift in product((-1, 0, 1), repeat=3):
        step = np.array(places[j]) + shift - places[i]
        if abs(np.linalg.norm(step) - 0.5) < 1e-6:
            spring = 0.02 * (4 * np.outer(step, step) + 0.1 * np.eye(3))
            springs[i, j] -= spring
            springs[i, i] += spring
phonon.force_constants = springs
phonon.run_band_structure([[[0, 0, 0], [0, 0.25, 0.25], [0, 0.5, 0.5]]], labels=["GAMMA", "X"])
phonon.write_yaml_band_structure(filename="band.yaml")
phonon.save("phonopy.yaml")
phonon.run_mesh([4, 4, 4], with_eigenvectors=True, is_mesh_symmetry=False)
phonon.run_projected_dos()
phonon.write_projected_dos(filename="projected_dos.dat")

with open("phonopy.yaml") as file:
    unit = yaml.safe_load(file)["physical_unit"]["length"]
dos = get_complete_ph_dos("projected_dos.dat", "phonopy.yaml").structure
bands = get_ph_bs_symm_line("band.yaml")
right = 4 * (22.98977 + 35.453) * 1.66053907 / LENGTH**3
highest = float(np.max(phonon.band_structure.frequencies[0]))
print(f"unit of lengths in phonopy.yaml: {unit}; rock salt has {right:.2f} g/cm^3")
print(f"DOS: {dos.density:.2f} g/cm^3; bands: {bands.structure.density:.2f} g/cm^3")
print(f"highest frequency {bands.bands.max():.3f} THz, by phonopy {highest:.3f} THz")
assert unit == "au", "phonopy writes another unit now"
assert abs(right - 2.16) < 0.01 and abs(bands.bands.max() - highest) < 1e-4
for structure in (dos, bands.structure):
    assert abs(structure.density / right - BOHR**3) < 1e-3, "the lengths are converted now"
PY
