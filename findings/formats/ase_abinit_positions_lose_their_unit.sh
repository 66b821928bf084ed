#!/usr/bin/env bash
# ase 3.29.0: positions of an ABINIT input in ångström are read as bohr, half of the distance.
#
# Guess: the unit after the numbers of a length, as ABINIT defines it for all of them ("angstrom",
#   "bohr"), is read or refused; and what stands behind a `!`, ABINIT's other sign of a comment, is
#   left out.
# Seen: the unit is read after acell only. `xcart 0 0 0 2.4 0 0 angstrom` is a bond of 1.27 Å in a
#   cell whose lengths are right; a cell that stands in `rprim 8 0 0 ... angstrom` is 4.23 Å wide.
#   Positions that are commented out by `!` win over the ones that are in force. No message.
# Why it matters: two atoms at 1.27 Å still pass for a structure, and the cell, being right, speaks
#   for the file. Energies and forces of it are those of a crushed pair.
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
INPUT = """natom 2
ntypat 1
typat 1 1
znucl 26
{cell}
{places}
"""
AXES = "rprim 1 0 0 0 1 0 0 0 1"


def look(cell, places):
    text = INPUT.format(cell=cell, places=places)
    atoms = read(io.StringIO(text), format="abinit-in")
    return round(atoms.cell.lengths()[0], 3), round(atoms.get_distance(0, 1), 3)


seen = {
    "acell": look(f"acell 8 8 8 angstrom\n{AXES}", "xred 0 0 0 0.3 0 0"),
    "xangst": look(f"acell 8 8 8 angstrom\n{AXES}", "xangst 0 0 0 2.4 0 0"),
    "xcart": look(f"acell 8 8 8 angstrom\n{AXES}", "xcart 0 0 0 2.4 0 0 angstrom"),
    "rprim": look("acell 1 1 1\nrprim 8 0 0 0 8 0 0 0 8 angstrom", "xred 0 0 0 0.3 0 0"),
    "comment": look(
        f"acell 8 8 8 angstrom\n{AXES}", "! xred 0 0 0 0.5 0 0\nxangst 0 0 0 2.4 0 0"
    ),
}
for name, (edge, distance) in seen.items():
    print(f"{name}: edge {edge} Å, distance {distance} Å")
assert seen["acell"] == seen["xangst"] == (8.0, 2.4)
assert seen["xcart"] == (8.0, 1.27), "the unit of xcart is read now"
assert seen["rprim"] == (4.233, 1.27), "the unit of rprim is read now"
assert seen["comment"] == (8.0, 4.0), "a comment after an exclamation mark is left out now"
PY
