#!/usr/bin/env bash
# phonopy 4.10.0: a POSCAR that states its volume (a negative scaling factor) is read inside out.
#
# Guess: a scaling factor of -44.85 sets the volume of the cell to 44.85 Å^3, as VASP's manual says.
# Seen: the number multiplies the lattice. The cell of rock salt has a volume of -22,554 Å^3: it is
#   500 times too large, and mirrored. Cartesian positions keep their numbers, so the chlorine is
#   on another fractional position. No message. pymatgen and ASE read 44.85 Å^3.
# Why it matters: scans of the volume are written in this way. Everything that follows, such as
#   neighbours, supercells and displacements, is made for a cell that nobody has.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check phonopy==4.10.0 ase==3.29.0
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings
from pathlib import Path

from ase.io import read
from phonopy.interface.vasp import read_vasp

warnings.simplefilter("error")
for mode in ("Direct", "Cartesian"):
    Path("POSCAR").write_text(
        f"rock salt\n-44.85\n0 0.5 0.5\n0.5 0 0.5\n0.5 0.5 0\nNa Cl\n1 1\n{mode}\n0 0 0\n0.5 0.5 0.5\n"
    )
    cell, truth = read_vasp("POSCAR"), read("POSCAR")
    chlorine = cell.scaled_positions[1].round(3).tolist()
    print(f"{mode}: phonopy {cell.volume:.1f} Å^3, Cl at {chlorine}; ASE {truth.get_volume():.2f} Å^3")
    assert round(cell.volume) == -22554, cell.volume
    assert round(truth.get_volume(), 2) == 44.85, truth.get_volume()
    assert chlorine == ([0.5] * 3 if mode == "Direct" else [-0.011] * 3), chlorine
PY
