"""CHGNet, Nequix and SevenNet as potentials: their elements, units and signs."""

import os
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk

from assay.models.potentials import potential, relax
from assay.models.potentials.potential import GPA
from assay.sources.elements import NUMBERS
from assay.sources.formats import convert

SCALES = {
    "chgnet": "PBE(+U), totals with MP2020 corrections",
    "nequix:nequix-oam-1-pft": "PBE(+U), totals",
    "sevennet:7net-0": "PBE(+U), totals",
}


@pytest.fixture(scope="module", params=SCALES)
def teacher(request):
    try:
        return potential.load(request.param)
    except ImportError as error:
        pytest.skip(str(error))
    except ValueError as error:
        if os.environ.get("ASSAY_DATA"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def crystals():
    salt, copper = bulk("NaCl", "rocksalt", a=5.9), bulk("Cu", cubic=True)
    salt.rattle(0.1, seed=1)
    return convert.from_ase([salt, copper], ["salt", "copper"])


def test_elements_it_never_learned_are_not_asked_for(teacher):
    for symbol in ("Po", "At", "Rn", "Fr", "Ra", "Am"):
        assert NUMBERS[symbol] not in teacher.elements
    assert len(teacher.elements) == 89


def test_forces_and_stress_are_the_slopes_of_the_energy(teacher, crystals):
    found = teacher.evaluate(crystals)
    for row in range(2):
        one = crystals[row : row + 1]
        ends = [teacher.evaluate(replace(one, lattice=one.lattice * s)).energy[0] for s in (1.002, 0.998)]
        slope = (ends[0] - ends[1]) / 0.004 / one.volume[0]
        assert slope == pytest.approx(np.trace(found.stress[row]), abs=0.1 / GPA)
    one, step = crystals[0:1], 0.02
    towards = np.array([[1.0], [0.0]]) * np.linalg.inv(one.lattice[0])[0]
    ends = [teacher.evaluate(replace(one, frac=(one.frac + s * step * towards) % 1)).energy[0] for s in (1, -1)]
    assert -(ends[0] - ends[1]) / (2 * step) == pytest.approx(found.forces[0, 0], abs=0.02)


def test_the_energy_is_that_of_the_cell(teacher, crystals):
    cell = convert.from_ase([bulk("Cu")], ["primitive"])
    assert teacher.evaluate(crystals).energy[1] == pytest.approx(4 * teacher.evaluate(cell).energy[0], abs=1e-3)
    assert str(teacher.scale) == SCALES[teacher.name]


def test_a_strained_crystal_comes_back(teacher, crystals):
    found = relax.relax(crystals, teacher)
    assert not found.refused
    assert found.crystals.volume == pytest.approx([46.4, 47.4], rel=0.03)  # PBE: 5.70 and 3.62 Å
