"""The batch keeps its promises under slicing, selection and joining, and refuses broken arrays."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from assay.sources import table
from assay.sources.crystals import Crystals, concat, empty, wrap
from tests.crystal_batches import batches


@settings(deadline=None, max_examples=40)
@given(batches())
def test_a_batch_equals_the_concatenation_of_its_crystals(crystals: Crystals) -> None:
    if len(crystals):
        assert concat(crystals[i : i + 1] for i in range(len(crystals))) == crystals


@settings(deadline=None, max_examples=40)
@given(batches(), st.integers(-7, 7), st.integers(-7, 7), st.sampled_from([1, 2, -1]))
def test_a_slice_is_the_selection_of_its_positions(crystals: Crystals, start: int, stop: int, step: int) -> None:
    assert crystals[start:stop:step] == crystals.select(np.arange(len(crystals))[start:stop:step])


@settings(deadline=None, max_examples=40)
@given(batches(min_size=1), st.data())
def test_a_selection_keeps_every_crystal_whole(crystals: Crystals, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(crystals) - 1), max_size=6))
    chosen = crystals.select(rows)
    assert len(chosen) == len(rows)
    for place, row in enumerate(rows):
        assert chosen[place : place + 1] == crystals[row : row + 1]
    assert np.array_equal(chosen.composition(), crystals.composition()[rows])


@settings(deadline=None, max_examples=40)
@given(batches(), st.data())
def test_a_mask_selects_like_its_positions(crystals: Crystals, data: st.DataObject) -> None:
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(crystals), max_size=len(crystals))), dtype=bool)
    assert crystals.select(mask) == crystals.select(np.flatnonzero(mask))


@settings(deadline=None, max_examples=40)
@given(batches(), batches())
def test_concat_then_slice_gives_back_the_parts(first: Crystals, second: Crystals) -> None:
    both = concat([first, second])
    assert both[: len(first)] == first
    assert both[len(first) :] == second


@settings(deadline=None, max_examples=40)
@given(batches(min_size=1))
def test_equality_sees_every_array_and_column(crystals: Crystals) -> None:
    names = [field.name for field in dataclasses.fields(Crystals) if field.name not in ("ids", "columns")]
    for name in ("lattice", "frac", "occupancy"):
        changed = {field: getattr(crystals, field).copy() for field in names}
        changed[name].flat[0] *= 0.5
        assert Crystals(ids=crystals.ids, **changed, columns=crystals.columns) != crystals
    assert crystals.with_columns(count=crystals.columns["count"] + 1) != crystals
    assert crystals.with_columns(fresh=np.zeros(len(crystals))) != crystals
    assert crystals != "crystals"


@settings(deadline=None, max_examples=40)
@given(batches(min_size=1))
def test_composition_counts_every_occupancy(crystals: Crystals) -> None:
    rows = [crystals[i : i + 1] for i in range(len(crystals))]
    totals = [row.occupancy.astype(float).sum() for row in rows]
    assert np.allclose(crystals.composition().sum(axis=1), totals, atol=1e-4)


def test_no_crystals_is_a_batch_too() -> None:
    assert len(empty()) == 0
    assert empty() == empty()[:0]
    assert empty().composition().shape == (0, 119)
    with pytest.raises(ValueError, match="nothing to concatenate"):
        concat([])


def _caesium_chloride(**changes: Any) -> Crystals:
    arrays: dict[str, Any] = {
        "ids": np.array(["test/CsCl"]),
        "lattice": np.eye(3)[None] * 4.12,
        "site_ptr": np.array([0, 2]),
        "frac": np.array([[0, 0, 0], [0.5, 0.5, 0.5]]),
        "species_ptr": np.array([0, 1, 2]),
        "numbers": np.array([55, 17]),
        "occupancy": np.ones(2),
    }
    return Crystals(**{**arrays, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lattice": np.full((1, 3, 3), np.nan)}, "lattice must be finite"),
        ({"lattice": np.ones((1, 3, 3))}, "volume"),
        ({"lattice": np.eye(3)}, "shape"),
        ({"frac": np.array([[0, 0, 0], [0.5, 0.5, 1.0]])}, r"in \[0, 1\); crystal .*CsCl.* has \[0.5, 0.5, 1.0\]"),
        ({"frac": np.array([[0, 0, 0], [0.5, 0.5, np.nan]])}, "frac must be finite"),
        ({"numbers": np.array([55, 0])}, "numbers must be in 1..118"),
        ({"numbers": np.array([55, 119])}, "numbers must be in 1..118"),
        ({"occupancy": np.array([1.0, 0.0])}, "occupancy must be in"),
        ({"occupancy": np.array([1.0, np.nan])}, "occupancy must be in"),
        ({"site_ptr": np.array([0, 1])}, "site_ptr"),
        ({"site_ptr": np.array([0, 0, 2])}, "site_ptr"),
        ({"species_ptr": np.array([0, 2, 2])}, "species_ptr must grow"),
        ({"columns": {"tc": np.zeros(2)}}, "column 'tc'"),
        ({"ids": np.array(["a", "b"])}, "lattice holds 1 cells for 2 ids"),
    ],
)
def test_broken_arrays_are_refused_with_the_value(changes: dict[str, Any], message: str) -> None:
    assert len(_caesium_chloride()) == 1
    with pytest.raises(ValueError, match=message):
        _caesium_chloride(**changes)


def test_two_species_may_not_fill_more_than_the_site() -> None:
    with pytest.raises(ValueError, match="at most 1 on a site"):
        _caesium_chloride(species_ptr=np.array([0, 1, 3]), numbers=np.array([55, 17, 35]), occupancy=np.full(3, 0.6))


def test_wrap_never_returns_one() -> None:
    assert wrap(np.array([-1e-18, 1.0, -0.25, 2.5])).tolist() == [0.0, 0.0, 0.75, 0.5]


def two(**changes: Any) -> Crystals:
    return concat([_caesium_chloride()] * 2).with_columns(**changes)


def test_whole_numbers_as_ids_become_texts() -> None:
    arrays = {field.name: getattr(two(), field.name) for field in dataclasses.fields(Crystals)}
    for ids in ([1, 2], np.array([1, 2]), (np.int64(1), "2")):
        assert Crystals(**{**arrays, "ids": ids}).ids.tolist() == ["1", "2"]
    for ids in (["a", None], ["a", 1.5], ["a", True], ["a", float("nan")]):
        with pytest.raises(ValueError, match="ids must be texts; that of crystal 1 is "):
            Crystals(**{**arrays, "ids": ids})


def test_a_text_that_is_missing_is_empty() -> None:
    for texts, expected in (([None, "a"], ["", "a"]), (["a", None], ["a", ""])):
        batch = two(warnings=texts, note=texts)
        assert batch.columns["warnings"].tolist() == batch.columns["note"].tolist() == expected
        assert table.to_table(batch)["warnings"].to_pylist() == expected
    assert two(flag=[None, True]).columns["flag"].tolist() == [None, True]
    with pytest.raises(ValueError, match="column 'note' holds texts and 7; give texts alone"):
        two(note=np.array(["a", 7], dtype=object))
