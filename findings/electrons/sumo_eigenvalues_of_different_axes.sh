#!/usr/bin/env bash
# sumo 3.0.0: one column of refractive index and absorption belongs to two different axes.
#
# Guess: in the mode "eigs" of calculate_dielectric_properties "the eigenvalues are sorted from
#   smallest to largest" (its docstring), all alike.
# Seen: those of absorption and loss are sorted; those of the dielectric function and the refractive
#   index come in the order of the axes. A crystal with 5, 2, 3 (real) and 0.5, 2, 1 (imaginary)
#   along a, b, c: the second column has the refractive index of b and the loss of c. The same
#   crystal with its axes named in another order has other columns of refractive indices and the
#   same ones of absorption. No message.
# Why it matters: birefringence and dichroism are read off such columns, and tables of many crystals
#   compare axes that are not the same.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check \
  sumo==3.0.0 pymatgen==2026.10.24 numpy==2.4.6 scipy==1.17.1
cd "$work"
"$work/env/bin/python" -W ignore - <<'PY'
import numpy as np
from sumo.electronic_structure.optics import calculate_dielectric_properties

REAL, IMAGINARY = [5.0, 2.0, 3.0], [0.5, 2.0, 1.0]  # along a, b, c
KINDS = ("eps_real", "n_real", "loss", "absorption")


def columns(order):
    """What sumo says at 2 eV when the axes are named in another order."""
    rows = [[[one[k] for k in order] + [0.0, 0.0, 0.0]] for one in (REAL, IMAGINARY)]
    _, found = calculate_dielectric_properties(([2.0], *rows), KINDS, mode="eigs")
    return {kind: np.round(found[kind][0], 3).tolist() for kind in KINDS}


here, other = columns([0, 1, 2]), columns([2, 0, 1])
by_axis = {"loss": [round(float(-(1 / complex(r, i)).imag), 3) for r, i in zip(REAL, IMAGINARY)]}
for kind in KINDS:
    print(f"{kind}: axes a, b, c {here[kind]}; axes c, a, b {other[kind]}")
print("loss by axis", by_axis["loss"])
for kind in ("loss", "absorption"):
    assert here[kind] == other[kind] == sorted(here[kind]), f"{kind} was sorted"
for kind in ("eps_real", "n_real"):
    assert sorted(here[kind]) == sorted(other[kind]), "the same crystal"
    assert here[kind] != sorted(here[kind]) and here[kind] != other[kind], f"{kind} is sorted now"
assert here["eps_real"] == REAL and other["eps_real"] == [REAL[k] for k in (2, 0, 1)]
PY
