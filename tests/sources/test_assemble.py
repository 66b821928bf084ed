"""Untrusted rows: good ones come through unchanged, bad ones become records with the right reason."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from assay.sources.assemble import Assembler, join
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
        columns = {name: column.tolist()[0] for name, column in one.columns.items()}
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
        ({"species": [[(29, -1e-7), (28, 0.9)]]}, Reason.BAD_OCCUPANCY, "0 to 1 accepted"),
        ({"species": [[(29, 0.6), (28, 0.6)]]}, Reason.BAD_OCCUPANCY, "1.2 atoms"),
        ({"species": [[(29, 1.0011)]]}, Reason.BAD_OCCUPANCY, "occupancy 1.0011"),
        ({"species": [[(29, 1.0011), (28, 0.0)]]}, Reason.BAD_OCCUPANCY, "occupancy 1.0011"),
        ({"species": [[(29, 0.5), (28, 0.5201)]]}, Reason.BAD_OCCUPANCY, "1.0201 atoms"),
        ({"species": [[(29, float("inf"))]]}, Reason.NON_FINITE, "occupancy inf"),
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
    assert "warnings" not in crystals.columns
    crystals, refused = _one(species=[[(57, 0.6667), (38, 0.3338)]])
    assert not refused
    assert crystals.site_occupancy.max() <= 1 + 1e-6
    assert crystals.columns["warnings"].tolist() == ["occupancies of a site add up to 1.0005 and were scaled to 1"]


@pytest.mark.parametrize(
    ("amounts", "total"),
    [
        ([0.34, 0.33, 0.34], "1.01"),
        ([0.167] * 6, "1.002"),
        ([0.34] * 3, "1.02"),  # 0.34 + 0.34 + 0.34 is 1.02 and a bit in binary fractions
        ([0.51, 0.51], "1.02"),
        ([0.07] * 14 + [0.04], "1.02"),
        ([1.001], "1.001"),
    ],
)
@pytest.mark.parametrize("apart", [False, True])
def test_rounded_shares_up_to_the_bound_are_scaled_and_said(amounts: list[float], total: str, apart: bool) -> None:
    shares = [(22 + k, amount) for k, amount in enumerate(amounts)]
    coords, species = ([[0, 0, 0]] * len(shares), [[one] for one in shares]) if apart else ([[0, 0, 0]], [shares])
    crystals, refused = _one(coords=coords, species=species)
    assert not refused
    assert crystals.nsites.tolist() == [1]
    assert crystals.occupancy.tolist() == pytest.approx((np.array(amounts) / sum(amounts)).tolist(), abs=1e-6)
    said = f"occupancies of a site add up to {total} and were scaled to 1"
    assert crystals.columns["warnings"].tolist() == [said]


def test_sites_at_one_place_that_hold_too_much_stay_apart() -> None:
    crystals, _ = _one(coords=[[0, 0, 0]] * 2, species=[[(57, 0.51)], [(38, 0.5101)]])
    assert crystals.nsites.tolist() == [2]


def test_the_end_member_of_a_doping_series_has_no_dopant() -> None:
    whole, alone = [[(57, 1.0), (38, 0.0)], [(29, 1)]], [[(57, 1.0)], [(29, 1)], [(38, 0.0)]]
    for coords, species in (([[0, 0, 0], [0.5, 0.5, 0.5]], whole), ([[0, 0, 0], [0.5, 0.5, 0.5], [0, 0, 0]], alone)):
        crystals, refused = _one(coords=coords, species=species)
        assert not refused
        assert crystals.numbers.tolist() == [57, 29]
        assert crystals.columns == {}


def test_a_site_with_a_share_of_zero_only_is_left_out_and_the_row_says_so() -> None:
    places = [[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0, 0]]
    crystals, refused = _one(coords=places, species=[[(57, 1.0)], [(38, 0.0), (20, -0.0)], [(29, 0)]])
    assert not refused
    assert crystals.numbers.tolist() == [57]
    assert crystals.columns["warnings"].tolist() == ["2 sites with occupancy 0 were left out"]


@pytest.mark.parametrize(
    ("edge", "species", "dense"),
    [
        (1.58, [(29, 1.0)], True),  # 3.94 Å^3
        (1.59, [(29, 1.0)], False),  # 4.02 Å^3
        (1.44, [(1, 0.5), (29, 0.5)], True),  # 2.99 Å^3, 3 expected
        (1.45, [(1, 0.5), (29, 0.5)], False),
        (1.27, [(1, 1.0)], False),
        (1.25, [(1, 1.0)], True),
    ],
)
def test_a_cell_too_small_for_its_atoms_has_a_warning(
    edge: float, species: list[tuple[int, float]], dense: bool
) -> None:
    crystals, refused = _one(lattice=(np.eye(3) * edge).tolist(), species=[species])
    assert not refused
    said = crystals.columns.get("warnings", np.array([""])).tolist()
    assert [f"{edge**3:.3g} Å^3 per atom, less than in any" in text for text in said] == [dense]


def test_warnings_of_the_reader_come_first_and_stand_once() -> None:
    assembler = Assembler()
    assembler.add("test/0", "here", CUBE, [[0, 0, 0]], [[(29, 1.0)]])
    assembler.add("test/1", "here", CUBE, [[0, 0, 0]], [[(29, 0.51), (28, 0.5)]], warnings=["a\nb", "c", "c"])
    assembler.add("test/2", "here", CUBE, [[0, 0, 0]], [[(29, 1.0)]], {"warnings": "own"}, warnings=["c"])
    crystals, _ = assembler.finish()
    scaled = "occupancies of a site add up to 1.01 and were scaled to 1"
    assert crystals.columns["warnings"].tolist() == ["", f"a b; c; {scaled}", "own; c"]


def test_no_row_with_a_warning_is_no_column() -> None:
    assembler = Assembler()
    assembler.add("test/0", "here", CUBE, [[0, 0, 0]], [[(29, 1.0)]], {"warnings": ""})
    assembler.add("test/1", "here", CUBE, [[0, 0, 0]], [[(29, 1.0)]], {"warnings": None})
    assembler.add("test/2", "here", CUBE, [[0, 0, 0]], [[(29, 2.0)]], warnings=["refused anyway"])
    assert assembler.finish()[0].columns == {}


def test_a_number_that_is_called_warnings_is_another_column() -> None:
    assembler = Assembler()
    assembler.add("test/0", "here", CUBE, [[0, 0, 0]], [[(29, 1.0)]], {"warnings": 3, "gap": 1.0})
    assembler.add("test/1", "here", CUBE, [[0, 0, 0]], [[(29, 1.0)]], {"gap": 2.0}, warnings=["odd"])
    columns = assembler.finish()[0].columns
    assert columns["warnings"].tolist() == ["", "odd"]
    assert np.array_equal(columns["reported_warnings"], [3, np.nan], equal_nan=True)


def test_a_hostile_file_makes_no_megabyte_of_warnings() -> None:
    assembler = Assembler()
    assembler.add("test/0", "here", CUBE, [[0, 0, 0]], [[(29, 1.0)]], warnings=[f"{k} {'x' * 9999}" for k in range(99)])
    own = {"warnings": "y" * 4096}
    assembler.add("test/1", "here", CUBE, [[0, 0, 0]], [[(29, 1.0)]], own, warnings=[f"odd {k}" for k in range(9999)])
    texts = assembler.finish()[0].columns["warnings"].tolist()
    assert texts[0].startswith("0 xxx")
    assert texts[0].endswith("; ...")
    assert len(texts[0]) <= 1010
    assert texts[1].startswith("yyy")
    assert "; odd 0; odd 1;" in texts[1]
    assert len(texts[1]) <= 4096


def test_a_batch_without_warnings_joins_one_with_some() -> None:
    assembler = Assembler()
    assembler.add("test/0", "here", CUBE, [[0, 0, 0]], [[(29, 1.0)]])
    plain, _ = assembler.finish()
    assembler = Assembler()
    assembler.add("test/1", "here", CUBE, [[0, 0, 0]], [[(29, 1.0)]], warnings=["odd"])
    odd, _ = assembler.finish()
    assert join([plain, odd, plain]).columns["warnings"].tolist() == ["", "odd", ""]
    assert join([plain, plain]).columns == {}


def test_merging_a_large_disordered_cell_is_quick() -> None:
    places = np.random.default_rng(0).random((200, 3))
    coords, species = np.repeat(places, 2, axis=0) * 0.999, [[(57, 0.6)], [(38, 0.4)]] * 200
    lattice = np.eye(3) * 20
    began = time.perf_counter()
    assembler = Assembler()
    for number in range(50):
        assembler.add(f"test/{number}", "here", lattice, coords, species)
    crystals, _ = assembler.finish()
    assert (crystals.nsites == 200).all()
    assert time.perf_counter() - began < 5


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
