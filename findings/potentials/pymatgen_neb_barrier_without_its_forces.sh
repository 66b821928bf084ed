#!/usr/bin/env bash
# pymatgen 2026.10.24: NEBAnalysis asks for forces and gives the same barrier with reversed ones.
#
# Guess: NEBAnalysis fits each section of the path to the energies and tangent forces of its two
#   images, "Henkelman's approach" in the words of get_plot; the forces are an argument that must
#   be given.
# Seen: the forces are stored and not used: a spline goes through the energies alone. A barrier of
#   1 eV between two images at 0.50 eV is 0.60 eV, with the right forces, with reversed ones and
#   with none. ASE's fit of the same data, which uses them, has 0.85 eV. No message.
# Why it matters: the slope at the images tells that the top lies between them. Rates are
#   exponentials of this number, and the plot shows a smooth curve through all points.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pymatgen==2026.10.24 ase==3.29.0
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings

import numpy as np
from ase.utils.forcecurve import fit_raw
from pymatgen.analysis.transition_state import NEBAnalysis
from pymatgen.core import Lattice, Structure

warnings.simplefilter("error", UserWarning)
WIDTH = 0.12  # Å
path = np.linspace(0, 1, 6)  # Å
energies = np.exp(-(((path - 0.5) / WIDTH) ** 2))  # eV, a barrier of 1 eV at 0.5 Å
forces = energies * 2 * (path - 0.5) / WIDTH**2  # minus the slope along the path
images = [Structure(Lattice.cubic(10), ["H"], [[x / 10, 0, 0]]) for x in path]
fine = np.linspace(0, 1, 1001)
seen = {}
for name, given in (("right", forces), ("reversed", -forces), ("no", 0 * forces)):
    analysis = NEBAnalysis(path, energies, given, images)
    seen[name] = float(analysis.spline(fine).max())
    print(f"pymatgen with {name} forces: {seen[name]:.3f} eV")
vectors = np.zeros((2, 6, 1, 3))
vectors[0, :, 0, 0], vectors[1, :, 0, 0] = forces, path
second = float(fit_raw(energies, vectors[0], vectors[1]).fit_energies.max())
print(f"ASE with right forces: {second:.3f} eV; images reach {energies.max():.3f} eV, the top is 1")
assert "tangent force" in NEBAnalysis.get_plot.__doc__, "the docstring no longer tells of forces"
assert seen["right"] == seen["reversed"] == seen["no"], "the forces are used now"
assert second > 0.8 and seen["right"] < 0.65, "the barrier without forces is a better one now"
PY
