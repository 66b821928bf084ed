"""The training loop: it learns, it resumes to the bit, it ignores unknown targets."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from featurize import graphs
from featurize.graphs import GraphSpec
from models import train
from models.recipe import MemberSpec, Recipe, Schedule
from models.target import Property
from sources.crystals import Crystals
from tests.models.test_networks import SMALL

MEMBERS = {name: MemberSpec(name, 1, sizes) for name, sizes in SMALL.items()}


def recipe(**schedule: Any) -> Recipe:
    return Recipe(
        name="t",
        dataset="mp-formation-energy",
        property=Property("formation_energy", "eV/atom"),
        members=(MEMBERS["cgcnn"], MEMBERS["alignn"]),
        graph=GraphSpec(atom_features="properties-identity-v1"),
        schedule=Schedule(**{"batch_size": 8, **schedule}),
    )


def material(crystals: Crystals, train_rows: int, rows: int) -> train.Material:
    built = graphs.build(crystals[:rows], recipe().graph)
    target = crystals.columns["e_form"][:rows].astype(np.float64)
    return train.Material(built, target, np.ones(rows), np.arange(train_rows), np.arange(train_rows, rows))


@pytest.mark.parametrize("name", SMALL)
def test_memorises_eight_crystals(name: str, crystals: Crystals, tmp_path: Path) -> None:
    data = material(crystals, 8, 8)
    data = replace(data, validation=data.train)
    spread = data.target.std()
    found = train.member(
        recipe(epochs=250, patience=250, learning_rate=1e-2, weight_decay=0.0), MEMBERS[name], data, tmp_path, {}
    )
    assert found.facts["metrics"]["validation_mae"] < 0.05 * spread


class Stop(Exception):
    """Raised in place of a kill."""


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("stop_in_epoch", [1, 3])
def test_stopped_and_resumed_equals_unbroken(
    name: str, stop_in_epoch: int, crystals: Crystals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, plan = material(crystals, 40, 60), recipe(epochs=5)
    sizes = {**SMALL[name], "dropout": 0.3}  # so that the state of the random generator matters
    member = replace(MEMBERS[name], sizes=sizes)
    whole = train.member(plan, member, data, tmp_path / "whole", {})

    validate = train._Run.validate

    def stop(run: train._Run) -> None:
        if run.epoch == stop_in_epoch:
            raise Stop
        validate(run)

    monkeypatch.setattr(train._Run, "validate", stop)
    with pytest.raises(Stop):
        train.member(plan, member, data, tmp_path / "broken", {})
    monkeypatch.undo()
    torch.manual_seed(12345)
    resumed = train.member(plan, member, data, tmp_path / "broken", {})
    assert resumed.sha256 == whole.sha256 or (
        (tmp_path / "broken/weights.safetensors").read_bytes() == (tmp_path / "whole/weights.safetensors").read_bytes()
    )
    assert not list((tmp_path / "broken").glob("*.pt"))


def test_another_recipe_in_the_same_folder_is_refused(crystals: Crystals, tmp_path: Path) -> None:
    data = material(crystals, 20, 30)
    train.member(recipe(epochs=1), MEMBERS["cgcnn"], data, tmp_path, {})
    with pytest.raises(ValueError, match="holds a training run of another recipe"):
        train.member(recipe(epochs=2), MEMBERS["cgcnn"], data, tmp_path, {})


def test_unknown_targets_do_not_touch_the_loss() -> None:
    scaled = torch.tensor([1.0, 5.0, 3.0], requires_grad=True)
    truth = torch.tensor([2.0, math.nan, 3.5])
    loss = train.masked_loss(scaled, truth, torch.tensor([1.0, 9.0, 3.0]), "l1")
    assert loss.item() == pytest.approx((1 * 1.0 + 3 * 0.5) / 4)
    loss.backward()
    assert scaled.grad is not None
    assert scaled.grad.tolist() == pytest.approx([-0.25, 0.0, -0.75])


def test_a_batch_of_unknown_targets_is_harmless() -> None:
    scaled = torch.tensor([1.0, 5.0], requires_grad=True)
    loss = train.masked_loss(scaled, torch.full((2,), math.nan), torch.ones(2), "mse")
    loss.backward()
    assert loss.item() == 0
    assert scaled.grad is not None
    assert scaled.grad.tolist() == [0, 0]


def test_learning_rate_rises_then_falls_to_zero() -> None:
    schedule = Schedule(learning_rate=1.0, warmup=0.1)
    rates = [train.learning_rate(schedule, step, 1000) for step in range(1001)]
    assert np.argmax(rates) == 100
    assert rates[100] == 1
    assert rates[0] < 0.01
    assert rates[-1] == pytest.approx(0)
    assert (np.diff(rates[100:]) < 0).all()
