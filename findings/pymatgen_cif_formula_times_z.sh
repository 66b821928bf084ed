#!/usr/bin/env bash
# pymatgen 2026.10.24: in a CIF that it writes, formula sum times Z is not the content of the cell.
#
# Guess: `_chemical_formula_sum` is one formula unit and `_cell_formula_units_Z` says how many of them
#   the cell holds, as the dictionary of CIF defines the two; their product is the cell.
# Seen: for corundum with two formula units the file says 'Al4 O6' (the whole cell) and Z = 2 (the
#   number of Al2O3), so the product is Al8 O12, twice the ten sites that follow. With symmetry
#   (symprec) the hexagonal cell says 'Al12 O18' and Z = 6: six times its content. A cell with one
#   formula unit hides it.
# Why it matters: the product is the one statement of a CIF against which lost sites, lost symmetry
#   or a wrong setting can be checked, and densities are computed from it. Files from the largest
#   computed databases are written so.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pymatgen==2026.10.24 gemmi==0.7.5
cd "$work"
"$work/env/bin/python" - <<'PY'
import gemmi
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter

corundum = Structure.from_spacegroup(
    "R-3c", Lattice.hexagonal(4.76, 12.99), ["Al", "O"], [[0, 0, 0.352], [0.306, 0, 0.25]]
)
for structure, symprec, times in ((corundum.get_primitive_structure(), None, 2), (corundum, 0.01, 6)):
    CifWriter(structure, symprec=symprec).write_file("x.cif")
    block = gemmi.cif.read_file("x.cif").sole_block()
    formula = gemmi.cif.as_string(block.find_value("_chemical_formula_sum"))
    units = int(block.find_value("_cell_formula_units_Z"))
    stated = units * sum(int("".join(c for c in part if c.isdigit()) or 1) for part in formula.split())
    sites = len(gemmi.read_small_structure("x.cif").get_all_unit_cell_sites())
    print(f"formula sum {formula!r}, Z {units}: {stated} atoms stated, {sites} sites written")
    assert units == times
    assert stated == times * sites, "formula sum times Z is the cell now"
PY
