"""Dynamics of many crystals at once: the path of ASE, the right temperature, and a reason for each that breaks."""

from dataclasses import replace

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet

from assay.models.potentials import dynamics, potential
from assay.models.potentials.potential import Evaluation, Scale
from assay.sources.formats import convert


class Springs:
    """Each atom on a spring at its first place: dynamics that statistics know."""

    name, scale, elements = "springs", Scale("none", "none"), frozenset({29})
    stiff = 5.0

    def __init__(self, crystals):
        self.home = {str(id): crystals.select([row]).frac for row, id in enumerate(crystals.ids)}

    def evaluate(self, crystals):
        apart = crystals.frac - np.concatenate([self.home[str(id)] for id in crystals.ids])
        apart = np.einsum("si,sij->sj", apart - np.rint(apart), crystals.lattice[crystals.site_crystal])
        energy = np.bincount(crystals.site_crystal, self.stiff / 2 * (apart**2).sum(axis=1))
        return Evaluation(energy, -self.stiff * apart, np.zeros((len(crystals), 3, 3)))


class Pushed:
    """EMT with one more force on the first atom of each crystal, and NaN at its gold."""

    def __init__(self, emt, force):
        self.emt, self.force, self.name, self.elements = emt, force, emt.name, emt.elements

    def evaluate(self, crystals):
        found = self.emt.evaluate(crystals)
        forces = found.forces.copy()
        forces[crystals.site_ptr[:-1]] += self.force
        gold = crystals.numbers[crystals.site_ptr[:-1]] == 79
        return replace(found, forces=forces, energy=np.where(gold, np.nan, found.energy))


@pytest.fixture(scope="module")
def emt():
    return potential.load("ase:ase.calculators.emt:EMT")


@pytest.fixture(scope="module")
def metals():
    return convert.from_ase([bulk(symbol, cubic=True) for symbol in ("Cu", "Al", "Pt")], ["Cu", "Al", "Pt"])


def run(motion, field, *, thermostat=False, steps=20, kelvin=300.0, seed=0):
    return dynamics.run(motion, field, steps, 2.0, kelvin, thermostat=thermostat, seed=seed)


def test_the_path_is_that_of_ase(metals, emt):
    start = dynamics.thermal(metals, 600, 0)
    found = run(start, emt)
    assert not found.broken
    for row, atoms in enumerate(convert.to_ase(metals)):
        sites = slice(metals.site_ptr[row], metals.site_ptr[row + 1])
        atoms.calc = EMT()
        atoms.set_velocities(start.velocity[sites] / units.fs)
        begin = atoms.get_total_energy()
        VelocityVerlet(atoms, timestep=2 * units.fs).run(20)
        apart = atoms.get_scaled_positions() - found.end.crystals.frac[sites]
        assert abs(apart - np.rint(apart)).max() < 1e-6
        assert atoms.get_velocities() * units.fs == pytest.approx(found.end.velocity[sites], abs=1e-7)
        assert found.energy[[0, -1], row] == pytest.approx([begin, atoms.get_total_energy()], abs=1e-6)
        assert found.temperature[0, row] == pytest.approx(600)


def test_masses_and_momenta(metals):
    start = dynamics.thermal(metals, 300, 1)
    mass = dynamics.masses(metals)
    assert mass[0] == pytest.approx(63.55, abs=0.01)
    momentum = np.add.reduceat(mass[:, None] * start.velocity, metals.site_ptr[:-1])
    assert abs(momentum).max() < 1e-12
    assert (dynamics.thermal(metals, 300, 1).velocity == start.velocity).all()
    assert (dynamics.thermal(metals, 300, 2).velocity != start.velocity).all()


@pytest.mark.parametrize("thermostat", [False, True])
def test_a_crystal_goes_alone_as_in_a_batch(metals, emt, thermostat):
    together = run(dynamics.thermal(metals, 600, 0), emt, thermostat=thermostat)
    alone = run(dynamics.thermal(metals[1:2], 600, 0), emt, thermostat=thermostat)
    assert (alone.energy[:, 0] == together.energy[:, 1]).all()
    assert (alone.end.crystals.frac == together.end.crystals.frac[4:8]).all()


def test_the_thermostat_holds_the_temperature_and_shares_the_heat():
    atoms = bulk("Cu", cubic=True) * (4, 4, 4)
    crystals = convert.from_ase([atoms, atoms], ["a", "b"])
    springs = Springs(crystals)
    found = run(dynamics.thermal(crystals, 600, 0), springs, thermostat=True, steps=1200)
    kelvin, half = found.temperature[300:].mean(), found.energy[300:].mean()
    assert kelvin == pytest.approx(300, rel=0.03)
    wanted = (3 * 256 + 3 * 256 - 3) / 2 * dynamics.BOLTZMANN * 300  # kinetic and potential alike
    assert half == pytest.approx(wanted, rel=0.03)
    assert found.temperature[300:, 0].std() > 3  # it is a thermostat, not a rescaling
    other = run(dynamics.thermal(crystals, 600, 0), springs, thermostat=True, seed=1)
    assert (other.energy[5] != found.energy[5]).all()


def test_a_crystal_that_breaks_leaves_with_its_reason(emt):
    every = [bulk("Cu", cubic=True), bulk("Au", cubic=True), bulk("Al", cubic=True)]
    crystals = convert.from_ase(every, ["Cu", "Au", "Al"])
    found = run(dynamics.thermal(crystals, 600, 0), Pushed(emt, [0.0, 0, 0]))
    assert found.broken == {1: "after 0 fs: energy or forces are not finite"}
    assert found.end.crystals.ids.tolist() == ["Cu", "Al"]
    assert np.isfinite(found.energy[:, [0, 2]]).all()
    assert np.isnan(found.energy[:, 1]).all()
    alone = run(dynamics.thermal(crystals[2:3], 600, 0), emt)
    assert (alone.energy[:, 0] == found.energy[:, 2]).all()


@pytest.mark.parametrize(
    ("force", "kelvin", "said"), [(20.0, 1e7, "two atoms came together"), (20.0, 300, "times as hot as it should be")]
)
def test_each_way_to_break_has_its_reason(metals, emt, force, kelvin, said):
    found = run(dynamics.thermal(metals[1:2], 10, 0), Pushed(emt, [force, force, 0]), steps=60, kelvin=kelvin)
    assert said in found.broken[0]
    assert not len(found.end.crystals)


def test_a_lost_atom_is_missed():
    """Copper in a large empty cell, whose second atom flies off."""
    atoms = bulk("Cu", cubic=True)[:2]
    atoms.set_cell([10, 10, 10])
    crystals = convert.from_ase([atoms], ["gas"])
    motion = dynamics.Motion(crystals, np.array([[0.0, 0, 0], [0.1, 0.0, 0.0]]))

    class Nothing:
        def evaluate(self, crystals):
            return Evaluation(np.zeros(1), np.zeros((2, 3)), np.zeros((1, 3, 3)))

    found = dynamics.run(motion, Nothing(), 60, 1.0, 1e6, thermostat=False)
    assert "an atom was lost" in found.broken[0]


def test_what_a_potential_says_is_kept(emt):
    crystals = convert.from_ase([bulk("Cu", cubic=True), bulk("W", cubic=True)], ["Cu", "W"])
    found = run(dynamics.thermal(crystals, 300, 0), emt, steps=2)
    assert "No EMT-potential for W" in found.broken[1]
