#!/usr/bin/env bash
# pymatgen 2026.10.24: a photoelectron spectrum has peaks of empty states, and its zero is not EF.
#
# Guess: XPS.from_dos gives intensity over binding energy, as its axis is called: zero is the Fermi
#   level, occupied states lie at positive energies, and empty states emit no electron.
# Seen: the energies are those of the density of states with another sign, whatever its Fermi level.
#   Silicon with a band 2 eV below a Fermi level of 5.5 eV and an equal empty band 3 eV above it:
#   two equal peaks, at -3.5 and -8.5 eV. The peak of the electrons has a negative binding energy,
#   and the one of empty states is as high. No message.
# Why it matters: energies of VASP are absolute, so that the shift is another one for each crystal;
#   a comparison with a measured spectrum ranks crystals by their Fermi levels.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pymatgen==2026.10.24 numpy==2.4.6
cd "$work"
"$work/env/bin/python" -W ignore - <<'PY'
import numpy as np
from pymatgen.analysis.xps import XPS
from pymatgen.core import Lattice, Structure
from pymatgen.electronic_structure.core import Orbital, Spin
from pymatgen.electronic_structure.dos import CompleteDos, Dos

FERMI = 5.5
cell = Structure.from_spacegroup("Fd-3m", Lattice.cubic(5.43), ["Si"], [[0, 0, 0]])
energies = np.arange(-5, 15, 0.05)
bands = sum(np.exp(-((energies - centre) ** 2) / 0.1) for centre in (FERMI - 2, FERMI + 3))


def spectrum(shift):
    """Of the same crystal, when the potential has another zero."""
    densities = {Spin.up: bands}
    parts = {site: {Orbital.px: densities} for site in cell}
    total = Dos(FERMI + shift, energies + shift, densities)
    made = XPS.from_dos(CompleteDos(cell, total, parts))
    inner = (made.y[1:-1] > made.y[:-2]) & (made.y[1:-1] > made.y[2:])
    at = np.flatnonzero(inner) + 1
    return [(round(float(made.x[k]), 1), round(float(made.y[k]), 2)) for k in at]


seen, shifted = spectrum(0.0), spectrum(10.0)
print("axis:", XPS.XLABEL, "| peaks (eV, height):", sorted(seen), "| zero moved by 10 eV:", shifted)
print("occupied band: binding energy 2.0 eV")
assert sorted(seen) == [(-8.5, 1.0), (-3.5, 1.0)], "the spectrum begins at the Fermi level now"
assert sorted(shifted) == [(-18.5, 1.0), (-13.5, 1.0)], "the zero of the potential no longer matters"
assert XPS.XLABEL == "Binding Energy (eV)"
PY
