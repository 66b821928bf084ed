#!/usr/bin/env bash
# matminer 0.10.1: the radial distribution function of a crystal grows with the size of its cell.
#
# Guess: the "normalized RDF" of its docstring is g(r): about 1 at large distances, the same for a
#   primitive cell, a conventional cell and a supercell of one crystal.
# Seen: the pairs of all atoms are counted and divided by the volume of the shell and the density of
#   atoms, not by the number of atoms. For aluminium the mean beyond 6 Å is 1.0 in the primitive
#   cell, 3.9 in the conventional cell and 31 in a supercell of 2 x 2 x 2; all bins are 1, 4 and 32
#   times g(r). No message. The bond-order parameters and the Gaussian symmetry functions of the
#   same package do not depend on the cell.
# Why it matters: a model on these columns learns the size of the cell. The same crystal from two
#   databases, primitive in one and conventional in the other, is two different rows.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check \
  matminer==0.10.1 pymatgen==2026.10.24 pandas==2.3.3
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings

import numpy as np
from matminer.featurizers.structure import RadialDistributionFunction
from pymatgen.core import Lattice, Structure

warnings.simplefilter("ignore")
EDGE, CUTOFF, BIN = 4.05, 10.0, 0.1
conventional = Structure.from_spacegroup("Fm-3m", Lattice.cubic(EDGE), ["Al"], [[0, 0, 0]])
cells = {
    "primitive": conventional.get_primitive_structure(),
    "conventional": conventional,
    "supercell": conventional * (2, 2, 2),
}
rdf = RadialDistributionFunction(cutoff=CUTOFF, bin_size=BIN)
nearest = int(EDGE / 2**0.5 / BIN)  # the bin of the 12 nearest neighbours
shell = 4 / 3 * np.pi * (((nearest + 1) * BIN) ** 3 - (nearest * BIN) ** 3)
by_hand = 12 / shell / (4 / EDGE**3)
found = {}
for name, cell in cells.items():
    g = np.array(rdf.featurize(cell))
    found[name] = (len(cell), float(g[nearest]), float(g[60:].mean()))
    print(f"{name}: {len(cell)} atoms, first peak {g[nearest]:.2f} (by hand {by_hand:.2f}), "
          f"mean beyond 6 Å {g[60:].mean():.2f}")
for atoms, peak, tail in found.values():
    assert abs(peak / by_hand - atoms) < 1e-6 * atoms, "it is divided by the number of atoms now"
    assert abs(tail / atoms - 1) < 0.1, "it is divided by the number of atoms now"
PY
