#!/usr/bin/env bash
# ase 3.29.0: a text that ends in an equals sign takes the periodicity of a slab with it.
#
# Guess: what ASE writes as extended XYZ it reads back, or it raises: a comment in `info` cannot
#   change the structure.
# Seen: the writer puts the text `relaxed, tol=` in quotes, but leaves `tol=` without them. The
#   reader then takes the next pair for the value: `tol=pbc="T T F"` becomes the text, and the frame
#   has no pbc. With a cell and without pbc ASE assumes three periodic directions, so the slab comes
#   back as a bulk crystal. With a number after the text, that number is gone instead.
# Why it matters: notes of a workflow stand in `info`; a slab or a wire turns into a crystal whose
#   layers touch across the vacuum, without an exception or a warning.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check ase==3.29.0
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings

from ase import Atoms
from ase.io import read, write

warnings.simplefilter("error")
seen = {}
for note in ("plain", "relaxed, tol=", "tol="):
    slab = Atoms("NaCl", positions=[[0, 0, 0], [2, 2, 2]], cell=[4, 4, 20], pbc=(True, True, False))
    slab.info["note"] = note
    write("slab.extxyz", slab)
    back = read("slab.extxyz")
    seen[note] = (back.info["note"], back.pbc.tolist())
    print(f"note {note!r}: read back as {seen[note][0]!r}, pbc {seen[note][1]}")
assert seen["plain"] == ("plain", [True, True, False])
assert seen["relaxed, tol="] == ("relaxed, tol=", [True, True, False])
assert seen["tol="][1] == [True, True, True], "the slab stays a slab now"
assert "pbc" in seen["tol="][0]
PY
