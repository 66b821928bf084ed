"""Symmetry kept in a relaxation: spglib finds the same group before and after, ASE the same end."""

from dataclasses import replace

import numpy as np
import pytest
import spglib
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from ase.spacegroup import crystal

from assay.models.potentials import operations, potential, relax
from assay.models.potentials.relax import Settings
from assay.sources.formats import convert
from assay.sources.quarantine import Reason

MIRROR = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])
FINE = {"fmax": 0.002, "smax": 0.02}


def rutile():
    """TiO2, strained and with a wrong position of oxygen, as its group allows."""
    return crystal(["Ti", "O"], [(0, 0, 0), (0.29, 0.29, 0)], spacegroup=136, cellpar=[4.7, 4.7, 3.05, 90, 90, 90])


def spinel(*, primitive):
    sites = [(1 / 8,) * 3, (0.5,) * 3, (0.27,) * 3]
    cell = [8.3, 8.3, 8.3, 90, 90, 90]
    return crystal(["Mg", "Al", "O"], sites, spacegroup=227, setting=2, cellpar=cell, primitive_cell=primitive)


def layered():
    """Al and Pd as Mo and Si in MoSi2, with wrong heights of the layers: two lengths and a height are free."""
    return crystal(["Al", "Pd"], [(0, 0, 0), (0, 0, 0.31)], spacegroup=139, cellpar=[3.2, 3.2, 9.4, 90, 90, 90])


def gold_copper():
    atoms = bulk("Cu", cubic=True)
    atoms.numbers[0] = 79
    return atoms


def noisy(atoms, seed):
    """Symmetric within 0.01 Å only, and its sites in another order."""
    rng = np.random.default_rng(seed)
    atoms = atoms[rng.permutation(len(atoms))]
    atoms.set_cell(atoms.cell[:] @ (np.eye(3) + 3e-4 * rng.normal(size=(3, 3))), scale_atoms=True)
    atoms.positions += 0.001 * rng.normal(size=atoms.positions.shape)
    return atoms


SHAPES = {
    "bcc": (bulk("Cu", "bcc", a=2.8, cubic=True), 229),  # unstable: it becomes fcc when it can
    "supercell": (bulk("Cu", "bcc", a=2.8, cubic=True) * (2, 1, 3), 229),
    "Cu3Au": (gold_copper() * (2, 1, 1), 221),
    "hcp": (bulk("Cu", "hcp", a=2.5, c=4.3), 194),
    "MoSi2": (layered(), 139),
}


def group(crystals, row, tolerance=1e-5):
    sites = slice(crystals.site_ptr[row], crystals.site_ptr[row + 1])
    cell = crystals.lattice[row], crystals.frac[sites], crystals.numbers[sites]
    return spglib.get_symmetry_dataset(cell, symprec=tolerance).number


def groups(crystals):
    return [group(crystals, row) for row in range(len(crystals))]


class Crooked:
    """EMT with forces and stresses that no symmetry allows."""

    def __init__(self, emt):
        self.emt = emt
        self.name, self.scale, self.elements = emt.name, emt.scale, emt.elements

    def evaluate(self, crystals):
        found = self.emt.evaluate(crystals)
        push = np.random.default_rng(0).normal(scale=0.2, size=found.forces.shape)
        shear = 0.01 * np.array([[1, 2, 3], [2, -3, 1], [3, 1, 2]])
        return replace(found, forces=found.forces + push, stress=found.stress + shear)


@pytest.fixture(scope="module")
def emt():
    return potential.load("ase:ase.calculators.emt:EMT")


@pytest.fixture(scope="module")
def delivered():
    every = [noisy(atoms, seed) for seed, (atoms, _) in enumerate(SHAPES.values())]
    return convert.from_ase(every, list(SHAPES))


@pytest.mark.parametrize("method", ["lbfgs", "fire"])
def test_the_group_and_the_sites_stay(delivered, emt, method):
    settings = Settings(symmetry="keep", method=method, **FINE)
    found = relax.relax(delivered, emt, settings)
    assert not found.refused
    assert groups(found.crystals) == [number for _, number in SHAPES.values()]
    assert (found.crystals.numbers == delivered.numbers).all()
    assert (found.crystals.nsites == delivered.nsites).all()
    free = relax.relax(delivered, emt, replace(settings, symmetry="free"))
    assert not set(groups(free.crystals)) & {229, 221, 194, 139}


def test_hundreds_of_crooked_pushes_break_nothing(delivered, emt):
    settings = Settings(symmetry="keep", method="fire", fmax=1e-10, smax=1e-8, steps=1000)
    found = relax.relax(delivered.select([0, 4]), Crooked(emt), settings)
    assert found.steps.max() > 200
    assert groups(found.crystals) == [229, 139]


def test_a_crystal_ends_alone_as_in_a_batch(delivered, emt, monkeypatch):
    settings = Settings(symmetry="keep", **FINE)
    together = relax.relax(delivered, emt, settings)
    monkeypatch.setattr(relax, "ATOMS_AT_ONCE", 1)
    assert relax.relax(delivered, emt, settings).crystals == together.crystals


def test_the_end_is_that_of_ase(emt):
    found = relax.relax(convert.from_ase([layered()], ["a"]), emt, Settings(symmetry="keep", **FINE))
    peer = layered()
    peer.calc = EMT()
    peer.set_constraint(FixSymmetry(peer))
    FIRE(FrechetCellFilter(peer), logfile=None).run(fmax=0.002, steps=1000)
    assert np.sort(peer.cell.lengths()) == pytest.approx(np.sort(lengths(found.crystals)[0]), abs=2e-3)
    assert found.energy[0] == pytest.approx(peer.get_potential_energy(), abs=1e-4)
    assert abs(lengths(found.crystals)[0] - [3.2, 3.2, 9.4]).max() > 0.1  # it had a way to go


