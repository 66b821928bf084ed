#!/usr/bin/env bash
# average-minimum-distance 1.6.1: the invariant of a crystal changes with the basis of its lattice.
#
# Guess: AMD and PDD are isometry invariants, so a simple cubic lattice has the same values whatever
#   vectors span it.
# Seen: with b' = b + m a the values are right up to m = 5. From m = 6 (an angle of 9.5 degrees) the
#   shells of neighbours are searched in too small a box, and distances are missing: the first
#   sixteen values that are wrong are too long by up to 2.96 Å of 6.2. No message. Long rhombohedral
#   cells with such small angles (SiC 33R, 6.4 degrees) came out right: there the other two angles
#   are small as well.
# Why it matters: two settings of one crystal are far apart, so a search for duplicates by these
#   invariants misses them. Reduce the cell (Niggli) first.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check average-minimum-distance==1.6.1 pymatgen==2026.10.24
cd "$work"
"$work/env/bin/python" - <<'PY'
import amd
import numpy as np
from pymatgen.core import Lattice, Structure


def invariant(structure):
    return amd.AMD(amd.periodicset_from_pymatgen_structure(structure), 20)


a = 3.6
cubic = invariant(Structure(Lattice.cubic(a), ["Po"], [[0, 0, 0]]))
off = {}
for m in (1, 3, 5, 6, 8, 20):
    sheared = Structure([[a, 0, 0], [m * a, a, 0], [0, 0, a]], ["Po"], [[0, 0, 0]])
    off[m] = round(float(np.abs(invariant(sheared) - cubic).max()), 2)
    reduced = invariant(sheared.get_reduced_structure("niggli"))
    print(f"b + {m} a: angle {sheared.lattice.gamma:.1f}, off by {off[m]} Å; Niggli cell {np.abs(reduced - cubic).max():.2f}")
    assert np.abs(reduced - cubic).max() < 1e-6
assert all(off[m] < 1e-6 for m in (1, 3, 5)), off
assert all(off[m] > 2.9 for m in (6, 8, 20)), off
PY
