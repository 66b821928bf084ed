"""The element table: complete, finite, and right where anybody can check it."""

from __future__ import annotations

import csv
from importlib import resources

import numpy as np
import pytest

from assay.featurize import elements
from assay.sources.elements import NUMBERS, SYMBOLS


def value(symbol: str, name: str) -> float:
    return float(elements.properties()[NUMBERS[symbol], elements.property_names().index(name)])


@pytest.mark.parametrize(
    ("symbol", "name", "expected"),
    [
        ("H", "mass", 1.008),
        ("O", "electronegativity", 3.44),
        ("Cu", "mass", 63.546),
        ("Cu", "d_electrons", 10),
        ("Cu", "s_electrons", 1),
        ("Fe", "melting_point", 1811),
        ("Nb", "group", 5),
        ("Gd", "f_electrons", 7),
        ("Si", "valence_electrons", 4),
        ("Si", "p_holes", 4),
        ("F", "p_holes", 1),
        ("Ar", "p_holes", 0),
    ],
)
def test_known_values(symbol: str, name: str, expected: float) -> None:
    assert value(symbol, name) == pytest.approx(expected, rel=1e-3)


def test_the_table_is_complete_and_finite() -> None:
    table = elements.properties()
    assert table.shape == (elements.HEAVIEST + 1, len(elements.property_names()))
    assert np.isnan(table[0]).all()
    assert np.isfinite(table[1:]).all()


def test_rows_are_in_the_order_of_atomic_numbers() -> None:
    with resources.files("assay.featurize").joinpath("elements.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["symbol"] for row in rows] == list(SYMBOLS[1 : elements.HEAVIEST + 1])
    assert [int(row["number"]) for row in rows] == list(range(1, elements.HEAVIEST + 1))


def test_standardised_columns() -> None:
    table = elements.standardised()
    assert table.dtype == np.float32
    assert not table[0].any()
    np.testing.assert_allclose(table[1:].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(table[1:].std(axis=0), 1, atol=1e-5)


def test_a_missing_value_comes_from_the_nearest_element() -> None:
    assert value("Kr", "atomic_radius") in (value("Br", "atomic_radius"), value("Rb", "atomic_radius"))


def test_property_names_are_distinct() -> None:
    assert len(set(elements.property_names())) == len(elements.property_names())


def test_every_column_names_its_source() -> None:
    with resources.files("assay.featurize").joinpath("elements.csv").open() as file:
        header = next(csv.reader(file))
    assert list(elements.sources()) == header
    assert all(elements.sources().values())


def test_a_gap_of_the_table_stays_a_gap() -> None:
    electronegativity = elements.column("electronegativity")
    assert np.isnan(electronegativity[[0, NUMBERS["Ne"]]]).all()
    assert electronegativity[NUMBERS["F"]] == 3.98
    assert elements.column("anion_charge")[NUMBERS["O"]] == -2
