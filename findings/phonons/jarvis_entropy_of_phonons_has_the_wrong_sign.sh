#!/usr/bin/env bash
# jarvis-tools 2026.6.12: the entropy of phonons adds the term that it has to take away.
#
# Guess: PhononDos.vibrational_entropy(T) gives that of the modes, k [(n + 1) ln(n + 1) - n ln n]
#   with n quanta in each; or, since it gives an array, this per energy, to be integrated.
# Seen: it gives the array, and the second term has a plus. A Debye spectrum of two atoms up to 333
#   1/cm has, integrated, -0.5, 25 and 396 J/(mol K) at 50, 300 and 1000 K, where the formula and
#   the heat capacity of the same class, integrated over ln T, give 1.5, 46 and 104. No message.
# Why it matters: free energies from it put polymorphs in another order, and cold crystals below
#   zero entropy.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check \
  jarvis-tools==2026.6.12 phonopy==2.43.6 spglib==2.6.0 \
  numpy==2.3.5 scipy==1.16.3
cd "$work"
"$work/env/bin/python" -W ignore - <<'PY'
import numpy as np
from jarvis.analysis.phonon.dos import Na, PhononDos, e, icm_to_eV, kB

TOP = 333.0  # 1/cm
waves = np.arange(0, TOP + 0.5, 0.5)
modes = 6 * 3 * waves**2 / TOP**3  # per 1/cm, 6 in all
phonons = PhononDos(modes, waves)
kelvins = np.arange(2.0, 1001.0)
heat = np.array([phonons.heat_capacity(kelvin) for kelvin in kelvins])  # J/(mol K)
by_heat = heat[0] / 3 + np.concatenate([[0], np.cumsum(np.diff(kelvins) * (heat / kelvins)[1:])])
assert abs(heat[-1] - 6 * kB * e * Na) < 0.6, "the heat capacity was right: 6 k when all is warm"

for kelvin, low, high in ((50, -1.0, 0.0), (300, 20, 30), (1000, 300, 500)):
    per_energy = phonons.vibrational_entropy(kelvin)  # eV/K per eV
    seen = float(np.trapezoid(per_energy, waves * icm_to_eV)) * e * Na
    x = waves[1:] * icm_to_eV / (kB * kelvin)
    n = 1 / np.expm1(x)
    each = (n + 1) * np.log(n + 1) - n * np.log(n)
    exact = np.trapezoid(each * modes[1:], waves[1:]) * kB * e * Na
    from_heat = by_heat[np.searchsorted(kelvins, kelvin)]
    print(f"{kelvin} K: entropy {seen:.1f}, by the formula {exact:.1f},"
          f" by its own heat capacity {from_heat:.1f} J/(mol K)")
    assert abs(from_heat - exact) < 0.05 * exact + 0.1, "formula and heat capacity agree"
    assert low < seen < high, "the entropy has changed"
PY
