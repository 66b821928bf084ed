#!/usr/bin/env bash
# smact 4.0.2: the "symmetry unique" sites of the distorter are too many, or too few.
#
# Guess: get_inequivalent_sites gives one site of each orbit of the crystal that it is handed, the
#   orbits that spglib counts.
# Seen: spglib is asked for the number of the space group only; the operations are those of the
#   standard setting, about the corner of the cell, without the translations of a supercell. In a
#   supercell 2 x 2 x 2 of BaTiO3 the eight Ba are one orbit, and it gives 4 sites. With one Ti
#   replaced by Sn, the other Ti are three orbits (one, two and three edges away): it gives 1 site,
#   so that two of the three different second substitutions are lost. No message.
# Why it matters: a list of dopant pairs made so lacks most arrangements or repeats them, and the
#   one of lowest energy may not be in it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check \
  smact==4.0.2 pymatgen==2026.10.24 pandas==2.3.3 ase==3.29.0 spglib==2.8.0
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings

import spglib
from smact import builder, distorter

warnings.simplefilter("ignore")


def count(atoms, symbol):
    """Sites by the distorter, and orbits by spglib."""
    sites = distorter.get_inequivalent_sites(distorter.build_sub_lattice(atoms, symbol), atoms)
    cell = (atoms.cell[:], atoms.get_scaled_positions(), atoms.numbers)
    orbit = spglib.get_symmetry_dataset(cell, symprec=1e-5).equivalent_atoms
    symbols = atoms.get_chemical_symbols()
    return len(sites), len({orbit[i] for i, name in enumerate(symbols) if name == symbol})


size = {"cell_par": [4, 4, 4, 90, 90, 90]}
_, unit = builder.cubic_perovskite(["Ba", "Ti", "O"], **size)
_, large = builder.cubic_perovskite(["Ba", "Ti", "O"], **size, repetitions=[2, 2, 2])
first = distorter.build_sub_lattice(large, "Ti")[0]
doped = distorter.make_substitution(large, first, "Sn")
found = {
    "Ba of the unit cell": count(unit, "Ba"),
    "Ba of the supercell": count(large, "Ba"),
    "Ti beside one Sn": count(doped, "Ti"),
    "O beside one Sn": count(doped, "O"),
}
for name, (sites, orbits) in found.items():
    print(f"{name}: {sites} sites by the distorter, {orbits} orbits by spglib")
steps = {
    sum(round(float(min(d, 1 - d)) * 2) for d in abs(site - first))
    for site in distorter.build_sub_lattice(doped, "Ti")
}
assert steps == {1, 2, 3}, "the three distances, counted by hand"
assert found["Ba of the unit cell"] == (1, 1)
assert found["Ba of the supercell"] == (4, 1), "translations of the supercell count now"
assert found["Ti beside one Sn"] == (1, 3), "the distorter finds all three now"
assert found["O beside one Sn"] == (2, 3), "the distorter finds all three now"
PY
