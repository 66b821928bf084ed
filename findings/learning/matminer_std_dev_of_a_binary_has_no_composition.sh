#!/usr/bin/env bash
# matminer 0.10.1: the std_dev of a binary compound is its range over the root of 2, at any ratio.
#
# Guess: the standard deviation that ElementProperty writes is that over the atoms: that of iron
#   with one carbon in a thousand atoms is small, and 0 in the limit.
# Seen: the fractions are taken for weights of as many samples as there are elements, and the
#   deviation is scaled up by 1 / (1 - sum of squares). For two elements that is |a - b| / sqrt(2)
#   whatever the fractions: Fe999C and FeC have the same one. With a third element, a trace of it
#   can raise or lower the number. The preset "matminer" asks for std_dev beside the range, so every
#   binary gets the same fact twice. geom_std_dev is exp(v / 2), not exp(sqrt(v)), of the variance v
#   of the logarithms. avg_dev is right. No message.
# Why it matters: dilute alloys and doped crystals look as mixed as the equal compound, and a model
#   that is trained on these columns cannot tell a composition by them.
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
from matminer.featurizers.composition import ElementProperty
from matminer.featurizers.utils.stats import PropertyStats
from pymatgen.core import Composition

warnings.simplefilter("ignore")
stats = ["range", "std_dev", "avg_dev"]
featurizer = ElementProperty("pymatgen", ["X"], stats)


def both(formula):
    """What matminer writes, and the same numbers over a list of all atoms."""
    composition = Composition(formula)
    atoms = [float(el.X) for el, n in composition.items() for _ in range(int(n))]
    right = [np.ptp(atoms), np.std(atoms), np.mean(np.abs(np.array(atoms) - np.mean(atoms)))]
    seen = featurizer.featurize(composition)
    return [[round(float(x), 3) for x in row] for row in (seen, right)]


found = {name: both(name) for name in ("FeC", "Fe9C", "Fe999C")}
for name, (seen, right) in found.items():
    texts = [f"{s} {a} (over atoms {b})" for s, a, b in zip(stats, seen, right)]
    print(f"{name}: " + ", ".join(texts))
assert all(seen[0] == right[0] and seen[2] == right[2] for seen, right in found.values())
assert [seen[1] for seen, _ in found.values()] == [0.509] * 3, "std_dev has the fractions now"
assert [right[1] for _, right in found.values()] == [0.36, 0.216, 0.023]
assert "std_dev" in ElementProperty.from_preset("matminer").stats

values = [1.0, float(np.exp(2.0))]
geometric = float(PropertyStats.geom_std_dev(values))
print(f"geom_std_dev of 1 and e^2: {geometric:.2f}, "
      f"{np.exp(np.std(np.log(values), ddof=1)):.2f} by its definition with n - 1")
assert round(geometric, 3) == round(float(np.exp(1.0)), 3), "geom_std_dev is another now"
PY
