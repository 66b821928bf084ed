"""Composition features: by hand on small formulas, and blind to everything but the composition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from assay.featurize import composition, elements
from assay.featurize.composition import CompositionSpec
from assay.sources.elements import NUMBERS

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals


def amounts(**atoms: float) -> np.ndarray:
    row = np.zeros((1, 119))
    for symbol, amount in atoms.items():
        row[0, NUMBERS[symbol]] = amount
    return row


def named(row: np.ndarray) -> dict[str, float]:
    return dict(zip(composition.names(), composition.features(row)[0].tolist(), strict=True))


def test_magnesium_diboride_by_hand() -> None:
    found = named(amounts(Mg=1, B=2))
    light, heavy = 10.811, 24.305
    mean = (heavy + 2 * light) / 3
    assert found["number of elements"] == 2
    assert found["2-norm"] == pytest.approx(np.hypot(1 / 3, 2 / 3))
    assert found["mean mass"] == pytest.approx(mean, rel=1e-3)
    assert found["deviation mass"] == pytest.approx((heavy - mean) / 3 + 2 * (mean - light) / 3, rel=1e-3)
    assert found["minimum mass"] == pytest.approx(light, rel=1e-3)
    assert found["maximum mass"] == pytest.approx(heavy, rel=1e-3)
    assert found["range mass"] == pytest.approx(heavy - light, rel=1e-3)
    assert found["mode mass"] == pytest.approx(light, rel=1e-3)


def test_a_pure_element_has_no_spread() -> None:
    found = named(amounts(Nb=4))
    assert found["number of elements"] == found["3-norm"] == 1
    assert all(v == pytest.approx(0, abs=1e-4) for k, v in found.items() if k.startswith(("deviation", "range")))


def test_only_ratios_count() -> None:
    np.testing.assert_allclose(
        composition.features(amounts(La=1.85, Sr=0.15, Cu=1, O=4)),
        composition.features(amounts(La=3.7, Sr=0.3, Cu=2, O=8)),
        rtol=1e-5,
    )


def test_real_crystals_row_by_row(crystals: Crystals, disordered: Crystals) -> None:
    for batch in (crystals, disordered):
        table = composition.features(batch.composition())
        assert table.shape == (len(batch), len(composition.names()))
        assert np.isfinite(table).all()
        alone = composition.features(batch[7:8].composition())
        np.testing.assert_allclose(table[7:8], alone, rtol=1e-5, atol=1e-5)


def test_an_element_without_properties_is_refused() -> None:
    with pytest.raises(ValueError, match=f"the table ends at {elements.HEAVIEST}"):
        composition.features(amounts(Rf=1, O=2))


def test_blocks_stand_side_by_side_in_the_order_of_the_spec() -> None:
    salt = amounts(Na=1, Cl=1)
    spec = CompositionSpec(blocks=("shares", "statistics"))
    parts = [CompositionSpec(blocks=(block,)) for block in spec.blocks]
    assert composition.names(spec) == [name for part in parts for name in composition.names(part)]
    expected = np.hstack([composition.features(salt, part) for part in parts])
    np.testing.assert_array_equal(composition.features(salt, spec), expected)


@pytest.mark.parametrize("blocks", [(), ("share",), ("shares", "shares")])
def test_blocks_that_are_none(blocks: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="expected different names out of"):
        CompositionSpec(blocks=blocks)


def test_a_row_without_atoms_is_refused() -> None:
    with pytest.raises(ValueError, match="row 1 of the compositions holds no atoms"):
        composition.features(np.vstack([amounts(Na=1), amounts()]))


def test_rock_salt_by_hand() -> None:
    found = named(amounts(Na=1, Cl=1))
    bond = 1 - np.exp(-((3.16 - 0.93) ** 2) / 4)  # Pauling
    assert found["largest ionic character"] == pytest.approx(bond, rel=1e-3)
    assert found["mean ionic character"] == pytest.approx(bond / 2, rel=1e-3)  # half of all pairs are Na-Cl
    assert found["share of valence s"] == pytest.approx(3 / 8)  # Na 3s1, Cl 3s2 3p5
    assert found["share of valence p"] == pytest.approx(5 / 8)
    assert found["share of Na"] == found["share of Cl"] == 0.5
    assert found["share of O"] == 0
