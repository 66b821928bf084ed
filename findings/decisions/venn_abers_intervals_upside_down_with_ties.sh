#!/usr/bin/env bash
# venn-abers 1.5.4: where predictions tie, the lower end of an interval lies above its upper end.
#
# Guess: the interval of VennAbersRegressor is that of its paper, two isotonic regressions on the
#   calibration rows and the new row, one with the smallest and one with the largest label; the
#   order of the rows does not matter.
# Seen: so it is as long as all predictions differ, to the last digit. Where calibration rows share
#   a prediction, the lower regression takes the label of the first of them for all: it is too high,
#   and swapping two rows changes it. Around a decision tree with four leaves, 8 of 10 intervals are
#   upside down. numpy warns of an empty slice, no more. The classifier with ties is right.
# Why it matters: trees, forests of few trees and rounded predictions tie. Widths rank the
#   candidates to measure, and here they are negative.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check \
  venn-abers==1.5.4 scikit-learn==1.8.0 numpy==2.4.6 pandas==3.1.1
cd "$work"
"$work/env/bin/python" - <<'PY'
import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.tree import DecisionTreeRegressor
from venn_abers.venn_abers import VennAbers, VennAbersRegressor

label = np.array([0.8, 1.4, 1.6, 2.2, 2.9, 3.3])  # band gaps, eV, of the calibration rows
new = np.array([1.5, 2.0, 2.5])


def by_package(score, order):
    model = VennAbers(setting="regression")
    model.fit(p_cal=score[order], y_cal=label[order])
    return model.predict_proba(p_test=new)[1].round(3).tolist()


def by_two_regressions(score):
    ends = []
    for value in new:
        fits = [
            IsotonicRegression(out_of_bounds="clip")
            .fit(np.append(score, value), np.append(label, end))
            .predict([value])[0]
            for end in (label.min(), label.max())
        ]
        ends.append([round(float(end), 3) for end in fits])
    return ends


rows, swapped = np.arange(6), np.array([1, 0, 3, 2, 5, 4])
apart = np.array([0.9, 1.0, 1.9, 2.1, 2.9, 3.1])
tied = np.array([1.0, 1.0, 2.0, 2.0, 3.0, 3.0])
found = {
    "apart": (by_two_regressions(apart), by_package(apart, rows), by_package(apart, swapped)),
    "tied": (by_two_regressions(tied), by_package(tied, rows), by_package(tied, swapped)),
}
for name, (right, seen, other) in found.items():
    print(f"{name}: {right} by two regressions, {seen}, and {other} with rows swapped")
assert found["apart"][0] == found["apart"][1] == found["apart"][2], "no tie, no difference"
right, seen, other = found["tied"]
assert [end[1] for end in right] == [end[1] for end in seen], "the upper ends were right"
assert seen != right and seen != other, "ties are right now"

random = np.random.default_rng(0)
features, test = random.random((600, 2)), random.random((500, 2))
gap = 5 * features[:, 0] + random.normal(0, 1, 600)
model = VennAbersRegressor(
    estimator=DecisionTreeRegressor(max_depth=2, random_state=0),
    inductive=True, cal_size=0.3, random_state=0,
)
_, interval = model.fit(features, gap).predict(test)
share = float(np.mean(interval[:, 0] > interval[:, 1]))
print(f"intervals upside down around a decision tree: {share:.2f} of 500")
assert share > 0.5, "the intervals stand upright now"
PY
