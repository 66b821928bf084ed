#!/usr/bin/env bash
# pymatgen 2026.10.24: an INCAR with EDIFF = 1.0d-6 is read as EDIFF = 1.
#
# Guess: a tag that is no number to Python stays a text, or is refused.
# Seen: the first number that a regular expression finds in the text is taken, and the rest is
#   dropped. `EDIFF = 1.0d-6` becomes 1.0 eV, `EDIFFG = -2d-2` becomes -2.0 eV/Å, `POTIM = 5d-1`
#   becomes 5.0. Written again, the file holds these numbers. `check_params` finds nothing wrong.
# Why it matters: VASP reads numbers with Fortran, where 1.0d-6 is a millionth. Once pymatgen has
#   written the file anew, electrons count as converged at 1 eV and a relaxation at 2 eV/Å; and a
#   check of the settings of finished calculations compares numbers that none of them used.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pymatgen==2026.10.24
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings

from pymatgen.io.vasp import Incar

given = {
    "EDIFF = 1.0e-6": 1e-6, "EDIFF = 1.0d-6": 1.0, "EDIFF = 1D-6": 1.0,
    "EDIFFG = -2e-2": -0.02, "EDIFFG = -2d-2": -2.0, "POTIM = 5d-1": 5.0,
}
seen = {}
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    for line in given:
        incar = Incar.from_str(line)
        incar.check_params()
        (seen[line],) = incar.values()
        print(f"{line!r}: read as {seen[line]!r}, written as {str(incar).strip()!r}")
assert seen == given, {line: value for line, value in seen.items() if value != given[line]}
assert not said, [str(one.message) for one in said]
PY
