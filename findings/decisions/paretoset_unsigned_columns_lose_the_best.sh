#!/usr/bin/env bash
# paretoset 1.2.5: of a column of unsigned numbers, "max" takes zero for the best value.
#
# Guess: a front does not depend on whether a whole number is stored with a sign.
# Seen: a column to be maximised is multiplied by -1 in its own type. Of unsigned numbers -60 is
#   196, -40 is 216 and -0 is 0, so that zero is the best of all. The same table with signs has
#   another front; paretorank follows. So does a table of mixed types with a column for "diff". No
#   message. pandas makes such columns by `pandas.to_numeric(..., downcast="unsigned")`.
# Why it matters: counts (of atoms, of measurements) and energies in whole meV are stored so. The
#   candidates that are handed on are those with the worst count.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check \
  paretoset==1.2.5 numpy==2.4.6 pandas==3.1.1
cd "$work"
"$work/env/bin/python" - <<'PY'
import numpy as np
import pandas as pd
from paretoset import paretorank, paretoset

crystals = pd.DataFrame({"meV above the hull": [0, 5, 9, 20], "measurements": [0, 40, 41, 60]})
small = crystals.apply(pd.to_numeric, downcast="unsigned")
assert set(small.dtypes) == {np.dtype("uint8")}
sense = ["min", "max"]
fronts = [paretoset(table, sense=sense).tolist() for table in (crystals, small)]
ranks = [paretorank(table, sense=sense).tolist() for table in (crystals, small)]
print(f"with signs: front {fronts[0]}, ranks {ranks[0]}")
print(f"unsigned: front {fronts[1]}, ranks {ranks[1]}")
mixed = pd.DataFrame({
    "system": ["Li-O", "Li-O", "Na-O", "Na-O"], "eV above the hull": [0.0, 0.005, 0.009, 0.02],
})
mixed["measurements"] = small.measurements
each = paretoset(mixed, sense=["diff", "min", "max"]).tolist()
print(f"within each system, unsigned: front {each}")
assert fronts[0] == [True] * 4, "each has more measurements than all below it"
assert ranks[0] == [1] * 4
assert fronts[1] == [True, False, False, False], "unsigned numbers are right now"
assert ranks[1] == [1, 2, 2, 2], "unsigned numbers are right now"
assert each == [True, False, True, True], "unsigned numbers are right now"
PY
