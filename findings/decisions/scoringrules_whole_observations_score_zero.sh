#!/usr/bin/env bash
# scoringrules 0.10.0 with numba: observations that are whole numbers get a score of zero, the best one.
#
# Guess: the CRPS of quantile forecasts takes observations of any number type; an array of integers
#   and the same array as floats have one score.
# Seen: the compiled function writes into an array of the observations' type. With an integer array,
#   `crps_quantile` and `weighted_interval_score` cut every score down to a whole number: 0 in place
#   of 0.504, 2 in place of 2.544. No message. `crps_ensemble` gives integers and floats one score,
#   and so does `crps_quantile` with backend="numpy". numba is the default where it is installed.
# Why it matters: counts, space group numbers and temperatures in whole kelvin are integers in a
#   table. A forecast whose errors are below one unit then looks perfect, and a comparison of two
#   models ends in a tie at 0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check scoringrules==0.10.0 numba==0.68.1 numpy==2.4.6
cd "$work"
"$work/env/bin/python" - <<'PY'
import numpy as np
import scoringrules as sr

levels = np.array([0.1, 0.25, 0.5, 0.75, 0.9])
spread = np.array([-1.3, -0.7, 0.0, 0.7, 1.3])
kelvin = np.array([92, 39, 18, 7])
forecast = np.array([92.4, 38.1, 18.2, 10.1])[:, None] + spread
low, high = forecast[:, [0, 1]], forecast[:, [4, 3]]  # the intervals of 80 % and 50 %


def crps(seen, backend):
    return sr.crps_quantile(seen, forecast, levels, backend=backend)


def interval(seen, backend):
    return sr.weighted_interval_score(
        seen, forecast[:, 2], low, high, np.array([0.2, 0.5]), backend=backend
    )


for score in (crps, interval):
    right, whole = score(kelvin.astype(float), None), score(kelvin, None)
    print(f"{score.__name__}: floats {np.round(right, 3)}, integers {whole}")
    assert whole.dtype.kind == "i" and (whole == np.trunc(right)).all(), whole
    assert (whole == 0).sum() == 3 and (right > 0.05).all(), right
assert np.allclose(crps(kelvin, "numpy"), crps(kelvin.astype(float), None))
ensemble = [sr.crps_ensemble(seen, forecast) for seen in (kelvin, kelvin.astype(float))]
assert np.array_equal(*ensemble)
PY
