"""Checks of a force field: EMT passes with metals, and each planted fault is seen by its own check."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.eos import calculate_eos
from ase.units import GPa

from assay.models.potentials import check, potential, probes
from assay.models.potentials.check import Settings
from assay.models.potentials.potential import GPA, Evaluation, Scale
from assay.sources.crystals import Crystals
from assay.sources.formats import convert

SHORT = Settings(steps=30, atoms=4)


class Faulty:
    """EMT with factors on forces and stress, and an energy of the nearest distance."""

    def __init__(self, emt, forces=1.0, stress=1.0, hole=0.0):
        self.emt, self.name, self.scale, self.elements = emt, emt.name, emt.scale, emt.elements
        self.forces, self.stress, self.hole = forces, stress, hole

    def evaluate(self, crystals):
        found = self.emt.evaluate(crystals)
        energy = found.energy
        if self.hole and crystals.volume[0] > 5000:  # a pair in its box
            distance = probes.BOX * abs(crystals.frac[1::2, 0] - crystals.frac[::2, 0])
            energy = energy - self.hole * np.exp(-(((distance - 1.3) / 0.2) ** 2))
        return replace(found, energy=energy, forces=self.forces * found.forces, stress=self.stress * found.stress)


class Birch:
    """A crystal of known volume (16 Å^3) and bulk modulus (0.6 eV/Å^3), and perhaps of a wrinkled energy."""

    name, scale, elements = "birch", Scale("none", "none"), frozenset(range(1, 90))

    def __init__(self, wrinkles=0.0):
        self.wrinkles = wrinkles

    def evaluate(self, crystals):
        x = (16 / crystals.volume) ** (2 / 3)
        energy = 9 * 16 * 0.6 / 16 * ((x - 1) ** 3 * 4.5 + (x - 1) ** 2 * (6 - 4 * x))
        energy += self.wrinkles * np.sin(8 * crystals.volume)
        return Evaluation(energy, np.zeros((len(crystals.frac), 3)), np.zeros((len(crystals), 3, 3)))


@pytest.fixture(scope="module")
def emt():
    return potential.load("ase:ase.calculators.emt:EMT")


@pytest.fixture(scope="module")
def metals():
    alloy = bulk("Cu", cubic=True)
    alloy.numbers[0] = 79
    return convert.from_ase([bulk("Al", cubic=True), bulk("Pt"), alloy], ["Al", "Pt", "CuAu"])


@pytest.fixture(scope="module")
def sound(metals, emt):
    return check.check(metals, emt, SHORT)


def failed(found):
    return {one.name: sorted(one.failed) for one in (*found.checks, found.pairs) if one.failed}


def values(found):
    return {one.name: one.value for one in found.checks}


def test_a_sound_potential_passes(sound):
    names = ["relaxation", "forces", "stress", "equation_of_state", "bulk_modulus", "nvt_300", "nve_drift", "nvt_1000"]
    assert list(values(sound)) == names
    assert failed(sound) == {}
    assert all(np.isfinite(value).all() for value in values(sound).values())
    assert values(sound)["forces"].max() < 1e-3
    assert (values(sound)["nvt_1000"] > values(sound)["nvt_300"]).all()
    assert sound.dimers.names == ["Al-Al", "Cu-Cu", "Cu-Au", "Pt-Pt", "Au-Au"]


def test_the_equation_of_state_is_that_of_ase(sound):
    atoms = bulk("Al", a=3.99)
    atoms.calc = EMT()
    volume, _, modulus = calculate_eos(atoms, npoints=7, eps=0.02).fit()
    assert values(sound)["equation_of_state"][0] == pytest.approx(volume, rel=0.002)
    assert values(sound)["bulk_modulus"][0] == pytest.approx(modulus / GPa, rel=0.02)


def test_the_seed_decides_everything(metals, emt, sound):
    again, other = check.check(metals[1:2], emt, SHORT), check.check(metals[1:2], emt, replace(SHORT, seed=1))
    for name, value in values(sound).items():
        assert values(again)[name][0] == pytest.approx(value[1], rel=1e-9)
    assert values(other)["nve_drift"] != values(again)["nve_drift"]


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ({"forces": 1.3}, {"forces", "nve_drift"}),
        ({"stress": 1.5}, {"stress"}),
        ({"hole": 50.0}, {"dimers"}),
    ],
)
def test_each_fault_is_seen_by_its_check(metals, emt, fault, seen):
    found = check.check(metals[2:3], Faulty(emt, **fault), SHORT)
    assert set(failed(found)) == seen
    assert all("expected" in said for one in (*found.checks, found.pairs) for said in one.failed.values())


def test_a_known_equation_of_state_is_found():
    crystals = convert.from_ase([bulk("Cu", "sc", a=2.5), bulk("Cu", "sc", a=2.55)], ["a", "b"])
    found = probes.equation_of_state(crystals, Birch())
    assert found.volume == pytest.approx([16, 16], rel=1e-6)
    assert found.modulus == pytest.approx([0.6 * GPA] * 2, rel=1e-6)
    assert found.minima.tolist() == [1, 1]


def test_a_wrinkled_equation_of_state_fails():
    crystals = convert.from_ase([bulk("Cu", "sc", a=2.52)], ["a"])
    found = check.check(crystals, Birch(0.05), replace(SHORT, atoms=1))
    assert "minima over the volume, expected 1" in found.checks[3].failed[0]
    none = check.check(convert.from_ase([bulk("Cu", "sc", a=3.2)], ["a"]), Birch(), replace(SHORT, atoms=1))
    assert "0 minima" in none.checks[3].failed[0]


def test_a_crystal_that_cannot_be_relaxed_is_told_and_costs_no_other(metals, emt):
    mixed = Crystals(["mixed"], 4 * np.eye(3)[None], [0, 1], [[0, 0, 0]], [0, 2], [29, 79], [0.5, 0.5])
    wolfram = convert.from_ase([bulk("W", cubic=True)], ["W"])
    every = check.concat([mixed, metals[1:2], wolfram])
    found = check.check(every, emt, SHORT)
    assert failed(found) == {"relaxation": [0, 2]}
    assert "unsupported" in found.checks[0].failed[0]
    assert "No EMT-potential for W" in found.checks[0].failed[2]
    assert found.checks[0].asked == 3
    assert [one.asked for one in found.checks[1:]] == [1] * 7
    assert np.isnan(values(found)["forces"][[0, 2]]).all()
    nothing = check.check(mixed, emt, SHORT)
    assert len(nothing.checks) == 1
    assert nothing.pairs.asked == 0


def test_small_cells_are_repeated_evenly():
    long = bulk("Cu", "sc", a=2.5) * (1, 1, 4)
    found = check.repeated(convert.from_ase([bulk("Cu"), long], ["a", "b"]), 16)
    assert found.nsites.tolist() == [18, 16]
    assert np.linalg.norm(found.lattice[1], axis=1).tolist() == [5, 5, 10]
    assert found.volume / found.nsites == pytest.approx([3.61**3 / 4, 2.5**3])
    emt = potential.load("ase:ase.calculators.emt:EMT")
    single = emt.evaluate(convert.from_ase([bulk("Cu")], ["a"])).energy[0]
    assert emt.evaluate(found).energy[0] == pytest.approx(18 * single, abs=1e-6)


@pytest.mark.parametrize("wrong", [{"steps": 3}, {"atoms": 0}, {"timestep": 0.0}, {"timestep": 50.0}, {"seed": -1}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        Settings(**wrong)
