#!/usr/bin/env bash
# pymatgen 2026.10.24, ase 3.29.0: a crystal at 152 K arrives in the other package at 0 K.
#
# Guess: the velocities of a POSCAR survive AseAtomsAdaptor, both ways, as forces, moments and
#   charges do; a POSCAR with velocities from one package is read with them by the other.
# Seen: pymatgen hands ASE an array named "velocities", which ASE does not use: momenta are absent,
#   the temperature is 0 K. The way back gives a site property that Poscar does not write. A POSCAR
#   from ASE has the line "Cartesian" above the velocities, as VASP documents it; pymatgen looks
#   for an empty line and finds no velocities. The POSCAR of pymatgen is read by ASE at 152 K. No
#   message.
# Why it matters: a molecular dynamics run continues from rest: it heats up to half its former
#   temperature, and nothing tells that the start was another one.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check ase==3.29.0 pymatgen==2026.10.24
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings

import numpy as np
from ase import units
from ase.build import bulk
from ase.io import read, write
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.vasp import Poscar

warnings.simplefilter("error")
copper = bulk("Cu", cubic=True)
copper.set_velocities(np.random.default_rng(0).normal(0, 0.002, (4, 3)) / units.fs)  # Å/fs
start = copper.get_temperature()
write("ase.vasp", copper, vasp5=True)
again = read("ase.vasp").get_temperature()
lost = Poscar.from_file("ase.vasp").velocities
print(f"ASE {start:.0f} K; its POSCAR in ASE {again:.0f} K, in pymatgen velocities {lost}")

speeds = copper.get_velocities() * units.fs
structure = AseAtomsAdaptor.get_structure(bulk("Cu", cubic=True))
poscar = Poscar(structure.copy(site_properties={"velocities": speeds.tolist()}))
poscar.write_file("pymatgen.vasp")
file = read("pymatgen.vasp", format="vasp").get_temperature()
same = Poscar.from_file("pymatgen.vasp").structure
atoms = AseAtomsAdaptor.get_atoms(same)
print(f"POSCAR of pymatgen in ASE {file:.0f} K; by the adaptor {atoms.get_temperature():.0f} K, "
      f"arrays {sorted(atoms.arrays)}")
back = AseAtomsAdaptor.get_structure(copper)
print("from ASE by adaptor:", sorted(back.site_properties), "Poscar:", Poscar(back).velocities)
assert abs(again - start) < 0.1 and abs(file - start) < 0.1, "the files have changed"
assert lost is None, "pymatgen reads velocities under a line with a word now"
assert "velocities" in atoms.arrays and not atoms.has("momenta"), "the adaptor sets momenta now"
assert atoms.get_temperature() == 0.0
assert Poscar(back).velocities is None, "velocities come from ASE now"
PY
