#!/usr/bin/env bash
# smact 4.0.2 and ElementEmbeddings 0.8.0: a bracket that comes twice has the wrong amount.
#
# Guess: Both parsers expand each bracket where it stands, so NiO(OH)Ni(OH)2, the two hydroxides of
#   a nickel electrode in one formula, is Ni2O4H3, as pymatgen and chemparse read it.
# Seen: Ni2O3H2.02, in both packages. They write the first (OH) out as O1.0H1.0 wherever the text
#   "(OH)" stands, also before the 2 of the second one, so that H1.0 and 2 become H1.02. Brackets
#   with a factor each are right. No message.
# Why it matters: charge neutrality, features of the composition and the distance to known compounds
#   belong to another compound, which has the same elements.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check \
  smact==4.0.2 ElementEmbeddings==0.8.0 chemparse==0.3.1 pymatgen==2026.10.24
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings

import chemparse
from pymatgen.core import Composition

warnings.simplefilter("ignore")
from elementembeddings.composition import formula_parser
from smact.utils.composition import parse_formula

PARSERS = {
    "pymatgen": lambda formula: Composition(formula).get_el_amt_dict(),
    "chemparse": chemparse.parse_formula,
    "smact": parse_formula,
    "ElementEmbeddings": formula_parser,
}
seen = {}
for formula in ("Ni(OH)2Fe(OH)2", "Ni(OH)2Fe(OH)3", "NiO(OH)Ni(OH)2", "Ni(OH)Fe(OH)2"):
    for name, parse in PARSERS.items():
        amounts = sorted(parse(formula).items())
        found = {element: round(float(amount), 4) for element, amount in amounts}
        seen[formula, name] = found
        print(formula, name, found)
right = {"H": 3.0, "Ni": 2.0, "O": 4.0}
assert all(found == right for (formula, name), found in seen.items()
           if formula == "NiO(OH)Ni(OH)2" and name in ("pymatgen", "chemparse"))
for name in ("smact", "ElementEmbeddings"):
    for formula in ("Ni(OH)2Fe(OH)2", "Ni(OH)2Fe(OH)3"):
        assert seen[formula, name] == seen[formula, "pymatgen"], f"{name}: {formula}"
    wrong = {"H": 2.02, "Ni": 2.0, "O": 3.0}
    assert seen["NiO(OH)Ni(OH)2", name] == wrong, f"{name} reads it otherwise now"
PY
