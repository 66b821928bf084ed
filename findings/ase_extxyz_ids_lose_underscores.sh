#!/usr/bin/env bash
# ase 3.29.0: ids such as 12_3 are read from extended XYZ as the number 123.
#
# Guess: a bare word that is no number in any format of the field, such as `12_3`, is a text; and the
#   two frames `id=12_3` and `id=1_23` keep two ids.
# Seen: both become the number 123, and so do `1_2_3` and `00123`. ASE's own writer writes such texts
#   without quotes, so a round trip through ASE alone does it too. `12_x` and `12-3` stay texts.
# Why it matters: ids made of a material and a run (2024_01, 12_3) collide after one round trip, and
#   joins with the table they came from find nothing, or the wrong row.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check ase==3.29.0
cd "$work"
"$work/env/bin/python" - <<'PY'
from ase import Atoms
from ase.io import read, write

given = ["12_3", "1_23", "1_2_3", "00123", "12_x", "12-3"]
frames = []
for text in given:
    atoms = Atoms("Na", cell=[4, 4, 4], pbc=True)
    atoms.info["id"] = text
    frames.append(atoms)
write("ids.extxyz", frames)
back = [atoms.info["id"] for atoms in read("ids.extxyz", index=":")]
for text, got in zip(given, back):
    print(f"{text!r} -> {got!r} ({type(got).__name__})")
assert [int(got) for got in back[:4]] == [123] * 4, "they are told apart now"
assert back[4:] == ["12_x", "12-3"]
PY
