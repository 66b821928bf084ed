#!/usr/bin/env bash
# molmass 2026.1.8: an amount with a decimal point ends the formula, and begins another one.
#
# Guess: a parser of formulas either reads Fe1.02Se as 1.02 iron atoms for one selenium, or refuses
#   it (it refuses Li0.5CoO2).
# Seen: Formula("Fe1.02Se") is FeSe2: the dot is the one of a hydrate, so "Fe1" is joined by "02Se",
#   two selenium. Formula("YBa2Cu3O6.9") has 6 oxygen atoms: nine times nothing is added.
#   Formula("Nb.75Ti.25") is NbTi75. No message.
# Why it matters: the alloys and oxides of superconductors are written so, and whether such a text
#   is refused depends on its digits: the tables come out with some wrong rows.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check molmass==2026.1.8
cd "$work"
"$work/env/bin/python" - <<'PY'
from molmass import Formula, FormulaError


def atoms(text):
    return {symbol: item.count for symbol, item in Formula(text).composition().items()}


for text in ("Fe1.02Se", "YBa2Cu3O6.9", "Nb.75Ti.25"):
    print(text, atoms(text))
assert atoms("Fe1.02Se") == {"Fe": 1, "Se": 2}, "mended?"
assert atoms("YBa2Cu3O6.9")["O"] == 6, "mended?"
assert atoms("Nb.75Ti.25") == {"Nb": 1, "Ti": 75}, "mended?"
try:
    print("Li0.5CoO2", atoms("Li0.5CoO2"))
except FormulaError as error:
    print("Li0.5CoO2 is refused:", str(error).splitlines()[0])
else:
    raise AssertionError("Li0.5CoO2 is read")
PY
