#!/usr/bin/env bash
# pymatgen 2026.10.24: SLME of absorption data that end at 2.5 eV leaves the blue light out.
#
# Guess: slme() takes the last known value of the absorption beyond the ends of the data, as its
#   comment says: light of more energy than the data cover is absorbed like the highest energy.
# Seen: the two end values change sides, since the energies are turned into wavelengths, the other
#   way round. Above the data the absorption of the lowest energy is taken, which is zero. A step
#   absorber of 1.34 eV has 33.9 % with data to 10 eV, the limit of Shockley and Queisser, 32.1 %
#   with data to 3 eV and 27.7 % with data to 2.5 eV. No message.
# Why it matters: measured spectra and cheap calculations end early. The efficiency is plausible,
#   and the ranking of absorbers follows the length of their files.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pymatgen==2026.10.24
cd "$work"
"$work/env/bin/python" - <<'PY'
import numpy as np
from pymatgen.analysis.solar.slme import slme

GAP = 1.34  # eV, a direct gap


def efficiency(highest):
    energies = np.arange(0.5, highest, 0.01)
    absorption = np.where(energies >= GAP, 1e7, 0.0)  # 1/m: 50 µm absorb all light above the gap
    return float(slme(energies, absorption, GAP, GAP, thickness=50e-6))


seen = {highest: efficiency(highest) for highest in (2.5, 3.0, 10.0)}
for highest, value in seen.items():
    print(f"data to {highest} eV: {value:.2f} %")
assert abs(seen[10.0] - 33.9) < 0.2, "the limit of Shockley and Queisser has changed"
assert abs(seen[2.5] - 27.7) < 0.1 and abs(seen[3.0] - 32.06) < 0.1, "blue light is absorbed now"
PY
