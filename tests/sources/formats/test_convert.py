"""pymatgen and ASE hold the same crystals as the batch, partial occupancy included."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from assay.sources import prototypes
from assay.sources.crystals import Crystals
from assay.sources.formats import convert
from tests.crystal_batches import batches
from tests.featurize.cells import crystal

CIF = Path(__file__).parents[2] / "data" / "La1.85Sr0.15CuO4.cif"


@settings(deadline=None, max_examples=50)
@given(batches())
def test_pymatgen_and_back(crystals: Crystals) -> None:
    back = convert.from_pymatgen(convert.to_pymatgen(crystals), crystals.ids.tolist())
    _same(back, crystals)


@settings(deadline=None, max_examples=50)
@given(batches())
def test_ase_and_back(crystals: Crystals) -> None:
    back = convert.from_ase(convert.to_ase(crystals), crystals.ids.tolist())
    _same(back, crystals)


def _same(back: Crystals, crystals: Crystals) -> None:
    """Equal but for columns, the order of species on a site, and the rounding of a cell transform."""
    assert back.ids.tolist() == crystals.ids.tolist()
    assert np.allclose(back.lattice, crystals.lattice, rtol=0, atol=1e-12)
    assert np.array_equal(back.site_ptr, crystals.site_ptr)
    gap = back.frac - crystals.frac
    assert np.abs(gap - np.round(gap)).max(initial=0.0) < 1e-9
    assert np.array_equal(back.species_ptr, crystals.species_ptr)
    assert _pairs(back) == _pairs(crystals)


def _pairs(crystals: Crystals) -> list[list[tuple[int, float]]]:
    pairs = list(zip(crystals.numbers.tolist(), crystals.occupancy.round(5).tolist()))
    return [sorted(pairs[a:b]) for a, b in zip(crystals.species_ptr[:-1], crystals.species_ptr[1:])]


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 1000))
def test_pymatgen_agrees_on_formula_volume_and_order(seed: int) -> None:
    crystals = prototypes.generate(30, seed=seed)
    for row, structure in enumerate(convert.to_pymatgen(crystals)):
        assert structure.volume == pytest.approx(crystals.volume[row])
        assert structure.is_ordered == crystals.is_ordered[row]
        amounts = {element.Z: amount for element, amount in structure.composition.items()}
        found = crystals.composition()[row]
        assert {int(z): found[z] for z in np.flatnonzero(found)} == pytest.approx(amounts)
        assert structure.properties["prototype"] == crystals.columns["prototype"][row]


def test_ase_reads_the_disordered_cif_as_pymatgen_does() -> None:
    from ase.io import read
    from pymatgen.core import Structure

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both remark on rounding of coordinates
        by_ase = convert.from_ase([read(CIF)], ["test/lsco"])
        by_pymatgen = convert.from_pymatgen([Structure.from_file(CIF)], ["test/lsco"])
    assert np.allclose(by_ase.composition(), by_pymatgen.composition(), atol=1e-4)
    assert by_ase.formulas().tolist() == ["Sr0.15La1.85CuO4"]
    assert by_ase.nsites.tolist() == by_pymatgen.nsites.tolist() == [14]


def test_ase_writes_our_occupancies_into_a_cif(tmp_path: Path) -> None:
    from ase.io import read, write

    crystals = prototypes.generate(1, prototypes=["K2NiF4"], start=600)
    assert not crystals.is_ordered.any()
    write(tmp_path / "doped.cif", convert.to_ase(crystals))
    back = convert.from_ase([read(tmp_path / "doped.cif")], crystals.ids.tolist())
    assert np.allclose(back.composition(), crystals.composition(), atol=1e-4)


def test_oxidation_states_are_dropped_and_deuterium_is_hydrogen() -> None:
    from pymatgen.core import Lattice, Structure

    structure = Structure(Lattice.cubic(4.0), [{"La3+": 0.5, "Sr2+": 0.5}, "D"], [[0, 0, 0], [0.5, 0.5, 0.5]])
    crystals = convert.from_pymatgen([structure], ["test/1"])
    assert sorted(crystals.numbers.tolist()) == [1, 38, 57]


def test_what_is_no_crystal_is_refused_by_name() -> None:
    from ase import Atoms
    from pymatgen.core import Lattice, Structure

    with pytest.raises(ValueError, match="'test/slab': periodic along"):
        convert.from_ase([Atoms("Cu", cell=[3, 3, 20], pbc=[True, True, False])], ["test/slab"])
    with pytest.raises(ValueError, match="'test/dummy': atomic number 0"):
        convert.from_pymatgen([Structure(Lattice.cubic(4.0), ["X"], [[0, 0, 0]])], ["test/dummy"])
    with pytest.raises(ValueError, match="1 structures but 2 ids"):
        convert.from_ase([Atoms("Cu", cell=[3, 3, 3], pbc=True)], ["a", "b"])


# Near neighbours.

SALT = crystal(5.64 * (1 - np.eye(3)) / 2, [[0, 0, 0], [0.5, 0.5, 0.5]], [11, 17])


def _near(one: Crystals) -> list[list[tuple[int, int, int, int]]]:
    """For every site its neighbours: which, and the image."""
    sites = np.arange(len(one.frac))
    source, target, image = convert.near_neighbours(one, one.lattice[0], one.frac, sites)
    assert (np.diff(source) >= 0).all()
    return [sorted(zip(target[source == k].tolist(), *image[source == k].T.tolist())) for k in sites]


def test_near_neighbours_are_those_of_crystal_nn() -> None:
    from pymatgen.analysis.local_env import CrystalNN

    crystals = prototypes.generate(6, seed=3)
    for row in range(len(crystals)):
        one = crystals[row : row + 1]
        if not one.is_ordered[0]:
            continue
        structure = convert.to_pymatgen(one)[0]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it would rather have oxidation states
            asked = [CrystalNN().get_nn_info(structure, k) for k in range(len(structure))]
        assert _near(one) == [sorted((n["site_index"], *map(int, n["image"])) for n in found) for found in asked]


def test_near_neighbours_lie_where_they_are_said_to() -> None:
    source, target, image = convert.near_neighbours(SALT, SALT.lattice[0], SALT.frac, np.arange(2))
    assert np.bincount(source).tolist() == [6, 6]
    assert (source != target).all()
    vector = (SALT.frac[target] + image - SALT.frac[source]) @ SALT.lattice[0]
    assert np.linalg.norm(vector, axis=1) == pytest.approx(np.full(12, 2.82))


def test_a_disordered_site_has_the_neighbours_of_its_main_element() -> None:
    def doped(numbers: list[int], shares: list[float]) -> Crystals:
        return replace(
            SALT,
            species_ptr=np.array([0, 2, 3]),
            numbers=np.array([*numbers, 17], np.uint8),
            occupancy=np.array([*shares, 1.0], np.float32),
        )

    hydrogen, sodium = _near(replace(SALT, numbers=np.array([1, 17], np.uint8))), _near(SALT)
    assert hydrogen != sodium
    assert _near(doped([1, 11], [0.3, 0.5])) == _near(doped([11, 1], [0.5, 0.3])) == sodium
    assert _near(doped([1, 11], [0.5, 0.5])) == _near(doped([11, 1], [0.5, 0.5])) == hydrogen


def test_an_isolated_atom_has_no_near_neighbours() -> None:
    assert _near(crystal(15 * np.eye(3), [[0, 0, 0]], [18])) == [[]]


def test_what_crystal_nn_cannot_do_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from pymatgen.analysis.local_env import CrystalNN

    with pytest.raises(ValueError, match="atomic number 103; the radii of CrystalNN end at 96"):
        _near(crystal(4 * np.eye(3), [[0, 0, 0]], [103]))
    assert len(_near(crystal(3 * np.eye(3), [[0, 0, 0]], [convert.HEAVIEST_NEAR]))[0]) == 6

    def fails(*_: object) -> None:
        raise RuntimeError("This structure is pathological")

    monkeypatch.setattr(CrystalNN, "get_nn_info", fails)
    with pytest.raises(ValueError, match="CrystalNN fails at site 0 of 2, Na: RuntimeError: This structure is patho"):
        _near(SALT)

    def alone(*_: object) -> None:
        raise ValueError("No Voronoi neighbors found for site - try increasing cutoff")

    monkeypatch.setattr(CrystalNN, "get_nn_info", alone)
    assert _near(SALT) == [[], []]


def test_without_pymatgen_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymatgen.core", None)
    with pytest.raises(ImportError, match=r"CrystalNN needs pymatgen: pip install pymatgen"):
        _near(SALT)
