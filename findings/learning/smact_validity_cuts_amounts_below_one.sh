#!/usr/bin/env bash
# smact 4.0.2: smact_validity cuts the amounts of a formula down to whole numbers before it judges.
#
# Guess: a composition and its multiple get one answer; `Ce0.8Gd0.2O1.9` and `Ce8Gd2O19` are the
#   same substance.
# Seen: every amount goes through int(). `Ce0.8Gd0.2O1.9` is judged as one oxygen (not valid);
#   `NaCl1.5` as NaCl and `LiF1.2` as LiF, both valid, where Na2Cl3 and Li5F6 are not.
#   `Zn0.9Mg0.1O` loses both metals. No message. The type hints ask for a Composition, which holds
#   floats.
# Why it matters: the share of valid compositions is the usual score of generated materials, and
#   doped or substituted materials come as fractions. The score counts wrong ones as right, and
#   right ones as wrong.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check \
  smact==4.0.2 pymatgen==2026.10.24 pandas==2.3.3
cd "$work"
"$work/env/bin/python" - <<'PY'
from smact.screening import smact_validity

pairs = {  # one substance, in fractions and in whole numbers: what smact says of each
    ("Ce0.8Gd0.2O1.9", "Ce8Gd2O19"): (False, True),
    ("Zn0.9Mg0.1O", "Zn9MgO10"): (False, True),
    ("NaCl1.5", "Na2Cl3"): (True, False),
    ("LiF1.2", "Li5F6"): (True, False),
}
for names, expected in pairs.items():
    seen = tuple(smact_validity(name) for name in names)
    print(" and ".join(f"{name}: {valid}" for name, valid in zip(names, seen)))
    assert seen == expected, f"{names}: {seen} now, {expected} before"
PY
