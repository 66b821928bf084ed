#!/usr/bin/env bash
# pymatgen 2026.10.24: the quasiharmonic Debye temperature of diamond is 1.8 times too high.
#
# Guess: QuasiHarmonicDebyeApprox.debye_temperature is the formula of the paper that it names,
#   hbar/k (6 pi^2)^(1/3) (V/n)^(1/6) f(poisson) sqrt(B/M), in kelvin.
# Seen: the volume per atom enters with the power -1/6 for 1/6, and in Å^3, beside a constant for
#   SI units. The error is a factor of (31.6 Å^3 per V/n)^(1/3): diamond has 2857 K for 1611 K,
#   copper 618 K for 445 K, potassium 86 K for 115 K. The same solid given to ElasticTensor of the
#   same package has the right value.
# Why it matters: vibrational energies, thermal expansion and the conductivity of the class all
#   come from this number. The order of materials changes too: small atoms look too stiff.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pymatgen==2026.10.24
cd "$work"
"$work/env/bin/python" - <<'PY'
import numpy as np
from pymatgen.analysis.elasticity import ElasticTensor
from pymatgen.analysis.quasiharmonic import QuasiHarmonicDebyeApprox
from pymatgen.core import Lattice, Structure
from scipy.constants import atomic_mass, hbar, k

POISSON = 0.25


def curve(volume, start, modulus):
    """Energies in eV of a Birch-Murnaghan solid with a modulus in GPa and B' = 4."""
    x = (start / volume) ** (2 / 3)
    return 9 * start * modulus / 160.2176634 / 16 * ((x - 1) ** 3 * 4 + (x - 1) ** 2 * (6 - 4 * x))


def closed_form(volume, mass, modulus):
    """Debye temperature of an isotropic solid: Å^3 per atom, u per atom, GPa."""
    shear = 3 * modulus * (1 - 2 * POISSON) / (2 * (1 + POISSON)) * 1e9
    density = mass * atomic_mass / (volume * 1e-30)
    long, trans = ((modulus * 1e9 + 4 / 3 * shear) / density) ** 0.5, (shear / density) ** 0.5
    mean = (3 / (1 / long**3 + 2 / trans**3)) ** (1 / 3)
    return hbar / k * mean * (6 * np.pi**2 / (volume * 1e-30)) ** (1 / 3)


def tensor(modulus):
    shear = 3 * modulus * (1 - 2 * POISSON) / (2 * (1 + POISSON))
    matrix = np.diag([2 * shear] * 3 + [shear] * 3)
    matrix[:3, :3] += modulus - 2 / 3 * shear
    return ElasticTensor.from_voigt(matrix)


for element, group, length, modulus, ratio in (
    ("C", "Fd-3m", 3.567, 443.0, 1.77),
    ("Cu", "Fm-3m", 3.615, 140.0, 1.39),
    ("K", "Im-3m", 5.33, 3.1, 0.75),
):
    crystal = Structure.from_spacegroup(group, Lattice.cubic(length), [element], [[0, 0, 0]])
    volumes = np.linspace(0.94, 1.06, 9) * crystal.volume
    energies = curve(volumes, crystal.volume, modulus)
    model = QuasiHarmonicDebyeApprox(
        energies, volumes, crystal, eos="birch_murnaghan", poisson=POISSON
    )
    found = model.debye_temperature(crystal.volume)
    exact = closed_form(crystal.volume / len(crystal), crystal[0].specie.atomic_mass, modulus)
    elastic = tensor(modulus).debye_temperature(crystal)
    slope = np.log(model.debye_temperature(1.01 * crystal.volume) / found) / np.log(1.01)
    print(f"{element}: {found:.0f} K, closed form {exact:.0f} K, ElasticTensor {elastic:.0f} K")
    assert abs(elastic / exact - 1) < 1e-3, "ElasticTensor has left the closed form"
    assert abs(float(model.bulk_modulus) - modulus) < 0.1, "the fit has another modulus now"
    assert abs(found / exact - ratio) < 0.01, "the ratio to the closed form is another one now"
    assert abs(slope + 1 / 6) < 1e-6, "the power of the volume is no longer -1/6"
PY
