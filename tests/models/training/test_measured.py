"""Rows that were measured later: every member learns them, and nothing of their groups judges."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from assay.models.evaluation.split import Split, SplitSpec
from assay.models.target import Property
from assay.models.training import fit, prepare
from assay.models.training.recipe import Contradictions, CrossValidation, Measured, MemberSpec, Recipe, Task
from assay.sources import datasets

ROWS = 300


@pytest.fixture
def plan(data: Path, tmp_path: Path) -> Recipe:
    """Two forests; the measured rows are five of the training set itself, under other ids and with other values."""
    whole = datasets.load("3dsc-tc", ROWS)
    rows = np.arange(0, 50, 10)
    some = replace(whole.crystals.select(rows), ids=np.array([f"line/{row}" for row in rows]), columns={})
    place = datasets.save(tmp_path / "later.parquet", some, "measured", whole.target[rows] + 1.0, unit="K")
    members = tuple(MemberSpec("trees", seed, {"trees": 4}) for seed in range(2))
    task = Task("3dsc-tc", Property("tc", "K", minimum=0.0))
    return Recipe("later", (task,), members, measured=Measured(place), limit=ROWS, split=SplitSpec(folds=2))


@pytest.mark.parametrize("by", ["element-set", "formula", "row"])
def test_groups_of_measured_rows_only_teach(plan: Recipe, by: str) -> None:
    plan = replace(plan, split=replace(plan.split, by=by))
    found, before = prepare.prepare(plan), prepare.prepare(replace(plan, measured=None))
    groups = found.keys["formula" if by == "row" else by]
    alike = np.isin(groups, groups[ROWS:])
    assert found.split.always.tolist() == np.flatnonzero(alike).tolist()
    for part, was in zip(found.split.parts(), before.split.parts(), strict=True):
        assert part.tolist() == [row for row in was.tolist() if not alike[row]]
    np.testing.assert_array_equal(found.target[ROWS:, 0], before.target[0:50:10, 0] + 1.0)
    for member in range(2):
        material = prepare.for_member(plan, member)[1]
        assert {*found.split.always.tolist()} <= {*material.train.tolist()}
        assert not {*material.validation.tolist()} & {*material.train.tolist()}
    assert [file["name"] for file in prepare.files(plan, found)] == ["3dsc-tc", plan.measured.dataset]


def test_no_rule_leaves_a_measured_row_out(plan: Recipe, tmp_path: Path) -> None:
    """A zero among superconductors is what a measurement is for, and few rows may be learned."""
    whole = datasets.load("3dsc-tc", ROWS)
    some = replace(whole.crystals[:3], ids=np.array(["line/a", "line/b", "line/c"]), columns={})
    place = datasets.save(tmp_path / "zeros.parquet", some, "measured", np.zeros(3), unit="K")
    rule = Contradictions(distance=0.99, above=1e-3)
    strict = replace(plan, measured=Measured(place), contradictions=rule, learn_from=20)
    for member in range(2):
        learned = prepare.for_member(strict, member)[1].train
        assert {ROWS, ROWS + 1, ROWS + 2} <= {*learned.tolist()}
        assert 20 <= len(learned) <= 23


def test_a_network_that_reads_structures_sees_the_measured_ones(plan: Recipe) -> None:
    sizes = {"hidden": 8, "layers": 1, "bins": 8}
    plan = replace(plan, members=tuple(MemberSpec("cgcnn", seed, sizes) for seed in range(2)))
    prepared, material = prepare.for_member(plan, 0)
    assert len(material.inputs.cost) == len(material.target) == len(prepared.crystals) == ROWS + 5


def test_cross_validation_tests_every_other_row_once(plan: Recipe, tmp_path: Path) -> None:
    plan = replace(plan, cross_validation=CrossValidation(folds=2, repeats=1))
    folds = [prepare.prepare(plan, (0, fold)).split for fold in range(2)]
    every = prepare.prepare(plan).split
    tested = np.sort(np.concatenate([split.test for split in folds]))
    assert tested.tolist() == np.setdiff1d(np.arange(ROWS + 5), every.always).tolist()
    assert all(split.always.tolist() == every.always.tolist() for split in folds)
    made = fit.run(plan, tmp_path / "made")
    assert made is not None
    assert made.facts["tasks"]["tc"]["rows"]["development"] == len(tested)
    assert made.facts["tasks"]["tc"]["measured"]["rows"] == 5
    kept = Split.read(tmp_path / "made" / "split.json", prepare.prepare(plan).crystals.ids)
    assert kept.always.tolist() == every.always.tolist()


def test_a_part_that_would_be_empty_is_refused() -> None:
    groups = np.array(["a", "b", "c", "d", "a"])
    split = Split(np.array([0]), np.array([1]), (np.array([2]), np.array([3])))
    with pytest.raises(ValueError, match="nothing but groups of which a value was measured"):
        split.opened(groups, 4)
