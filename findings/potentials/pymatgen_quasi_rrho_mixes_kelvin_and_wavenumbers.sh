#!/usr/bin/env bash
# pymatgen 2026.10.24: QuasiRRHO compares a cutoff in 1/cm with kelvin; its entropy is not in Ha/K.
#
# Guess: QuasiRRHO is Grimme's scheme with a cutoff of `v0` = 100 1/cm: at 100 1/cm the vibration
#   counts half as oscillator, half as rotor. Entropies come in Ha/K, "all outputs are in atomic
#   units".
# Seen: the vibration goes into the damping and into the moment of inertia of the rotor as a
#   temperature in K, 1.44 times the wavenumber, beside the cutoff in 1/cm. The half-way point is
#   at 69.5 1/cm. A mode of 100 1/cm has 3.25 for 3.09 cal/mol/K. The entropy of water is 45.1
#   "Ha/K": it is in cal/mol/K.
# Why it matters: free energies of floppy molecules and adsorbates shift by a tenth of kT per
#   soft mode, against other codes with the same nominal cutoff; and T * entropy is off by 627,509.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pymatgen==2026.10.24
cd "$work"
"$work/env/bin/python" - <<'PY'
import numpy as np
from pymatgen.analysis.quasirrho import QuasiRRHO, get_avg_mom_inertia
from pymatgen.core import Molecule
from scipy import constants as c

T = 298.15
WATER = Molecule(["O", "H", "H"], [[0, 0, 0.1173], [0, 0.7572, -0.4692], [0, -0.7572, -0.4692]])
CALORIES = c.R / c.calorie


def model(frequencies):
    return QuasiRRHO(WATER, frequencies, -76.4, 1, sigma_r=2, temp=T, press=1e5, v0=100)


def grimme(wavenumber, weight):
    """Oscillator, rotor and their mixture in cal/mol/K; Chem. Eur. J. 18, 9955 (2012)."""
    x = c.h * c.c * 100 * wavenumber / (c.k * T)
    oscillator = x / np.expm1(x) - np.log(-np.expm1(-x))
    mean = get_avg_mom_inertia(WATER)[0]
    own = c.h / (8 * np.pi**2 * c.c * 100 * wavenumber)
    inertia = own * mean / (own + mean)
    rotor = 0.5 + 0.5 * np.log(8 * np.pi**3 * inertia * c.k * T / c.h**2)
    return CALORIES * oscillator, CALORIES * (weight * oscillator + (1 - weight) * rotor)


still = model([])
for wavenumber, expected in ((100, 3.255), (150, 2.644)):
    seen = model([wavenumber]).entropy_quasiRRHO - still.entropy_quasiRRHO
    plain = model([wavenumber]).entropy_ho - still.entropy_ho
    oscillator, right = grimme(wavenumber, 1 / (1 + (100 / wavenumber) ** 4))
    print(f"{wavenumber} 1/cm: {seen:.3f} cal/mol/K, paper {right:.3f}, oscillator {plain:.3f}")
    assert abs(plain - oscillator) < 1e-4, "the oscillator has changed"
    assert abs(seen - expected) < 0.002, "the mixture has changed"
    assert seen - right > 0.02, "the mixture follows the paper now"
water = model([1595.0, 3657.0, 3756.0]).entropy_ho
measured = 188.8  # J/mol/K at 298.15 K and 1 bar
atomic = measured / c.N_A / c.value("Hartree energy")
print(f"water: {water:.2f}, measured {measured / c.calorie:.2f} cal/mol/K = {atomic:.2e} Ha/K")
assert "[Ha/K]" in QuasiRRHO.__doc__, "the docstring no longer says Ha/K"
assert abs(water - measured / c.calorie) < 0.1, "the entropy is no longer in cal/mol/K"
PY
