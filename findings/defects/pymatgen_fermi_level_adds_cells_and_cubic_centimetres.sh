#!/usr/bin/env bash
# pymatgen-analysis-defects 2026.10.24: the Fermi level of a doped crystal is that of the pure one.
#
# Guess: solve_for_fermi_level finds where defects, holes and electrons together have no charge.
# Seen: it adds charges of defects per cell to charges of carriers per cubic centimetre, so that
#   defects count 1e22 times too little. MgO with a double donor that costs 0.8 eV in the middle of
#   a gap of 3 eV, at 1000 K: the Fermi level is 1.50 eV, whether the donor is there or not. There
#   the donors have 1e19 charges per cubic centimetre and the carriers 2e4. The charges of the same
#   functions in one unit cancel at 1.78 eV. No message.
# Why it matters: the Fermi level decides the charge states and the number of every defect: there
#   are 600 times too many of this one.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check \
  pymatgen-analysis-defects==2026.10.24 pymatgen==2026.10.24 numpy==2.4.6 scipy==1.17.1
cd "$work"
"$work/env/bin/python" -W ignore - <<'PY'
import numpy as np
from pymatgen.analysis.defects.core import Vacancy
from pymatgen.analysis.defects.thermo import (
    DefectEntry, FormationEnergyDiagram, MultiFormationEnergyDiagram, fermi_dirac,
)
from pymatgen.core import Element, Lattice, Structure
from pymatgen.electronic_structure.core import Spin
from pymatgen.electronic_structure.dos import CompleteDos, Dos, FermiDos
from pymatgen.entries.computed_entries import ComputedEntry, ComputedStructureEntry
from scipy.optimize import bisect

KELVIN, GAP, AT_VBM = 1000, 3.0, -2.2  # the donor costs AT_VBM + 2 x the Fermi level, in eV
sites = [[0, 0, 0], [0.5, 0.5, 0.5]]
cell = Structure.from_spacegroup("Fm-3m", Lattice.cubic(4.2), ["Mg", "O"], sites)
energies = np.arange(-4, 7.0001, 0.005)
states = 5.0 * ((energies <= 1e-9) | (energies >= GAP - 1e-9))  # two flat bands, per eV and cell
dos = CompleteDos(cell, Dos(1.5, energies, {Spin.up: states}), {})

bulk = ComputedStructureEntry(cell, -48.0)
phases = [ComputedEntry("Mg", 0.0), ComputedEntry("O2", 0.0), ComputedEntry("MgO", -12.0)]
oxygen = next(site for site in cell if site.specie.symbol == "O")
vacancy = Vacancy(cell, oxygen)
charged = ComputedStructureEntry(vacancy.defect_structure, -48.0 + AT_VBM)
entry = DefectEntry(vacancy, 2, charged, bulk_entry=bulk)
diagram = FormationEnergyDiagram([entry], phases, vbm=0.0, band_gap=GAP)
rich = {Element("Mg"): -12.0, Element("O"): 0.0}
print("formation energy at 1.5 eV:", float(diagram.get_formation_energy(1.5, rich)))

several = MultiFormationEnergyDiagram([diagram])
seen = several.solve_for_fermi_level(rich, KELVIN, dos)
carriers = FermiDos(dos, bandgap=GAP)
cbm, vbm = carriers.get_cbm_vbm()


def charge(level):
    """Charge per cubic centimetre: of the donors, and of holes and electrons."""
    per_cell = vacancy.multiplicity * 2 * fermi_dirac(AT_VBM + 2 * level, KELVIN)
    return per_cell / (cell.volume * 1e-24), carriers.get_doping(level + vbm, KELVIN)


right = bisect(lambda level: sum(charge(level)), 0.5, 2.9)
pure = bisect(lambda level: charge(level)[1], 0.5, 2.9)
print(f"Fermi level: {seen:.2f} eV, without the donor {pure:.2f}, where charges cancel {right:.2f}")
print("charges per cm3 at its level: donors %.1e, carriers %.1e" % charge(seen))
print("charges per cm3 where they cancel: donors %.1e, carriers %.1e" % charge(right))
assert abs(seen - pure) < 0.02, "the donor counts now"
assert 1.75 < right < 1.81 and abs(sum(charge(right))) < 1e-3 * charge(right)[0]
PY