def lengths(crystals):
    return np.linalg.norm(crystals.lattice, axis=2)


@pytest.mark.parametrize("atoms", [rutile(), spinel(primitive=True), spinel(primitive=False)])
def test_the_symmetric_part_is_that_of_ase(atoms):
    rng = np.random.default_rng(1)
    forces, stress = rng.normal(size=(len(atoms), 3)), rng.normal(size=(3, 3))
    stress += stress.T
    same, kept, failed = operations.symmetrised(convert.from_ase([atoms, atoms], ["a", "b"]), 0.01)
    assert not failed
    both = kept.forces(np.concatenate([forces, 2 * forces]))
    tensors = kept.stresses(np.stack([stress, 2 * stress]))
    assert np.allclose(both, kept.forces(both))
    assert both[len(atoms) :] == pytest.approx(2 * both[: len(atoms)])
    assert tensors[1] == pytest.approx(2 * tensors[0])
    alone = kept.keep(np.array([False, True]))
    assert alone.forces(2 * forces) == pytest.approx(both[len(atoms) :])
    peer = convert.to_ase(same)[0]
    oracle = FixSymmetry(peer)
    oracle.adjust_forces(peer, forces)
    voigt = stress[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    oracle.adjust_stress(peer, voigt)
    assert tensors[0][[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] == pytest.approx(voigt, abs=1e-8)
    assert both[: len(atoms)] == pytest.approx(forces, abs=1e-8)


def test_a_long_supercell_keeps_the_whole_group_of_the_crystal():
    """ASE keeps the rotations of the supercell's shape alone: it would let the cubic crystal become tetragonal."""
    _, kept, _ = operations.symmetrised(convert.from_ase([gold_copper() * (2, 1, 1)], ["a"]), 0.01)
    assert kept.stresses(np.diag([3.0, 0, 0])[None]) == pytest.approx(np.eye(3)[None], abs=1e-12)
    assert kept.forces(np.random.default_rng(0).normal(size=(8, 3))) == pytest.approx(np.zeros((8, 3)), abs=1e-12)


def test_what_is_symmetric_already_is_hardly_touched():
    atoms = [rutile(), spinel(primitive=True)]
    crystals = convert.from_ase(atoms, ["a", "b"])
    same, _, _ = operations.symmetrised(crystals, 0.01)
    apart = same.frac - crystals.frac
    assert abs(apart - np.rint(apart)).max() < 1e-9
    assert abs(same.lattice - crystals.lattice).max() < 1e-9


def test_a_cell_symmetric_within_the_tolerance_moves_less_than_that(delivered):
    same, _, _ = operations.symmetrised(delivered, 0.01)
    apart = same.frac - delivered.frac
    apart = np.einsum("si,sij->sj", apart - np.rint(apart), delivered.lattice[delivered.site_crystal])
    assert 1e-4 < np.linalg.norm(apart, axis=1).max() < 0.01
    turned = np.linalg.solve(delivered.lattice, same.lattice)
    assert abs(turned - np.swapaxes(turned, 1, 2)).max() < 1e-12  # strained, not turned
    assert groups(same) == [number for _, number in SHAPES.values()]


def test_a_finer_tolerance_finds_no_symmetry_to_keep(delivered, emt):
    found = relax.relax(delivered, emt, Settings(symmetry="keep", symprec=1e-6, **FINE))
    assert not set(groups(found.crystals)) & {229, 221, 194, 139}


def test_left_handed_cells_keep_their_group(emt):
    one = convert.from_ase([noisy(layered(), 0)], ["a"])
    left = replace(one, lattice=MIRROR @ one.lattice, frac=one.frac @ MIRROR)
    found = relax.relax(left, emt, Settings(symmetry="keep", **FINE))
    assert groups(found.crystals) == [139]
    twin = relax.relax(one, emt, Settings(symmetry="keep", **FINE))
    assert found.energy[0] == pytest.approx(twin.energy[0], abs=1e-4)
    same, kept, _ = operations.symmetrised(left, 0.01)  # as it stands, not turned round
    assert np.linalg.det(same.lattice[0]) < 0
    assert groups(same) == [139]
    assert kept.stresses(np.eye(3)[None]) == pytest.approx(np.eye(3)[None])


def test_a_crystal_without_symmetry_is_refused_with_its_reason(emt):
    both = convert.from_ase([gold_copper(), gold_copper()], ["near", "good"])
    frac = both.frac.copy()
    frac[2] = frac[1] + 0.001
    found = relax.relax(replace(both, frac=frac), emt, Settings(symmetry="keep"))
    assert found.crystals.ids.tolist() == ["good"]
    assert [(row.id, row.reason) for row in found.refused] == [("near", Reason.NOT_RELAXED)]
    assert found.refused[0].message == "no symmetry was found within 0.01 Å"


@pytest.mark.parametrize("wrong", [{"symmetry": "cubic"}, {"symprec": 0.0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        Settings(**wrong)


def test_oxides_keep_their_group_with_chgnet():
    try:
        chgnet = potential.load("chgnet")
    except ImportError as error:
        pytest.skip(str(error))
    crystals = convert.from_ase([noisy(rutile(), 0), noisy(spinel(primitive=True), 1)], ["rutile", "spinel"])
    found = relax.relax(crystals, chgnet, Settings(symmetry="keep"))
    assert groups(found.crystals) == [136, 227]
    assert (found.steps > 3).all()
