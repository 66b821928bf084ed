#!/usr/bin/env bash
# scoringrules 0.10.0: without numba the weighted interval score holds the median's size, not its error.
#
# Guess: numba is an optional extra that makes the same numbers faster.
# Seen: the score is (w0 |y - m| + the scores of the intervals) / (K + 1/2). The functions for numpy
#   take w0 m in place of w0 |y - m|: the observation does not enter. A median of 92.4 K for a
#   measured 92 K costs 18.48 in place of 0.08, and moving all of a forecast, its intervals and the
#   observation by the same constant changes the score. With negative medians (formation
#   energies in meV) the score is negative, and it prefers the lower median. With numba the numbers
#   are right. No message: `pip install scoringrules` comes without numba.
# Why it matters: models are ranked by such scores. The same script ranks them in another way on a
#   machine where numba is missing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check scoringrules==0.10.0 numpy==2.4.6
cd "$work"
"$work/env/bin/python" - <<'PY'
import numpy as np
import scoringrules as sr

truth = np.array([-120.0, -45.0, -210.0, -80.0])  # formation energies, meV per atom
alpha = np.array([0.2, 0.5])
half = np.array([13.0, 7.0])


def scores(shift, move=0.0):
    """Mean score of the package and by its own formula, of a forecast that is off by `shift`."""
    seen, median = truth + move, truth + move + shift
    low, high = median[:, None] - half, median[:, None] + half
    found = sr.weighted_interval_score(seen, median, low, high, alpha).mean()
    intervals = sr.interval_score(seen, low, high, alpha)
    formula = (0.5 * abs(seen - median) + (alpha / 2 * intervals).sum(axis=1)) / (len(alpha) + 0.5)
    return round(float(found), 2), round(float(formula.mean()), 2)


found = {
    "exact": scores(0.0),
    "5 meV too low": scores(-5.0),
    "exact, zero moved by 500 meV": scores(0.0, 500.0),
}
for name, (score, formula) in found.items():
    print(f"{name}: {score}, by the formula {formula}")
assert found["exact"] == (-20.31, 2.44), found
assert found["5 meV too low"] == (-21.31, 3.44), found
assert found["exact, zero moved by 500 meV"] == (79.69, 2.44), found
PY
