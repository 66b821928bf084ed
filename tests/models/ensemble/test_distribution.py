"""Ensembles of forests that decide by the draws of all their trees: loaded, predicted, refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from assay.models.ensemble import checkpoint, stored
from assay.models.ensemble.distribution import draws, quantiles
from assay.models.ensemble.distribution.decision import ADAPTIVE, KINDS, Decision
from assay.models.ensemble.ensemble import Ensemble
from assay.models.ensemble.stored import ErrorBars
from assay.models.ensemble.summary import PropertyPrediction
from assay.models.target import Property
from assay.sources.crystals import Crystals
from tests.composition_ensemble import ENERGY, SIZES

NAME = ENERGY.name


def decided(
    blind: Path, folder: Path, decision: Decision | None, fitted: ErrorBars | None = None, **more: object
) -> Path:
    """A copy of the ensemble with a decision, and another calibration if one is given."""
    shutil.copytree(blind, folder, dirs_exist_ok=True)
    plain = Ensemble.load(blind)
    decisions = {} if decision is None else {NAME: decision}
    calibration = plain.calibration if fitted is None else {NAME: fitted}
    members = [f"member-{k}" for k in range(len(plain.members))]
    stored.write(folder, "test", members, calibration, {}, reference=plain.reference, decisions=decisions, **more)  # type: ignore[arg-type] # weights
    return folder


def calibrated(blind: Path, folder: Path, crystals: Crystals, decision: Decision) -> Path:
    """The same with quantiles, fitted on what it learned from: coverage is not asked for here."""
    found = predict(decided(blind, folder, decision), crystals)
    assert found.draws is not None
    truth, weight = crystals.columns["e_form"], np.ones(len(crystals))
    fitted = quantiles.fit(found.draws, found.mean, truth, weight, 0.9, [-2.0])
    return decided(blind, folder, decision, fitted)


def predict(folder: Path, crystals: Crystals) -> PropertyPrediction:
    found, refused = Ensemble.load(folder).predict(crystals)
    assert refused == []
    return found.values[NAME]


def test_every_tree_of_every_member_is_a_draw(blind: Path, crystals: Crystals, tmp_path: Path) -> None:
    found, plain = predict(decided(blind, tmp_path, Decision()), crystals), predict(blind, crystals)
    assert plain.draws is None
    assert found.draws is not None
    assert found.draws.shape == (len(crystals), 2 * SIZES["trees"])
    assert (np.diff(found.draws, axis=1) >= 0).all()
    np.testing.assert_array_equal(found.members, plain.members)
    np.testing.assert_allclose(found.mean, np.median(found.draws, axis=1))
    np.testing.assert_allclose(found.spread**2, ((found.draws - found.mean[:, None]) ** 2).mean(axis=1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_decision_is_stored_and_decides(kind: str, blind: Path, crystals: Crystals, tmp_path: Path) -> None:
    decision = Decision(kind, -2.0, -1.0) if kind == ADAPTIVE else Decision(kind)
    folder = decided(blind, tmp_path, decision)
    assert Ensemble.load(folder).decisions == {NAME: decision}
    found = predict(folder, crystals)
    assert found.draws is not None
    assert found.mean.tobytes() == decision.of(found.draws).tobytes()


def test_draws_do_not_depend_on_the_other_crystals(blind: Path, crystals: Crystals, tmp_path: Path) -> None:
    folder = decided(blind, tmp_path, Decision())
    few, every = predict(folder, crystals[40:43]), predict(folder, crystals)
    assert few.draws is not None
    assert every.draws is not None
    assert few.draws.tobytes() == every.draws[40:43].tobytes()


def test_quantiles_make_the_error_bars(blind: Path, crystals: Crystals, tmp_path: Path) -> None:
    folder = calibrated(blind, tmp_path, crystals, Decision())
    found, loaded = predict(folder, crystals), Ensemble.load(folder).calibration[NAME]
    assert isinstance(loaded, quantiles.QuantileCalibration)
    assert found.draws is not None
    low, high = loaded.interval(found.mean, found.draws)
    np.testing.assert_array_equal(found.lo, low)
    np.testing.assert_array_equal(found.hi, high)
    np.testing.assert_array_equal(found.std, loaded.deviation(found.mean, found.spread))
    assert len(np.unique(np.round(found.hi - draws.quantile(found.draws, 0.9), 9))) > 1  # by range of the value
    assert ((found.lo <= found.mean) & (found.mean <= found.hi)).all()


def test_the_interval_ends_at_the_smallest_possible_value(blind: Path, crystals: Crystals, tmp_path: Path) -> None:
    folder = calibrated(blind, tmp_path, crystals, Decision())
    for path in folder.glob("member-*/model.json"):
        described = json.loads(path.read_text())
        described["properties"][0]["minimum"] = -1.5
        path.write_text(json.dumps(described))
    stored.seal(folder)
    found = predict(folder, crystals)
    assert found.draws is not None
    assert found.draws.min() == found.lo.min() == -1.5


@pytest.mark.parametrize("transform", ["identity", "log1p", "sqrt", "arcsinh"])
def test_a_training_zero_comes_back_as_zero(transform: str) -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([[0.0], rng.gamma(0.5, 20.0, 500)])
    for shift in range(20):
        scaled = Property("tc", "K", transform, 0.0).fit(values + np.arange(501) % 7 * shift)  # type: ignore[arg-type] # listed
        drawn = scaled.decode_draws(scaled.encode(values).astype(np.float64))
        assert drawn[0] == 0.0
        np.testing.assert_allclose(drawn[1:], values[1:], rtol=1e-4, atol=1e-4)


def test_an_ensemble_without_a_decision_is_as_before(blind: Path, crystals: Crystals, tmp_path: Path) -> None:
    before, now = predict(blind, crystals), predict(decided(blind, tmp_path, None), crystals)
    assert "decision" not in json.loads((tmp_path / "ensemble.json").read_text())
    for part in ("mean", "std", "lo", "hi", "members"):
        assert getattr(before, part).tobytes() == getattr(now, part).tobytes()


def test_a_changed_decision_breaks_the_seal(blind: Path, tmp_path: Path) -> None:
    folder = decided(blind, tmp_path, Decision())
    path = folder / "ensemble.json"
    path.write_text(path.read_text().replace('"median"', '"mean"'))
    with pytest.raises(ValueError, match="is damaged or was changed"):
        Ensemble.load(folder)


def test_weights_beside_a_decision_are_refused(blind: Path, tmp_path: Path) -> None:
    folder = decided(blind, tmp_path, Decision(), weights={NAME: (0.5, 0.5)})
    with pytest.raises(ValueError, match=f"has a decision on {NAME}, and weights, which it would not use"):
        Ensemble.load(folder)


def test_a_decision_needs_draws_of_every_member(blind: Path, tmp_path: Path) -> None:
    loaded = Ensemble.load(blind)
    network = loaded.members[0].network
    other = replace(loaded.members[1], network=type(network)(network.features, [NAME], trees=1), name="cgcnn")
    other.network.draws = 0  # as of a network that predicts one value
    with pytest.raises(ValueError, match=f"has a decision on the draws of {NAME}, and its cgcnn has none"):
        replace(loaded, members=(loaded.members[0], other), decisions={NAME: Decision()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decision": {NAME: {"kind": "mode"}}}, f"decision.{NAME}: decision.kind is 'mode'"),
        ({"decision": {NAME: {"kind": "median", "most": 1}}}, f"decision.{NAME} has an unknown key 'most'"),
        ({"decision": {NAME: {"kind": ADAPTIVE, "low": "40"}}}, f"decision.{NAME}.low is '40', expected a number"),
        ({"decision": {NAME: ["median"]}}, f"decision.{NAME} is .*, expected a mapping"),
        ({"decision": {"tc": {"kind": "median"}}}, f"has a decision on tc, expected {NAME}"),
        ({"decision": {}}, f"calibrates quantiles of {NAME}, and has no decision on its draws"),
        ({"kind": "bins"}, f"calibration.{NAME}.kind is 'bins', expected 'quantiles'"),
        ({"edges": [2.0, 1.0]}, f"calibration.{NAME}.edges.1 is 1.0, expected a number from 2"),
        ({"widening": [1.0]}, "widening has 1 numbers for 1 edges, expected one more"),
        ({"scale": [1.0, -1.0]}, f"calibration.{NAME}.scale.1 is -1.0"),
        ({"base": 1.5}, f"calibration.{NAME}.base is 1.5, expected a number from 0 to 1"),
        ({"n": [1.5, 3]}, f"calibration.{NAME}.n.0 is 1.5, expected a whole number"),
    ],
)
def test_what_is_out_of_range_is_named(
    change: dict[str, object], message: str, blind: Path, crystals: Crystals, tmp_path: Path
) -> None:
    path = calibrated(blind, tmp_path, crystals, Decision()) / "ensemble.json"
    described = checkpoint.read_json(path, "a model ensemble")
    place = described if "decision" in change else described["calibration"][NAME]
    place.update(change)
    path.write_text(json.dumps(described))
    with pytest.raises(ValueError, match=message):
        Ensemble.load(path.parent)
