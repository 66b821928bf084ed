"""Rows without a structure: what is held out stays held out, and zeros that contradict their neighbours go."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assay.models.evaluation.split import Split, SplitSpec
from assay.models.target import Property
from assay.models.training import formulas
from assay.models.training.formulas import Known
from assay.models.training.recipe import Contradictions, Formulas, MemberSpec, Recipe, Task
from assay.sources import datasets
from assay.sources.elements import NUMBERS

TC = Property("tc", "K", minimum=0.0)


def atoms(*rows: dict[str, float]) -> np.ndarray:
    out = np.zeros((len(rows), 119))
    for row, amounts in zip(out, rows):
        for symbol, amount in amounts.items():
            row[NUMBERS[symbol]] = amount
    return out


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A table of formulas, two of which say nothing."""
    path = tmp_path / "formulas.parquet"
    columns = {
        "formula": ["MgB2", "Mg2B4", "MgB6", "Nb3Sn", "Nb3Sn0.9Ge0.1", "NbSn2", "V3Si", "YBa2Cu3O6.9", "MgBx", None],
        "tc": [39.0, 39.0, 0.0, 18.0, 17.5, 2.0, 17.0, 92.0, 1.0, 1.0],
        "family": ["a", "a", "a", "b", "b", "b", "b", "c", "c", "c"],
    }
    pq.write_table(pa.table(columns), path)
    return path


def recipe(file: Path, **split: object) -> Recipe:
    members = MemberSpec("trees", 0), MemberSpec("trees", 1)
    return Recipe("t", (Task("3dsc-tc", TC),), members, split=SplitSpec(**split), formulas=Formulas(f"{file}#tc"))  # type: ignore[arg-type]


KNOWN = Known(
    atoms({"Mg": 1, "B": 2}, {"Nb": 3, "Ge": 1}, {"Nb": 1, "Sn": 1}, {"V": 3, "Si": 1}),
    np.array([[39.0], [22.0], [3.0], [17.0]]),
    np.ones(4),
    {
        "element-set": np.array(["B-Mg", "Ge-Nb", "Nb-Sn", "Si-V"]),
        "formula": np.array(["MgB2", "Nb3Ge", "NbSn", "V3Si"]),
        "row": np.array(["a", "b", "c", "d"]),
        "family": np.array(["a", "b", "b", "b"]),
    },
)
ROWS = [np.array([k]) for k in range(4)]
SPLIT = Split(ROWS[2], ROWS[1], (ROWS[0], ROWS[3]))  # tests NbSn, calibrates on Nb3Ge, member 0 stops on MgB2


def learned(plan: Recipe, split: Split = SPLIT, member: int = 0) -> list[str]:
    table = formulas.load(plan.formulas.dataset)
    found = formulas.extend(plan, KNOWN, split, member)
    assert found.atoms.shape == (4 + len(table.target), 119)
    assert np.isnan(found.target[4:]).sum() == 0
    return [str(table.keys["formula"][row - 4]) for row in found.more]


