"""Formulas: chemists' order, and one text for every cell of a composition."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from numpy.typing import NDArray

from assay.models.evaluation import split
from assay.models.evaluation.split import SplitSpec
from assay.sources import datasets, elements, prototypes, table
from assay.sources.crystals import Crystals, concat
from assay.sources.elements import FORMULA_ORDER, NUMBERS, SYMBOLS, reduced_formulas


def amounts(text: str) -> NDArray[np.float64]:
    found = np.zeros(119)
    for symbol, count in re.findall(r"([A-Z][a-z]?)([0-9.]*)", text):
        found[NUMBERS[symbol]] += float(count or 1)
    return found


def formula(text: str, cells: float = 1.0) -> str:
    return str(reduced_formulas(cells * amounts(text)[None])[0])


@pytest.mark.parametrize(
    "text", ["MgB2", "VN", "PbTe", "PdTe2", "NH3", "LaH10", "H3S", "Nb3Sn", "LaFeAsO", "CeCoIn5", "LiCoO2", "SrTiO3"]
)
def test_formulas_are_in_chemists_order(text: str) -> None:
    assert formula(text) == text


def test_the_order_is_that_of_iupac() -> None:
    from pymatgen.core import Element

    assert sorted(FORMULA_ORDER) == list(range(1, 119))
    ours = [SYMBOLS[number] for number in FORMULA_ORDER if number <= 103]
    assert ours == sorted(ours, key=lambda symbol: Element(symbol).iupac_ordering)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Li0.5CoO2", "LiCo2O4"),
        ("Li1.5Co3O6", "LiCo2O4"),
        ("YBa2Cu3O6.5", "Ba4Y2Cu6O13"),
        ("Fe0.9999I3", "FeI3"),
        ("Fe0.3333Co0.6667Se", "FeCo2Se3"),
        ("Fe0.333Co0.667Se", "FeCo2Se3"),
        ("La37Sr3Cu20O80", "Sr0.15La1.85CuO4"),
        ("La1.863Sr0.137CuO4", "Sr0.137La1.863CuO4"),
        ("Ba0.6K0.4Fe2As2", "K0.4Ba0.6Fe2As2"),
        ("YBa2Cu3O6.93", "Ba2YCu3O6.93"),
        ("Y0.8Ca0.2Ba2Cu3O6.9", "Ba2Ca0.2Y0.8Cu3O6.9"),
        ("NbC0.98", "NbC0.98"),
        ("UO2.13", "UO2.13"),
        ("Ag0.438Hg0.562", "Ag0.438Hg0.562"),
        # Compounds that look like dopings and are none.
        ("La2NiMnO6", "La2MnNiO6"),
        ("Lu2Fe3Si5", "Lu2Fe3Si5"),
        ("Mg17Al12", "Mg17Al12"),
        ("Cr23C6", "Cr23C6"),
        ("KAl(SO4)2H24O12".replace("(SO4)2", "S2O8"), "KAlH24S2O20"),
        ("C22H16N2S18Cu", "CuC22N2H16S18"),
        ("C10H10N4O6", "C5N2H5O3"),
    ],
)
def test_amounts_are_whole_where_they_can_be_and_shares_where_they_tell_more(text: str, expected: str) -> None:
    assert formula(text) == expected


@given(
    st.dictionaries(
        st.sampled_from(["La", "Sr", "Cu", "O", "Fe", "As", "B", "C", "H"]),
        st.one_of(st.integers(1, 12).map(float), st.integers(1, 199).map(lambda n: n / 100)),
        min_size=1,
        max_size=5,
    ),
    st.integers(2, 24),
)
def test_every_cell_of_a_composition_has_one_formula(content: dict[str, float], cells: int) -> None:
    one = "".join(f"{symbol}{amount}" for symbol, amount in content.items())
    assert formula(one, cells) == formula(one) == formula(one, 1 / cells)


def cell(name: str, sites: list[tuple[str, float]]) -> Crystals:
    n = len(sites)
    return Crystals(
        ids=np.array([name]),
        lattice=3.0 * n ** (1 / 3) * np.eye(3)[None],
        site_ptr=np.array([0, n]),
        frac=np.linspace(0, 0.9, n)[:, None] * np.ones(3),
        species_ptr=np.arange(n + 1),
        numbers=np.array([NUMBERS[symbol] for symbol, _ in sites], np.uint8),
        occupancy=np.array([share for _, share in sites], np.float32),
    )


def test_a_split_by_formula_keeps_all_cells_of_a_composition_on_one_side(tmp_path: Path) -> None:
    metals = ["Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Y", "Zr", "Nb", "Mo"]
    found = []
    for metal in metals:
        primitive = [("Li", 0.5), (metal, 1.0), ("O", 1.0), ("O", 1.0)]
        doubled = [("Li", 1.0), *2 * [(metal, 1.0)], *4 * [("O", 1.0)]]
        found += [cell(f"own/{metal}-primitive", primitive), cell(f"own/{metal}-doubled", doubled)]
    crystals = concat(found)
    assert formula("LiCo2O4") in crystals.formulas()[12:14]
    path = tmp_path / "own.parquet"
    table.write(table.to_table(crystals.with_columns(e=np.arange(len(crystals), dtype=float))), path)
    # By the crystals themselves, and by texts of which each spells its own cell.
    for keys in (datasets.load(f"{path}#e").keys, {"formula": crystals.formulas()}):
        for seed in range(5):
            divided = split.divide(keys, SplitSpec(by="formula", folds=3, seed=seed, test=0.2, calibration=0.2))
            for part in divided.parts():
                names = [str(crystals.ids[row]).split("-")[0] for row in part]
                assert sorted(names) == sorted(2 * sorted(set(names)))


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (("B1000000Mg0.02", "B500000Mg0.01", "B50000Mg0.001"), "Mg0.00000002B"),
        (("MgB1000000", "Mg0.5B500000", "Mg0.001B1000"), "Mg0.000001B"),
        (("Mg3B1000000", "Mg0.3B100000", "Mg0.03B10000"), "Mg0.00003B10"),
        (("Fe333Co667", "Fe0.333Co0.667", "Fe33.3Co66.7"), "FeCo2"),
    ],
)
def test_one_composition_has_one_formula_whatever_its_amounts(texts: tuple[str, ...], expected: str) -> None:
    assert {formula(text) for text in texts} == {expected}
    assert formula(expected) == expected


def test_a_large_molecule_keeps_its_atoms() -> None:
    assert formula("C769H1212N210O218S2") == "C769N210H1212S2O218"


def test_amounts_of_other_elements_are_reduced_once() -> None:
    """Decorated prototypes have few amounts; each costs a search over some thousand scales."""
    crystals = prototypes.generate(2000)
    elements._shown.cache_clear()
    made = crystals.formulas()
    searched = elements._shown.cache_info()
    assert searched.misses < searched.hits / 2, searched
    elements._shown.cache_clear()
    assert [str(crystals[row : row + 1].formulas()[0]) for row in (0, 700, 1999)] == made[[0, 700, 1999]].tolist()
