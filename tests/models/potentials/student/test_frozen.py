"""The frozen student: the energies, forces and stresses of the network in torch, and their slopes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from assay.models.potentials.student.frozen import ATOMS, freeze
from assay.models.potentials.student.painn import PaiNN
from assay.models.potentials.student.slopes import slopes
from assay.models.training.distil.sample import Displacement, displaced
from assay.sources import prototypes
from assay.sources.crystals import empty, wrap
from assay.sources.formats import convert


def network(dtype, layers=3):
    """Random weights, on a scale of their own."""
    torch.manual_seed(7)
    made = PaiNN(24, layers).double().requires_grad_(requires_grad=False)
    made.scale.fill_(1.7)
    made.shift.copy_(torch.linspace(-9, 3, len(made.shift), dtype=torch.float64))
    for module in made.modules():
        if dtype is torch.float32 and isinstance(module, (torch.nn.Linear, torch.nn.Embedding)):
            module.float()
    return made


def oracle(made, crystals):
    """What torch says in float64."""
    return [values.detach().numpy() for values in slopes(made.double(), crystals)]


def differences(crystals, one, other):
    """Largest differences: energy per atom, force, stress."""
    energy, forces, stress = (np.abs(a - b) for a, b in zip(one, other, strict=True))
    return (energy / crystals.nsites).max(), forces.max(), stress.max()


@pytest.fixture(scope="module")
def crystals():
    """Displaced prototypes: more atoms than are evaluated at a time."""
    made = prototypes.generate(400, seed=3)
    made = displaced(made.select(np.flatnonzero(made.is_ordered)), Displacement(rattle=0.2), seed=1)
    assert len(made.frac) > 2 * ATOMS
    return made


@pytest.fixture(scope="module")
def frozen():
    return freeze(network(torch.float32))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_single_precision_is_torch_within_its_noise(crystals, layers):
    made = network(torch.float32, layers)
    found, told = freeze(made).evaluate(crystals), oracle(made, crystals)
    assert np.abs(told[1]).max() > 0.5
    assert np.all(np.array(differences(crystals, found, told)) < [1e-6, 2e-5, 1e-6])
    assert all(values.dtype == np.float64 for values in found)


def test_double_precision_is_torch_within_the_tables(crystals):
    made = network(torch.float64)
    assert np.all(np.array(differences(crystals, freeze(made).evaluate(crystals), oracle(made, crystals))) < 1e-6)


def test_forces_and_stresses_are_the_slopes_of_the_energy(crystals):
    twin, few = freeze(network(torch.float64)), crystals[:6]
    _, forces, stress = twin.evaluate(few)
    rng = np.random.default_rng(0)
    moves, strain = rng.normal(size=few.frac.shape), rng.normal(size=(3, 3))
    strain += strain.T

    def energy(step, shear):
        lattice = few.lattice @ (np.eye(3) + shear * strain)
        shift = np.einsum("si,sij->sj", step * moves, np.linalg.inv(few.lattice)[few.site_crystal])
        return twin.evaluate(replace(few, lattice=lattice, frac=wrap(few.frac + shift)))[0]

    h = 1e-5
    along = np.bincount(few.site_crystal, (forces * moves).sum(1))
    np.testing.assert_allclose((energy(-h, 0) - energy(h, 0)) / (2 * h), along, rtol=1e-6, atol=1e-6)
    across = (stress * strain).sum((1, 2)) * few.volume
    np.testing.assert_allclose((energy(0, h) - energy(0, -h)) / (2 * h), across, rtol=1e-6, atol=2e-5)


def test_a_crystal_is_alone_in_every_batch(crystals, frozen):
    """Up to the last bits, which BLAS decides."""
    energy, forces, stress = frozen.evaluate(crystals)
    for row in (0, 57, len(crystals) - 1):
        alone = frozen.evaluate(crystals[row : row + 1])
        sites = slice(crystals.site_ptr[row], crystals.site_ptr[row + 1])
        together = energy[row : row + 1], forces[sites], stress[row : row + 1]
        assert np.all(np.array(differences(crystals[row : row + 1], alone, together)) < 1e-6)


def test_supercells_and_the_order_of_atoms(frozen):
    rutile = bulk("Cu", "fcc", a=3.7, cubic=True)
    rutile.numbers[:] = 22, 8, 8, 13
    rutile.rattle(0.1, seed=2)
    order = np.array([2, 0, 3, 1])
    cells = convert.from_ase([rutile, rutile[order], rutile * (2, 1, 2)], ["a", "b", "c"])
    energy, forces, stress = frozen.evaluate(cells)
    np.testing.assert_allclose(energy, energy[0] * np.array([1, 1, 4]), rtol=1e-6)
    np.testing.assert_allclose(forces[4:8], forces[:4][order], atol=2e-5)
    np.testing.assert_allclose(forces[8:], np.tile(forces[:4], (4, 1)), atol=2e-5)
    np.testing.assert_allclose(stress, stress[[0, 0, 0]], atol=1e-6)


def test_atoms_without_neighbours_one_atom_cells_and_nothing(frozen):
    lone, copper = Atoms("O", cell=[9.5, 9.5, 9.5], pbc=True), bulk("Cu")
    cells = convert.from_ase([lone, copper, lone * (1, 1, 2)], ["a", "b", "c"])
    found, told = frozen.evaluate(cells), oracle(network(torch.float32), cells)
    assert np.all(np.array(differences(cells, found, told)) < [1e-6, 1e-5, 1e-6])
    assert found[0][2] == pytest.approx(2 * found[0][0], rel=1e-6)
    assert not found[1][0].any()
    assert not found[2][0].any()
    np.testing.assert_allclose(found[1][1], 0, atol=1e-6)
    single = frozen.evaluate(cells[:1])
    assert single[0] == found[0][:1]
    assert [values.shape for values in frozen.evaluate(empty())] == [(0,), (0, 3), (0, 3, 3)]


def test_close_nuclei_repel(frozen):
    close = convert.from_ase([Atoms("TiO", [[0, 0, 0], [0, 0, 0.6]], cell=[9, 9, 9], pbc=True)], ["close"])
    energy, forces, _ = found = frozen.evaluate(close)
    assert energy[0] > 50
    assert forces[1, 2] > 200
    told = oracle(network(torch.float32), close)
    np.testing.assert_allclose(found[1], told[1], rtol=1e-6, atol=1e-4)


def test_a_frozen_student_learns_no_more(crystals):
    made = network(torch.float32)
    twin = freeze(made)
    before = twin.evaluate(crystals[:3])[0]
    made.embed.weight.mul_(2)
    assert np.array_equal(twin.evaluate(crystals[:3])[0], before)
    assert not np.allclose(freeze(made).evaluate(crystals[:3])[0], before)
