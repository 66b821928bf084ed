#!/usr/bin/env bash
# pymatgen 2026.10.24 (pymatgen-core 2026.10.16): a CIF written with a tolerance and the cell as it
#   is holds operations such as '-x+1/1000, -y, -z+1/1000', and pymatgen reads it with four times the
#   atoms.
#
# Guess: CifWriter(structure, symprec=0.01, refine_struct=False) writes the operations that hold
#   within 0.01 Å, and the file describes the structure that was given.
# Seen: positions stay as they are, off their planes by up to the tolerance, and the shift of each
#   operation is taken from them and rounded to a fraction of at most 1000 (958/959 was seen too). An
#   atom and its images then lie 0.001 to 0.01 Å apart. pymatgen itself reads a cell of 3 atoms back
#   as 12, all four copies at one place: right reduced formula, four times the density, no error.
#   gemmi merges them. With the default, refine_struct=True, the file is right.
# Why it matters: files for users of a program that expects the given cell are made this way.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check \
    pymatgen==2026.10.24 pymatgen-core==2026.10.16 gemmi==0.7.5
cd "$work"
"$work/env/bin/python" -W ignore - <<'PY'
import gemmi
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifParser, CifWriter

places = [[0.0004, 0, 0.0003], [0.5, 0.2, 0.5], [0.5004, 0.7996, 0.5]]
given = Structure(Lattice.orthorhombic(4, 5, 6), ["Li", "O", "O"], places)
texts = {refine: str(CifWriter(given, symprec=0.01, refine_struct=refine)) for refine in (True, False)}
read = {refine: CifParser.from_str(text).parse_structures(primitive=False)[0] for refine, text in texts.items()}
block = gemmi.cif.read_string(texts[False])[0]
atoms = gemmi.make_small_structure_from_block(block).get_all_unit_cell_sites()
listed = [line.split("'")[1] for line in texts[False].splitlines() if "/1000" in line]
print("given:", given.formula, "in", round(given.volume, 1), "Å^3")
print("operations of the file:", listed[:3])
print("read by pymatgen:", read[False].formula, "in", round(read[False].volume, 1), "Å^3")
print("atoms by gemmi:", len(atoms))
print("read by pymatgen, refined:", read[True].formula)
assert "-x+1/1000, -y, -z+1/1000" in listed, listed
assert len(given) == 3 and len(read[False]) == 12, (len(given), len(read[False]))
assert len(atoms) == 3 and len(read[True]) == 3, (len(atoms), len(read[True]))
PY
