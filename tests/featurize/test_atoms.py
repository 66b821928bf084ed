"""Node features: occupancy-weighted, vacancies visible, order of species irrelevant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from assay.featurize import atoms, elements
from assay.featurize.graphs import GraphSpec, build
from assay.sources.elements import NUMBERS

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals

NAMES = pytest.mark.parametrize("name", sorted(atoms.TABLES))
LA, SR, OX = NUMBERS["La"], NUMBERS["Sr"], NUMBERS["O"]


def features(name: str, pointer: list[int], numbers: list[int], occupancy: list[float]) -> np.ndarray:
    return atoms.features(name, np.array(pointer), np.array(numbers, np.uint8), np.array(occupancy, np.float32))


@NAMES
def test_an_ordered_site_shows_its_element(name: str) -> None:
    rows = features(name, [0, 1, 2], [LA, OX], [1, 1])
    np.testing.assert_array_equal(rows[:, :-1], atoms.TABLES[name]()[[LA, OX]])
    assert rows[:, -1].tolist() == [1, 1]
    assert rows.dtype == np.float32
    assert rows.shape == (2, atoms.width(name))


@NAMES
def test_a_mixed_site_is_the_weighted_mean(name: str) -> None:
    table = atoms.TABLES[name]()
    rows = features(name, [0, 2, 3], [LA, SR, OX], [0.925, 0.075, 1])
    np.testing.assert_allclose(rows[0, :-1], 0.925 * table[LA] + 0.075 * table[SR], rtol=1e-5, atol=1e-6)
    assert rows[0, -1] == pytest.approx(1)


@NAMES
def test_a_vacancy_shows_only_in_the_total_occupancy(name: str) -> None:
    mixed = features(name, [0, 2, 3], [LA, SR, OX], [0.5, 0.5, 1])
    thin = features(name, [0, 2, 3], [LA, SR, OX], [0.25, 0.25, 0.5])
    np.testing.assert_allclose(thin[:, :-1], mixed[:, :-1], atol=1e-6)
    assert thin[:, -1].tolist() == [0.5, 0.5]


@NAMES
def test_one_vacancy_among_single_species(name: str) -> None:
    rows = features(name, [0, 1, 2], [LA, OX], [1, 0.8])
    np.testing.assert_array_equal(rows[:, :-1], atoms.TABLES[name]()[[LA, OX]])
    np.testing.assert_allclose(rows[:, -1], [1, 0.8], rtol=1e-6)


@NAMES
def test_the_order_of_species_does_not_matter(name: str) -> None:
    rows = features(name, [0, 2, 4], [LA, SR, SR, LA], [0.925, 0.075, 0.075, 0.925])
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-6)


@NAMES
def test_real_disordered_crystals_have_finite_features(disordered: Crystals, name: str) -> None:
    rows = build(disordered, GraphSpec(atom_features=name)).features()
    assert np.isfinite(rows).all()
    np.testing.assert_allclose(rows[:, -1], disordered.site_occupancy, atol=1e-5)


def test_an_element_without_properties_is_refused() -> None:
    with pytest.raises(ValueError, match="atomic number 104"):
        features("properties-v1", [0, 1], [elements.HEAVIEST + 1], [1])
