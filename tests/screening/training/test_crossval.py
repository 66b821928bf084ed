"""Repeated grouped cross-validation: each row is tested once per repeat, by members that did not see its group."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from assay.models.evaluation import retrieval
from assay.models.training import crossval, prepare
from assay.screening.settings.exits import Failure
from assay.screening.training import design, recipes, study

RECIPE = """
name: tc
tasks: [{dataset: 3dsc-tc, property: {name: tc, unit: K, minimum: 0.0, transform: sqrt}}]
composition: {blocks: [shares]}
split: {by: element-set, folds: 3, calibration: 0.3}
limit: 600
members: [{network: trees, seed: 0}, {network: trees, seed: 1}]
"""
STUDY = """
name: small
title: A small cross-validation
recipe: recipe.yaml
member: {network: trees, sizes: {trees: 4}}
seeds: [0, 1]
cross_validation: {folds: 3, repeats: 2, threshold: 10, combine: {both: [shares, means]}}
compare: shares
columns: {new element sets: {split.by: element-set}}
rows:
  shares: {}
  again: {}
  means: {set: {members.sizes: {trees: 4, decision: mean}}}
notes: Told below.
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "study.yaml").write_text(STUDY)
    study.run(folder / "study.yaml", folder / "out")
    return folder


def test_every_row_of_the_study_is_predicted_once_per_repeat(finished: Path) -> None:
    path = finished / "study.yaml"
    made = design.load(path)
    content = recipes.read(design.recipe_file(made, path))
    recipe = design.variant(made, content, "x", {"split.by": "element-set"}, finished, [0, 1])
    recipe = replace(recipe, cross_validation=made.cross_validation)
    found = crossval.predict(recipe, finished / "out" / "shares")  # nothing is trained: the recipe is the same
    results = json.loads((finished / "out/results.json").read_text())
    assert found.mean.shape == (2, results["rows"])
    assert sorted(set(found.fold[0].tolist())) == [0, 1, 2]
    truth = prepare.prepare(recipe).target[:, 0]
    weight = prepare.prepare(recipe).weight
    error = np.average(np.abs(found.mean - truth), axis=1, weights=weight).mean()
    assert results["scores"]["shares"]["mae"] == pytest.approx(error)
    assert results["groups"] == len(set(prepare.prepare(recipe).keys["element-set"].tolist()))


def test_differences_are_paired_and_intervals_enclose_the_mean(finished: Path) -> None:
    scores = json.loads((finished / "out/results.json").read_text())["scores"]
    assert scores["again"]["versus"] == {"difference": 0.0, "low": 0.0, "high": 0.0}
    assert scores["means"]["versus"]["difference"] == pytest.approx(scores["means"]["mae"] - scores["shares"]["mae"])
    for one in scores.values():
        assert one["low"] < one["mae"] < one["high"]
        assert 0 <= one["precision_50"] <= 1
        assert 0 < one["average_precision"] <= 1
        assert one["families"].keys() == scores["shares"]["families"].keys()
    shares = json.loads((finished / "out/results.json").read_text())["shares"]["both"]
    assert sum(shares.values()) == pytest.approx(1)
    assert all(0 <= share <= 1 for share in shares.values())
    assert scores["both"]["mae"] < 1.05 * max(
        scores["shares"]["mae"], scores["means"]["mae"]
    )  # shares are of other folds
    page = (finished / "out/results.md").read_text()
    for text in (
        "### A small cross-validation",
        "| means |",
        "P@50 above 10",
        "Told below.",
        "assay study",
        "600 rows",
        "| both |",
        " of means, as found on the other folds (mean).",
    ):
        assert text in page


def test_what_is_trained_is_kept(finished: Path) -> None:
    before = (finished / "out/results.md").read_text()
    written = {path: path.stat().st_mtime_ns for path in (finished / "out").rglob("*.npz")}
    assert len(written) == 18
    study.run(finished / "study.yaml", finished / "out")
    assert {path: path.stat().st_mtime_ns for path in (finished / "out").rglob("*.npz")} == written
    assert (finished / "out/results.md").read_text() == before


@pytest.mark.parametrize(
    ("text", "wrong", "message"),
    [
        ("folds: 3, repeats: 2", "folds: 1, repeats: 2", "1 folds, 2 repeats; expected at least 2 and 1"),
        ("sets: {split.by: element-set}}", "sets: {}, b: {}}", "cross_validation needs one, there are 2"),
        ("again: {}", "again: {zero_shot: tc}", "zero_shot and columns of rows are not for cross_validation"),
        ("again: {}", "again: {set: {limit: 500}}", "limit or split is not that of"),
        ("[shares, means]", "[shares, mean]", "combine.both: 'mean' is no row: shares, again, means"),
        ("[shares, means]", "[shares]", "combine.both needs a name of its own and at least two rows"),
    ],
)
def test_a_wrong_study_says_what_is_wrong(text: str, wrong: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "study.yaml").write_text(STUDY.replace(text, wrong))
    with pytest.raises(Failure, match=message):
        study.run(tmp_path / "study.yaml", tmp_path / "out")


def test_average_precision_of_hits_in_order_and_of_the_last_place() -> None:
    truth = np.array([50.0, 0.0, 60.0, 0.0])
    assert retrieval.average_precision(truth, np.array([3.0, 1.0, 4.0, 0.0]), 40) == 1
    assert retrieval.average_precision(truth, np.array([4.0, 3.0, 1.0, 2.0]), 40) == pytest.approx((1 + 2 / 4) / 2)
    doubled = retrieval.average_precision(truth, np.array([4.0, 3.0, 1.0, 2.0]), 40, np.array([1.0, 2.0, 1.0, 1.0]))
    assert doubled == pytest.approx((1 + 2 / 5) / 2)
