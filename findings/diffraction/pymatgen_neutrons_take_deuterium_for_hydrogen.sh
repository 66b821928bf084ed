#!/usr/bin/env bash
# pymatgen 2026.10.24: neutrons see no difference between a deuteride and its hydride.
#
# Guess: NDCalculator tells LiD from LiH, as neutrons do: the scattering length of hydrogen is
#   -3.74 fm and that of deuterium 6.67 fm (Sears, 1992), which is why samples are deuterated.
# Seen: the crystal keeps its D (the mass is that of deuterium), and the pattern is that of LiH to
#   the last digit: the symbol of D is H, and the table of lengths is asked by symbol. The lines
#   (200) and (220) have 91 and 100, (111) and (311) 17, where LiD has 17, 18, 100 and 99. No
#   message.
# Why it matters: structures of hydrides are measured with neutrons on deuterides. A simulated
#   pattern of the right crystal does not fit, and one of a wrong crystal may.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check \
  pymatgen==2026.10.24 periodictable==2.1.0 numpy==2.4.6
cd "$work"
"$work/env/bin/python" -W ignore - <<'PY'
import numpy as np
import periodictable
from pymatgen.analysis.diffraction.neutron import NDCalculator
from pymatgen.core import Lattice, Structure


sites = [[0, 0, 0], [0.5, 0.5, 0.5]]
calculator = NDCalculator(wavelength=1.54)
box = Lattice.cubic(4.08)
cells = {x: Structure.from_spacegroup("Fm-3m", box, ["Li", x], sites) for x in "HD"}
patterns = {x: calculator.get_pattern(cell) for x, cell in cells.items()}
planes = [found[0]["hkl"] for found in patterns["H"].hkls]
seen = {x: np.round(pattern.y, 1).tolist() for x, pattern in patterns.items()}

# All indices even: lithium and hydrogen scatter in step; all odd: against each other.
lithium = periodictable.Li.neutron.b_c
length = {x: getattr(periodictable, x).neutron.b_c for x in "HD"}
factor = {x: np.array([(lithium + (-1) ** sum(p) * length[x]) ** 2 for p in planes]) for x in "HD"}
right = patterns["H"].y * factor["D"] / factor["H"]
right = np.round(100 * right / right.max(), 1).tolist()
print("planes", planes, "lengths in fm", lithium, length)
print("LiH", seen["H"], "LiD", seen["D"], "LiD by its lengths", right)
print("masses:", [float(cell.composition.weight) for cell in cells.values()])
assert cells["D"].composition.weight > cells["H"].composition.weight + 3.9, "the crystal forgot its D"
assert seen["D"] == seen["H"], "deuterium is told from hydrogen now"
assert seen["H"][0] < 20 < 90 < seen["H"][1], "for LiH the pattern is right"
odd = [bool(p[0] % 2) for p in planes]
assert all((y > 90) == one for y, one in zip(right, odd)), "odd planes of LiD are strong"
PY
