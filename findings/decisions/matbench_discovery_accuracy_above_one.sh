#!/usr/bin/env bash
# matbench-discovery 1.3.1: the accuracy of a model that leaves crystals out can be 1.4.
#
# Guess: stable_metrics(..., fillna=True) counts a missing prediction as "unstable", as it says, in
#   all numbers of the classification, so that the accuracy is at most 1.
# Seen: TP, TN, F1 and the others count it so; the accuracy divides TP + TN of all crystals by the
#   number of crystals that have a prediction. Of 8 crystals, 3 without one and 1 of them stable, 7
#   are right: 7 / 5 = 1.4 where scikit-learn has 0.875. No message. With fillna=False it is right.
# Why it matters: the default raises the accuracy of a model for each crystal whose relaxation
#   failed. With few failures the number stays below 1, and nobody sees it.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check matbench-discovery==1.3.1
cd "$work"
"$work/env/bin/python" - <<'PY'
import numpy as np
from matbench_discovery.metrics import stable_metrics
from sklearn.metrics import accuracy_score

nan = np.nan
true = np.array([-0.10, -0.05, 0.10, 0.20, 0.50, 0.30, 0.40, -0.20])
predicted = np.array([-0.12, -0.04, 0.11, 0.18, 0.46, nan, nan, nan])
found = stable_metrics(true, predicted)
known = np.isfinite(predicted)
alone = stable_metrics(true[known], predicted[known])
wanted = accuracy_score(true <= 0, np.where(known, predicted, 1.0) <= 0)
counts = [int(found[name]) for name in ("TP", "FN", "FP", "TN")]
print("TP, FN, FP, TN:", counts)
print(f"accuracy {found['Accuracy']:.3f}, scikit-learn {wanted:.3f}")
print(f"of the 5 crystals with a prediction {alone['Accuracy']:.3f}")
assert counts == [2, 1, 0, 5], "a missing prediction is no longer counted as unstable"
assert wanted == 7 / 8 and alone["Accuracy"] == 1.0
assert abs(found["Accuracy"] - 7 / 5) < 1e-12, "the accuracy counts all crystals now"
PY
