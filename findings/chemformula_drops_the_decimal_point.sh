#!/usr/bin/env bash
# chemformula 1.5.1: an amount with a decimal point loses the point.
#
# Guess: a parser of formulas either reads YBa2Cu3O6.9 as 6.9 oxygen atoms, or refuses it.
# Seen: ChemFormula("YBa2Cu3O6.9") has 69 oxygen atoms, ChemFormula("Fe1.02Se") has 102 iron atoms
#   for one selenium, ChemFormula("Li0.5CoO2") has 5 lithium atoms. No message; the formula weight
#   follows (1658.1 instead of 664.6 g/mol for the first).
# Why it matters: doped and vacant crystals are written so. Digits are read one by one, and a dot
#   between them is passed over.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check chemformula==1.5.1
cd "$work"
"$work/env/bin/python" - <<'PY'
from chemformula import ChemFormula

for text, symbol, printed in (("YBa2Cu3O6.9", "O", 6.9), ("Fe1.02Se", "Fe", 1.02), ("Li0.5CoO2", "Li", 0.5)):
    found = ChemFormula(text)
    print(f"{text}: {found.element[symbol]} {symbol}, printed {printed}; {found.formula_weight:.1f} g/mol")
assert ChemFormula("YBa2Cu3O6.9").element["O"] == 69, "mended?"
assert ChemFormula("Fe1.02Se").element["Fe"] == 102, "mended?"
assert ChemFormula("Li0.5CoO2").element["Li"] == 5, "mended?"
PY
