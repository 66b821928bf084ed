#!/usr/bin/env bash
# ase 3.29.0: powder patterns by the Debye formula take the atoms' form factors at the wrong angle.
#
# Guess: XrDebye uses the form factors of Waasmaier and Kirfel at sin(theta)/lambda, the variable
#   for which their coefficients are tabulated: gold scatters with 66 electrons at its (111) peak.
# Seen: the function gets s = 2 sin(theta)/lambda and puts it in as it is, twice the variable. Gold
#   has 51.1 electrons at 38.2 degrees for 66.3, and 34.2 at 77.5 degrees for 52.2, which is the
#   fall-off of twice the distance. The peak at 77.5 degrees is 28 % too weak against the one at
#   38.2 degrees. Copper has 28.47 electrons at angle zero, 29 in the table: one coefficient is
#   another number. No message.
# Why it matters: patterns of nanoparticles and glasses made this way are compared with measured
#   ones; what looks like thermal motion or disorder is the wrong argument.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check ase==3.29.0 periodictable==2.1.0
cd "$work"
"$work/env/bin/python" - <<'PY'
import numpy as np
import periodictable
from ase import Atoms
from ase.utils.xrdebye import XrDebye

WAVELENGTH = 1.5405981  # Å


def electrons(element, angle):
    """Form factors at an angle 2 theta: of ASE, and of a second package (Q in 1/Å)."""
    s = 2 * np.sin(np.radians(angle / 2)) / WAVELENGTH
    atom = XrDebye(Atoms(element), WAVELENGTH, damping=0.0, method="Iwasa", alpha=1.0)
    pre = np.sqrt(1 - (WAVELENGTH * s / 2) ** 2)
    pre /= 1 + np.cos(np.radians(angle)) ** 2
    mine = np.sqrt(atom.get(s) / pre)  # one atom scatters with the square of its form factor
    table = getattr(periodictable, element).xray
    return mine, float(table.f0(2 * np.pi * s)), float(table.f0(4 * np.pi * s))


seen = {angle: electrons("Au", angle) for angle in (0.001, 38.2, 77.5)}
for angle, (mine, right, twice) in seen.items():
    print(f"gold at {angle} degrees: {mine:.1f} electrons, table {right:.1f}, at twice {twice:.1f}")
ratio = [(seen[77.5][i] / seen[38.2][i]) ** 2 for i in (0, 1)]
print(f"77.5 against 38.2 degrees: {ratio[0]:.3f}, by the table {ratio[1]:.3f}")
copper = electrons("Cu", 0.001)
print(f"copper at zero: {copper[0]:.2f} electrons, table {copper[1]:.2f}")
assert abs(seen[0.001][0] - seen[0.001][1]) < 0.01, "gold differs at angle zero too"
for angle in (38.2, 77.5):
    assert abs(seen[angle][0] - seen[angle][2]) < 0.01, "the variable is another one now"
    assert seen[angle][1] - seen[angle][0] > 15, "the form factor follows the table now"
assert abs(ratio[0] / ratio[1] - 0.72) < 0.01
assert abs(copper[0] - 28.47) < 0.01 and abs(copper[1] - 29) < 0.02, "copper is mended"
PY
