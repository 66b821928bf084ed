#!/usr/bin/env bash
# ase 3.29.0: the diffusion coefficient of chosen atoms is too small by the share that was chosen.
#
# Guess: DiffusionCoefficient(images, timestep, atom_indices=[...]) averages over the atoms that are
#   named, "the atoms whose diffusion coefficient is to be calculated".
# Seen: the squared displacements of the named atoms are divided by the number of all atoms of their
#   element. Eight lithium atoms with one coefficient of 0.5 Å^2 per time unit have 0.5 all
#   together, 0.25 where four are named and 0.0625 for a single one. No message.
# Why it matters: the option is there for interstitials and for atoms of one sublattice or region:
#   a few among many. Their mobility comes out small by the ratio, and rises with each atom added.
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
from ase.md.analysis import DiffusionCoefficient

warnings.simplefilter("error")
COEFFICIENT = 0.5  # Å^2 per ASE time unit
start = np.random.default_rng(0).uniform(0, 10, (8, 3))
images = []
for time in range(50):  # each atom moves by sqrt(2 D t) along each axis, so D is exact
    images.append(Atoms("Li8", start + np.sqrt(2 * COEFFICIENT * time), cell=[10] * 3, pbc=True))
seen = {}
for chosen in (None, [0, 1, 2, 3], [0]):
    values, _ = DiffusionCoefficient(images, 1.0, atom_indices=chosen).get_diffusion_coefficients()
    number = len(chosen) if chosen else 8
    seen[number] = float(values[0])
    print(f"{number} of 8 atoms: {seen[number]:.4f} Å^2 per time unit, exact {COEFFICIENT}")
assert abs(seen[8] - COEFFICIENT) < 1e-9, "the coefficient of all atoms has changed"
for number in (4, 1):
    assert abs(seen[number] - COEFFICIENT * number / 8) < 1e-9, "the named atoms are counted now"
PY
