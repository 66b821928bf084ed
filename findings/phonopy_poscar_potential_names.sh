#!/usr/bin/env bash
# phonopy 4.10.0: a POSCAR whose elements are named as VASP names potentials is read as other elements.
#
# Guess: in the line of names, `Na_pv Cl` (the potential's name) or `Na/1a2b3c4d Cl/5e6f7a8b` (the
#   symbol and a hash, as VASP 6 writes it) is read as sodium and chlorine, or refused.
# Seen: one name that is no bare symbol makes phonopy drop the whole line: the elements are numbered
#   instead, so rock salt is read as hydrogen and helium. No message. pymatgen reads sodium and
#   chlorine from the first form; ASE from both.
# Why it matters: masses, and with them all frequencies and free energies, belong to H and He.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check phonopy==4.10.0 ase==3.29.0
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings
from pathlib import Path

from ase.io import read
from phonopy.interface.vasp import read_vasp

warnings.simplefilter("error")
seen = {}
for names in ("Na Cl", "Na_pv Cl", "Na/1a2b3c4d Cl/5e6f7a8b"):
    Path("POSCAR").write_text(
        f"rock salt\n1.0\n0 2.82 2.82\n2.82 0 2.82\n2.82 2.82 0\n{names}\n1 1\nDirect\n0 0 0\n0.5 0.5 0.5\n"
    )
    cell = read_vasp("POSCAR")
    seen[names] = (cell.symbols, cell.masses.round(2).tolist(), read("POSCAR").get_chemical_symbols())
    print(f"{names!r}: phonopy {cell.symbols}, masses {seen[names][1]}; ASE {seen[names][2]}")
assert seen["Na Cl"][0] == ["Na", "Cl"], seen
for names in ("Na_pv Cl", "Na/1a2b3c4d Cl/5e6f7a8b"):
    assert seen[names][0] == ["H", "He"], seen
    assert seen[names][2] == ["Na", "Cl"], seen
PY
