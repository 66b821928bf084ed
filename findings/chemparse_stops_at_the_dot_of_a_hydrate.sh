#!/usr/bin/env bash
# chemparse 0.3.2: what follows the raised dot of a hydrate is not there.
#
# Guess: Na2SO4·0.5H2O is read as a salt with half a water, or refused.
# Seen: parse_formula("Na2SO4·0.5H2O") is Na2SO4, without hydrogen and with 4 oxygen atoms; the same
#   with the star of CaSO4*2H2O. No message. With a full stop, CaSO4.2H2O, the dot is a decimal
#   point (5.2 oxygen atoms), so one salt has three compositions by the sign that a table prints.
# Why it matters: a hydrate and its dry salt become one composition, in one group of a split.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check chemparse==0.3.2
cd "$work"
"$work/env/bin/python" - <<'PY'
import chemparse

for text in ("Na2SO4·0.5H2O", "CaSO4*2H2O", "CaSO4.2H2O"):
    print(text, chemparse.parse_formula(text))
assert chemparse.parse_formula("Na2SO4·0.5H2O") == {"Na": 2.0, "S": 1.0, "O": 4.0}, "mended?"
assert chemparse.parse_formula("CaSO4*2H2O") == {"Ca": 1.0, "S": 1.0, "O": 4.0}, "mended?"
assert chemparse.parse_formula("CaSO4.2H2O") == {"Ca": 1.0, "S": 1.0, "O": 5.2, "H": 2.0}, "mended?"
PY
