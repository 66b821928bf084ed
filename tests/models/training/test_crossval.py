"""Repeated grouped cross-validation: members that test a row saw nothing of its group; those kept saw all rows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from assay.models.ensemble.calibration import Calibration
from assay.models.ensemble.distribution.decision import Decision
from assay.models.ensemble.distribution.quantiles import QuantileCalibration
from assay.models.ensemble.ensemble import Ensemble
from assay.models.evaluation import heldout
from assay.models.evaluation.split import SplitSpec
from assay.models.training import crossval, fit, formulas, members, prepare
from assay.models.training.recipe import CrossValidation, MemberSpec, Recipe, Schedule
from assay.sources.crystals import Crystals
from tests.composition_ensemble import ENERGY, recipe
from tests.models.networks.test_networks import SMALL

FOLDS = [(repeat, fold) for repeat in range(2) for fold in range(3)]


def plan(folder: Path, crystals: Crystals) -> Recipe:
    plain = replace(recipe(folder, crystals), name="crossed", split=SplitSpec(by="element-set", seed=3))
    return replace(plain, cross_validation=CrossValidation(3, 2, -1.0), decision=Decision("interquartile-mean"))


@pytest.fixture(scope="module")
def made(crystals: Crystals, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crossed")
    fit.run(plan(folder, crystals), folder / "out", command="assay train crossed.yaml")
    return folder / "out"


def test_nothing_of_a_tested_group_is_learned(made: Path, crystals: Crystals) -> None:
    recipe = plan(made.parent, crystals)
    table = formulas.load(recipe.formulas.dataset)
    tested = []
    for fold in FOLDS:
        prepared, material = prepare.for_member(recipe, 0, fold)
        groups = np.concatenate([prepared.keys["element-set"], table.keys["element-set"]])
        test = prepared.split.test
        assert not set(groups[material.train]) & set(groups[test])
        assert set(range(len(crystals))) - set(test.tolist()) <= set(material.train.tolist())  # and all else is
        tested.append(test)
    for repeat in (tested[:3], tested[3:]):
        assert np.sort(np.concatenate(repeat)).tolist() == list(range(len(crystals)))
    assert tested[0].tolist() != tested[3].tolist()


def test_the_members_that_are_kept_learned_from_all_rows(made: Path, crystals: Crystals) -> None:
    split = json.loads((made / "split.json").read_text())
    assert (split["test"], split["calibration"], len(split["folds"])) == ([], [], 1)
    assert sorted(split["folds"][0]) == sorted(crystals.ids.tolist())
    loaded = Ensemble.load(made)
    assert [member.facts["rows"]["validation"] for member in loaded.members] == [0, 0]
    assert [member.facts["metrics"] for member in loaded.members] == [{"epochs": 0}] * 2
    assert loaded.members[0].facts["rows"]["train"] == len(crystals) + 4  # formulas
    assert isinstance(loaded.calibration[ENERGY.name], QuantileCalibration)
    assert loaded.decisions == {ENERGY.name: Decision("interquartile-mean")}
    assert loaded.reference is not None
    with pytest.raises(ValueError, match="has no rows: .* learned from all of them, and its card has the scores"):
        heldout.find(loaded, None, "test")


def test_scores_are_those_of_predictions_out_of_fold(made: Path, crystals: Crystals) -> None:
    recipe = plan(made.parent, crystals)
    found = crossval.predict(recipe, made / fit.CROSS_VALIDATION)
    assert found.draws is not None
    assert found.draws.shape == (2, len(crystals), 40)
    fold = members.uncalibrated(recipe, made)  # trained on all: it knows the rows, and errs less
    known = members.predict(fold, crystals, np.arange(len(crystals)))[ENERGY.name].mean
    truth = prepare.prepare(recipe).target[:, 0]
    error = np.abs(found.mean - truth).mean()
    assert np.abs(known - truth).mean() < 0.7 * error
    (task,) = Ensemble.load(made).facts["tasks"].values()
    assert task["test"]["mae"] == pytest.approx(error)
    assert task["cross_validation"]["scores"]["interval"]["mae"][0] < error
    said = task["cross_validation"]
    assert (said["rows"], said["folds"], said["repeats"]) == (len(crystals), 3, 2)


def test_calibration_rows_are_those_of_the_first_repeat(made: Path, crystals: Crystals) -> None:
    recipe = plan(made.parent, crystals)
    found, prepared = crossval.predict(recipe, made / fit.CROSS_VALIDATION), prepare.prepare(recipe)
    kept = Ensemble.load(made).calibration_rows
    assert kept is not None
    assert (kept.by, kept.out_of_fold) == ("element-set", True)
    rows = kept.rows[ENERGY.name]
    np.testing.assert_allclose(rows.known, prepared.target[:, 0], rtol=1e-6)
    np.testing.assert_allclose(rows.mean, found.mean[0], rtol=1e-6)
    assert rows.std.min() > 0
    groups = prepared.keys["element-set"]
    assert len(set(zip(rows.group.tolist(), groups.tolist(), strict=True))) == len(set(groups))
    assert "so they are not exactly exchangeable" in (made / "README.md").read_text()


def test_the_baselines_are_forests_in_the_same_folds(made: Path, crystals: Crystals) -> None:
    recipe = plan(made.parent, crystals)
    rivals = crossval.rivals(recipe)
    (task,) = Ensemble.load(made).facts["tasks"].values()
    assert list(task["baselines"]) == list(rivals)
    for name, rival in rivals.items():
        assert sum(member.sizes["trees"] for member in rival.members) == 100
        mean = crossval.predict(rival, made / fit.CROSS_VALIDATION / rival.name).mean
        truth = prepare.prepare(recipe).target[:, 0]
        assert task["baselines"][name]["mae"] == pytest.approx(np.abs(mean - truth).mean())
    compared = task["versus_best_baseline"]
    assert compared["low"] < compared["difference"] < compared["high"]


def test_the_card_tells_how_it_was_measured(made: Path, crystals: Crystals) -> None:
    card, (task,) = (made / "README.md").read_text(), Ensemble.load(made).facts["tasks"].values()
    for text in (
        f"learned from all {len(crystals)} rows: none is kept back",
        "## Measured by repeated grouped cross-validation",
        f"**this ensemble** | {task['test']['mae']:.4g} (",
        "precision@50 above -1 eV/atom",
        "| predicted value | rows |",
        f"| {task['cross_validation']['by_predicted'][0]['coverage']:.1%} |",
        "Out of fold, with error bars fitted on the other folds, it covers",
        "assay train crossed.yaml",
    ):
        assert text in card
    assert "nan" not in card


def test_a_stopped_cross_validation_goes_on_and_ends_alike(
    made: Path, crystals: Crystals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, calls, predict = plan(made.parent, crystals), [], members.predict

    def stopping(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict(*arguments)  # type: ignore[arg-type] # passed on

    monkeypatch.setattr(members, "predict", stopping)
    with pytest.raises(KeyboardInterrupt):
        crossval.predict(recipe, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0-0.npz", "0-1.npz", "0-2"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.suffix in (".npz", ".safetensors")}
    crossval.predict(recipe, tmp_path)
    assert len(calls) == 3 + 4
    assert {path: path.stat().st_mtime_ns for path in before if path.suffix == ".npz"}.items() <= before.items()
    for repeat, fold in FOLDS:
        name = f"{repeat}-{fold}.npz"
        assert (tmp_path / name).read_bytes() == (made / fit.CROSS_VALIDATION / name).read_bytes()


def test_predictions_of_another_recipe_are_refused(made: Path, crystals: Crystals) -> None:
    other = replace(plan(made.parent, crystals), decision=Decision("mean"))
    with pytest.raises(ValueError, match=r"0-0.npz holds a training run of another recipe or other data"):
        crossval.predict(other, made / fit.CROSS_VALIDATION)


def test_networks_that_stop_early_do_so_on_rows_outside_the_fold(crystals: Crystals, tmp_path: Path) -> None:
    few = crystals.select(np.arange(0, 300, 4))
    plain = recipe(tmp_path, few)
    graphs = tuple(MemberSpec("cgcnn", seed, SMALL["cgcnn"]) for seed in range(2))
    wanted = replace(
        plain,
        members=graphs,
        formulas=None,
        split=SplitSpec(by="formula", folds=3),
        schedule=Schedule(epochs=1),
        cross_validation=CrossValidation(2, 1),
    )
    ensemble = fit.run(wanted, tmp_path / "out")
    assert ensemble is not None
    assert isinstance(ensemble.calibration[ENERGY.name], Calibration)
    for fold in ((0, 0), (0, 1), None):
        split = prepare.prepare(wanted, fold).split
        assert len(split.folds) == 3
        assert not set(split.validation(0)) & {*split.test, *split.train(0)}
        assert len(split.development()) + len(split.test) == len(few)
    assert "scaled" not in (tmp_path / "out/README.md").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": SplitSpec(kfold=0)}, "split.kfold and split.family hold rows out"),
        ({"combine": "stacking", "decision": None}, "combine is 'stacking', and cross_validation keeps no rows"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(
    change: dict[str, object], message: str, made: Path, crystals: Crystals
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(plan(made.parent, crystals), **change)  # type: ignore[arg-type] # as a recipe file says it
    with pytest.raises(ValueError, match="1 folds, 2 repeats; expected at least 2 and 1"):
        CrossValidation(1, 2)
