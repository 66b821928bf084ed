#!/usr/bin/env bash
# ase 3.29.0: water with labels H and O and repartitioned masses is read as CHe2.
#
# Guess: a LAMMPS data file with "Atom Type Labels" H and O is read as H and O: the reader takes
#   labels that are element names, and falls back on masses where there are none.
# Seen: where the file has masses, the numbers come from the nearest standard mass, and the labels
#   are thrown away. Hydrogen of 3.024 u, the usual repartition for long time steps, is helium; its
#   oxygen of 11.967 u is carbon. Hydrogen of 1.0 u, as many water models have it, is the dummy
#   element X. Without the Masses section the same file is read by its labels. No message.
# Why it matters: the formula, the energy of any potential and a CIF written from it are those of
#   another compound, with the right bonds.
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
BOX = """one molecule of water

3 atoms
2 atom types
0 10 xlo xhi
0 10 ylo yhi
0 10 zlo zhi

Atom Type Labels

1 O
2 H
"""
MASSES = """
Masses

1 {oxygen}
2 {hydrogen}
"""
ATOMS = """
Atoms # full

1 1 O -0.8 5.00 5.00 5.0
2 1 H 0.4 5.76 5.59 5.0
3 1 H 0.4 4.24 5.59 5.0
"""


def symbols(oxygen=None, hydrogen=None):
    masses = MASSES.format(oxygen=oxygen, hydrogen=hydrogen) if oxygen else ""
    return "".join(read(io.StringIO(BOX + masses + ATOMS), format="lammps-data").symbols)


without = symbols()
standard = symbols(15.999, 1.008)
shifted = symbols(15.999 - 2 * 2.016, 1.008 + 2.016)
whole = symbols(16.0, 1.0)
print(f"labels alone: {without}; standard masses: {standard}")
print(f"repartitioned masses: {shifted}; whole numbers: {whole}")
assert without == standard == "OHH", "labels or standard masses are read otherwise now"
assert shifted == "CHeHe", "the labels are kept now"
assert whole == "OXX", "a mass of 1.0 is hydrogen now"
PY
