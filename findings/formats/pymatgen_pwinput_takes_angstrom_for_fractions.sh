#!/usr/bin/env bash
# pymatgen 2026.10.24: positions of a pw.x input in ångström or bohr are read as fractions.
#
# Guess: PWInput.from_file knows the units of the two cards, in the three spellings of pw.x (a word,
#   in braces, in parentheses), or refuses a unit that it does not know.
# Seen: the one word `angstrom` without brackets is known. `(angstrom)`, `{angstrom}`, `bohr` and
#   `(bohr)` are all read as fractions: an atom at 1 Å in a cell of 4 Å sits at 1.0, on top of the
#   atom at the origin. Vectors of the cell in bohr are read as ångström, 6.7 times the volume. An
#   atom at `.25 .25 .25` is no atom at all. No message.
# Why it matters: parentheses are the usual spelling, and the output of a relaxation prints them.
#   The structure has the right formula and wrong distances; or lacks the atoms without a leading
#   zero.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pymatgen==2026.10.24
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings

from pymatgen.io.pwscf import PWInput

warnings.simplefilter("error")
INPUT = """&CONTROL
/
&SYSTEM
  ibrav = 0
  nat = 2
  ntyp = 2
  ecutwfc = 40
/
&ELECTRONS
/
ATOMIC_SPECIES
  Zn 65.38 Zn.upf
  S 32.06 S.upf
K_POINTS gamma
CELL_PARAMETERS {cell}
  4.0 0.0 0.0
  0.0 4.0 0.0
  0.0 0.0 4.0
ATOMIC_POSITIONS {unit}
  Zn 0.0 0.0 0.0
  S {position}
"""


def read(unit, position, cell="angstrom"):
    structure = PWInput.from_str(INPUT.format(unit=unit, position=position, cell=cell)).structure
    place = [round(float(x), 3) for x in structure[1].frac_coords] if len(structure) == 2 else None
    return len(structure), place, round(structure.volume, 2)


seen = {}
for unit in ("angstrom", "(angstrom)", "{angstrom}"):
    seen[unit] = read(unit, "1.0 1.0 1.0")
for unit in ("bohr", "(bohr)"):
    seen[unit] = read(unit, "1.8897261 1.8897261 1.8897261")
for position in ("0.25 0.25 0.25", ".25 .25 .25"):
    seen[position] = read("crystal", position)
seen["cell in bohr"] = read("crystal", "0.25 0.25 0.25", "bohr")
for name, found in seen.items():
    print(f"{name}: {found[0]} atoms, sulfur at {found[1]}, volume {found[2]} Å^3")
right = (2, [0.25] * 3, 64.0)
assert seen["angstrom"] == seen["0.25 0.25 0.25"] == right
assert seen["(angstrom)"] == seen["{angstrom}"] == (2, [1.0] * 3, 64.0), "brackets are read now"
assert seen["bohr"] == seen["(bohr)"] == (2, [1.89] * 3, 64.0), "bohr is read now"
assert seen[".25 .25 .25"] == (1, None, 64.0), "the atom is there now"
assert seen["cell in bohr"] == right, "the cell is read in bohr now"
PY
