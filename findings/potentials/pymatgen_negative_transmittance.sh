#!/usr/bin/env bash
# pymatgen 2026.10.24: the transmittance of a metal is -9.4; electrons' losses count as absorption.
#
# Guess: DielectricAnalysis has R, L and T as shares of the light: none is below 0, or above 1, and
#   a medium without thickness has no absorptivity at all.
# Seen: "absorptivity" L is eps2 / (eps1^2 + eps2^2), the energy loss function of electrons, which
#   has no upper limit; T is 1 - R - L. Near a plasma frequency (eps = 0.1 + 0.1i) L is 5 and T
#   is -4.2; a Drude metal with a weak damping goes to -9.4. A glass with eps = 2.25 + 0.1i
#   transmits 94 %, whatever its thickness.
# Why it matters: for transparent crystals the numbers look right, so that nobody notices; peaks of
#   the loss function are read as absorption edges.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pymatgen==2026.10.24
cd "$work"
"$work/env/bin/python" - <<'PY'
import numpy as np
from pymatgen.analysis.optics import DielectricAnalysis

energies = np.linspace(1, 15, 141)  # eV
plasma, damping = 9.0, 0.9
drude = 1 - plasma**2 / (energies**2 + 1j * damping * energies)
metal = DielectricAnalysis(energies, drude.real[:, None], drude.imag[:, None])
index = np.sqrt(drude)
loss = (-1 / drude).imag
reflected = abs((index - 1) / (index + 1)) ** 2
most = f"R up to {metal.R.max():.2f}, L up to {metal.L.max():.2f}"
print(f"metal: {most}, T down to {metal.T.min():.2f}")
glass = DielectricAnalysis([5.0], [[2.25]], [[0.1]])
print(f"glass: R {glass.R[0, 0]:.3f}, L {glass.L[0, 0]:.3f}, T {glass.T[0, 0]:.3f}")
assert abs(glass.T[0, 0] - 0.94) < 0.003
print(f"lowest T at {energies[metal.T[:, 0].argmin()]:.1f} eV, plasma frequency {plasma} eV")
assert np.allclose(metal.n[:, 0] + 1j * metal.k[:, 0], index), "the refractive index is wrong"
assert np.allclose(metal.R[:, 0], reflected), "the reflectivity is wrong"
assert np.allclose(metal.L[:, 0], loss), "L is no longer the loss function"
assert metal.L.max() > 5 and metal.T.min() < -4, "L and T are shares now"
assert abs(energies[metal.T[:, 0].argmin()] - plasma) < 0.2
assert "absorptivity" in DielectricAnalysis.__doc__, "the docstring has another word for L now"
PY
