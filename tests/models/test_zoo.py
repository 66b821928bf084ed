"""The bundled weights: they load, their cards tell the truth, and they beat what they claim to beat."""

from pathlib import Path

import numpy as np
import pytest

from models import fit, metrics
from models.ensemble import Ensemble
from models.recipe import Recipe
from models.split import SplitSpec
from models.target import Property

NAMES = ["tc", "formation-energy"]


@pytest.mark.parametrize("name", NAMES)
def test_loads_with_at_least_four_members_and_a_card(name: str, zoo: Path) -> None:
    loaded = Ensemble.load(zoo / name)
    assert len(loaded.members) >= 4
    card = (zoo / name / "README.md").read_text()
    for fact in ("grouped test split", f"{loaded.facts['test']['mae']:.4g}", "extra trees", "assay train"):
        assert fact in card


def test_weights_are_small_enough_for_git(zoo: Path) -> None:
    assert sum(path.stat().st_size for path in zoo.rglob("*") if path.is_file()) < 20e6


@pytest.mark.parametrize("name", NAMES)
def test_the_card_says_whether_baselines_are_beaten(name: str, zoo: Path) -> None:
    facts = Ensemble.load(zoo / name).facts
    compared, card = facts["versus_best_baseline"], (zoo / name / "README.md").read_text()
    best = min(scores["mae"] for scores in facts["baselines"].values())
    assert compared["difference"] == pytest.approx(facts["test"]["mae"] - best, abs=1e-9)
    assert ("it **beats**" in card) == (compared["high"] < 0)
    assert ("does **not** beat" in card) == (compared["low"] > 0)
    by_rmse = facts["test"]["rmse"] > facts["baselines"][compared["name"]]["rmse"]
    assert ("By RMSE and R2" in card) == by_rmse


@pytest.mark.parametrize("name", NAMES)
def test_recorded_scores_are_reproduced_on_the_test_rows(name: str, zoo: Path, data: Path) -> None:
    """Predict grouped test rows again: no test element set was trained on, and the error is the card's."""
    loaded = Ensemble.load(zoo / name)
    described = loaded.facts["recipe"]
    recipe = Recipe(
        name=name,
        dataset=described["dataset"],
        property=Property(**described["property"]),
        members=tuple(described["members"]),
        graph=loaded.spec,
        split=SplitSpec(**described["split"]),
        limit=described["limit"],
    )
    prepared = fit.prepare(recipe)
    trained = set(prepared.dataset.groups[prepared.split.development()].tolist())
    assert not trained & set(prepared.dataset.groups[prepared.split.test].tolist())
    rows = prepared.split.test[:: max(1, len(prepared.split.test) // 1500)]
    predicted, refused = loaded.predict(prepared.dataset.crystals.select(rows))
    assert refused == []
    truth, weight = prepared.dataset.target[rows], prepared.dataset.weight[rows]
    values = predicted.values[loaded.properties[0].name]
    found, said = metrics.regression(truth, values.mean, weight), loaded.facts["test"]
    exact = len(rows) == len(prepared.split.test)
    assert found["mae"] == pytest.approx(said["mae"], rel=1e-3 if exact else 0.15)
    coverage = metrics.coverage(truth, values.lo, values.hi, weight)
    assert coverage == pytest.approx(said["coverage"], abs=0.001 if exact else 0.03)
    assert np.isfinite(values.members).all()
