#!/usr/bin/env bash
# ase 3.29.0: make_supercell frees the atoms that repeat keeps fixed.
#
# Guess: make_supercell(atoms, 2 * identity) is atoms.repeat(2), as the crystals are equal:
#   constraints and `info` come along, and with them moments and charges.
# Seen: moments and charges come along by both. FixAtoms of the lowest layer holds 4 of 16 atoms of
#   the repeated slab, and none of the one by make_supercell; `info` is empty there. A relaxation
#   moves the layer that was to stay bulk-like. No message.
# Why it matters: a matrix that is not diagonal (a root-3 cell, say) can be had by make_supercell
#   only. Energies of adsorption from a slab with a free bottom are other numbers.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check ase==3.29.0
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings

import numpy as np
from ase.build import fcc111, make_supercell
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.optimize import BFGS

warnings.simplefilter("error")
slab = fcc111("Cu", (1, 1, 4), vacuum=8.0)
slab.set_constraint(FixAtoms(mask=slab.positions[:, 2] < slab.positions[:, 2].min() + 0.1))
slab.set_initial_magnetic_moments([1.0, 0.0, 0.0, 0.0])
slab.info = {"origin": "mp-30"}
ways = {
    "repeat": slab.repeat((2, 2, 1)),
    "make_supercell": make_supercell(slab, np.diag([2, 2, 1])),
    "root 3": make_supercell(slab, [[1, 1, 0], [-1, 2, 0], [0, 0, 1]]),
}
seen = {}
for name, atoms in ways.items():
    fixed = sum(len(one.index) for one in atoms.constraints)
    moment = atoms.get_initial_magnetic_moments().sum()
    bottom = atoms.positions[:, 2].argmin()
    before = atoms.positions[bottom, 2]
    atoms.calc = EMT()
    BFGS(atoms, logfile=None).run(fmax=0.01, steps=50)
    moved = abs(atoms.positions[bottom, 2] - before)
    seen[name] = (len(atoms), fixed, float(moment), bool(moved > 0.02), dict(atoms.info))
    print(f"{name}: {len(atoms)} atoms, {fixed} fixed, moment {moment}, bottom moved by {moved:.3f} Å, {atoms.info}")
assert seen["repeat"] == (16, 4, 4.0, False, {"origin": "mp-30"}), seen
assert seen["make_supercell"] == (16, 0, 4.0, True, {}), seen
assert seen["root 3"] == (12, 0, 3.0, True, {}), seen
PY
