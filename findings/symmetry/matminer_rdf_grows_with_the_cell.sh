#!/usr/bin/env bash
# matminer 0.10.1: the radial distribution function is as many times too high as the cell has atoms.
#
# Guess: RadialDistributionFunction is the "normalized RDF" of its docstring: it goes to 1 at large
#   distances, and a crystal has one RDF whichever cell describes it.
# Seen: the distances around all atoms of the cell are counted, and never divided by the number of
#   atoms. Silicon goes to 2 in its primitive cell, to 8 in the cubic one and to 64 in a supercell.
#   ASE has 1 for each of them. No message.
# Why it matters: the same crystal has three descriptors. A model learns the size of cells from
#   them; a similarity of two crystals is that of their numbers of atoms.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check matminer==0.10.1 ase==3.29.0 \
    pymatgen==2026.10.24
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings

import numpy as np
from ase.geometry.rdf import get_rdf
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor

warnings.simplefilter("ignore", DeprecationWarning)
from matminer.featurizers.structure.rdf import RadialDistributionFunction  # noqa: E402



def far(values):
    """Mean from 10 to 15 Å, each bin with its volume."""
    return np.average(values[100:150], weights=np.arange(100, 150) ** 2)


rdf = RadialDistributionFunction(cutoff=15.0, bin_size=0.1)
cubic = Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.43), ["Si"], [[0, 0, 0]])
cells = {"primitive": cubic.get_primitive_structure(), "cubic": cubic, "supercell": cubic * 2}
seen = {}
for name, cell in cells.items():
    seen[name] = np.asarray(rdf.featurize(cell))
    print(f"{name}, {len(cell)} atoms: {far(seen[name]):.2f} at 10 to 15 Å")
    assert abs(far(seen[name]) / len(cell) - 1) < 0.05, "the RDF is divided by atoms now"
big = AseAtomsAdaptor.get_atoms(cubic * 6)
second = far(get_rdf(big, 15.0, 150, no_dists=True))
print(f"ASE, {len(big)} atoms: {second:.2f}")
assert abs(second - 1) < 0.05
assert np.allclose(seen["cubic"] / 8, seen["primitive"] / 2), "the shapes differ too"
assert np.allclose(seen["supercell"] / 64, seen["primitive"] / 2), "the shapes differ too"
PY
