#!/usr/bin/env bash
# ase 3.29.0: the entropy of a gas without a pressure is that at 6e-7 Pa, 26 kB too high.
#
# Guess: IdealGasThermo.get_entropy(temperature) is the entropy at 1 bar, as `pressure=units.bar`
#   in its signature says.
# Seen: the method takes Pa, and `units.bar` is 6.24e-7 in ASE's own unit, eV/Å^3. The default is
#   6.24e-7 Pa: water has 403 J/mol/K for 189 at 1 bar, and T * S is 0.66 eV too high at 298.15 K.
#   Passing `pressure=1 * units.bar`, the way of the rest of ASE, does the same, in
#   get_gibbs_energy too. No message; the table prints "P = 0.0 Pa".
# Why it matters: each gas molecule of a reaction shifts by the same 0.66 eV, more than most
#   adsorption free energies are worth.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check ase==3.29.0
cd "$work"
"$work/env/bin/python" - <<'PY'
import inspect
import warnings

import numpy as np
from ase import Atoms, units
from ase.thermochemistry import IdealGasThermo

warnings.simplefilter("error")
T = 298.15
water = Atoms("OHH", [[0, 0, 0.1173], [0, 0.7572, -0.4692], [0, -0.7572, -0.4692]])
modes = np.array([1595.0, 3657.0, 3756.0]) * units.invcm
gas = IdealGasThermo(modes, "nonlinear", atoms=water, symmetrynumber=2, spin=0)
per_mole = units.mol / units.J
default = gas.get_entropy(T, verbose=False)
bar = gas.get_entropy(T, pressure=1e5, verbose=False)
shift = gas.get_gibbs_energy(T, 1e5, verbose=False) - gas.get_gibbs_energy(
    T, units.bar, verbose=False
)
print(f"entropy of water: {default * per_mole:.1f} by default, {bar * per_mole:.1f} at 1e5 Pa")
print(f"measured at 1 bar: 188.8 J/mol/K; free energy with units.bar: {shift:.3f} eV lower")
assert "(Pa)" in inspect.getdoc(IdealGasThermo.get_entropy), "the unit is another one now"
assert abs(bar * per_mole - 188.8) < 0.3, "the entropy at 1 bar has changed"
assert abs((default - bar) / units.kB - np.log(1e5 / units.bar)) < 1e-6, "another default"
assert default * per_mole > 400 and abs(shift - 0.663) < 0.001, "the default is 1 bar now"
PY
