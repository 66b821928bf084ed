#!/usr/bin/env bash
# pymatgen 2026.10.24: the elastic tensor of quartz in the IEEE setting has two signs of C14.
#
# Guess: convert_to_ieee gives one tensor for one crystal, which is what a standard setting is for:
#   the choice of the hexagonal cell drops out.
# Seen: the x axis is the first vector of the cell as it comes. The cells (a, b, c) and
#   (a + b, -a, c) are the same lattice, 60 degrees apart, and both are hexagonal cells of quartz.
#   With the same atoms and the same tensor in space, C14 is -18.0 GPa by one and +18.0 GPa by the
#   other. In class 32 the two senses of the x axis differ, and nothing chooses between them.
#   Corundum, where the rhombohedral lattice decides, has one sign. No message.
# Why it matters: tensors of a database that were all "in IEEE format" cannot be compared or
#   averaged, and a model that learns them sees two answers to one question.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pymatgen==2026.10.24
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings

import numpy as np
from pymatgen.analysis.elasticity import ElasticTensor
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure

warnings.simplefilter("error", UserWarning)


def tensor(c11, c12, c13, c14, c33, c44):
    """A tensor of class 32 or -3m, x along a twofold axis, GPa."""
    c66 = (c11 - c12) / 2
    matrix = np.diag([c11, c11, c33, c44, c44, c66]).astype(float)
    for i, j, value in ((0, 1, c12), (0, 2, c13), (1, 2, c13), (0, 3, c14), (1, 3, -c14)):
        matrix[i, j] = matrix[j, i] = value
    matrix[4, 5] = matrix[5, 4] = c14
    return ElasticTensor.from_voigt(matrix)


def other_cell(crystal):
    rows = np.array([[1, 1, 0], [-1, 0, 0], [0, 0, 1]]) @ crystal.lattice.matrix
    return Structure(Lattice(rows), crystal.species, crystal.cart_coords, coords_are_cartesian=True)


places = [[0.470, 0, 2 / 3], [0.414, 0.268, 0.786]]
quartz = Structure.from_spacegroup("P3_221", Lattice.hexagonal(4.913, 5.405), ["Si", "O"], places)
corundum = Structure.from_spacegroup(
    "R-3c", Lattice.hexagonal(4.76, 12.99), ["Al", "O"], [[0, 0, 0.352], [0.306, 0, 0.25]]
)
# Cartesian axes as the lattice has them: x along the twofold axis a
cases = {
    "quartz": (quartz, (86.8, 7.0, 11.9, -18.0, 105.8, 58.2)),
    "corundum": (corundum, (497.0, 163.0, 116.0, 22.0, 501.0, 147.0)),
}
seen = {}
for name, (crystal, constants) in cases.items():
    rotated = other_cell(crystal)
    assert np.allclose(rotated.lattice.abc, crystal.lattice.abc)
    assert np.allclose(rotated.lattice.angles, crystal.lattice.angles)
    assert StructureMatcher(primitive_cell=False).fit(crystal, rotated)
    in_space = tensor(*constants)
    angle = np.arctan2(crystal.lattice.matrix[0, 1], crystal.lattice.matrix[0, 0])
    turn = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    in_space = ElasticTensor(in_space.rotate(np.array(turn)))
    seen[name] = [float(in_space.convert_to_ieee(s).voigt[0, 3]) for s in (crystal, rotated)]
    print(f"{name}: C14 is {seen[name][0]:.1f} GPa by one cell, {seen[name][1]:.1f} by the other")
assert abs(seen["corundum"][0] - seen["corundum"][1]) < 1e-6
assert abs(seen["quartz"][0]) > 17, "the tensor is not that of quartz"
assert abs(seen["quartz"][0] + seen["quartz"][1]) < 1e-6, "quartz has one sign now"
PY
