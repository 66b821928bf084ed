"""Ensembles with members that read the composition alone: trained, stored, damaged, mixed with others, measured."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from assay.featurize import alternatives, graphs as crystal_graphs
from assay.featurize.composition import CompositionSpec
from assay.models.ensemble import checkpoint, inference, reading, stored
from assay.models.ensemble.calibration import Calibration
from assay.models.ensemble.device import DevicePath
from assay.models.ensemble.distribution.decision import Decision
from assay.models.ensemble.distribution.quantiles import QuantileCalibration
from assay.models.ensemble.ensemble import Ensemble
from assay.models.evaluation import evaluate
from assay.models.target import Property
from assay.models.training import fit, members
from assay.models.training.recipe import MemberSpec, Schedule, Task
from assay.sources import datasets
from assay.sources.crystals import Crystals
from tests.composition_ensemble import ENERGY, recipe
from tests.models.networks.test_networks import SMALL


def files(folder: Path) -> dict[str, str]:
    kept = [
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("README.md", "model.json", "ensemble.json")
    ]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in kept}


def test_it_predicts_what_it_learned(blind: Path, crystals: Crystals) -> None:
    found, refused = Ensemble.load(blind).predict(crystals)
    assert refused == []
    error = np.abs(found.values[ENERGY.name].mean - crystals.columns["e_form"])
    assert np.average(error) < 0.5 * np.abs(crystals.columns["e_form"] - np.median(crystals.columns["e_form"])).mean()
    assert (found.ood_distance > 0).all()


def test_trained_again_every_file_is_the_same(blind: Path, crystals: Crystals, tmp_path: Path) -> None:
    fit.run(recipe(blind.parent, crystals), tmp_path)
    assert files(tmp_path) == files(blind)
    assert {"member-0/weights.safetensors", "reference.safetensors", "split.json"} <= set(files(blind))


def test_a_recipe_decides_by_the_draws_and_changes_no_member(blind: Path, crystals: Crystals, tmp_path: Path) -> None:
    shutil.copytree(blind, tmp_path, dirs_exist_ok=True)  # members are kept: their fingerprint is the same
    plan = replace(recipe(blind.parent, crystals), decision=Decision("interquartile-mean"))
    made = fit.run(plan, tmp_path)
    assert made is not None
    now, before = files(tmp_path), files(blind)
    assert now.pop("calibration.safetensors") != before.pop("calibration.safetensors")  # it holds predictions
    assert now == before
    assert made.decisions == {ENERGY.name: plan.decision}
    fitted = made.calibration[ENERGY.name]
    assert isinstance(fitted, QuantileCalibration)
    card = (tmp_path / "README.md").read_text()
    assert f"| all | {fitted.widening[0]:+.3g} | {fitted.scale[0]:.3g} | {fitted.n[0]} |" in card
    assert "spread of the members" not in card
    assert made.facts["recipe"]["decision"]["kind"] == "interquartile-mean"


def test_a_decision_needs_draws_and_counts_all_alike(blind: Path, crystals: Crystals) -> None:
    plan = replace(recipe(blind.parent, crystals), decision=Decision())
    with pytest.raises(ValueError, match="decision rests on the values of trees, and cgcnn has none"):
        replace(plan, members=(*plan.members, MemberSpec("cgcnn", 2)))
    with pytest.raises(ValueError, match="decision counts all trees alike, so combine cannot be 'stacking'"):
        replace(plan, combine="stacking")


def test_a_run_goes_on_with_the_members_that_are_there(
    blind: Path, crystals: Crystals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = recipe(blind.parent, crystals)
    shutil.copytree(blind / "member-0", tmp_path / "member-0")
    members.train_one(plan, 1, tmp_path)
    assert files(tmp_path) == {name: digest for name, digest in files(blind).items() if name.startswith("member")}
    monkeypatch.setattr("assay.models.training.forests.fit", None)  # whoever calls it fails
    members.train_one(plan, 0, tmp_path)
    with pytest.raises(ValueError, match="holds a training run of another recipe or other data"):
        members.train_one(replace(plan, members=(replace(plan.members[0], seed=9), plan.members[1])), 0, tmp_path)


def test_it_has_learned_from_formulas_and_says_so(blind: Path) -> None:
    member = Ensemble.load(blind).members[0]
    assert "Rn" in member.elements  # in a formula only
    assert member.facts["rows"]["train"] > len(json.loads((blind / "split.json").read_text())["folds"][1])
    assert [one["name"] for one in member.facts["data"]][1].endswith("formulas.parquet#e_form")
    card = (blind / "README.md").read_text()
    assert "from the composition alone" in card
    assert "also learned from the formulas of" in card
    assert "counts [[" not in card


def test_no_graph_is_built_and_no_site_is_compared(
    blind: Path, crystals: Crystals, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, _ = Ensemble.load(blind).predict(crystals)
    for module, name in (
        (crystal_graphs, "build"),
        (alternatives, "find"),
        (inference, "united"),
        (reading, "of_crystals"),
    ):
        monkeypatch.setattr(module, name, None)  # whoever calls it fails
    found, refused = Ensemble.load(blind).predict(crystals)
    assert refused == []
    np.testing.assert_array_equal(found.values[ENERGY.name].mean, wanted.values[ENERGY.name].mean)


def test_the_place_of_atoms_and_the_cell_do_not_matter(blind: Path, crystals: Crystals) -> None:
    ensemble, rng = Ensemble.load(blind), np.random.default_rng(0)
    moved = replace(crystals, frac=rng.random(crystals.frac.shape), lattice=1.3 * crystals.lattice)
    one, other = (ensemble.predict(batch)[0].values[ENERGY.name] for batch in (crystals, moved))
    np.testing.assert_array_equal(one.members, other.members)
    few = ensemble.predict(crystals[40:45])[0].values[ENERGY.name]
    np.testing.assert_allclose(few.members, one.members[40:45], rtol=0, atol=1e-6)


def test_a_heavy_element_and_empty_sites_are_refused(blind: Path, crystals: Crystals) -> None:
    few = crystals[:4]
    numbers, occupancy = few.numbers.copy(), few.occupancy.copy()
    numbers[few.site_ptr[1]] = 110
    occupancy[few.site_ptr[2] : few.site_ptr[3]] = 1e-7
    found, refused = Ensemble.load(blind).predict(replace(few, numbers=numbers, occupancy=occupancy))
    assert found.index.tolist() == [0, 3]
    assert sorted(row.id for row in refused) == sorted(few.ids[[1, 2]])
    assert "occupancies are 0" in " ".join(row.message for row in refused)


def test_mixed_with_graph_members_each_predicts_what_it_does_alone(
    blind: Path, crystals: Crystals, tmp_path: Path
) -> None:
    plan = recipe(blind.parent, crystals)
    cgcnn = MemberSpec("cgcnn", 3, SMALL["cgcnn"])
    plan = replace(plan, name="mixed", members=(plan.members[0], cgcnn), schedule=Schedule(epochs=1))
    mixed = fit.run(plan, tmp_path)
    assert mixed is not None
    assert (tmp_path / "member-0/weights.safetensors").read_bytes() == (
        blind / "member-0/weights.safetensors"
    ).read_bytes()
    assert mixed.reference is not None
    assert mixed.reference.member == 1  # the one that reads graphs
    found, refused = mixed.predict(crystals)
    alone, _ = Ensemble.load(blind).predict(crystals)
    assert refused == []
    np.testing.assert_array_equal(found.values[ENERGY.name].members[:, 0], alone.values[ENERGY.name].members[:, 0])
    assert np.ptp(found.values[ENERGY.name].members[:, 1]) > 0
    on_device = replace(mixed, device=DevicePath(mixed.members, torch.device("cpu")))
    moved, _ = on_device.predict(crystals[:20])
    np.testing.assert_allclose(moved.values[ENERGY.name].members, found.values[ENERGY.name].members[:20], atol=1e-3)


def test_several_properties_have_a_forest_each(blind: Path, crystals: Crystals, tmp_path: Path) -> None:
    plan = recipe(blind.parent, crystals)
    gaps = datasets.save(tmp_path / "gaps.parquet", crystals, "gap", crystals.columns["gap_pbe"], unit="eV")
    gap = Task(gaps, Property("band_gap", "eV", minimum=0.0, transform="sqrt"))
    plan = replace(plan, tasks=(*plan.tasks, gap), formulas=replace(plan.formulas, property=ENERGY.name))
    made = fit.run(plan, tmp_path / "both")
    assert made is not None
    found, refused = made.predict(crystals)
    assert refused == []
    known = np.isfinite(crystals.columns["gap_pbe"])
    for name, truth in ((ENERGY.name, crystals.columns["e_form"]), ("band_gap", crystals.columns["gap_pbe"])):
        error = np.abs(found.values[name].mean - truth)[known]
        assert error.mean() < 0.6 * np.abs(truth[known] - np.median(truth[known])).mean()
    assert found.values["band_gap"].mean.min() >= 0
    counts = made.members[0].sizes["counts"]
    assert counts[0] != counts[1]


def test_members_with_tables_of_their_own_and_one_that_learns_step_by_step(
    blind: Path, crystals: Crystals, tmp_path: Path
) -> None:
    made = recipe(tmp_path, crystals)
    few = {"trees": 5, "max_features": 0.2}
    own = MemberSpec("trees", 1, few, composition=CompositionSpec(("properties", "amounts")))
    attention = MemberSpec("set-attention", 2, {"hidden": 16, "layers": 1})
    made = replace(made, members=(MemberSpec("trees", 0, few), own, attention), schedule=Schedule(epochs=4))
    fit.run(made, tmp_path / "mixed")
    loaded = Ensemble.load(tmp_path / "mixed")
    assert [member.spec for member in loaded.members] == [CompositionSpec(), own.composition, CompositionSpec()]
    assert "max_features 0.2; reads properties, amounts |" in (tmp_path / "mixed" / "README.md").read_text()
    found = loaded.predict(crystals)[0].values[ENERGY.name].members
    assert np.isfinite(found).all()
    alone = replace(loaded, members=loaded.members[1:], weights={}, reference=None)
    np.testing.assert_allclose(alone.predict(crystals)[0].values[ENERGY.name].members, found[:, 1:], atol=1e-6)
    with pytest.raises(ValueError, match="cgcnn reads graphs and no table of the composition"):
        replace(made, members=(*made.members, MemberSpec("cgcnn", 0, composition=own.composition)))


def test_it_is_evaluated_beside_its_baselines(blind: Path, tmp_path: Path) -> None:
    found = evaluate.run(blind, tmp_path)
    assert found["rows"]["refused"] == 0
    assert found["rows"]["trained_on"] == 0
    assert not any("formulas of" in text for text in found["warnings"])
    everything = evaluate.run(blind, tmp_path / "all", part="all")
    assert any("also learned from the formulas of" in text for text in everything["warnings"])


def damaged(blind: Path, folder: Path, part: str, change: Any, member: int = 0) -> Path:
    """A copy in which one array was changed by somebody who knows of the digests."""
    shutil.copytree(blind, folder)
    path = folder / f"member-{member}/weights.safetensors"
    tensors = load(path.read_bytes())
    name = next(name for name in tensors if name.endswith(part))
    tensors[name] = change(tensors[name].clone())
    path.write_bytes(save(tensors))
    described = json.loads((folder / f"member-{member}/model.json").read_text())
    described["weights_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / f"member-{member}/model.json").write_text(json.dumps(described))
    stored.seal(folder)
    return folder


def put(value: float) -> Any:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        numbers = tensor.numpy()
        numbers[len(numbers) // 2] = value
        return tensor

    return change


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("kind", lambda tensor: tensor.roll(1), "are not 20 whole trees on 241 features"),
        ("kind", put(255), "splits and"),
        ("kind", lambda tensor: tensor[:-1].clone(), "has shape"),
        ("feature", put(241), "a split asks for feature 241, expected less than 241"),
        ("feature", lambda tensor: tensor.to(torch.int32), "feature is I32, expected U16"),
        ("entry", put(65000), "a leaf holds training row 65000"),
        ("threshold", put(np.nan), "threshold has numbers from nan"),
        ("weight", put(0), "a weight is not above 0"),
        ("weight", put(-1), "a weight is not above 0"),
        ("value", put(np.inf), "value has numbers from"),
    ],
)
def test_a_damaged_tree_is_refused_in_one_line(
    blind: Path, tmp_path: Path, part: str, change: Any, message: str
) -> None:
    with pytest.raises(ValueError) as caught:
        Ensemble.load(damaged(blind, tmp_path / "damaged", part, change))
    assert "\n" not in str(caught.value)
    assert message in str(caught.value)
    assert "member-0/weights.safetensors" in str(caught.value)


def test_an_exact_threshold_that_is_not_there_is_refused(blind: Path, tmp_path: Path) -> None:
    folder = damaged(blind, tmp_path / "damaged", "threshold", put(65504), member=1)
    with pytest.raises(ValueError, match=r"[0-9]+ thresholds are said to be exact, and [0-9]+ exact ones are there"):
        Ensemble.load(folder)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([[10**9, 5, 5, 0, 0]], "sizes.counts.0.0 is 1000000000, expected a whole number from 0 to"),
        ([[1, 5, 5, 0, 0]], "has shape"),
        ([], "has shape"),
        ([[1, 2]], "expected five numbers for each of 1"),
    ],
)
def test_counts_that_the_weights_do_not_show_are_refused(
    blind: Path, tmp_path: Path, counts: Any, message: str
) -> None:
    folder = Path(shutil.copytree(blind / "member-0", tmp_path / "member"))
    described = json.loads((folder / "model.json").read_text())
    described["sizes"]["counts"] = counts
    (folder / "model.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match=message):
        checkpoint.read(folder)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"blocks": ["shares", "magic"]}, "expected different names out of"),
        ({"blocks": []}, "composition.blocks is .., expected a list of at least 1"),
        ({"blocks": [3]}, "composition.blocks.0 is 3, expected text"),
        ({"columns": ["shares"]}, "composition has an unknown key 'columns'"),
        ({"blocks": ["shares"]}, "has shape"),
    ],
)
def test_a_table_that_is_none_is_refused(blind: Path, tmp_path: Path, table: Any, message: str) -> None:
    folder = Path(shutil.copytree(blind / "member-0", tmp_path / "member"))
    described = json.loads((folder / "model.json").read_text())
    described["composition"] = table
    (folder / "model.json").write_text(json.dumps(described))
    with pytest.raises(ValueError, match=message):
        checkpoint.read(folder)


def test_a_member_without_trees_is_refused_where_it_is_read(blind: Path, tmp_path: Path) -> None:
    """What `registry.create` makes is empty until training has fitted it."""
    member = checkpoint.read(blind / "member-0")
    empty = type(member.network)(241, [ENERGY.name], trees=20)
    sizes = {key: value for key, value in member.sizes.items() if key != "counts"}
    for k in range(2):
        checkpoint.write(replace(member, network=empty, sizes=sizes), tmp_path / f"member-{k}")
    stored.write(tmp_path, "empty", ["member-0", "member-1"], {ENERGY.name: Calibration(0.9, 2.0, 0.5, 9, 1.0)}, {})
    with pytest.raises(ValueError, match="0 nodes, 0 thresholds and 0 entries are not 20 whole trees"):
        Ensemble.load(tmp_path)
