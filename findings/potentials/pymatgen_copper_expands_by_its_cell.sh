#!/usr/bin/env bash
# pymatgen 2026.10.24: cubic copper expands by 15.4 along x and 17.2 along z; the cell decides.
#
# Guess: thermal_expansion_coeff of second and third order constants of a cubic crystal is one
#   number times the unit matrix, the same for every cell that describes the crystal.
# Seen: each direction n is weighted by a heat capacity whose frequency is the velocity over
#   (a + b + c) . n, a length that depends on the choice of the cell and breaks the cubic
#   symmetry. At 300 K the usual primitive cell gives shear terms of 0.6e-6 per K beside 16.1e-6;
#   a primitive cell with one vector turned round gives 15.4e-6, 15.4e-6 and 17.2e-6; at 100 K
#   9.6e-6 and 11.1e-6.
# Why it matters: a tensor that a symmetry forbids is taken for anisotropy of the material, and
#   two people with the same constants and temperature publish two numbers.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pymatgen==2026.10.24
cd "$work"
"$work/env/bin/python" - <<'PY'
from itertools import permutations

import numpy as np
from pymatgen.analysis.elasticity import ElasticTensorExpansion
from pymatgen.core import Lattice, Structure
from pymatgen.core.tensors import Tensor

second = np.diag([168.4 - 121.4] * 3 + [75.4] * 3)  # copper, GPa
second[:3, :3] += 121.4
third = np.zeros((6, 6, 6))
# C111, C112, C123, C144, C155 and C456 of a cubic crystal, and the entries equal by symmetry
values = {"111": -1271, "112": -814, "123": -50, "144": -3, "155": -780, "456": -95}
equal = {
    "111": ["111", "222", "333"],
    "112": ["112", "113", "122", "223", "133", "233"],
    "123": ["123"],
    "144": ["144", "255", "366"],
    "155": ["155", "166", "244", "266", "344", "355"],
    "456": ["456"],
}
for name, value in values.items():
    for entry in equal[name]:
        for place in permutations(int(digit) - 1 for digit in entry):
            third[place] = value
expansion = ElasticTensorExpansion([Tensor.from_voigt(second), Tensor.from_voigt(third)])
h = 3.614 / 2
usual = [[0, h, h], [h, 0, h], [h, h, 0]]
turned = [[0, h, h], [h, 0, h], [-h, -h, 0]]  # the same lattice
cells = {name: Structure(Lattice(rows), ["Cu"], [[0, 0, 0]]) for name, rows in
         (("usual", usual), ("turned", turned))}
same = np.linalg.solve(np.array(usual).T, np.array(turned).T)
assert np.allclose(same, np.round(same)) and abs(abs(np.linalg.det(same)) - 1) < 1e-9
found = {}
for name, cell in cells.items():
    for temperature in (300, 100):
        alpha = np.array(expansion.thermal_expansion_coeff(cell, temperature)) * 1e6
        found[name, temperature] = alpha
        print(f"{name} cell, {temperature} K: {np.diag(alpha).round(2)} along the axes, "
              f"{alpha[0, 1]:.2f} in xy (1e-6 per K)")
assert abs(found["usual", 300][0, 1] - 0.57) < 0.02, "the shear term is another one, or gone"
for temperature, axes in ((300, [15.41, 15.41, 17.21]), (100, [9.55, 9.55, 11.11])):
    seen = np.diag(found["turned", temperature])
    assert np.allclose(seen, axes, atol=0.05), "the expansion is isotropic now"
assert abs(found["usual", 300][2, 2] - found["turned", 300][2, 2]) > 1, "the cells agree now"
PY
