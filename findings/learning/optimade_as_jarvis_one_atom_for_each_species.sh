#!/usr/bin/env bash
# optimade 1.5.0: as_jarvis gives the atoms in the order of the list of species, and one for each.
#
# Guess: the adapter names the atom of every site, as as_pymatgen and as_ase do.
# Seen: the names are those of the field `species`, and the positions those of the sites. Rock salt
#   with eight sites gets two names and eight positions; jarvis-tools 2026.6.12 takes it, and its
#   density is 0.54 g/cm3 in place of 2.16. In NaH of two sites whose list begins with H, sodium and
#   hydrogen change places. No message: OPTIMADE gives the list no order.
# Why it matters: what a server sends, in any order, is what a model is trained on. A half-Heusler
#   crystal with its elements permuted is another crystal, with a formula that is right.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check \
  optimade==1.5.0 jarvis-tools==2026.6.12 pymatgen==2026.10.24 ase==3.29.0
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings

from optimade.adapters import Structure

warnings.simplefilter("ignore")


def entry(names, listed, positions, edge):
    """A cubic crystal as a server sends it: `listed` is the order of the field `species`."""
    species = [{"name": n, "chemical_symbols": [n], "concentration": [1.0]} for n in listed]
    formula = "".join(sorted(listed))
    attributes = {
        "last_modified": None, "structure_features": [],
        "elements": sorted(listed), "nelements": 2, "elements_ratios": [0.5, 0.5],
        "chemical_formula_descriptive": formula, "chemical_formula_reduced": formula,
        "chemical_formula_anonymous": "AB", "dimension_types": [1, 1, 1],
        "nperiodic_dimensions": 3, "nsites": len(names),
        "lattice_vectors": [[edge, 0, 0], [0, edge, 0], [0, 0, edge]],
        "cartesian_site_positions": positions, "species": species, "species_at_sites": names,
    }
    return Structure({"id": "1", "type": "structures", "attributes": attributes})


half = 2.82
corners = [[0, 0, 0], [0, half, half], [half, 0, half], [half, half, 0]]
edges = [[half, half, half], [half, 0, 0], [0, half, 0], [0, 0, half]]
salt = entry(["Na"] * 4 + ["Cl"] * 4, ["Na", "Cl"], corners + edges, 2 * half)
print(f"8 sites: {salt.as_jarvis.elements}, {len(salt.as_jarvis.coords)} positions")
densities = [round(float(d), 2) for d in (salt.as_jarvis.density, salt.as_pymatgen.density)]
print(f"density: {densities[0]} by jarvis-tools, {densities[1]} by pymatgen, g/cm3")
pair = entry(["Na", "H"], ["H", "Na"], [[0, 0, 0], [1.5, 1.5, 1.5]], 3.0)
origin = [pair.as_jarvis.elements[0], pair.as_ase.get_chemical_symbols()[0]]
print(f"atom at the origin: {origin[0]} by jarvis-tools, {origin[1]} by ASE")
assert list(salt.as_jarvis.elements) == ["Na", "Cl"], "a name for every site now"
assert len(salt.as_jarvis.coords) == 8 and densities == [0.54, 2.16], densities
assert origin == ["H", "Na"], "the order of the sites counts now"
PY
