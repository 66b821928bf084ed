#!/usr/bin/env bash
# pymatgen 2026.10.24: the directional elastic modulus of copper is 168 GPa where it is 67 GPa.
#
# Guess: ElasticTensor.directional_elastic_mod(n), the "directional elastic modulus", is Young's
#   modulus along n, 1 / S_nnnn, beside directional_poisson_ratio, which does use compliances. For
#   an isotropic solid it is y_mod.
# Seen: it is the stiffness C_nnnn, the stress per strain with all sideways strain forbidden.
#   Copper along [100] has 168.4 GPa for 66.7 GPa; an isotropic solid has 168.4 GPa for its own
#   y_mod of 66.7 GPa. The hardest and the softest direction stay in order, and the ratio of the
#   two falls from 2.9 to 1.4.
# Why it matters: the number is plausible, and maps of the anisotropy of Young's modulus made from
#   it are wrong in size and in shape. No message.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pymatgen==2026.10.24
cd "$work"
"$work/env/bin/python" - <<'PY'
import numpy as np
from pymatgen.analysis.elasticity import ElasticTensor


def cubic(c11, c12, c44):
    matrix = np.diag([c11 - c12] * 3 + [c44] * 3)
    matrix[:3, :3] += c12
    return ElasticTensor.from_voigt(matrix)


def young(c11, c12, c44, n):
    """Young's modulus of a cubic crystal along n, the closed form of the textbooks."""
    s11 = (c11 + c12) / ((c11 - c12) * (c11 + 2 * c12))
    s12 = -c12 / ((c11 - c12) * (c11 + 2 * c12))
    x, y, z = np.array(n) / np.linalg.norm(n)
    return 1 / (s11 - 2 * (s11 - s12 - 0.5 / c44) * (x * x * y * y + y * y * z * z + z * z * x * x))


copper = (168.4, 121.4, 75.4)
seen, right = [], []
for n in ([1, 0, 0], [1, 1, 1]):
    seen.append(float(cubic(*copper).directional_elastic_mod(n)))
    right.append(young(*copper, n))
    print(f"copper along {n}: {seen[-1]:.1f} GPa, Young's modulus {right[-1]:.1f} GPa")
isotropic = cubic(168.4, 121.4, (168.4 - 121.4) / 2)
own = isotropic.y_mod / 1e9
print(f"isotropic: {isotropic.directional_elastic_mod([1, 2, 3]):.1f} GPa, y_mod {own:.1f} GPa")
assert abs(seen[0] - 168.4) < 1e-6, "along [100] it is no longer C11"
assert abs(right[0] - 66.7) < 0.1 and abs(right[1] - 191.1) < 0.5
assert abs(own - young(168.4, 121.4, 23.5, [1, 2, 3])) < 1e-6
assert abs(float(isotropic.directional_elastic_mod([1, 2, 3])) - 168.4) < 1e-6, "it is y_mod now"
assert abs(seen[1] / seen[0] - 1.41) < 0.02 and abs(right[1] / right[0] - 2.87) < 0.02
PY
