#!/usr/bin/env bash
# pymatgen 2026.10.24: the same energies give a Curie point that falls with the moment squared.
#
# Guess: HeisenbergMapper finds the exchange from the energies of the ferromagnet and the
#   antiferromagnet, and the mean field of that exchange on the same moments: the energies alone
#   decide when the order is lost, not the unit of the moments.
# Seen: estimate_exchange divides the energy by the square of the moment, and get_mft_temperature
#   does not multiply by it. bcc iron with 100 meV per atom between both orders: 774, 160 and 31 K
#   for moments of 1, 2.2 and 5 Bohr magnetons. The mean field of classical spins with these
#   energies has 387 K for all of them. No message; the docstring says "crude".
# Why it matters: candidates for magnets are ranked by this number, and those with large moments,
#   which are looked for, come last.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check \
  pymatgen==2026.10.24 numpy==2.4.6 scipy==1.17.1 pandas==3.1.1
cd "$work"
"$work/env/bin/python" -W ignore - <<'PY'
import numpy as np
from pymatgen.analysis.magnetism.heisenberg import HeisenbergMapper
from pymatgen.core import Lattice, Structure
from scipy.constants import e, k
from scipy.optimize import brentq

APART = 0.100  # eV per atom between the ferromagnet and the antiferromagnet, which is higher


def ordered(*moments):
    properties = {"magmom": list(moments)}
    places = [[0, 0, 0], [0.5, 0.5, 0.5]]
    return Structure(Lattice.cubic(2.87), ["Fe", "Fe"], places, site_properties=properties)


def seen(moment):
    orders = [ordered(moment, moment), ordered(moment, -moment)]
    mapper = HeisenbergMapper(orders, [-16.0, -16.0 + 2 * APART], cutoff=2.6, tol=0.02)
    return round(float(mapper.get_mft_temperature(mapper.estimate_exchange())))


def mean_field():
    """Where the order of classical spins is lost; all neighbours together turn one with APART."""

    def order(kelvin):
        field = APART * e / (k * kelvin)
        share = 0.5
        for _ in range(4000):
            share = 1 / np.tanh(field * share) - 1 / (field * share) if share > 1e-6 else 0.0
        return share

    return round(brentq(lambda kelvin: (order(kelvin) > 0.02) - 0.5, 100, 1500, xtol=0.5))


found, right = {moment: seen(moment) for moment in (1.0, 2.2, 5.0)}, mean_field()
print("moment (Bohr magnetons): critical temperature (K)", found, "| mean field for all:", right)
assert abs(right - APART * e / (3 * k)) < 6
assert abs(found[1.0] / found[5.0] - 25) < 0.5, "the moment no longer matters"
assert abs(found[1.0] / found[2.2] - 2.2**2) < 0.1
PY
