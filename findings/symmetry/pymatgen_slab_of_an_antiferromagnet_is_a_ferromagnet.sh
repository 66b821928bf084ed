#!/usr/bin/env bash
# pymatgen 2026.10.24: a slab that is cut from an antiferromagnet is a ferromagnet.
#
# Guess: SlabGenerator keeps the magmom of each site, or has none; a reduction of the slab to a
#   primitive cell, which is on by default, merges atoms with the same moment only.
# Seen: chromium (1 and -1 in the bcc cell) cut along (100) or (111) alternates. Along (110) and
#   (211), where up and down share a layer, the two become one atom and all sites of the slab are 1:
#   a net moment of one per atom. With primitive=False, or with the spin in the species
#   (Species("Cr", spin=1)), the order is kept. No message; generate_all_slabs mixes both kinds.
# Why it matters: (110) is the surface of lowest energy of bcc metals. Surface energies against the
#   antiferromagnetic bulk then hold the difference of two magnetic orders.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check pymatgen==2026.10.24
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings

from pymatgen.core import Lattice, Species, Structure
from pymatgen.core.surface import SlabGenerator, generate_all_slabs

warnings.simplefilter("error")
warnings.filterwarnings("ignore", message="Set OLD_ERROR_HANDLING")
PLACES = [[0, 0, 0], [0.5, 0.5, 0.5]]
bulk = Structure(Lattice.cubic(2.88), ["Cr", "Cr"], PLACES, site_properties={"magmom": [1, -1]})
marked = Structure(Lattice.cubic(2.88), [Species("Cr", spin=1), Species("Cr", spin=-1)], PLACES)


def slab(structure, plane, **options):
    return SlabGenerator(structure, plane, 8, 12, **options).get_slabs()[0]


net = {}
for plane in ((1, 0, 0), (1, 1, 0), (1, 1, 1), (2, 1, 1)):
    moments = slab(bulk, plane).site_properties["magmom"]
    whole = slab(bulk, plane, primitive=False).site_properties["magmom"]
    spins = [site.specie.spin for site in slab(marked, plane)]
    net[plane] = (sum(moments) / len(moments), sum(whole) / len(whole), sum(spins) / len(spins))
    print(f"{plane}: {moments}, per atom {net[plane][0]}; primitive=False {net[plane][1]}; species {net[plane][2]}")
every = {one.miller_index: sum(one.site_properties["magmom"]) for one in generate_all_slabs(bulk, 1, 8, 12)}
print("generate_all_slabs, net moments:", every)
assert net[1, 0, 0] == net[1, 1, 1] == (0, 0, 0), net
assert net[1, 1, 0] == net[2, 1, 1] == (1, 0, 0), net
assert every == {(1, 0, 0): 0, (1, 1, 0): 4, (1, 1, 1): 0}, every
PY
