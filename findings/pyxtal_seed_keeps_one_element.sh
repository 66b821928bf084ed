#!/usr/bin/env bash
# pyxtal 1.1.5: from_seed() keeps one element of a mixed site, and fills vacancies.
#
# Guess: a seed with shared or partly empty sites (Cu0.75Au0.25, Fe0.9O) is refused, since pyxtal
#   builds ordered crystals.
# Seen: of each shared site the element written first stays, with the occupancy 1; the others are
#   gone. Ba0.3Sr0.7TiO3 becomes BaTiO3, so the minority may win. Fe0.9O becomes FeO. No message.
# Why it matters: substituted and perturbed crystals, which pyxtal makes from seeds, then belong to
#   another compound; a doping series collapses to one crystal.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pyxtal==1.1.5 pymatgen==2026.10.24
cd "$work"
"$work/env/bin/python" - <<'PY'
from pymatgen.core import Lattice, Structure
from pyxtal import pyxtal

fcc, cubic, half = "Fm-3m", "Pm-3m", [0.5, 0.5, 0.5]
seeds = {
    "Cu0.75Au0.25": Structure.from_spacegroup(fcc, Lattice.cubic(3.75), [{"Cu": 0.75, "Au": 0.25}], [[0, 0, 0]]),
    "Fe0.9O": Structure.from_spacegroup(fcc, Lattice.cubic(4.2), [{"Fe": 0.9}, "O"], [[0, 0, 0], half]),
    "Ba0.3Sr0.7TiO3": Structure.from_spacegroup(
        cubic, Lattice.cubic(3.9), [{"Ba": 0.3, "Sr": 0.7}, "Ti", "O"], [[0, 0, 0], half, [0.5, 0.5, 0]]
    ),
}
kept = {}
for name, structure in seeds.items():
    crystal = pyxtal()
    crystal.from_seed(structure)
    kept[name] = crystal.to_pymatgen().composition.reduced_formula
    print(f"{name}: pyxtal keeps {kept[name]}")
assert kept == {"Cu0.75Au0.25": "Cu", "Fe0.9O": "FeO", "Ba0.3Sr0.7TiO3": "BaTiO3"}, kept
PY
