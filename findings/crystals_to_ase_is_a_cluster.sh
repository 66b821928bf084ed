#!/usr/bin/env bash
# crystals 1.7.0 with ase 3.29.0: a crystal that goes through crystals comes back as a free cluster.
#
# Guess: Crystal.from_ase(atoms).to_ase() is the same rock salt, periodic in three directions.
# Seen: the cell and the volume are kept, and pbc is False on every axis. Six neighbours of each atom
#   become one: ASE counts 12 neighbours within 3 Å before, and 2 after. No warning is given.
# Why it matters: a calculator or a graph builder then sees a molecule in a box of the right volume.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check crystals==1.7.0 ase==3.29.0
"$work/env/bin/python" - <<'PY'
from ase.build import bulk
from ase.neighborlist import neighbor_list
from crystals import Crystal

salt = bulk("NaCl", "rocksalt", a=5.64)
back = Crystal.from_ase(salt).to_ase()
bonds = [len(neighbor_list("i", atoms, 3.0)) for atoms in (salt, back)]
print("periodic before and after:", salt.pbc.tolist(), back.pbc.tolist())
print("volume before and after:", round(salt.get_volume(), 3), round(back.get_volume(), 3))
print("neighbours within 3 Å before and after:", bonds)
assert salt.pbc.all() and not back.pbc.any()
assert abs(salt.get_volume() - back.get_volume()) < 1e-6
assert bonds == [12, 2], bonds
PY
