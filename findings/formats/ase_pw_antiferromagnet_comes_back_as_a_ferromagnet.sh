#!/usr/bin/env bash
# ase 3.29.0: an antiferromagnet in an input of pw.x is read as a ferromagnet.
#
# Guess: ASE writes the moments 2 and -2 of two iron atoms as two species, Fe and Fe1, with
#   starting_magnetization 2 and -2. It reads the pair back, or no moments at all.
# Seen: both atoms come back with -2. A file by hand with the labels Fe1 and Fe2 and 0.5 and -0.5 is
#   read as -0.5 twice. The label is cut to the element before the moment is looked up, so every
#   iron atom gets that of the last species of iron. No message. Moments of two elements are kept.
# Why it matters: labels such as Fe1 and Fe2 are the way to write antiferromagnetic order for pw.x.
#   Read with ASE, the next calculation starts from the ferromagnet, and converges to it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check ase==3.29.0
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings
from pathlib import Path

from ase import Atoms
from ase.io import read, write

warnings.simplefilter("error")


def crystal(symbols, moments):
    return Atoms(symbols, scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.5]], cell=[2.87] * 3, pbc=True, magmoms=moments)


names = {"Fe": "Fe.upf", "Co": "Co.upf"}
seen = {}
for symbols in ("Fe2", "FeCo"):
    write("pw.in", crystal(symbols, [2.0, -2.0]), format="espresso-in", pseudopotentials=names)
    written = [line.strip() for line in Path("pw.in").read_text().splitlines() if "starting_magnetization" in line]
    seen[symbols] = read("pw.in", format="espresso-in").get_initial_magnetic_moments().tolist()
    print(f"{symbols}: written as {written}, read as {seen[symbols]}")
Path("hand.in").write_text("""&CONTROL
/
&SYSTEM
  ibrav = 0, nat = 2, ntyp = 2, ecutwfc = 40, nspin = 2
  starting_magnetization(1) = 0.5
  starting_magnetization(2) = -0.5
/
&ELECTRONS
/
ATOMIC_SPECIES
Fe1 55.845 Fe.upf
Fe2 55.845 Fe.upf
K_POINTS gamma
CELL_PARAMETERS angstrom
2.87 0 0
0 2.87 0
0 0 2.87
ATOMIC_POSITIONS crystal
Fe1 0 0 0
Fe2 0.5 0.5 0.5
""")
seen["by hand"] = read("hand.in", format="espresso-in").get_initial_magnetic_moments().tolist()
print("by hand, 0.5 and -0.5: read as", seen["by hand"])
assert seen == {"Fe2": [-2.0, -2.0], "FeCo": [2.0, -2.0], "by hand": [-0.5, -0.5]}, seen
PY
