#!/usr/bin/env bash
# pymatgen 2026.10.24: the cube file of a CHGCAR holds the density times the volume of the cell.
#
# Guess: `Chgcar.to_cube` turns e times cell volume, as VASP stores it, into electrons per bohr^3,
#   since a cube file of a density is in atomic units; and `from_cube` turns them back.
# Seen: lengths are turned into bohr and the values are not. Ten electrons in a box of 4 Å are 4319
#   electrons when the cube is summed with ASE 3.29.0 (the volume in bohr^3 too many). The other way
#   round, a right cube of ten electrons is a Chgcar of 0.023 electrons. A trip there and back
#   within pymatgen hides it. No message.
# Why it matters: charges of atoms, the height of an isosurface and the difference of two densities
#   are wrong by a factor that depends on the cell, so also ratios between two crystals.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pymatgen==2026.10.24 ase==3.29.0
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings

import numpy as np
from ase.io.cube import read_cube, write_cube
from ase.units import Bohr
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor
from pymatgen.io.common import VolumetricData
from pymatgen.io.vasp import Chgcar, Poscar

warnings.simplefilter("error")
electrons, grid = 10.0, (8, 8, 8)
seen = {}
for edge in (4.0, 6.0):
    salt = Structure(Lattice.cubic(edge), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    volume = (edge / Bohr) ** 3
    density = Chgcar(Poscar(salt), {"total": np.full(grid, electrons)})
    density.to_cube("density.cube")
    with open("density.cube") as file:
        outside = float(read_cube(file)["data"].mean() * volume)
    with open("right.cube", "w") as file:
        write_cube(file, AseAtomsAdaptor.get_atoms(salt), np.full(grid, electrons / volume))
    inside = float(VolumetricData.from_cube("right.cube").data["total"].mean())
    back = float(VolumetricData.from_cube("density.cube").data["total"].mean())
    seen[edge] = (round(outside), round(inside, 4), back)
    print(f"{edge} Å: cube of the Chgcar {outside:.0f}, Chgcar of a right cube {inside:.4f}, there and back {back}")
assert seen == {4.0: (4319, 0.0232, 10.0), 6.0: (14576, 0.0069, 10.0)}, seen
PY
