#!/usr/bin/env bash
# moocore 0.3.2: a crystal that lacks one of its numbers pushes all others off the Pareto front.
#
# Guess: a row with NaN is refused, or is not comparable and takes no part.
# Seen: with two objectives, is_nondominated and filter_dominated keep the row with NaN alone, and
#   pareto_rank puts every complete crystal into a rank behind it. With three objectives the same
#   row is left out. The hypervolume of the same table is that of the complete rows. No message, and
#   its documentation says nothing of missing values. pymoo 0.6.2 sorts the same way.
# Why it matters: a model or a calculation that failed for one candidate of a thousand leaves NaN.
#   The front of a search over energy and stiffness is then that one candidate.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check moocore==0.3.2 numpy==2.4.6
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings

import moocore
import numpy as np

warnings.simplefilter("error")
# energy above the hull, meV per atom, and minus the bulk modulus, GPa: both to be small
whole = np.array([[1.0, -90.0], [12.0, -140.0], [25.0, -180.0], [30.0, -120.0]])
table = np.vstack([whole, [np.nan, -200.0]])
front = moocore.is_nondominated(table).tolist()
print(f"front of the complete rows: {moocore.is_nondominated(whole).tolist()}")
print(f"front with one row more: {front}")
print(f"ranks with one row more: {moocore.pareto_rank(table).tolist()}")
reference = [50.0, 0.0]
volumes = [float(moocore.hypervolume(rows, ref=reference)) for rows in (whole, table)]
print(f"hypervolumes: {volumes[0]} of the complete rows, {volumes[1]} with one row more")
third = np.array([[3.0], [3.0], [3.0], [3.0], [9.0]])
wide = moocore.is_nondominated(np.hstack([table, third])).tolist()
print(f"front with a third objective: {wide}")
assert moocore.is_nondominated(whole).tolist() == [True, True, True, False]
assert front == [False] * 4 + [True], "a missing value counts in another way now"
assert moocore.pareto_rank(table).tolist() == [1, 1, 1, 2, 0], "the ranks are others now"
assert volumes[0] == volumes[1] == 7310.0, volumes
assert wide == [True, True, True, False, False], "three objectives count in another way now"
PY
