#!/usr/bin/env bash
# ase 3.29.0: of three scaling factors of a POSCAR, one in Fortran's notation cancels the other two.
#
# Guess: VASP reads the line of factors with Fortran, where 1.0d0 is the number one; ASE reads it so
#   too, or refuses.
# Seen: `1 1.0 2` doubles the third axis. `1 1.0d0 2` is the same line to Fortran, and ASE takes it
#   as the single factor 1: the cell has half the volume, in silence. The numbers of the lattice and
#   of the positions, written with d0, are refused with a ValueError.
# Why it matters: programs in Fortran write doubles with a d. The result is a valid crystal with the
#   right formula and twice the density.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check ase==3.29.0
cd "$work"
"$work/env/bin/python" - <<'PY'
import io
import warnings

from ase.io import read

warnings.simplefilter("error")
REST = "\nNa Cl\n1 1\nDirect\n0 0 0\n0.5 0.5 0.5\n"


def volume(scale, lattice="4 0 0\n0 5 0\n0 0 6"):
    return round(read(io.StringIO(f"cell\n{scale}\n{lattice}{REST}"), format="vasp").get_volume(), 6)


seen = {scale: volume(scale) for scale in ("1.0", "1 1.0 2", "1 1.0d0 2")}
for scale, found in seen.items():
    print(f"scale {scale!r}: {found} A^3")
try:
    volume("1.0", "4.0d0 0 0\n0 5 0\n0 0 6")
    lattice = "read"
except ValueError:
    lattice = "ValueError"
print("lattice with d0:", lattice)
assert seen == {"1.0": 120.0, "1 1.0 2": 240.0, "1 1.0d0 2": 120.0}, "Fortran's numbers are read now"
assert lattice == "ValueError"
PY
