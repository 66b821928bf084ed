#!/usr/bin/env bash
# pymatgen 2026.10.24: the quadrupole coupling of lithium is that of Li-6, 50 times too small.
#
# Guess: ElectricFieldGradient.coupling_constant("Li") takes the common isotope, as the examples of
#   its docstring ("Li", "Al") leave open: Li-7, 95 % of all lithium, or says that there are two.
# Seen: it takes the lightest isotope that has a moment. For a gradient of 50 V/Å² lithium gets
#   0.098 MHz where Li-7 has 4.85, boron 10.2 (B-10) where B-11, 80 % of all, has 4.91. Elements
#   with one such isotope, aluminium and sodium, are right. No message, no isotope in the answer.
# Why it matters: spectra of Li-7 and B-11 are what is measured. A screening of lithium conductors
#   by their couplings finds none that can be seen.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check \
  pymatgen==2026.10.24 numpy==2.4.6 mendeleev==1.3.0
cd "$work"
"$work/env/bin/python" -W ignore - <<'PY'
import numpy as np
from mendeleev import element
from pymatgen.analysis.nmr import ElectricFieldGradient
from scipy.constants import e, h

gradient = ElectricFieldGradient(np.diag([-20.0, -30.0, 50.0]))  # V/Å²
MOMENT = {"Li-6": -0.808, "Li-7": -40.1, "B-10": 84.59, "B-11": 40.59, "Al-27": 146.6, "Na-23": 104}
"""Quadrupole moments in millibarn (Pyykkö, Mol. Phys. 106, 1965, 2008)."""


def megahertz(isotope):
    return abs(e * MOMENT[isotope] * 1e-31 * 50e20 / h) / 1e6


def common(symbol):
    most = max(element(symbol).isotopes, key=lambda one: one.abundance or 0)
    return f"{symbol}-{most.mass_number}", round(most.abundance)


seen = {}
for symbol in ("Li", "B", "Al", "Na"):
    isotope, percent = common(symbol)
    seen[symbol] = abs(float(gradient.coupling_constant(symbol)))
    named = abs(float(gradient.coupling_constant(isotope)))
    print(f"{symbol}: {seen[symbol]:.3f} MHz; {isotope} ({percent} %) by name {named:.3f},"
          f" by its moment {megahertz(isotope):.3f}")
    assert abs(named / megahertz(isotope) - 1) < 0.02, "asked by name it is right"
assert abs(seen["Li"] / megahertz("Li-6") - 1) < 0.02, "lithium is no longer Li-6"
assert abs(seen["B"] / megahertz("B-10") - 1) < 0.02, "boron is no longer B-10"
assert megahertz("Li-7") > 45 * seen["Li"] and common("Li")[0] == "Li-7"
assert abs(seen["Al"] / megahertz("Al-27") - 1) < 0.02
PY
