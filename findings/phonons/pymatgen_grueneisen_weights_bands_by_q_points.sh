#!/usr/bin/env bash
# pymatgen 2026.10.24: the average Grüneisen parameter depends on the order of the q-points.
#
# Guess: average_gruneisen weighs each mode by its heat and by the multiplicity of its q-point, and
#   with limit_frequencies="acoustic" takes the three lowest bands.
# Seen: its arrays have a row per band, as their docstring says and as the reader of gruneisen.yaml
#   makes them, and the average takes rows for q-points: the first band is weighed with the
#   multiplicity of the first q-point, and "acoustic" is the first three q-points with all bands.
#   Two atoms whose acoustic modes have 1 and whose optical modes have 2: the average at 300 K is
#   1.82 or 1.25, by the order of the q-points, where it is 1.43; of acoustic modes alone it is
#   1.82 in place of 1. With equal multiplicities the first average is right. No message.
# Why it matters: the Slack formula divides by the square of this number; lattice thermal
#   conductivities are off by as much as the grid is symmetric.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check \
  pymatgen==2026.10.24 numpy==2.4.6 scipy==1.17.1
cd "$work"
"$work/env/bin/python" -W ignore - <<'PY'
import numpy as np
from pymatgen.phonon.gruneisen import GruneisenParameter
from scipy.constants import h, k

KELVIN = 300
points = np.array([[0.125 * n, 0.125 * n, 0] for n in range(1, 9)])
times = np.array([1, 2, 4, 8, 12, 24, 24, 6])  # how many q-points of the grid each stands for
acoustic = np.array([[1.0], [1.2], [2.0]]) * np.linspace(1, 4, 8)  # THz, (3 bands, 8 q-points)
optical = np.array([[12.0], [12.5], [14.0]]) - 0.1 * np.arange(8)
frequencies = np.concatenate([acoustic, optical])
parameters = np.repeat([[1.0], [2.0]], 3, axis=0) * np.ones(8)


def seen(order, weights, limit=None):
    made = GruneisenParameter(
        points[order], parameters[:, order], frequencies[:, order], multiplicities=weights[order]
    )
    return round(float(made.average_gruneisen(KELVIN, squared=False, limit_frequencies=limit)), 3)


def right(weights, bands=slice(None)):
    x = h * frequencies[bands] * 1e12 / (k * KELVIN)
    heat = x**2 * np.exp(x) / (np.exp(x) - 1) ** 2 * weights
    return round(float(np.sum(heat * parameters[bands]) / np.sum(heat)), 3)


forth, back, equal = np.arange(8), np.arange(8)[::-1], np.ones(8, int)
print("all modes:", seen(forth, times), seen(back, times), "right", right(times))
print("acoustic:", seen(forth, times, "acoustic"), "right", right(times, slice(3)))
print("equal multiplicities:", seen(forth, equal), seen(back, equal), "right", right(equal))
assert seen(forth, equal) == seen(back, equal) == right(equal), "this was right"
assert abs(seen(forth, times) - right(times)) > 0.2, "bands are no longer weighed by q-points"
assert abs(seen(forth, times) - seen(back, times)) > 0.4, "the order no longer matters"
assert right(times, slice(3)) == 1 and seen(forth, times, "acoustic") > 1.5
PY
