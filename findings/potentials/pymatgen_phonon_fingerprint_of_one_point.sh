#!/usr/bin/env bash
# pymatgen 2026.10.24: below 256 grid points any two phonon densities of states are equal.
#
# Guess: get_dos_fp_similarity compares the two densities of states, over one frequency axis and
#   normalised, as `normalize=True` of get_dos_fp says.
# Seen: a grid of fewer points than n_bins (256; phonopy writes 201) skips the normalisation and
#   another layout results, in which "densities" is the second grid point: two numbers. A peak at
#   2 THz and a peak at 8 THz have similarity 1.000 and distance 0.000. From 256 points on, each
#   fingerprint spans its own range of frequencies and bins are compared by index: a Debye solid
#   with a limit of 10 THz and one with 40 THz have the Wasserstein distance 0.
# Why it matters: benchmarks of force fields quote this similarity. A soft potential, or any one,
#   scores 1. No message.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pymatgen==2026.10.24
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings

import numpy as np
from pymatgen.phonon.dos import PhononDos

warnings.simplefilter("error")


def peak(center, points):
    grid = np.linspace(0, 10, points)
    return PhononDos(grid, 6 * np.exp(-((grid - center) ** 2) / 0.08))


def debye(limit, points):
    grid = np.linspace(0, limit, points)
    return PhononDos(grid, 9 * grid**2 / limit**3)


def compare(first, second, metric, **how):
    pair = [dos.get_dos_fp(**how) for dos in (first, second)]
    return float(PhononDos.get_dos_fp_similarity(*pair, metric=metric))


overlap = np.sum(peak(2, 201).densities * peak(8, 201).densities)
few = compare(peak(2, 201), peak(8, 201), "tanimoto")
far = compare(peak(2, 201), peak(8, 201), "wasserstein")
many = compare(peak(2, 1001), peak(8, 1001), "tanimoto")
print(f"peaks at 2 and 8 THz, 201 points: similarity {few:.3f}, distance {far:.3f}")
print(f"the same with 1001 points: similarity {many:.3f} (overlap {overlap:.0e})")
soft = compare(debye(10, 1001), debye(40, 1001), "wasserstein")
fixed = compare(debye(10, 1001), debye(40, 1001), "wasserstein", min_f=0, max_f=40)
print(f"limits of 10 and 40 THz, 1001 points: distance {soft:.3f}, on one range {fixed:.3f}")
assert overlap < 1e-6 and many < 1e-6, "the peaks overlap: the example is wrong"
assert few > 0.999 and far < 1e-3, "few points are compared point by point now"
assert soft < 1e-9, "the range of frequencies is no longer each one's own"
assert fixed > 0.5, "with one range the distance is small too"
PY
