"""Composition features: by hand on small formulas, and blind to everything but the composition."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest

from assay.featurize import composition, elements
from assay.featurize.composition import CompositionSpec
from assay.featurize.composition.blocks import BLOCKS
from assay.sources.elements import NUMBERS

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals


def amounts(**atoms: float) -> np.ndarray:
    row = np.zeros((1, 119))
    for symbol, amount in atoms.items():
        row[0, NUMBERS[symbol]] = amount
    return row


def named(row: np.ndarray, *blocks: str) -> dict[str, float]:
    spec = CompositionSpec(blocks=blocks) if blocks else CompositionSpec()
    return dict(zip(composition.names(spec), composition.features(row, spec)[0].tolist(), strict=True))


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


EVERY = CompositionSpec(blocks=tuple(BLOCKS))


def test_no_two_columns_have_one_name() -> None:
    names = composition.names(EVERY)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("block", BLOCKS)
def test_scaling_a_formula_changes_nothing(block: str) -> None:
    once = amounts(Y=1, Ba=2, Cu=3, O=6.9)
    np.testing.assert_allclose(
        composition.features(once, CompositionSpec(blocks=(block,))),
        composition.features(once / 12.9 * 100, CompositionSpec(blocks=(block,))),
        rtol=1e-5,
        atol=1e-5,  # the deviation of a property all elements share
    )


def test_a_row_does_not_depend_on_its_batch(crystals: Crystals, disordered: Crystals) -> None:
    for batch in (crystals, disordered):
        table = composition.features(batch.composition(), EVERY)
        assert table.dtype == np.float32
        assert table.shape == (len(batch), len(composition.names(EVERY)))
        alone = composition.features(batch[7:8].composition(), EVERY)
        np.testing.assert_allclose(table[7:8], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("formula", "centre", "valence"),
    [
        ({"La": 1.85, "Sr": 0.15, "Cu": 1, "O": 4}, "Cu", 8 - 1.85 * 3 - 0.15 * 2),
        ({"Y": 1, "Ba": 2, "Cu": 3, "O": 6.9}, "Cu", (2 * 6.9 - 3 - 4) / 3),
        ({"Nd": 1.85, "Ce": 0.15, "Cu": 1, "O": 4}, "Cu", 8 - 1.85 * 3 - 0.15 * 4),  # electrons, not holes
        ({"Hg": 1, "Ba": 2, "Cu": 1, "O": 4.1}, "Cu", 8.2 - 2 - 4),
        ({"Ba": 1, "Fe": 2, "As": 2}, "Fe", 2),
        ({"Ba": 0.6, "K": 0.4, "Fe": 2, "As": 2}, "Fe", (6 - 1.2 - 0.4) / 2),
        ({"Eu": 1, "Fe": 2, "As": 2}, "Fe", 2),  # Eu is +2 outside oxides
        ({"La": 1, "Fe": 1, "As": 1, "O": 1}, "Fe", 2),
        ({"Ce": 1, "Fe": 1, "As": 1, "O": 0.9, "F": 0.1}, "Fe", 3 + 1.8 + 0.1 - 3),
        ({"Li": 1, "Fe": 1, "P": 1, "O": 4}, "Fe", 8 - 1 - 5),  # P is +5 in a phosphate
        ({"Fe": 1, "Se": 1}, "Fe", 2),
        ({"Ba": 0.6, "K": 0.4, "Bi": 1, "O": 3}, "Bi", 6 - 1.2 - 0.4),
        ({"La": 1, "Ni": 1, "O": 3}, "Ni", 3),
        ({"Sr": 1, "Ti": 1, "O": 3}, "transition metals", 4),
        ({"Ca": 1, "Cu": 1, "S": 1, "O": 4}, "Cu", 0),  # a sulfate: S is +6
    ],
)
def test_valence_by_hand(formula: dict[str, float], centre: str, valence: float) -> None:
    assert named(amounts(**formula), "charges")[f"valence of {centre}"] == pytest.approx(valence, abs=1e-5)


def test_magnesium_diboride_has_no_centre() -> None:
    assert set(named(amounts(Mg=1, B=2), "charges").values()) == {0.0}


def test_a_centre_that_is_a_trace_has_a_bounded_valence() -> None:
    found = named(amounts(La=2, Cu=0.999, Fe=0.001, O=8), "charges")
    assert found["valence of Fe"] == 8


def test_an_element_without_a_usual_charge_leaves_the_valence_open() -> None:
    found = named(amounts(Xe=1, Cu=1, O=1), "charges")
    assert np.isnan(found["valence of Cu"])
    assert np.isnan(found["valence of transition metals"])
    assert found["valence of Fe"] == 0


def test_ratios_of_a_doped_cuprate_by_hand() -> None:
    found = named(amounts(La=1.85, Sr=0.15, Cu=0.9, Zn=0.1, O=4), "ratios")
    expected = {"O per Cu": 4, "Y and lanthanides per Cu": 1.85, "Sr per Cu": 0.15}
    expected["Zn Ni Fe Co Ga Al Cr Mn Ti V Mg Li Au Ag per Cu"] = 0.1
    wanted = {name: expected.get(name, 0) / 0.9 for name in found}
    assert found == pytest.approx(wanted, rel=1e-6)


def test_ratios_of_a_doped_pnictide_by_hand() -> None:
    found = named(amounts(Ba=1, Fe=1.8, Co=0.2, As=2), "ratios")
    assert found["P As Sb per Fe"] == pytest.approx(2 / 1.8)
    assert found["Co Ni Rh Pd Ir Pt Ru Cu Mn Cr Zn per Fe"] == pytest.approx(0.2 / 1.8)
    assert found["Ca Sr Ba per Fe"] == pytest.approx(1 / 1.8)
    assert found["O per Cu"] == 0


def test_amounts_per_transition_metal_by_hand() -> None:
    found = named(amounts(Y=1, Ba=2, Cu=3, O=6.9), "amounts")
    expected = {"Y": 1 / 3, "Ba": 2 / 3, "Cu": 1, "O": 2.3}
    assert found == pytest.approx({name: expected.get(name.split()[0], 0) for name in found})
    assert set(named(amounts(Mg=1, B=2), "amounts").values()) == {0.0}
    assert named(amounts(Fe=1, O=99), "amounts")["O per transition metal"] == 12


def test_random_combinations_are_fixed_differences_of_shares() -> None:
    """Magnesium, boron and a checksum that any program gives: CRC-32 of column and symbol, modulo 9."""
    found = named(amounts(Mg=1, B=2), "projections")
    assert len(found) == 120
    drawn = [[zlib.crc32(f"{column} {symbol}".encode()) % 9 for symbol in ("Mg", "B")] for column in range(120)]
    signs = np.where(np.array(drawn) == 0, 1, np.where(np.array(drawn) == 1, -1, 0))
    np.testing.assert_allclose(list(found.values()), signs @ [1 / 3, 2 / 3], atol=1e-7)
    assert zlib.crc32(b"0 Cu") == 0x1219F828


def test_shares_of_families_by_hand() -> None:
    found = named(amounts(Y=1, Ba=2, Cu=3, O=6.9), "families")
    expected = {"rare earths": 1, "alkaline earth metals": 2, "3d metals": 3, "chalcogens": 6.9}
    assert found == pytest.approx({name: expected.get(name[9:], 0) / 12.9 for name in found})


def test_compiled_statistics_are_those_of_the_baselines(crystals: Crystals, disordered: Crystals) -> None:
    count = len(elements.property_names())
    for batch in (crystals, disordered):
        table = batch.composition()
        measured = ~table[:, [NUMBERS[symbol] for symbol in ("He", "Ne", "Ar", "Kr", "Xe", "Cm")]].any(axis=1)
        expected = composition.features(table[measured], CompositionSpec(blocks=("statistics",)))
        found = composition.features(table[measured], CompositionSpec(blocks=("properties",)))
        by_property = found[:, 6 : 6 + 6 * count].reshape(-1, count, 6).transpose(0, 2, 1).reshape(-1, 6 * count)
        found = np.hstack([found[:, :6], by_property, found[:, 6 + 6 * count :]])
        ties = np.sort(table[measured])[:, -1] == np.sort(table[measured])[:, -2]
        mode = slice(6 + 5 * count, 6 + 6 * count)
        np.testing.assert_allclose(np.delete(found, mode, 1), np.delete(expected, mode, 1), rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(found[~ties, mode], expected[~ties, mode], rtol=1e-5)


def test_an_unmeasured_property_stays_open() -> None:
    found = named(amounts(Ne=1, F=1), "properties")
    for statistic in ("mean", "deviation", "minimum", "maximum", "range"):
        assert np.isnan(found[f"{statistic} of electronegativity"])
        assert np.isfinite(found[f"{statistic} of mass"])
    assert np.isnan(found["ionic character of the mean bond"])
    assert np.isnan(named(amounts(Ne=1), "properties")["ionic character of the mean bond"])
    assert found["mode of electronegativity"] == pytest.approx(3.98)  # of the lightest of equals, F
