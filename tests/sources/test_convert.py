"""pymatgen and ASE hold the same crystals as the batch, partial occupancy included."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from sources import convert, prototypes
from sources.crystals import Crystals
from tests.crystal_batches import batches

CIF = Path(__file__).parents[1] / "data" / "La1.85Sr0.15CuO4.cif"


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
    assert by_ase.formulas().tolist() == ["CuLa1.85O4Sr0.15"]
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
