"""PaiNN: gradients and their gradients, the symmetries of space, repulsion, edge cases."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk
from hypothesis import given, settings, strategies as st

from assay.models.potentials.potential import right_handed
from assay.models.potentials.student import message, painn
from assay.models.potentials.student.painn import PaiNN
from assay.models.potentials.student.slopes import slopes
from assay.sources import prototypes
from assay.sources.crystals import Crystals, concat
from assay.sources.formats import convert


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    made = PaiNN(features=12, layers=3, radial=6, cutoff=4.0).double()
    for weight in made.parameters():  # so that every part has a say
        torch.nn.init.normal_(weight, std=0.3)
    return made


@pytest.fixture(scope="module")
def crystals():
    salt, rutile = bulk("NaCl", "rocksalt", a=5.2), bulk("Ti", "hcp")
    salt.rattle(0.1, seed=1)
    rutile.rattle(0.1, seed=2)
    return convert.from_ase([salt, rutile, bulk("Cu")], ["salt", "titanium", "copper"])


def numbers(network, crystals):
    return [found.detach().numpy() for found in slopes(network, crystals)]


@pytest.mark.parametrize("parts", [2, 3])
def test_the_messages_have_exact_gradients_and_gradients_of_these(parts):
    random = torch.Generator().manual_seed(parts)
    atoms, features, edges = 4, 5, 9
    shapes = (atoms, parts * features), (edges, parts * features), (edges, 3), (atoms, 3, features)
    values = [torch.randn(shape, dtype=torch.float64, generator=random, requires_grad=True) for shape in shapes]
    values[3].requires_grad_(parts == 3)
    ends = np.arange(edges) % atoms, np.sort(np.arange(edges) * 7 % atoms)
    assert torch.autograd.gradcheck(lambda *x: message.sent(*x, ends), values)
    assert torch.autograd.gradgradcheck(lambda *x: message.sent(*x, ends), values)


def test_forces_and_stress_are_the_slopes_of_the_energy(network, crystals):
    _, forces, stress = numbers(network, crystals)
    one, step = crystals[:1], 1e-4
    for axis in range(3):
        towards = step * np.linalg.inv(one.lattice[0])[axis]
        ends = []
        for sign in (1, -1):
            frac = one.frac.copy()
            frac[1] += sign * towards
            ends.append(numbers(network, replace(one, frac=frac % 1))[0][0])
        assert -(ends[0] - ends[1]) / (2 * step) == pytest.approx(forces[1, axis], abs=1e-6)
    for i, j in ((0, 0), (0, 1), (2, 1)):
        strain = np.zeros((3, 3))
        strain[i, j] = strain[j, i] = step / 2 if i != j else step
        ends = [numbers(network, replace(one, lattice=one.lattice @ (np.eye(3) + s * strain)))[0][0] for s in (1, -1)]
        assert (ends[0] - ends[1]) / (2 * step) / one.volume[0] == pytest.approx(stress[0, i, j], abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31))
def test_turned_moved_renumbered_and_recut_crystals_are_the_same(network, crystals, seed):
    random = np.random.default_rng(seed)
    turn = np.linalg.qr(random.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    cut = np.eye(3) + np.triu(random.integers(-1, 2, size=(3, 3)), 1)  # another cell of the same lattice
    one = crystals[:1]
    order = random.permutation(len(one.frac))
    frac = (one.frac + random.random(3)) @ np.linalg.inv(cut) % 1
    other = replace(one, lattice=(cut @ one.lattice[0] @ turn)[None], frac=frac[order], numbers=one.numbers[order])
    (energy, forces, stress), (e, f, s) = numbers(network, one), numbers(network, other)
    assert e == pytest.approx(energy, abs=1e-9)
    assert f == pytest.approx((forces @ turn)[order], abs=1e-9)
    assert s[0] == pytest.approx(turn.T @ stress[0] @ turn, abs=1e-9)


def test_a_supercell_has_its_share_of_the_energy_and_the_same_forces(network, crystals):
    atoms = convert.to_ase(crystals[:1])[0]
    large = convert.from_ase([atoms.repeat((2, 1, 3))], ["large"])
    (energy, forces, stress), (e, f, s) = numbers(network, crystals[:1]), numbers(network, large)
    assert e == pytest.approx(6 * energy, abs=1e-8)
    assert f == pytest.approx(np.tile(forces, (6, 1)), abs=1e-9)
    assert s == pytest.approx(stress, abs=1e-10)


def test_a_crystal_does_not_feel_the_others_of_its_batch(network, crystals):
    energy, forces, stress = numbers(network, crystals)
    for row in range(len(crystals)):
        e, f, s = numbers(network, crystals[row : row + 1])
        sites = slice(*crystals.site_ptr[row : row + 2])
        assert e[0] == pytest.approx(energy[row], abs=1e-10)
        assert f == pytest.approx(forces[sites], abs=1e-10)
        assert s[0] == pytest.approx(stress[row], abs=1e-10)


def test_an_atom_alone_has_the_energy_of_its_element_and_no_force(network):
    alone = convert.from_ase([bulk("Cu", a=14.0)], ["copper"])
    energy, forces, stress = numbers(network, alone)
    assert np.isfinite(energy).all()
    assert not forces.any()
    assert not stress.any()
    assert numbers(network, alone.select([]))[0].shape == (0,)


def test_atoms_that_come_close_repel_each_other_ever_more(network):
    energies = []
    for distance in (0.9, 0.7, 0.5, 0.3):
        lattice, frac = 12 * np.eye(3)[None], np.array([[0.0, 0, 0], [distance / 12, 0, 0]])
        ptr = np.arange(3)
        pair = Crystals(
            np.array(["pair"]), lattice, np.array([0, 2]), frac, ptr, np.array([29, 29], np.uint8), np.ones(2)
        )
        energies.append(numbers(network, pair)[0][0])
    assert np.all(np.diff(energies) > 100)  # eV: copper at 0.3 Å


def test_states_fade_in_smoothly_at_the_cutoff(network):
    x = torch.linspace(0.9, 1.1, 41, dtype=torch.float64, requires_grad=True)
    value = painn.envelope(x, 5)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), x)
    assert not value[x >= 1].detach().any()
    assert abs(slope[20]) < 1e-9
    assert abs(bend[19]) < 2.0  # 0 at the end; the polynomial has a bend of at most 30


def test_every_prototype_is_evaluated(network):
    some = prototypes.generate(200, 3)
    some = right_handed(some.select(np.flatnonzero(some.is_ordered)))
    energy, forces, stress = numbers(network.float(), concat([some, some]))
    network.double()
    assert np.isfinite(energy).all()
    assert np.isfinite(forces).all()
    assert np.isfinite(stress).all()
    assert energy[: len(some)] == pytest.approx(energy[len(some) :], rel=1e-4, abs=1e-3)
