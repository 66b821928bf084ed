"""Untrusted rows: good ones come through unchanged, bad ones become records with the right reason."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from assay.sources.assemble import Assembler
from assay.sources.crystals import Crystals
from assay.sources.quarantine import Reason, Stage
from tests.crystal_batches import batches

CUBE = [[4.0, 0, 0], [0, 4.0, 0], [0, 0, 4.0]]


def _one(
    lattice: Any = CUBE, coords: Any = ((0, 0, 0),), species: Any = (((29, 1.0),),), **options: Any
) -> tuple[Crystals, list[tuple[Reason, str]]]:
    assembler = Assembler()
    assembler.add("test/1", "here", lattice, coords, species, **options)
    crystals, refused = assembler.finish()
    assert len(crystals) + len(refused) == 1
    assert all(record.stage is Stage.PULL and record.origin == "here" for record in refused)
    return crystals, [(record.reason, record.message) for record in refused]


@settings(deadline=None, max_examples=60)
@given(batches())
def test_sound_rows_come_through(crystals: Crystals) -> None:
    assembler = Assembler()
    for row in range(len(crystals)):
        one = crystals[row : row + 1]
        pairs = list(zip(one.numbers.tolist(), one.occupancy.round(5).tolist()))
        sites = [pairs[a:b] for a, b in zip(one.species_ptr[:-1], one.species_ptr[1:])]
        columns = {name: column[0].item() for name, column in one.columns.items()}
        assembler.add(str(one.ids[0]), "memory", one.lattice[0].tolist(), one.frac.tolist(), sites, columns)
    built, refused = assembler.finish()
    assert not refused
    assert built == crystals.select(np.arange(len(crystals))) or not len(crystals)


_junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, max_examples=60)
@given(_junk, _junk, _junk, st.dictionaries(st.text(max_size=3), _junk, max_size=2), st.booleans())
def test_no_value_whatsoever_raises(lattice: Any, coords: Any, species: Any, columns: Any, cartesian: bool) -> None:
    assembler = Assembler()
    assembler.add("test/good", "here", CUBE, [[0, 0, 0]], [[(29, 1.0)]])
    assembler.add("test/junk", "here", lattice, coords, species, columns, cartesian)
    assembler.add("test/half", "here", CUBE, coords, [[(29, 1.0)]], columns, cartesian)
    crystals, refused = assembler.finish()
    assert len(crystals) + len(refused) == 3
    assert crystals.ids[0] == "test/good"


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"lattice": [[4, 0, 0], [0, 4, 0], [0, 0, None]]}, Reason.NON_FINITE, "must be finite"),
        ({"lattice": [[4, 0, 0], [0, 4, 0], [0, 0, float("inf")]]}, Reason.NON_FINITE, "must be finite"),
        ({"coords": [[0, 0, float("nan")]]}, Reason.NON_FINITE, "coordinates"),
        ({"species": [[(29, float("nan"))]]}, Reason.NON_FINITE, "occupancy"),
        ({"lattice": [[4, 0, 0], [0, 4, 0], [4, 4, 0]]}, Reason.BAD_LATTICE, "0 Å^3 per atom, 1 to 1000"),
        ({"lattice": (np.eye(3) * 0.9).tolist()}, Reason.BAD_LATTICE, "0.729 Å^3 per atom"),
        ({"lattice": (np.eye(3) * 11).tolist()}, Reason.BAD_LATTICE, "1331 Å^3 per atom"),
        ({"lattice": [[0.3, 0, 0], [0, 1, 0], [0, 0, 900]]}, Reason.BAD_LATTICE, "condition number"),
        ({"lattice": [[1e5, 0, 0], [0, 4, 0], [0, 0, 4]]}, Reason.BAD_LATTICE, "below 10000"),
        ({"lattice": [[4, 0, 0], [0, 4, 0]]}, Reason.MALFORMED, "shape"),
        ({"lattice": [["4", 0, 0], [0, 4, 0], [0, 0, 4]]}, Reason.MALFORMED, "must hold numbers"),
        ({"coords": [[0, 0, 1e7]]}, Reason.MALFORMED, "from the origin"),
        ({"coords": [[0, 0, 0], [0.5, 0.5, 0.5]]}, Reason.MALFORMED, "2 positions but 1 sites"),
        ({"species": [[]]}, Reason.MALFORMED, "no occupied site"),
        ({"species": [[("Cu", 1)]]}, Reason.MALFORMED, "could not convert"),
        ({"species": [[(0, 1.0)]]}, Reason.UNKNOWN_SPECIES, "atomic number 0"),
        ({"species": [[(119, 1.0)]]}, Reason.UNKNOWN_SPECIES, "119"),
        ({"species": [[(28.5, 1.0)]]}, Reason.UNKNOWN_SPECIES, "28.5"),
        ({"species": [[(29, 0.0)]]}, Reason.BAD_OCCUPANCY, "occupancy 0"),
        ({"species": [[(29, -0.2), (28, 0.9)]]}, Reason.BAD_OCCUPANCY, "-0.2"),
        ({"species": [[(29, 0.6), (28, 0.6)]]}, Reason.BAD_OCCUPANCY, "1.2 atoms"),
        ({"coords": np.zeros((401, 3)), "species": [[(29, 1.0)]] * 401}, Reason.TOO_LARGE, "401 sites, at most 400"),
        ({"columns": {"note": "x" * 5000}}, Reason.MALFORMED, "note has 5000 characters"),
    ],
)
def test_each_defect_has_its_reason(change: dict[str, Any], reason: Reason, words: str) -> None:
    crystals, refused = _one(**change)
    assert [found for found, _ in refused] == [reason]
    assert words in refused[0][1]
    assert len(crystals) == 0


@pytest.mark.parametrize("id", ["", "a\0b", "\ud800", 7, None, "x" * 5000])
def test_an_id_must_be_storable(id: Any) -> None:
    assembler = Assembler()
    assembler.add(id, "here", CUBE, [[0, 0, 0]], [[(29, 1.0)]])
    _, refused = assembler.finish()
    assert [record.reason for record in refused] == [Reason.MALFORMED]
    refused[0].id.encode()
    assert len(refused[0].id) <= 500


def test_cartesian_coordinates_become_fractional() -> None:
    cell = np.array([[3.0, 0.1, 0], [0.4, 4.0, -0.2], [0, 0.5, 5.0]])
    frac = np.array([[0.1, 0.2, 0.3], [-0.25, 1.5, 0.75]])
    crystals, _ = _one(cell, frac @ cell, [[(29, 1)], [(8, 1)]], cartesian=True)
    assert np.allclose(crystals.frac, [[0.1, 0.2, 0.3], [0.75, 0.5, 0.75]])


def test_partly_occupied_sites_at_one_place_become_one_site() -> None:
    places = [[0, 0, 0.0], [0.5, 0.5, 0.5], [0, 0, 0.9999]]
    crystals, _ = _one(coords=places, species=[[(57, 0.925)], [(29, 1)], [(38, 0.075)]])
    assert crystals.nsites.tolist() == [2]
    assert crystals.numbers.tolist() == [57, 38, 29]
    assert crystals.occupancy.round(5).tolist() == np.float32([0.925, 0.075, 1]).tolist()


def test_whole_atoms_at_one_place_are_left_for_the_distance_check() -> None:
    crystals, _ = _one(coords=[[0, 0, 0], [0, 0, 0]], species=[[(57, 1)], [(38, 1)]])
    assert crystals.nsites.tolist() == [2]


def test_one_element_listed_twice_is_one_species() -> None:
    crystals, _ = _one(species=[[(26, 0.5), (26, 0.5)]])
    assert crystals.occupancy.tolist() == [1.0]
    assert crystals.is_ordered.all()


def test_rounding_of_occupancies_is_forgiven() -> None:
    crystals, refused = _one(species=[[(57, 0.9250001), (38, 0.0750001)]])
    assert not refused
    assert crystals.site_occupancy.tolist() == pytest.approx([1.0], abs=1e-6)
    crystals, refused = _one(species=[[(57, 0.6667), (38, 0.3338)]])
    assert not refused
    assert crystals.site_occupancy.max() <= 1 + 1e-6


def test_vacant_sites_are_left_out() -> None:
    crystals, _ = _one(coords=[[0, 0, 0], [0.5, 0.5, 0.5]], species=[[], [(29, 0.9)]])
    assert crystals.nsites.tolist() == [1]
    assert crystals.frac.tolist() == [[0.5, 0.5, 0.5]]


def test_columns_are_the_union_over_rows() -> None:
    assembler = Assembler()
    for number, columns in enumerate(
        [{"gap": 1, "tag": "a"}, {"gap": None, "hull": True}, {"tag": "\ud800", "gap": 10**400}]
    ):
        assembler.add(f"test/{number}", "here", CUBE, [[0, 0, 0]], [[(29, 1.0)]], columns)
    columns = assembler.finish()[0].columns
    assert np.array_equal(columns["gap"], [1.0, np.nan, np.nan], equal_nan=True)
    assert np.array_equal(columns["hull"], [np.nan, 1.0, np.nan], equal_nan=True)
    assert columns["tag"].tolist() == ["a", "", "?"]


def test_ten_thousand_rows_take_seconds_not_minutes() -> None:
    coords, species = np.random.default_rng(0).random((10, 3)).tolist(), [[(29, 1.0)]] * 10
    began = time.perf_counter()
    assembler = Assembler()
    for number in range(10_000):
        assembler.add(f"test/{number}", "here", CUBE, coords, species, {"energy": 0.1})
    assert len(assembler.finish()[0]) == 10_000
    assert time.perf_counter() - began < 10