@pytest.mark.parametrize(
    ("values", "said"),
    [(["1.5", "2"], "but string"), ([True, False], "but bool"), ([[1.0], [2.0]], "but list<.*>")],
)
def test_values_of_formulas_are_numbers(values: list[Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "formulas.parquet"
    pq.write_table(pa.table({"formula": ["MgB2", "NbN"], "tc": values}), path)
    with pytest.raises(ValueError, match=f"column 'tc' of .* has not one number per row {said}; write it as float64"):
        datasets.load_formulas(f"{path}#tc")


def test_whole_and_decimal_values_of_formulas_are_read(tmp_path: Path) -> None:
    path = tmp_path / "formulas.parquet"
    for values in ([39, None], [Decimal("39.0"), None], pa.array([39.0, None], pa.float16())):
        pq.write_table(pa.table({"formula": ["MgB2", "NbN"], "tc": values}), path)
        found = datasets.load_formulas(f"{path}#tc")
        assert found.target.tolist() == [39.0]
        assert found.dropped == {"no value": 1}


def test_formulas_are_read_and_what_is_none_is_dropped(file: Path) -> None:
    found = datasets.load_formulas(f"{file}#tc")
    assert found.dropped == {"no formula": 2}
    assert found.keys["element-set"].tolist()[:2] == ["B-Mg", "B-Mg"]
    assert found.keys["element-set"].tolist()[-1] == "Ba-Cu-O-Y"
    np.testing.assert_allclose(found.atoms[-1, [NUMBERS[s] for s in ("Y", "Ba", "Cu", "O")]], [1, 2, 3, 6.9])


def test_no_formula_shares_an_element_set_with_what_is_held_out(file: Path) -> None:
    """Nb-Sn is tested, B-Mg is where member 0 stops, and V3Si is a crystal already."""
    names = datasets.load_formulas(f"{file}#tc").keys["formula"]
    assert set(learned(recipe(file))) == {str(names[k]) for k in (4, 7)}


def test_another_member_stops_elsewhere(file: Path) -> None:
    """Member 1 stops on V3Si: it may learn from MgB6, and MgB2 is a crystal already."""
    names = datasets.load_formulas(f"{file}#tc").keys["formula"]
    assert set(learned(recipe(file), member=1)) == {str(names[k]) for k in (2, 4, 7)}


@pytest.mark.parametrize("by", ["formula", "row"])
def test_by_formula_only_the_formula_is_held_out(file: Path, by: str) -> None:
    names = datasets.load_formulas(f"{file}#tc").keys["formula"]
    assert set(learned(recipe(file, by=by))) == {str(names[k]) for k in (2, 3, 4, 5, 7)}


def test_a_family_that_is_held_out_is_held_out_of_the_formulas(file: Path) -> None:
    names = datasets.load_formulas(f"{file}#tc").keys["formula"]
    split = Split(np.array([1, 2, 3]), np.empty(0, np.int64), (ROWS[0], ROWS[0][:0]))
    assert set(learned(recipe(file, family="b"), split, 1)) == {str(names[k]) for k in (2, 7)}


def test_a_learning_curve_draws_formulas_by_the_seed_of_a_member(file: Path) -> None:
    plan = recipe(file, by="formula")
    every = learned(plan)
    few = replace(plan, formulas=replace(plan.formulas, learn_from=2))
    drawn = {seed: learned(replace(few, members=(MemberSpec("trees", seed),) * 2)) for seed in range(20)}
    assert all(len(names) == 2 and set(names) < set(every) for names in drawn.values())
    assert {name for names in drawn.values() for name in names} == set(every)
    assert learned(replace(few, formulas=replace(plan.formulas, learn_from=99))) == every
    with pytest.raises(ValueError, match="formulas.learn_from is 0, expected above 0"):
        replace(plan.formulas, learn_from=0)


def test_a_table_without_families_cannot_hold_one_out(file: Path) -> None:
    pq.write_table(pq.read_table(file).drop_columns(["family"]), file.with_name("bare.parquet"))
    with pytest.raises(ValueError, match="does not say the family of a formula"):
        formulas.extend(recipe(file.with_name("bare.parquet"), family="b"), KNOWN, SPLIT, 0)


def test_a_recipe_says_for_which_property_formulas_are(file: Path) -> None:
    plan = recipe(file)
    gap = Task("mp-band-gap", Property("band_gap", "eV"))
    with pytest.raises(
        ValueError, match="property '' of formulas, measured or contradictions is not one of tc, band_gap"
    ):
        replace(plan, tasks=(*plan.tasks, gap))
    both = replace(plan, tasks=(*plan.tasks, gap), formulas=replace(plan.formulas, property="band_gap"))
    assert both.task_of("band_gap") == 1
    with pytest.raises(ValueError, match="formulas are for members that read the composition alone"):
        replace(plan, members=(MemberSpec("cgcnn", 0), MemberSpec("cgcnn", 1)))


def test_zeros_that_contradict_their_neighbours_are_left_out() -> None:
    lanthanum = [{"La": 2 - x, "Sr": x, "Cu": 1, "O": 4} for x in (0.15, 0.16, 0.17, 0.30, 0.151)]
    held = atoms(*lanthanum, {"Na": 1, "Cl": 1}, {"La": 4 - 0.32, "Sr": 0.32, "Cu": 2, "O": 8})
    target = np.array([38.0, 0.0, 36.0, 0.0, np.nan, 0.0, 0.0])
    rows = np.arange(7)
    kept = formulas.sound(Contradictions(), held, target, rows)
    assert kept.tolist() == [0, 2, 3, 4, 5]  # x = 0.16 in both cells; x = 0.30 is far, and NaCl has no neighbour
    assert formulas.sound(Contradictions(above=40.0), held, target, rows).tolist() == rows.tolist()
    assert formulas.sound(Contradictions(distance=0.2), held, target, rows).tolist() == [0, 2, 4, 5]
    assert 1 in formulas.sound(
        Contradictions(), held, target, np.array([1, 3, 5])
    )  # its neighbours are no training rows


@pytest.mark.usefixtures("data")
def test_the_shipped_table_has_the_formulas_of_the_crystals() -> None:
    table, crystals = datasets.load_formulas("supercon-formulas"), datasets.load("3dsc-tc", 2000)
    assert len(table.target) > 14_000
    assert np.isin(crystals.keys["formula"], table.keys["formula"]).mean() > 0.99
    places = dict(zip(table.keys["formula"].tolist(), range(len(table.target))))
    both = [(k, places[name]) for k, name in enumerate(crystals.keys["formula"].tolist()) if name in places]
    mine, theirs = (np.array(part) for part in zip(*both))
    assert (crystals.keys["element-set"][mine] == table.keys["element-set"][theirs]).all()
    assert (crystals.keys["family"][mine] == table.keys["family"][theirs]).mean() > 0.999
    np.testing.assert_allclose(crystals.target[mine], table.target[theirs], atol=5.0)
