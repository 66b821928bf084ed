#!/usr/bin/env bash
# skmatter 0.4.1: the weights of samples centre a kernel, and do not scale it.
#
# Guess: a sample of weight 3 counts as three equal samples, in KernelNormalizer as in
#   StandardFlexibleScaler, whose matrix form for kernels it is.
# Seen: the mean is weighted, the trace behind the scale is not. For a linear kernel of six samples
#   with one weight of 3 the scale is 2.04. Three copies of that sample give 1.56, and so does the
#   square of the scale of StandardFlexibleScaler, with weights and with copies. No message.
# Why it matters: weights of environments or of duplicates are common in kernels of crystals. The
#   regularisation of a kernel regression is relative to this scale, so a tuned value does not
#   carry over.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check \
  skmatter==0.4.1 scikit-learn==1.8.0 numpy==2.4.6 scipy==1.17.1
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings

import numpy as np
from skmatter.preprocessing import KernelNormalizer, StandardFlexibleScaler

warnings.simplefilter("error")
features = np.random.default_rng(0).normal(size=(6, 3))
weights = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 3.0])
copies = np.vstack([features, features[5:], features[5:]])


def kernel_scale(rows, **more):
    return round(float(KernelNormalizer().fit(rows @ rows.T, **more).scale_), 3)


def feature_scale(rows, **more):
    return round(float(StandardFlexibleScaler().fit(rows.copy(), **more).scale_) ** 2, 3)


found = {
    "kernel, copies": kernel_scale(copies),
    "kernel, weights": kernel_scale(features, sample_weight=weights),
    "features, copies": feature_scale(copies),
    "features, weights": feature_scale(features, sample_weight=weights),
}
for name, scale in found.items():
    print(f"{name}: {scale}")
assert found["features, copies"] == found["features, weights"] == found["kernel, copies"] == 1.558
assert found["kernel, weights"] == 2.038, "the weights enter the scale now"
middle = [
    KernelNormalizer(with_trace=False).fit_transform(features @ features.T, sample_weight=weights),
    KernelNormalizer(with_trace=False).fit_transform(copies @ copies.T)[:6, :6],
]
assert np.allclose(*middle), "the centring has the weights"
PY
