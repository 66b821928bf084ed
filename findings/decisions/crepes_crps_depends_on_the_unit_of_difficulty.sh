#!/usr/bin/env bash
# crepes 0.9.1: the CRPS of the same distributions changes with the unit of the difficulty.
#
# Guess: the difficulty estimates are relative: ten times all of them give the same distributions,
#   the same intervals and so the same CRPS, that of the step functions that predict_cpds returns.
# Seen: errors and widths stay as they are, and the CRPS does not: 0.91, 0.97 and 64 for estimates
#   in three units, where the integral over the step functions is 0.94 for each. The piece of the
#   integral around the measured value, already in the unit of the value, is multiplied by the
#   difficulty. Without difficulties the CRPS is right to the last digit. No message.
# Why it matters: difficulty estimators are compared by their CRPS. The one with the smaller numbers
#   wins, and estimates from another estimator are in another unit.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check \
  crepes==0.9.1 scikit-learn==1.8.0 numpy==2.4.6 pandas==3.1.1
cd "$work"
"$work/env/bin/python" - <<'PY'
import numpy as np
from crepes import ConformalPredictiveSystem

random = np.random.default_rng(0)
difficulty, new = random.uniform(0.5, 3, 200), random.uniform(0.5, 3, 100)
residual, measured = random.normal(0, difficulty), random.normal(0, new)
predicted = np.zeros(100)


def by_integral(steps, value):
    """Integral of (F - [x >= value])^2, with F the step function of crepes, 1/n at each step."""
    edges = np.sort(np.append(steps, value))
    centre = (edges[1:] + edges[:-1]) / 2
    height = np.searchsorted(steps, centre, side="right") / len(steps)
    return np.sum((height - (centre >= value)) ** 2 * np.diff(edges))


def both(unit):
    model = ConformalPredictiveSystem()
    sigmas = (None, None) if unit is None else (difficulty * unit, new * unit)
    model.fit(residual, sigmas=sigmas[0], seed=0)
    options = {"sigmas": sigmas[1], "seed": 0}
    seen = model.evaluate(predicted, measured, metrics=["CRPS", "eff_mean"], **options)
    sorted_residuals = np.sort(residual if unit is None else residual / sigmas[0])
    width = np.ones(100) if unit is None else sigmas[1]
    right = [by_integral(w * sorted_residuals, v) for w, v in zip(width, measured)]
    return [round(float(x), 3) for x in (seen["CRPS"], np.mean(right), seen["eff_mean"])]


found = {unit: both(unit) for unit in (None, 0.1, 1, 1000)}
for unit, (seen, right, width) in found.items():
    print(f"unit {unit}: CRPS {seen}, by the integral {right}, mean width {width}")
assert found[None][0] == found[None][1], "without difficulties it was right"
assert found[0.1][1:] == found[1][1:] == found[1000][1:], "the same distributions"
seen = [found[unit][0] for unit in (0.1, 1, 1000)]
assert seen == [0.912, 0.969, 63.569] and found[1][1] == 0.937, "the CRPS is right now"
PY
