"""The training loop: it learns, it resumes to the bit, it ignores unknown targets."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from assay.featurize.graphs import GraphSpec
from assay.models.ensemble import checkpoint
from assay.models.evaluation.split import Split
from assay.models.networks import registry
from assay.models.networks.linear import multiplies_bfloat16
from assay.models.target import LOG_VARIANCE, Property
from assay.models.training import fingerprints, fit, optimise, prepare, start, train
from assay.models.training.prepare import Prepared
from assay.models.training.recipe import Lora, MemberSpec, Recipe, Schedule, Start, Task
from assay.sources.crystals import Crystals
from tests.models.networks.test_networks import SMALL

MEMBERS = {name: MemberSpec(name, 1, sizes) for name, sizes in SMALL.items()}


def recipe(name: str = "cgcnn", **schedule: Any) -> Recipe:
    return Recipe(
        name="t",
        tasks=(Task("mp-formation-energy", Property("formation_energy", "eV/atom")),),
        members=(MEMBERS[name], MEMBERS["cgcnn"]),
        graph=GraphSpec(atom_features="properties-identity-v1"),
        schedule=Schedule(**{"batch_size": 8, **schedule}),
    )


def material(plan: Recipe, crystals: Crystals, train_rows: int, rows: int) -> train.Material:
    built = prepare.inputs(crystals[:rows], plan.reads(plan.members[0]), plan.quotient)
    target = crystals.columns["e_form"][:rows].astype(np.float64)[:, None]
    target = np.tile(target, (1, len(plan.tasks)))
    for k in range(1, len(plan.tasks)):  # another property of other crystals
        target[k :: len(plan.tasks), 0] = np.nan
        target[:, k] = np.where(np.isnan(target[:, 0]), target[:, k] ** 2, np.nan)
    return train.Material(built, target, np.ones(rows), np.arange(train_rows), np.arange(train_rows, rows))


@pytest.mark.parametrize("name", SMALL)
def test_memorises_eight_crystals(name: str, crystals: Crystals, tmp_path: Path) -> None:
    plan = recipe(name, epochs=250, patience=250, learning_rate=1e-2, weight_decay=0.0)
    data = material(plan, crystals, 8, 8)
    data = replace(data, validation=data.train)
    found = train.member(plan, 0, data, tmp_path, {})
    assert found.facts["metrics"]["validation_mae"] < 0.05 * data.target.std()


class Stop(Exception):
    """Raised in place of a kill."""


def same_whether_stopped_or_not(plan: Recipe, data: train.Material, folder: Path, stop_after: int) -> None:
    whole = train.member(plan, 0, data, folder / "whole", {})

    def stop(row: dict[str, float]) -> None:
        if row["epoch"] == stop_after:
            raise Stop

    with pytest.raises(Stop):
        train.member(plan, 0, data, folder / "broken", {}, progress=stop)
    assert not (folder / "broken/model.json").exists()
    torch.manual_seed(12345)
    resumed = train.member(plan, 0, data, folder / "broken", {})
    weights = [(folder / name / "weights.safetensors").read_bytes() for name in ("whole", "broken")]
    assert weights[0] == weights[1]
    assert resumed.facts["metrics"] == whole.facts["metrics"]
    assert not list((folder / "broken").glob("*.pt"))


KINDS: dict[str, dict[str, Any]] = {
    "scratch": {},
    "full graphs": {"quotient": 0.0},
    "huber": {"loss": "huber"},
    "mse": {"loss": "mse"},
    "one cycle": {"kind": "onecycle"},
    "plateau": {"kind": "plateau", "patience": 4, "learning_rate": 0.3},
    "average": {"ema": 0.9},
    "matrices by Muon": {"matrix_rate": 1e-2},
    "likelihood": {"loss": "nll"},
    "bfloat16": {"precision": "bfloat16"},
    "two properties": {"tasks": 2},
    "fine-tuned": {"freeze": "none"},
    "frozen embeddings": {"freeze": "embeddings"},
    "frozen first layer": {"freeze": "first"},
    "all but last": {"freeze": "all-but-last"},
    "head only": {"freeze": "head-only"},
    "adapters": {"lora": Lora(rank=2, dropout=0.1)},
}


LOWERED = pytest.mark.skipif(not multiplies_bfloat16(), reason="oneDNN or the processor has no bfloat16")
OF_THE_NETWORK = ("scratch", "full graphs", "two properties", "fine-tuned", "all but last", "adapters")
"""Kinds whose code differs between networks; a loss or a rate does not ask which one learns."""


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in SMALL for kind in (KINDS if name == "cgcnn" else OF_THE_NETWORK)]
    + [pytest.param("alignn", "bfloat16", marks=LOWERED)],
)
def test_stopped_and_resumed_equals_unbroken(name: str, kind: str, crystals: Crystals, tmp_path: Path) -> None:
    """Dropout makes the state of the random generator matter."""
    wanted = dict(KINDS[kind])
    if "lora" in wanted:
        pytest.importorskip("peft", reason="needs peft: pip install assay[lora]")
    sizes = {**SMALL[name], "dropout": 0.3}
    if kind == "bfloat16" and name == "alignn":  # the first states of triplets are a table
        sizes["alignn_layers"] = 2
    tasks, quotient = wanted.pop("tasks", 1), wanted.pop("quotient", 1e-3)
    start = {key: wanted.pop(key) for key in ("freeze", "lora") if key in wanted}
    plan = recipe(name, **{"epochs": 4, **wanted})
    other = Task("mp-band-gap", Property("band_gap", "eV"))
    plan = replace(plan, members=(replace(MEMBERS[name], sizes=sizes),) * 2, quotient=quotient)
    plan = replace(plan, tasks=(*plan.tasks, other)[:tasks])
    data = material(plan, crystals, 40, 60)
    if start:
        train.member(replace(plan, name="before"), 0, data, tmp_path / "before", {})
        plan = replace(plan, start=Start(str(tmp_path / "before"), **start))
    same_whether_stopped_or_not(plan, data, tmp_path, 2)


def test_a_run_that_stops_before_its_rate_has_fallen_says_so(
    crystals: Crystals, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = {}
    for patience in (1, 30):
        plan = recipe(epochs=30, patience=patience, learning_rate=1e-1)
        found = train.member(plan, 0, material(plan, crystals, 20, 30), tmp_path / str(patience), {})
        said[found.facts["metrics"]["epochs"]] = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
        caplog.clear()
    ended = min(said)
    assert ended < 30
    assert said == {ended: said[ended], 30: []}
    assert f"of epoch {ended - 1}, stopped after {ended} of 30: its learning rate had yet to fall" in said[ended][0]


def test_the_log_has_an_epoch_that_ended_as_the_process_died(crystals: Crystals, tmp_path: Path) -> None:
    plan = recipe(epochs=1)
    data = material(plan, crystals, 20, 30)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "write_whole", lambda *_: (_ for _ in ()).throw(Stop))  # after the state
        with pytest.raises(Stop):
            train.member(plan, 0, data, tmp_path, {})
    train.member(plan, 0, data, tmp_path, {})
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 1


def test_a_member_may_learn_by_its_own_schedule(crystals: Crystals, tmp_path: Path) -> None:
    plan = recipe(epochs=5)
    shorter = replace(plan, members=(replace(plan.members[0], schedule={"epochs": 2}), plan.members[1]))
    found = train.member(shorter, 0, material(plan, crystals, 20, 30), tmp_path, {})
    assert found.facts["metrics"]["epochs"] == 2
    with pytest.raises(ValueError, match="schedule has no 'epoch'"):
        replace(plan, members=(replace(plan.members[0], schedule={"epoch": 2}), plan.members[1]))
    with pytest.raises(ValueError, match="schedule.epochs is 0"):
        replace(plan, members=(replace(plan.members[0], schedule={"epochs": 0}), plan.members[1]))


def test_another_recipe_in_the_same_folder_is_refused(crystals: Crystals, tmp_path: Path) -> None:
    plan = recipe(epochs=1)
    data = material(plan, crystals, 20, 30)
    train.member(plan, 0, data, tmp_path, {})
    with pytest.raises(ValueError, match="holds a training run of another recipe"):
        train.member(recipe(epochs=2), 0, data, tmp_path, {})


def test_other_files_with_the_same_labels_are_refused(crystals: Crystals, tmp_path: Path) -> None:
    plan = recipe(epochs=2)
    data = material(plan, crystals, 20, 30)
    before, after = ({"data": [{"name": "d", "sha256": sha}]} for sha in ("1", "2"))

    def stop(_: Any) -> None:
        raise Stop

    with pytest.raises(Stop):
        train.member(plan, 0, data, tmp_path, before, stop)
    with pytest.raises(ValueError, match="holds a training run on other files"):
        train.member(plan, 0, data, tmp_path, after)
    train.member(plan, 0, data, tmp_path, before)
    with pytest.raises(ValueError, match="holds a training run on other files"):
        train.member(plan, 0, data, tmp_path, after)


FROZEN = {
    "none": {"embed": True, "layers.0": True, "layers.1": True},
    "embeddings": {"embed": False, "layers.0": True, "layers.1": True},
    "first": {"embed": False, "layers.0": False, "layers.1": True},
    "all-but-last": {"embed": False, "layers.0": False, "layers.1": True},
    "head-only": {"embed": False, "layers.0": False, "layers.1": False},
}


@pytest.mark.parametrize("freeze", FROZEN)
def test_frozen_parts_keep_weights_and_statistics_and_the_rest_learns(
    freeze: Any, crystals: Crystals, tmp_path: Path
) -> None:
    plan = recipe(epochs=1)
    data = material(plan, crystals, 40, 60)
    before = train.member(plan, 0, data, tmp_path / "before", {}).network.state_dict()
    tuned = replace(plan, start=Start(str(tmp_path / "before"), freeze=freeze, backbone_rate=1e-2))
    after = train.member(tuned, 0, data, tmp_path / "after", {}).network.state_dict()
    for part, learns in FROZEN[freeze].items():
        names = [name for name in before if name.startswith(part) and "num_batches" not in name]
        moved = [not torch.equal(before[name], after[name]) for name in names]
        assert all(moved) if learns else not any(moved), part
    assert all(not torch.equal(before[name], after[name]) for name in before if name.startswith("heads."))


def test_trunk_and_heads_learn_at_their_own_rates(crystals: Crystals, tmp_path: Path) -> None:
    plan = recipe(epochs=1)
    train.member(plan, 0, material(plan, crystals, 20, 30), tmp_path, {})
    begun = replace(plan, start=Start(str(tmp_path), backbone_rate=1e-5, head_rate=1e-3))
    network = checkpoint.read(tmp_path).network
    (optimizer,) = start.optimizers(network, begun.start, Schedule(learning_rate=0.5))
    trunk, heads = optimizer.param_groups
    assert (trunk["peak"], heads["peak"]) == (1e-5, 1e-3)
    assert sum(p.numel() for p in heads["params"]) == sum(p.numel() for p in network.heads.parameters())
    assert sum(p.numel() for group in (trunk, heads) for p in group["params"]) == sum(
        p.numel() for p in network.parameters()
    )
    with pytest.raises(ValueError, match="matrix_rate is for weights that start fresh"):
        start.optimizers(network, begun.start, Schedule(matrix_rate=0.01))


def test_muon_moves_every_matrix_and_adam_the_rest() -> None:
    made = registry.create("gated-gcn", 125, ["y"], **SMALL["gated-gcn"])
    adam, muon = start.optimizers(made, None, Schedule(matrix_rate=0.02))
    moved = {id(p) for p in muon.param_groups[0]["params"]}
    last = made.heads.heads["y"][-1].weight  # one row: a vector
    assert {id(p) for p in made.parameters() if p.ndim == 2 and p is not last} == moved
    assert {id(p) for p in made.parameters()} - moved == {id(p) for p in adam.param_groups[0]["params"]}
    assert (adam.param_groups[0]["peak"], muon.param_groups[0]["peak"]) == (2e-3, 0.02)


@pytest.mark.parametrize("shape", [(24, 24), (24, 80), (80, 24)], ids=str)
def test_steps_of_muon_are_orthogonal_and_as_long_as_those_of_adam(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrices = [torch.nn.Parameter(torch.randn(shape)) for _ in range(3)]
    before = [matrix.detach().clone() for matrix in matrices]
    muon = optimise.Muon([{"params": matrices}])
    muon.param_groups[0]["lr"] = 0.01
    for matrix in matrices:
        matrix.grad = torch.randn(shape) * torch.logspace(0, -1, shape[1])
    muon.step()
    for matrix, old in zip(matrices, before, strict=True):
        step = old - matrix.detach()
        assert torch.sum(step * matrix.grad) > 0
        singular = torch.linalg.svdvals(step) / (0.01 * 0.2 * max(shape) ** 0.5)
        assert 0.1 < singular.min() <= singular.max() < 1.3
        assert 0.5 < step.square().mean().sqrt() / (0.01 * 0.2) < 1.3
    assert not torch.equal(before[0] - matrices[0], before[1] - matrices[1])


def test_another_network_cannot_start_from_these_weights(crystals: Crystals, tmp_path: Path) -> None:
    plan = recipe(epochs=1)
    data = material(plan, crystals, 20, 30)
    train.member(plan, 0, data, tmp_path, {})
    wider = replace(plan.members[0], sizes={**plan.members[0].sizes, "hidden": 24})
    with pytest.raises(ValueError, match="give it the network and sizes of its start"):
        train.member(replace(plan, members=(wider, wider), start=Start(str(tmp_path))), 0, data, tmp_path / "b", {})
    fewer = replace(plan, graph=replace(plan.graph, k=6), start=Start(str(tmp_path)))
    with pytest.raises(ValueError, match=r"learned otherwise; write under graph: k: \d+ \(not 6\)"):
        train.member(fewer, 0, data, tmp_path / "d", {})
    deep = replace(plan, start=Start(str(tmp_path), freeze="first", layers=9))
    with pytest.raises(ValueError, match=r"start.layers is 9, this network has 2 layers"):
        train.member(deep, 0, data, tmp_path / "c", {})


def test_quotient_and_full_graphs_learn_the_same(crystals: Crystals, tmp_path: Path) -> None:
    """Merged atoms count in every sum and every batch statistic: only rounding differs after an epoch."""
    outcomes = []
    for quotient in (0.0, 1e-4):
        plan = replace(recipe("alignn", epochs=1), quotient=quotient)
        outcomes.append(train.member(plan, 0, material(plan, crystals, 40, 60), tmp_path / str(quotient), {}))
    errors = [found.facts["metrics"]["validation_mae"] for found in outcomes]
    assert errors[1] == pytest.approx(errors[0], rel=1e-3)


def test_tasks_contribute_the_same_number_of_rows(crystals: Crystals) -> None:
    plan = recipe()
    data = material(plan, crystals, 40, 60)
    target = np.full((60, 2), np.nan)
    target[:30, 0], target[30:40, 1] = 1.0, 2.0
    rows = train.epoch_rows(replace(data, target=target), np.random.default_rng(0), [1.0, 1.0])
    assert (rows < 30).sum() == (rows >= 30).sum() == 20
    assert set(rows[rows >= 30]) == set(range(30, 40))
    rows = train.epoch_rows(replace(data, target=target), np.random.default_rng(0), [3.0, 1.0])
    assert ((rows < 30).sum(), (rows >= 30).sum()) == (30, 10)
    rows = train.epoch_rows(replace(data, target=target), np.random.default_rng(0), [1.0, 0.0])
    assert len(rows) == 40
    assert set(rows) == set(range(30)), "nothing is learned of the other task"


def test_a_task_without_a_share_judges_nothing_and_is_for_studies(crystals: Crystals, tmp_path: Path) -> None:
    plan, other = recipe(epochs=2), Task("mp-band-gap", Property("band_gap", "eV"), share=0.0)
    two = replace(plan, tasks=(*plan.tasks, other))
    data = material(plan, crystals, 40, 60)
    target = np.full((60, 2), np.nan)
    target[::2, 0], target[1::2, 1] = data.target[::2, 0], 1e6 * data.target[1::2, 0]
    train.member(two, 0, replace(data, target=target), tmp_path, {})
    last = json.loads((tmp_path / "history.jsonl").read_text().splitlines()[-1])
    scale = float(np.std(data.target[:40:2, 0]))
    assert last["validation_mae"] == pytest.approx(last["validation_mae_formation_energy"] / scale, rel=0.2)
    with pytest.raises(ValueError, match="a task with share 0 would leave an untrained head"):
        fit.run(two, tmp_path / "shipped")
    for shares in ([0.0, 0.0], [1.0, -1.0], [1.0, math.nan]):
        with pytest.raises(ValueError, match="the shares of the tasks are"):
            replace(two, tasks=tuple(replace(t, share=s) for t, s in zip(two.tasks, shares, strict=True)))


def test_bootstrap_draws_with_replacement_and_by_seed() -> None:
    plan = replace(recipe(), bootstrap=True, members=(MemberSpec("cgcnn", 1), MemberSpec("cgcnn", 2)))
    parts = tuple(np.arange(k, 100, 5) for k in range(5))
    prepared = Prepared((), None, np.ones((100, 1)), np.ones(100), {}, Split(parts[0], parts[1], parts[2:]))  # type: ignore[arg-type]
    first, second = (prepare.material(plan, prepared, k, None).train for k in (0, 1))  # type: ignore[arg-type]
    assert len(first) == len(prepared.split.train(0))
    assert len(set(first.tolist())) < len(first)
    assert set(first.tolist()) <= set(prepared.split.train(0).tolist())
    assert first.tolist() != second.tolist()


def loss_of(scaled: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor, kind: str) -> torch.Tensor:
    share = {"y": (weight * torch.isfinite(truth)).sum()}
    return optimise.masked_loss({"y": scaled}, {"y": truth}, weight, share, kind)


def test_unknown_targets_do_not_touch_the_loss() -> None:
    scaled = torch.tensor([1.0, 5.0, 3.0], requires_grad=True)
    truth = torch.tensor([2.0, math.nan, 3.5])
    loss = loss_of(scaled, truth, torch.tensor([1.0, 9.0, 3.0]), "l1")
    assert loss.item() == pytest.approx((1 * 1.0 + 3 * 0.5) / 4)
    loss.backward()
    assert scaled.grad is not None
    assert scaled.grad.tolist() == pytest.approx([-0.25, 0.0, -0.75])


def test_a_batch_of_unknown_targets_is_harmless() -> None:
    scaled = torch.tensor([1.0, 5.0], requires_grad=True)
    loss = loss_of(scaled, torch.full((2,), math.nan), torch.ones(2), "mse")
    loss.backward()
    assert loss.item() == 0
    assert scaled.grad is not None
    assert scaled.grad.tolist() == [0, 0]


def test_likelihood_is_that_of_a_gaussian() -> None:
    predicted = {"y": torch.tensor([1.0, 2.0]), "y" + LOG_VARIANCE: torch.tensor([0.0, 1.5])}
    truth = torch.tensor([0.5, 4.0])
    found = optimise.row_losses(predicted, "y", truth, "nll")
    known = torch.distributions.Normal(predicted["y"], torch.exp(0.5 * predicted["y" + LOG_VARIANCE]))
    torch.testing.assert_close(found, -known.log_prob(truth) - 0.5 * math.log(2 * math.pi))


def test_tasks_weigh_the_same_in_the_validation(crystals: Crystals, tmp_path: Path) -> None:
    """On the scales they are learned on: the logarithm of something large does not outweigh the rest."""
    plan = recipe(epochs=1)
    large = Task("dielectric", Property("eps", "1", minimum=0.0, transform="log1p"))
    plan = replace(plan, tasks=(*plan.tasks, large))
    data = material(plan, crystals, 60, 90)
    data.target[:, 1] = np.exp(2 * data.target[:, 1])
    rows: list[dict[str, Any]] = []
    train.member(plan, 0, data, tmp_path, {}, rows.append)
    assert rows[0]["validation_mae_eps"] > 100
    assert 0.2 < rows[0]["validation_mae"] < 2


def test_tasks_weigh_the_same_in_the_loss() -> None:
    predicted = {"a": torch.tensor([1.0, 0.0, 0.0]), "b": torch.tensor([0.0, 2.0, 2.0])}
    truth = {"a": torch.tensor([0.0, math.nan, math.nan]), "b": torch.tensor([math.nan, 0.0, 0.0])}
    share = {"a": torch.tensor(1.0), "b": torch.tensor(2.0)}
    assert optimise.masked_loss(predicted, truth, torch.ones(3), share, "l1").item() == pytest.approx((1 + 2) / 2)


@pytest.mark.parametrize(("kind", "peak"), [("cosine", 100), ("onecycle", 300)])
def test_learning_rate_rises_then_falls_to_zero(kind: Any, peak: int) -> None:
    schedule = Schedule(kind=kind, warmup=0.1)
    rates = [optimise.rate_factor(schedule, step, 1000) for step in range(1001)]
    assert np.argmax(rates) == peak
    assert rates[peak] == 1
    assert rates[0] < 0.05
    assert rates[-1] == pytest.approx(0)
    assert (np.diff(rates[: peak - 1]) > 0).all()
    assert (np.diff(rates[peak:]) < 0).all()


def test_average_follows_fast_at_first_and_slowly_later() -> None:
    average = optimise.MovingAverage({"w": torch.zeros(1), "n": torch.tensor(0)}, 0.99)
    for step in range(2000):
        average.update({"w": torch.ones(1), "n": torch.tensor(step)})
        if step == 0:
            assert average.state["w"].item() > 0.8
    assert average.state["w"].item() == pytest.approx(1)
    assert average.state["n"].item() == 1999
    average.update({"w": torch.zeros(1), "n": torch.tensor(0)})
    assert average.state["w"].item() == pytest.approx(0.99)


def test_a_run_from_before_the_taper_goes_on_and_a_tapered_one_is_another() -> None:
    members = (MemberSpec("cgcnn", 0), MemberSpec("cgcnn", 1))
    plan = Recipe("x", (Task("3dsc-tc", Property("tc", "K")),), members)
    tapered = replace(plan, graph=GraphSpec(taper=0.3))
    assert fingerprints.of(plan, members[0], [], None) == "3ceba6bb290c3f4b"  # as the version without it made it
    assert fingerprints.of(tapered, members[0], [], None) != "3ceba6bb290c3f4b"
