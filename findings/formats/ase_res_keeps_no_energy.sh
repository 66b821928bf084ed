#!/usr/bin/env bash
# ase 3.29.0: a .res file that ASE writes gives ASE no energy back, and a spin is never read.
#
# Guess: write("cu.res", atoms) and read("cu.res") keep the energy, which the format of AIRSS
#   is for; moments, the last column of an atom's line there, come in or are refused.
# Seen: by default the TITL line holds `key=value` pairs, which the reader takes for the fixed
#   columns of AIRSS: the whole line is dropped, with name, pressure and energy. With
#   `write_info=False` the columns are there, and the pressure is the word None unless `info` holds
#   one: the line is dropped again. The energy of the file is read by pymatgen in neither case. An
#   antiferromagnet of AIRSS has moments 2.2 and -2.2 in pymatgen and 0 and 0 in ASE. No message.
# Why it matters: a search writes thousands of such files; the ranking that follows finds no
#   energies, or calculators start without magnetism.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/env"
"$work/env/bin/pip" install --quiet --disable-pip-version-check ase==3.29.0 pymatgen==2026.10.24
cd "$work"
"$work/env/bin/python" - <<'PY'
import warnings
from pathlib import Path

from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from pymatgen.io.res import ResIO

warnings.simplefilter("error")


def energy(atoms):
    return atoms.calc.get_potential_energy() if atoms.calc else None


def by_pymatgen(name):
    try:
        return ResIO.entry_from_file(name).energy
    except Exception as error:
        return type(error).__name__


copper = bulk("Cu", cubic=True)
copper.calc = SinglePointCalculator(copper, energy=-14.5)
copper.info["name"] = "cu"
seen = {}
for name, how in (("pairs", {}), ("columns", {"write_info": False})):
    write(f"{name}.res", copper, **how)
    title = Path(f"{name}.res").read_text().splitlines()[0]
    seen[name] = energy(read(f"{name}.res"))
    print(f"{title!r}: {seen[name]} in ASE, {by_pymatgen(f'{name}.res')} in pymatgen")
    assert "-14.5" in title
copper.info["pressure"] = 0.0
write("pressure.res", copper, write_info=False)
print("with a pressure:", energy(read("pressure.res")), "in ASE")
IRON = """TITL fe2 0.0 23.54 -1650.25 0.0 4.4 2 (P4/mmm) n - 1
CELL 1.54180 2.866 2.866 2.866 90 90 90
LATT -1
SFAC Fe
Fe 1 0.0 0.0 0.0 1.0 2.2
Fe 1 0.5 0.5 0.5 1.0 -2.2
END
"""
Path("iron.res").write_text(IRON)
iron = read("iron.res")
moments = iron.get_initial_magnetic_moments().tolist()
second = [float(x) for x in ResIO.structure_from_file("iron.res").site_properties["magmom"]]
print(f"iron: energy {energy(iron)}, moments {moments} in ASE, {second} in pymatgen")
assert seen == {"pairs": None, "columns": None}, "the energy comes back now"
assert energy(read("pressure.res")) == -14.5, "the columns with a pressure are not read either now"
assert energy(iron) == -1650.25 and second == [2.2, -2.2]
assert moments == [0.0, 0.0], "the moments are read now"
PY
