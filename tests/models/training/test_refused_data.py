"""What a recipe and its data may not say together: found before anything is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from assay.models.evaluation.split import SplitSpec
from assay.models.target import Property
from assay.models.training import formulas, prepare
from assay.models.training.recipe import CrossValidation, Formulas, MemberSpec, Recipe, Start, Task
from assay.sources import datasets
from assay.sources.crystals import Crystals

ROWS = 40
TREES = MemberSpec("trees", 0, {"trees": 2}), MemberSpec("trees", 1, {"trees": 2})


def saved(path: Path, crystals: Crystals, *, unit: str = "") -> str:
    """Formation energies as a file that says this unit, or none."""
    return datasets.save(path, crystals, "e_form", crystals.columns["e_form"], **({"unit": unit} if unit else {}))


def recipe(*tasks: tuple[str, str, str], by: str = "formula", more: Formulas | None = None) -> Recipe:
    made = tuple(Task(dataset, Property(name, unit)) for dataset, name, unit in tasks)
    split = SplitSpec(by=by, calibration=0.2, folds=2)  # type: ignore[arg-type]
    return Recipe(name="own", tasks=made, members=TREES, split=split, formulas=more)


def test_values_in_another_unit_are_refused(crystals: Crystals, tmp_path: Path) -> None:
    some = crystals[:ROWS]
    other = saved(tmp_path / "meV.parquet", some, unit="meV/atom")
    with pytest.raises(ValueError, match=r"holds values in 'meV/atom', property.unit of energy is 'eV/atom'"):
        prepare.prepare(recipe((other, "energy", "eV/atom")))
    unsaid = saved(tmp_path / "unsaid.parquet", some)
    prepared = prepare.prepare(recipe((unsaid, "energy", "eV/atom")))
    assert prepared.datasets[0].spec.unit == "eV/atom", "the card says what the recipe says"
    plan = recipe((unsaid, "tc", "eV"), more=Formulas("supercon"))
    known = formulas.Known(some.composition(), prepared.target, prepared.weight, prepared.keys)
    table = datasets.FormulaSet("supercon", datasets.FORMULAS["supercon-formulas"], *[np.empty(0)] * 3, {}, "", {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formulas, "load", lambda _: table)
        with pytest.raises(ValueError, match="supercon holds values in 'K', property.unit of tc is 'eV'"):
            formulas.extend(plan, known, prepared.split, 0)


@pytest.mark.parametrize(
    ("learned", "told"),
    [
        (Property("e", "eV", minimum=0.0), r"1 values of e in .* below its minimum of 0 .*the first is -999;"),
        (Property("e", "eV", "log1p"), r"too low for its \(transform: log1p\): the first is -999;"),
    ],
)
def test_values_that_no_network_can_learn_are_refused(
    crystals: Crystals, tmp_path: Path, learned: Property, told: str
) -> None:
    values = np.where(np.arange(ROWS) == 7, -999.0, 1.0)
    dataset = datasets.save(tmp_path / "own.parquet", crystals[:ROWS], "e", values)
    with pytest.raises(ValueError, match=told):
        prepare.prepare(replace(recipe((dataset, "e", "eV")), tasks=(Task(dataset, learned),)))
    prepare.prepare(recipe((dataset, "e", "eV")))


def test_one_id_for_two_crystals_is_refused(crystals: Crystals, tmp_path: Path) -> None:
    numbered = np.array([str(k) for k in range(ROWS)])
    first, second = (replace(crystals[start : start + ROWS], ids=numbered) for start in (0, ROWS))
    files = saved(tmp_path / "a.parquet", first), saved(tmp_path / "b.parquet", second)
    with pytest.raises(ValueError, match=r"id '\d+' \(and \d+ more ids\) lies in two parts of the split: .* and of "):
        prepare.prepare(recipe((files[0], "a", "eV/atom"), (files[1], "b", "eV/atom")))
    prepare.prepare(recipe((files[0], "a", "eV/atom"), (files[0], "b", "eV/atom")))


@pytest.mark.parametrize("name", ["", " ", "gap.pbe", "../x"])
def test_a_property_has_a_name_without_a_dot(name: str) -> None:
    with pytest.raises(ValueError, match="expected a text without a dot"):
        Property(name, "eV")


def test_two_members_that_would_be_one_are_refused() -> None:
    task = (Task("own.parquet#e", Property("e", "eV")),)
    twins = MemberSpec("trees", 0), MemberSpec("trees", 0)
    Recipe("folds", task, twins)  # each leaves out a fold of its own
    with pytest.raises(ValueError, match=r"members: number 1 is an earlier one again \(trees, seed 0\)"):
        Recipe("all rows", task, twins, cross_validation=CrossValidation())
    with pytest.raises(ValueError, match="number 2 is an earlier one again"):
        Recipe("two folds", task, (*twins, MemberSpec("trees", 0)), split=SplitSpec(folds=2))
    started = MemberSpec("cgcnn", 0, start=Start("band-gap"))
    Recipe("starts", task, (started, started), split=SplitSpec(folds=2), cross_validation=CrossValidation())
