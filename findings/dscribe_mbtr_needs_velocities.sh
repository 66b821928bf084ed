#!/usr/bin/env bash
# dscribe 2.1.2 with ASE 3.29.0: MBTR, SineMatrix and ValleOganov fail on every crystal.
#
# Guess: dscribe (no upper bound on ASE) describes an ASE crystal with each of its descriptors.
# Seen: SOAP, ACSF and EwaldSumMatrix do. MBTR, SineMatrix and ValleOganov copy the crystal into
#   dscribe's own System with its momenta *and* its velocities; this ASE takes only one of the two:
#   "TypeError: Use only one of "momenta" and "velocities"", for crystals without either.
# Why it matters: half of the periodic descriptors are gone with a fresh installation, and the error
#   sends its reader to look for velocities that the crystal never had.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check dscribe==2.1.2 ase==3.29.0
cd "$work"
"$work/env/bin/python" - <<'PY'
from ase.build import bulk
from dscribe.descriptors import ACSF, MBTR, SOAP, EwaldSumMatrix, SineMatrix

salt, species = bulk("NaCl", "rocksalt", a=5.64, cubic=True), ["Na", "Cl"]
distances = {
    "geometry": {"function": "distance"},
    "grid": {"min": 0, "max": 8, "n": 20, "sigma": 0.1},
    "weighting": {"function": "exp", "scale": 0.5, "threshold": 1e-3},
}
descriptors = {
    "SOAP": SOAP(species=species, r_cut=5, n_max=2, l_max=2, periodic=True),
    "ACSF": ACSF(species=species, r_cut=5, periodic=True),
    "EwaldSumMatrix": EwaldSumMatrix(n_atoms_max=8),
    "SineMatrix": SineMatrix(n_atoms_max=8),
    "MBTR": MBTR(species=species, periodic=True, **distances),
}
ends = {}
for name, descriptor in descriptors.items():
    try:
        ends[name] = f"shape {descriptor.create(salt).shape}"
    except TypeError as error:
        ends[name] = f"{type(error).__name__}: {error}"
    print(f"{name}: {ends[name]}")
for name in ("SineMatrix", "MBTR"):
    assert "momenta" in ends[name], ends
for name in ("SOAP", "ACSF", "EwaldSumMatrix"):
    assert ends[name].startswith("shape"), ends
PY
