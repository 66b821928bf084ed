#!/usr/bin/env bash
# matminer 0.10.1: WenAlloys gives every alloy a positive enthalpy of mixing and a negative entropy.
#
# Guess: the columns hold the quantities of the paper: for CoCrFeMnNi the known -4.16 kJ/mol and
#   13.38 J/mol/K, a lambda that is positive, and the gamma of its own docstring.
# Seen: `Mixing enthalpy` is an absolute value: CuFe, which separates, and NiAl, which orders, are
#   both positive. The entropy is negative, and so is lambda, which is entropy / delta^2. Gamma
#   lacks a factor of 2 in (r + s)^2 - r^2 = 2 r s + s^2, and the local mismatch of radii is the
#   sum over half of the pairs, without the square of its docstring. No message.
# Why it matters: rules for solid solutions ask for an enthalpy between two limits around zero and a
#   gamma below 1.175. With these columns no rule of the literature can be applied as it is printed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check \
  matminer==0.10.1 pymatgen==2026.10.24 pandas==2.3.3
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings
from itertools import combinations

import numpy as np
from matminer.featurizers.composition import WenAlloys
from matminer.utils.data import MagpieData, MixingEnthalpy
from pymatgen.core import Composition

warnings.simplefilter("ignore")
wen, pairs, magpie = WenAlloys(), MixingEnthalpy(), MagpieData()
NAMES = ["Mixing enthalpy", "Configuration entropy", "Radii gamma", "Radii local mismatch"]


def solid(small, mean):
    return 1 - np.sqrt(((small + mean) ** 2 - mean**2) / (small + mean) ** 2)


def by_hand(composition):
    part = composition.fractional_composition
    radius = {e: magpie.get_elemental_property(e, "MiracleRadius") for e in part}
    mean = sum(part[e] * radius[e] for e in part)
    both = list(combinations(part, 2))
    enthalpy = sum(4 * part[a] * part[b] * pairs.get_mixing_enthalpy(a, b) for a, b in both)
    entropy = -8.314e-3 * sum(part[e] * np.log(part[e]) for e in part)
    gamma = solid(min(radius.values()), mean) / solid(max(radius.values()), mean)
    mismatch = sum(2 * part[a] * part[b] * (radius[a] - radius[b]) ** 2 for a, b in both)
    return [enthalpy, entropy, gamma, mismatch]


found = {}
for formula in ("CoCrFeMnNi", "NiAl", "CuFe"):
    composition = Composition(formula)
    row = dict(zip(wen.feature_labels(), wen.featurize(composition)))
    seen = [round(float(row[name]), 4) for name in NAMES]
    right = [round(float(x), 4) for x in by_hand(composition)]
    found[formula] = (seen, right, float(row["Lambda entropy"]))
    for name, a, b in zip(NAMES, seen, right):
        print(f"{formula}: {name} {a}, by its formula {b}")
assert found["CoCrFeMnNi"][1][:2] == [-4.16, 0.0134], "the values of the literature"
assert found["NiAl"][1][0] < 0 < found["CuFe"][1][0]
for seen, right, quotient in found.values():
    assert seen[0] == abs(right[0]), "the enthalpy has a sign now"
    assert seen[1] == -right[1] and quotient < 0, "the entropy has its sign now"
    assert seen[2] < right[2] and seen[3] < right[3], "gamma or the mismatch is another now"
PY
