"""A study: trained on real crystals, measured on the same rows, made again from what is kept."""

import json
from pathlib import Path

import numpy as np
import pytest

from assay.screening.settings.exits import Failure
from assay.screening.training import design, page, study

RECIPE = """
name: phonons
tasks: [{dataset: phonons, property: {name: phonons, unit: 1/cm, minimum: 0.0}}]
graph: {atom_features: properties-identity-v1}
split: {by: formula, folds: 3}
schedule: {epochs: 2, batch_size: 16}
limit: 150
members: [{network: cgcnn, seed: 0}, {network: cgcnn, seed: 1}]
"""
STUDY = """
name: small
title: A small study
recipe: recipe.yaml
member: {network: cgcnn, sizes: {hidden: 8, layers: 1, bins: 8}}
seeds: [0, 1, 2]
compare: scratch
tasks:
  2D gap: {dataset: 2d-gap, property: {name: gap, unit: eV, minimum: 0.0}}
columns:
  phonons: {}
  gap: {tasks: ["@2D gap"]}
  two:
    tasks:
      - {dataset: phonons, property: {name: phonons, unit: 1/cm, minimum: 0.0}}
      - {dataset: 2d-gap, property: {name: gap, unit: eV, minimum: 0.0}}
pretraining:
  dielectric: {tasks: [{dataset: dielectric, property: {name: eps, unit: "1"}}]}
rows:
  scratch: {}
  dielectric first: {set: {start.folder: "@dielectric", start.backbone_rate: 1.0e-3}}
  first task alone: {columns: [two], seeds: [0, 1], set: {tasks.1.share: 0.0}}
  less data: {columns: [gap], seeds: [3, 4], set: {learn_from: 20}}
mixtures:
  both and trees: [scratch, dielectric first, extra trees]
notes: Told below.
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "study.yaml").write_text(STUDY)
    study.run(folder / "study.yaml", folder / "out")
    return folder


def test_every_cell_is_measured_on_the_rows_of_its_column(finished: Path) -> None:
    results = json.loads((finished / "out/results.json").read_text())
    for column in ("phonons", "gap"):
        scores = results[column]["scores"]
        wanted = {"scratch", "dielectric first", "both and trees", "extra trees", "gradient boosting"}
        assert wanted <= set(scores)
        assert ("less data" in scores) == (column == "gap")
        assert all(np.isfinite(one["mae"]) for one in scores.values())
        assert len(scores["scratch"]["single_mae"]) == 3
        assert scores["scratch"]["mae"] <= np.mean(scores["scratch"]["single_mae"]) + 1e-9  # averaging cannot hurt
    assert results["gap"]["unit"] == "eV"
    assert results["two"]["unit"] == "1/cm"
    assert results["two"]["scores"]["first task alone"]["mae"] != results["two"]["scores"]["scratch"]["mae"]


def test_the_page_has_a_line_per_way_and_the_command(finished: Path) -> None:
    page = (finished / "out/results.md").read_text()
    for text in (
        "### A small study",
        "| scratch |",
        "| both and trees |",
        "| extra trees |",
        "Told below.",
        "assay study",
    ):
        assert text in page
    line = next(line for line in page.splitlines() if line.startswith("| less data | –"))
    assert line.count("|") == 5
    assert "Of the lines less data only the networks learn from few rows" in page
    assert "2 of less data)" in page
    assert "| dielectric first | " in page.split("one network, against scratch")[1]
    assert page.count("**") >= 4  # the best of each column


def test_members_that_are_fitted_at_once_tell_no_minutes(finished: Path) -> None:
    made = design.load(finished / "study.yaml")
    results = json.loads((finished / "out/results.json").read_text())
    assert "Minutes of training" in page.write(made, results, "assay study")
    for column in made.columns:
        results[column]["seconds"] = dict.fromkeys(results[column]["seconds"], 0.0)
    assert "Minutes of training" not in page.write(made, results, "assay study")


def test_what_is_trained_is_kept(finished: Path) -> None:
    before = json.loads((finished / "out/results.json").read_text())
    written = {path: path.stat().st_mtime_ns for path in (finished / "out").rglob("weights.safetensors")}
    assert written
    study.run(finished / "study.yaml", finished / "out")
    after = json.loads((finished / "out/results.json").read_text())
    assert after["gap"]["scores"] == before["gap"]["scores"]
    assert {path: path.stat().st_mtime_ns for path in (finished / "out").rglob("weights.safetensors")} == written


def test_members_start_from_the_pretrained_trunk(finished: Path) -> None:
    described = json.loads((finished / "out/dielectric_first/gap/member-2/model.json").read_text())
    assert described["start"].endswith("pretraining/dielectric")
    assert described["rows"]["train"] > 20
    little = json.loads((finished / "out/less_data/gap/member-0/model.json").read_text())
    assert little["rows"]["train"] == 20
    models = sorted((finished / "out/less_data/gap").rglob("model.json"))
    assert [json.loads(path.read_text())["seed"] for path in models] == [3, 4]


@pytest.mark.parametrize(
    ("text", "wrong", "message"),
    [
        ("seeds: [0, 1, 2]", "seeds: [0]", "expected at least 2"),
        ("extra trees]", "oak trees]", "'oak trees' is neither row nor baseline"),
        ("columns: [gap]", "colums: [gap]", "did you mean 'columns'"),
        ("learn_from: 20", "learn_fro: 20", "learn_from"),
        ('"@dielectric"', '"@dielectrics"', "dielectrics"),
        ("columns: [gap]", "columns: [gab]", "'gab' is no column: phonons, gap, two"),
        ("compare: scratch", "compare: less data", "'less data' is no row that is tried on all columns"),
        ("{learn_from: 20}", "{split.seed: 3}", "less data, gap: split is not that of 'scratch'"),
        ('"@2D gap"', '"@3D gap"', "@3D gap is no task; known: 2D gap"),
    ],
)
def test_a_wrong_study_says_what_is_wrong(text: str, wrong: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "study.yaml").write_text(STUDY.replace(text, wrong))
    with pytest.raises(Failure, match=message):
        study.run(tmp_path / "study.yaml", tmp_path / "out")
    assert not (tmp_path / "out").exists()
