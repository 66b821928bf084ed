"""`assay.calculator`: any potential drives ASE, and refuses what it cannot know."""

import copy
import multiprocessing
import pickle

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.eos import calculate_eos
from ase.filters import FrechetCellFilter
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB
from ase.optimize import BFGS
from ase.phonons import Phonons

import assay
from assay.models.potentials import as_ase, potential
from assay.models.potentials.potential import Evaluation
from assay.sources.formats import convert

NAME = "ase:ase.calculators.emt:EMT"


def alloy():
    atoms = bulk("Cu", cubic=True, a=3.7)
    atoms.numbers[0] = 79
    atoms.set_cell(atoms.cell[:] @ (np.eye(3) + 0.03 * np.random.default_rng(0).normal(size=(3, 3))), scale_atoms=True)
    atoms.rattle(0.05, seed=1)
    return atoms


@pytest.fixture(params=[NAME, "chgnet"])
def calculator(request):
    try:
        return assay.calculator(request.param)
    except ImportError as error:
        pytest.skip(str(error))


def test_its_numbers_are_those_of_the_potential(calculator):
    atoms = alloy()
    atoms.calc = calculator
    found = potential.load(calculator.name).evaluate(convert.from_ase([atoms], ["a"]))
    assert atoms.get_potential_energy() == pytest.approx(found.energy[0], abs=1e-5)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    assert atoms.get_forces() == pytest.approx(found.forces, abs=1e-5)
    assert atoms.get_stress(voigt=False) == pytest.approx(found.stress[0], abs=1e-6)


def test_its_numbers_are_those_of_the_calculator_inside():
    atoms, peer = alloy(), alloy()
    atoms.calc, peer.calc = assay.calculator(NAME), EMT()
    assert atoms.get_potential_energy() == pytest.approx(peer.get_potential_energy(), abs=1e-9)
    assert atoms.get_forces() == pytest.approx(peer.get_forces(), abs=1e-9)
    assert atoms.get_stress() == pytest.approx(peer.get_stress(), abs=1e-9)


def test_forces_and_stress_are_the_slopes_of_the_energy():
    atoms = alloy()
    atoms.calc = assay.calculator(NAME)
    assert atoms.get_forces() == pytest.approx(calculate_numerical_forces(atoms), abs=1e-4)
    assert atoms.get_stress() == pytest.approx(calculate_numerical_stress(atoms), abs=1e-5)


def test_a_left_handed_cell_has_the_same_numbers(calculator):
    atoms = alloy()
    left = atoms.copy()
    left.set_cell(atoms.cell[[1, 0, 2]])  # the atoms stay
    atoms.calc, left.calc = calculator, copy.copy(calculator)
    assert left.get_potential_energy() == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    assert left.get_forces() == pytest.approx(atoms.get_forces(), abs=1e-4)
    assert left.get_stress() == pytest.approx(atoms.get_stress(), abs=1e-5)


def test_dynamics_keep_the_energy(calculator):
    atoms = bulk("Cu", cubic=True)
    atoms.calc = calculator
    MaxwellBoltzmannDistribution(atoms, temperature_K=600, rng=np.random.default_rng(0))
    begin = atoms.get_total_energy()
    VelocityVerlet(atoms, timestep=1 * units.fs).run(20)
    assert abs(atoms.get_total_energy() - begin) / len(atoms) < 1e-3
    assert abs(atoms.positions - bulk("Cu", cubic=True).positions).max() > 0.01


def test_an_optimiser_and_an_equation_of_state_agree(calculator):
    atoms = bulk("Al", a=4.1)
    atoms.calc = calculator
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.005, steps=40)
    volume, _, modulus = calculate_eos(atoms, npoints=7, eps=0.04).fit()
    assert volume == pytest.approx(atoms.get_volume(), rel=0.01)
    assert 20 < modulus / units.GPa < 120  # measured: 76


def test_phonons_and_a_path_of_a_vacancy(tmp_path):
    """What ASE does with many cells of one crystal, by the bundled force field."""
    calculator = assay.calculator("potential")
    atoms = bulk("Al", a=4.04)
    phonons = Phonons(atoms, calculator, supercell=(3, 3, 3), delta=0.03, name=tmp_path / "phonons")
    phonons.run()
    phonons.read(acoustic=True)
    frequencies = phonons.band_structure([[0, 0, 0], [0.5, 0.5, 0]]) / units.invcm  # Γ and X
    assert abs(frequencies[0]).max() < 15
    assert 100 < frequencies[1].min() < frequencies[1].max() < 450  # measured: 190 and 325
    start, end = (bulk("Al", cubic=True, a=4.04) * (2, 2, 2) for _ in range(2))
    hole, neighbour = end.positions[0].copy(), end.get_distances(0, range(1, 32), mic=True).argmin() + 1
    end.positions[neighbour] = hole
    del start[0], end[0]
    images = [start, *(start.copy() for _ in range(3)), end]
    for image in images:
        image.calc = calculator
    path = NEB(images, method="improvedtangent", allow_shared_calculator=True)
    path.interpolate(mic=True)
    BFGS(path, logfile=None).run(fmax=0.2, steps=15)
    along = [image.get_potential_energy() - images[0].get_potential_energy() for image in images]
    assert along[4] == pytest.approx(0, abs=1e-3)
    assert along[1] == pytest.approx(along[3], abs=0.02)
    assert 0.2 < along[2] < 1.5  # eV; measured: 0.6


