#!/usr/bin/env bash
# ase 3.29.0: the radial distribution function around others is zero for a solute that comes first.
#
# Guess: get_rdf satisfies g_ij = g_ji, as its documentation says since 3.27, and no number changes
#   with the order of atoms.
# Seen: an atom whose only neighbour of the asked element is atom number 0 is skipped: the list of
#   neighbours is tested for a nonzero entry, and the entry 0 counts as none. One sodium atom as the
#   first of 101 atoms: g(Na, Ar) is right and g(Ar, Na) is zero everywhere. As the last one, both
#   are equal. With a matrix of distances the same function is right. No message.
# Why it matters: solutes and impurities often come first in a file. Zero reads as "no neighbours",
#   and the coordination of the others by them, the integral of this function, is lost.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check ase==3.29.0
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings

import numpy as np
from ase import Atoms
from ase.geometry.rdf import get_rdf

warnings.simplefilter("error")
places = np.random.default_rng(0).uniform(0, 20, (101, 3))
first = Atoms("NaAr100", places, cell=[20] * 3, pbc=True)
last = Atoms("Ar100Na", np.roll(places, -1, axis=0), cell=[20] * 3, pbc=True)


def rdf(atoms, pair, **how):
    return get_rdf(atoms, 8.0, 40, elements=pair, no_dists=True, **how)


seen = {}
for name, atoms in (("first", first), ("last", last)):
    for pair in (("Na", "Ar"), ("Ar", "Na")):
        seen[name, pair] = rdf(atoms, pair)
        print(f"sodium {name}: mean of g{pair} up to 8 Å is {seen[name, pair].mean():.3f}")
matrix = rdf(first, ("Ar", "Na"), distance_matrix=first.get_all_distances(mic=True))
print(f"by a matrix of distances: {matrix.mean():.3f}")
right = seen["last", ("Na", "Ar")]
assert right.max() > 0.5
assert np.allclose(seen["first", ("Na", "Ar")], right)
assert np.allclose(seen["last", ("Ar", "Na")], right) and np.allclose(matrix, right)
assert np.all(seen["first", ("Ar", "Na")] == 0), "atom number 0 is seen now"
PY
