#!/usr/bin/env bash
# spglib 2.8.0: a layer that is wrapped into its cell has another layer group.
#
# Guess: the layer group is a property of the layer. Atoms at z = -0.078 and at z = 0.922 are the
#   same atom, since the cell repeats; and if not, the answer is None.
# Seen: a monolayer of MoS2 in a cell 20 Å high is p-6m2 (78) with molybdenum at z = 0.5, and at z =
#   0 while one sulfur atom stands at -0.078. With all coordinates between 0 and 1 it is p3m1 (69):
#   the sulfur atom is taken for one 18 Å above the layer, and the mirror plane is gone. The space
#   group is P-6m2 all three times. moyopy 0.21.0 finds layer group 78 all three times. No message.
# Why it matters: VASP, pymatgen (`to_unit_cell`) and CIF files wrap coordinates, and monolayers are
#   often set at z = 0. A layer of p3m1 has a dipole across it and one of p-6m2 has none; a table of
#   two-dimensional crystals by layer group puts one crystal in two rows.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check spglib==2.8.0 moyopy==0.21.0 numpy
cd "$work"
"$work/env/bin/python" - <<'PY'
import moyopy
import numpy as np
import spglib

a, vacuum, height = 3.18, 20.0, 1.56
lattice = np.array([[a, 0, 0], [-a / 2, a * 3**0.5 / 2, 0], [0, 0, vacuum]])
kinds = [42, 16, 16]


def layer(z):
    return np.array([[1 / 3, 2 / 3, z], [2 / 3, 1 / 3, z + height / vacuum], [2 / 3, 1 / 3, z - height / vacuum]])


seen = {}
for name, positions in (("middle", layer(0.5)), ("at zero", layer(0.0)), ("wrapped", layer(0.0) % 1.0)):
    cell = (lattice, positions, kinds)
    group = spglib.get_layergroup(cell, aperiodic_dir=2)
    other = moyopy.MoyoLayerDataset(moyopy.Cell(lattice.tolist(), positions.tolist(), kinds)).number
    seen[name] = (group.number, group.international, spglib.get_spacegroup(cell), other)
    print(f"{name}, z = {positions[:, 2].round(3).tolist()}: {seen[name]}")
right = (78, "p-6m2", "P-6m2 (187)", 78)
assert seen["middle"] == right, seen
assert seen["at zero"] == right, seen
assert seen["wrapped"] == (69, "p3m1", "P-6m2 (187)", 78), "the cell is closed now"
PY