def shared():
    atoms = bulk("Cu")
    atoms.info["occupancy"] = {"0": {"Cu": 0.5, "Au": 0.5}}
    atoms.arrays["spacegroup_kinds"] = np.array([0])
    return atoms


def with_nan():
    atoms = bulk("Cu", cubic=True)
    atoms.positions[1, 2] = np.nan
    return atoms


@pytest.mark.parametrize(
    ("atoms", "said"),
    [
        (fcc111("Cu", (1, 1, 3), vacuum=8.0), "not periodic along c; .* set pbc=True"),
        (Atoms("Cu"), "not periodic along a, b, c"),
        (Atoms("Cu2", [[0, 0, 0], [4, 0, 1e-4]], cell=[4, 4, 4], pbc=True), "atoms 0 and 1 are at one place"),
        (Atoms("Cu", pbc=True), "no volume"),
        (Atoms(cell=[3, 3, 3], pbc=True), "no atoms"),
        (bulk("Po", "sc", a=3.3), "chgnet has not learned Po"),
        (Atoms("X", cell=[3, 3, 3], pbc=True), "numbers must be in 1..118"),
        (shared(), "a site is shared"),
        (with_nan(), "frac must be finite"),
    ],
)
def test_what_the_potential_cannot_know_is_refused_in_one_line(atoms, said):
    pytest.importorskip("chgnet")
    atoms.calc = assay.calculator("chgnet")
    with pytest.raises(ValueError, match=said) as refused:
        atoms.get_potential_energy()
    assert "\n" not in str(refused.value)


def test_occupancies_of_one_are_no_disorder():
    atoms = bulk("Cu")
    atoms.info["occupancy"] = {"0": {"Cu": 1.0}}
    atoms.arrays["spacegroup_kinds"] = np.array([0])
    atoms.calc = assay.calculator(NAME)
    assert np.isfinite(atoms.get_potential_energy())


def test_a_failure_is_an_error_and_leaves_no_number():
    atoms = bulk("Cu")
    atoms.calc = assay.calculator(NAME)
    atoms.get_potential_energy()
    atoms.numbers[:] = 74
    with pytest.raises(RuntimeError, match="No EMT-potential for W"):
        atoms.get_potential_energy()
    assert not atoms.calc.results


@pytest.mark.parametrize("odd", ["energy", "forces", "stress"])
def test_nan_is_an_error(odd):
    class Silent:
        name, elements = "silent", frozenset({29})

        def evaluate(self, crystals):
            parts = {"energy": np.zeros(1), "forces": np.zeros((1, 3)), "stress": np.zeros((1, 3, 3))}
            parts[odd][...] = np.nan
            return Evaluation(**parts)

    with pytest.raises(RuntimeError, match="silent: energy, forces or stress are not finite"):
        as_ase.measured(Silent(), bulk("Cu"))


def measured(atoms):
    return atoms.get_potential_energy(), atoms.get_forces()


def test_a_copy_is_the_calculator_in_this_process_and_in_another():
    atoms, moved = alloy(), alloy()
    moved.rattle(0.05, seed=2)
    moved.calc = calculator = assay.calculator()
    expected = measured(moved)
    atoms.calc = calculator
    measured(atoms)
    sent = pickle.loads(pickle.dumps(calculator))
    assert sent.results["energy"] == atoms.get_potential_energy()
    assert sent.atoms == atoms
    for made in (sent, copy.deepcopy(calculator)):
        moved.calc = made
        assert measured(moved)[0] == expected[0]
    assert calculator.results["energy"] == atoms.get_potential_energy()  # which a copy leaves alone
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (found,) = pool.map(measured, [moved])
    assert found[0] == pytest.approx(expected[0], abs=1e-9)
    assert found[1] == pytest.approx(expected[1], abs=1e-9)


def test_an_unknown_potential_is_refused():
    with pytest.raises(ValueError, match="'nothing' is not known"):
        assay.calculator("nothing")
