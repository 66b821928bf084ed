"""Colour encodings: what is shown, in which range, and for which elements a value is borrowed."""

from __future__ import annotations

import numpy as np
import pytest

from assay.featurize.pictures.colours import ENCODINGS, encoding, estimated
from assay.sources.elements import NUMBERS

EVERY = pytest.mark.parametrize("name", ENCODINGS)


@EVERY
def test_all_elements_up_to_103_have_a_colour(name: str) -> None:
    table = encoding(name).table()
    assert table.shape == (104, len(encoding(name).channels))
    assert np.isfinite(table).all()
    assert table.min() >= 0
    assert table.max() <= 1
    assert (np.ptp(table[1:], axis=0) > 0.5).all()  # every channel tells elements apart


@pytest.mark.parametrize(
    ("symbol", "d_electrons", "valence", "mass"),
    [("H", 0, 1, 1.00794), ("He", 0, 2, 4.0026), ("O", 0, 6, 15.9994), ("Fe", 6, 8, 55.845), ("Cu", 10, 11, 63.546),
     ("Nb", 4, 5, 92.90638), ("Pb", 10, 4, 207.2), ("Ce", 1, 3, 140.116), ("U", 1, 3, 238.02891)],
)  # fmt: skip
def test_physics(symbol: str, d_electrons: int, valence: int, mass: float) -> None:
    expected = d_electrons / 10, valence / 12, max(0.0, 1 - mass / 238)
    np.testing.assert_allclose(encoding("physics").table()[NUMBERS[symbol]], expected, atol=1e-4)


def test_the_control_has_the_colours_of_jmol() -> None:
    theirs = pytest.importorskip("ase.data.colors").jmol_colors[1:104]
    np.testing.assert_allclose(encoding("elements").table()[1:], theirs, atol=0.51 / 255)


def test_borrowed_values_are_named() -> None:
    assert estimated("elements") == estimated("physics") == {}
    found = estimated("electronic")
    assert found["electronegativity"] == (2, 10, 18)
    assert {2, 10, 36, 54, 103} < set(found["atomic_radius"])
    assert set(found) == {"electronegativity", "atomic_radius"}


def test_the_deep_encoding_shows_more_than_eight_properties_and_two_maps() -> None:
    deep = encoding("deep")
    assert len(deep.channels) > 8
    assert deep.names[-2:] == ("depth", "bond")
    assert encoding("physics").names == encoding("physics").channels


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no encoding 'fysics'; known: physics, elements"):
        encoding("fysics")
