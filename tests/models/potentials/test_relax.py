"""Relaxation in batches: the same ends as ASE, and a reason for every crystal that does not arrive."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE

from assay.models.potentials import potential, relax
from assay.models.potentials.potential import GPA, Evaluation, Scale
from assay.models.potentials.relax import Settings
from assay.sources.crystals import Crystals
from assay.sources.formats import convert
from assay.sources.quarantine import Reason, Stage

NAME = "ase:ase.calculators.emt:EMT"


def strained(symbol, repeat=None):
    """A strained primitive cell, or so many conventional ones."""
    rng = np.random.default_rng(3)
    atoms = bulk(symbol) if repeat is None else bulk(symbol, cubic=True) * repeat
    atoms.set_cell(atoms.cell[:] * 1.03 @ (np.eye(3) + 0.02 * rng.normal(size=(3, 3))), scale_atoms=True)
    atoms.rattle(0.08, seed=1)
    return atoms


def alloy():
    atoms = strained("Cu", (2, 1, 1))
    atoms.numbers[::3] = 79
    return atoms


@pytest.fixture(scope="module")
def metals():
    return [bulk("Au"), strained("Cu"), strained("Al", (1, 1, 1)), strained("Ni", (2, 1, 1)), alloy()]


@pytest.fixture(scope="module")
def crystals(metals):
    return convert.from_ase(metals, ["Au", "Cu", "Al", "Ni", "CuAu"])


@pytest.fixture(scope="module")
def emt():
    return potential.load(NAME)


@pytest.fixture(scope="module", params=["lbfgs", "fire"])
def method(request):
    return request.param


@pytest.fixture(scope="module")
def relaxed(crystals, emt, method):
    return relax.relax(crystals, emt, Settings(method=method))


class Pull:
    """Energy as a function of the volume alone: -`force` eV per Å^3."""

    name, scale, elements = "pull", Scale("none", "none"), frozenset(range(1, 60))

    def __init__(self, force):
        self.force = force

    def evaluate(self, crystals):
        stress = np.tile(-self.force * np.eye(3), (len(crystals), 1, 1))
        return Evaluation(-self.force * crystals.volume, np.zeros((len(crystals.frac), 3)), stress)


def test_forces_and_stress_are_the_slopes_of_the_energy(crystals, emt):
    one, step = crystals[4:5], 1e-4
    found = emt.evaluate(one)
    strain = np.array([[0.0, 1.0, 0.5], [1.0, 0.7, 0.0], [0.5, 0.0, -0.3]])
    ends = [
        emt.evaluate(replace(one, lattice=one.lattice @ (np.eye(3) + s * step * strain))).energy[0] for s in (1, -1)
    ]
    slope = (ends[0] - ends[1]) / (2 * step) / one.volume[0]
    assert slope == pytest.approx((found.stress[0] * strain).sum(), rel=1e-4)
    towards = np.linalg.inv(one.lattice[0])[1]
    moved = [replace(one, frac=(one.frac + s * step * np.eye(len(one.frac))[:, :1] * towards) % 1) for s in (1, -1)]
    slope = -(emt.evaluate(moved[0]).energy[0] - emt.evaluate(moved[1]).energy[0]) / (2 * step)
    assert slope == pytest.approx(found.forces[0, 1], abs=1e-5)


def test_the_ends_are_those_of_ase(metals, relaxed):
    assert not relaxed.refused
    for atoms, volume, energy in zip(metals, relaxed.crystals.volume, relaxed.energy, strict=True):
        peer = atoms.copy()
        peer.calc = EMT()
        FIRE(FrechetCellFilter(peer), logfile=None).run(fmax=0.005, steps=1000)
        assert volume == pytest.approx(peer.get_volume(), rel=2e-3)
        assert energy == pytest.approx(peer.get_potential_energy(), abs=2e-3 * len(peer))


def test_what_is_said_holds_for_the_cells_that_are_returned(relaxed, emt):
    again = emt.evaluate(relaxed.crystals)
    assert again.energy == pytest.approx(relaxed.energy, abs=1e-9)
    assert abs(again.stress).max(axis=(1, 2)) * GPA == pytest.approx(relaxed.stress, abs=1e-9)
    assert (relaxed.stress <= Settings().smax).all()
    assert (relaxed.force <= Settings().fmax).all()


def test_a_crystal_ends_alone_as_in_a_batch(crystals, emt, method, relaxed, monkeypatch):
    monkeypatch.setattr(relax, "ATOMS_AT_ONCE", 1)
    apart = relax.relax(crystals, emt, Settings(method=method))
    assert apart.crystals == relaxed.crystals
    assert (apart.steps == relaxed.steps).all()
    backwards = relax.relax(crystals.select(range(len(crystals))[::-1]), emt, Settings(method=method))
    assert (backwards.energy[::-1] == relaxed.energy).all()


def test_lbfgs_takes_less_than_half_of_the_steps(crystals, emt):
    found = [relax.relax(crystals, emt, Settings(method=name)).steps.mean() for name in ("lbfgs", "fire")]
    assert found[0] < 0.5 * found[1]


def test_a_large_cell_takes_about_as_many_steps_as_a_small_one(emt):
    small, large = (strained("Cu", (n, n, n)) for n in (1, 3))
    steps = relax.relax(convert.from_ase([small, large], ["4", "108"]), emt).steps
    assert steps[1] < 2 * steps[0]


def test_columns_and_order_are_kept(crystals, emt):
    noted = crystals.with_columns(note=np.arange(5))
    found = relax.relax(noted.select([3, 0]), emt)
    assert found.crystals.columns["note"].tolist() == [3, 0]
    assert found.index.tolist() == [0, 1]


def test_a_left_handed_cell_is_turned_and_ends_like_its_twin(crystals, emt):
    one = crystals[2:3]
    mirror = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1]])
    left = replace(one, lattice=mirror @ one.lattice, frac=one.frac @ mirror)
    found = relax.relax(left, emt)
    assert np.linalg.det(found.crystals.lattice[0]) > 0
    assert found.energy[0] == pytest.approx(relax.relax(one, emt).energy[0], abs=1e-3)


def test_atoms_move_alone_in_a_fixed_cell(crystals, emt):
    found = relax.relax(crystals, emt, Settings(cell=False))
    assert (found.crystals.lattice == crystals.lattice).all()
    assert (found.volume_change == 0).all()
    assert (found.crystals.frac != crystals.frac).any()


def disordered():
    return Crystals(["mixed"], 4 * np.eye(3)[None], [0, 1], [[0, 0, 0]], [0, 2], [29, 79], [0.5, 0.5])


@pytest.mark.parametrize(
    ("made", "settings", "reason"),
    [
        (Pull(0.5), {}, Reason.EXPLODED),
        (Pull(-0.5), {}, Reason.COLLAPSED),
        (Pull(np.nan), {}, Reason.EXPLODED),
        (Pull(0.01), {"steps": 3}, Reason.NOT_RELAXED),
        (Pull(-0.5), {"smallest": 1e-9, "shortest": 2.0}, Reason.COLLAPSED),
    ],
)
def test_each_way_to_get_lost_has_its_reason(crystals, made, settings, reason):
    found = relax.relax(crystals[1:4], made, Settings(**settings))
    assert not len(found.crystals)
    assert [row.reason for row in found.refused] == [reason] * 3
    assert [row.id for row in found.refused] == ["Cu", "Al", "Ni"]
    assert {row.stage for row in found.refused} == {Stage.RELAX}
    assert all("expected" in row.message or "finite" in row.message for row in found.refused)


def test_elements_are_asked_for_before_the_potential(crystals):
    found = relax.relax(crystals, Pull(np.nan))
    assert found.refused[0].reason is Reason.UNKNOWN_SPECIES
    assert found.refused[0].message == "pull has not learned Au"
    assert {row.id for row in found.refused} == set(crystals.ids)


def test_a_shared_site_is_refused(emt):
    assert [row.reason for row in relax.relax(disordered(), emt).refused] == [Reason.UNSUPPORTED]


def test_what_a_calculator_raises_costs_one_crystal(emt):
    found = relax.relax(convert.from_ase([bulk("Cu"), bulk("W"), bulk("Al")], ["a", "b", "c"]), emt)
    assert found.crystals.ids.tolist() == ["a", "c"]
    assert found.refused[0].reason is Reason.PREDICTION_FAILED
    assert "W" in found.refused[0].message


def test_nothing_is_relaxed_to_nothing(emt, crystals):
    found = relax.relax(crystals[0:0], emt)
    assert len(found.crystals) == len(found.energy) == len(found.refused) == 0


@pytest.mark.parametrize("name", ["nothing", "ase:", "ase:math:nothing", "ase:ase.calculators.emt:", "chgnet:0.9"])
def test_an_unknown_potential_is_refused(name):
    with pytest.raises(ValueError, match=r"expected|chgnet"):
        potential.load(name)


@pytest.mark.parametrize("wrong", [{"fmax": 0}, {"steps": -1}, {"smallest": 1.2}, {"largest": 0.9}, {"method": "bfgs"}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        Settings(**wrong)
