"""Evaluation: the right rows, loud about leaks, numbers that can be made again from the table, all on one page."""

import csv
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from assay.featurize import atoms
from assay.featurize.graphs import GraphSpec
from assay.models.ensemble import checkpoint, stored
from assay.models.ensemble.calibration import Calibration
from assay.models.ensemble.checkpoint import Checkpoint
from assay.models.ensemble.ensemble import Ensemble
from assay.models.ensemble.summary import PropertyPrediction
from assay.models.evaluation import evaluate, figures, metrics, split
from assay.models.evaluation.assessment import Truth
from assay.models.evaluation.split import Split, SplitSpec
from assay.models.networks import registry
from assay.models.target import Property
from assay.sources import datasets
from tests.models.evaluation.test_baselines import rocksalts

TC = Property("tc", "K", "identity", 0.0, 20.0, 5.0)
SPEC = SplitSpec(test=0.3, calibration=0.1, folds=2)


def untrained_ensemble(folder: Path, n: int = 120, seed: int = 0) -> str:
    """A data file of `n` crystals; the family is the parity of the first element."""
    crystals = rocksalts(n, seed)
    crystals = replace(crystals, ids=np.array([f"{seed}/{k}" for k in range(n)]))
    numbers = crystals.numbers.reshape(-1, 2).astype(float)
    family = np.where(numbers[:, 0] % 2 == 0, "even", "odd")
    crystals = crystals.with_columns(family=family, weight=np.random.default_rng(0).uniform(0.2, 1, n))
    folder.mkdir(exist_ok=True)
    return datasets.save(folder / f"{seed}.parquet", crystals, "tc", numbers.mean(axis=1), unit="K")


def untrained(folder: Path, dataset: str, spec: SplitSpec = SPEC, seed: int = 0, **facts: Any) -> Path:
    """An ensemble of random weights that says it was trained on a split of `dataset`."""
    sizes = {"hidden": 8, "layers": 1, "bins": 8}
    for k in range(3):
        torch.manual_seed(seed + k)
        network = registry.create("cgcnn", atoms.width(GraphSpec().atom_features), ["tc"], **sizes).eval()
        member = Checkpoint(network, "cgcnn", sizes, GraphSpec(), (TC,), ("Li",), {})
        checkpoint.write(member, folder / f"member-{k}")
    data = datasets.load(dataset)
    recipe = {"tasks": [{"dataset": dataset, "property": asdict(TC)}], "split": asdict(spec), "limit": None}
    written = {"tasks": {"tc": {"data": {"sha256": data.sha256}}}, "recipe": recipe, **facts}
    written = {key: value for key, value in written.items() if value is not None}
    members = [f"member-{k}" for k in range(3)]
    stored.write(folder, f"random-{seed}", members, {"tc": Calibration(0.9, 4.0, 2.0, 12, 3.0)}, written)
    divided = split.divide(data.keys, spec)
    (folder / "split.json").write_text(divided.to_json(data.crystals.ids))
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(scope="module")
def dataset(place: Path) -> str:
    return untrained_ensemble(place)


@pytest.fixture(scope="module")
def folder(place: Path, dataset: str) -> Path:
    return untrained(place / "model", dataset)


@pytest.fixture(scope="module")
def found(place: Path, folder: Path) -> dict[str, Any]:
    return evaluate.run(folder, place / "out", threshold=30.0)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No forests, no figures: where the test is about rows."""

    def median(crystals, target, weight, train, test, prop, jobs) -> dict[str, np.ndarray]:
        return {"extra trees": np.full(len(test), np.median(target[train]))}

    monkeypatch.setattr(evaluate.baselines, "predict", median)
    monkeypatch.setattr(evaluate.figures, "draw", lambda *_: [])


def test_the_test_rows_are_those_of_the_split_file(place: Path, dataset: str, folder: Path, found: Any) -> None:
    data = datasets.load(dataset)
    test = Split.read(folder / "split.json", data.crystals.ids).test
    rows = list(csv.DictReader((place / "out/predictions.csv").open()))
    assert [row["id"] for row in rows] == data.crystals.ids[test].tolist()
    assert found["rows"]["evaluated"] == len(test)
    assert found["rows"]["trained_on"] == 0
    assert found["rows"]["element_set_trained_on"] == 0
    assert found["warnings"] == []


def test_scores_can_be_made_again_from_the_table(place: Path, found: Any) -> None:
    rows = list(csv.DictReader((place / "out/predictions.csv").open()))
    column = {
        name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name not in ("id", "element_set")
    }
    for name, scores in (("tc_mean", found["scores"]), ("extra trees", found["rivals"]["extra trees"])):
        again = metrics.regression(column["tc_known"], column[name], column["weight"])
        assert {key: scores[key] for key in again} == pytest.approx(again, rel=1e-4)
    inside = metrics.coverage(column["tc_known"], column["tc_lo"], column["tc_hi"], column["weight"])
    assert found["error_bars"]["coverage"] == pytest.approx(inside)
    assert set(found["error_bars"]["gaussian"]) == {"spread of the members", "calibrated std", "interval"}
    for part in ("by_range", "by_family"):
        assert sum(one["share"] * one["mae"] for one in found[part]) == pytest.approx(found["scores"]["mae"])
    assert {one["family"] for one in found["by_family"]} == {"even", "odd"}


def test_random_weights_do_not_beat_the_trees(found: Any) -> None:
    compared = found["compared"]["extra trees"]
    assert compared["difference"] == pytest.approx(found["scores"]["mae"] - found["rivals"]["extra trees"]["mae"])
    assert compared["low"] > 0
    assert compared["p"] < 0.01


def test_the_folder_holds_page_numbers_and_figures(place: Path, found: Any) -> None:
    out = place / "out"
    assert json.loads((out / "evaluation.json").read_text())["scores"] == json.loads(json.dumps(found["scores"]))
    page = (out / "evaluation.md").read_text()
    for said in ("| **this ensemble** |", "| extra trees |", "by element set, seed 0", "## Error by family", "worse"):
        assert said in page
    assert "WARNING" not in page
    assert "nan" not in page
    for name in found["figures"]:
        assert (out / name).read_bytes().startswith(b"\x89PNG")
        assert f"({name})" in page
    assert "enrichment.png" in found["figures"]


def test_twice_gives_the_same_bytes(place: Path, folder: Path, found: Any) -> None:
    evaluate.run(folder, place / "again", threshold=30.0)
    for path in sorted((place / "out").iterdir()):
        assert path.read_bytes() == (place / "again" / path.name).read_bytes(), path.name


@pytest.mark.usefixtures("quick")
def test_the_split_is_made_again_where_no_file_holds_it(place: Path, dataset: str, found: Any) -> None:
    """As in the first release: no split.json, one task, which is the recipe itself."""
    sha256 = datasets.load(dataset).sha256
    recipe = {"dataset": dataset, "property": asdict(TC), "split": asdict(SPEC), "limit": None}
    old = untrained(place / "old", dataset, tasks=None, recipe=recipe, data={"sha256": sha256})
    (old / "split.json").unlink()
    assert evaluate.run(old, place / "out-old")["scores"] == found["scores"]
    described = json.loads((old / "ensemble.json").read_text())
    (old / "ensemble.json").write_text(json.dumps({**described, "data": {"sha256": "0" * 64}}))
    stored.seal(old)
    with pytest.raises(ValueError, match="trained on another file of .* cannot be told"):
        evaluate.run(old, place / "out-old")


@pytest.mark.usefixtures("quick")
def test_training_rows_are_loudly_called_so(place: Path, folder: Path, found: Any) -> None:
    trained = evaluate.run(folder, place / "out-development", part="development")
    n = trained["rows"]["evaluated"]
    assert trained["rows"]["trained_on"] == n
    assert trained["warnings"][0].startswith(f"{n} of {n} evaluated crystals WERE TRAINED ON")
    assert "> **WARNING.**" in (place / "out-development/evaluation.md").read_text()
    every = evaluate.run(folder, place / "out-all", part="all")
    assert every["rows"]["evaluated"] == 120
    assert every["rows"]["trained_on"] == n
    assert every["new_compositions"]["rows"] >= found["rows"]["evaluated"]


@pytest.mark.usefixtures("quick")
def test_a_random_split_is_told_from_a_grouped_one(place: Path) -> None:
    """Two crystals of one composition on both sides of a split by row."""
    base = rocksalts(60).select(np.repeat(np.arange(60), 2))
    base = replace(base, ids=np.array([f"twin/{k}" for k in range(120)]))
    dataset = datasets.save(place / "twins.parquet", base, "tc", np.linspace(0, 90, 120), unit="K")
    found = evaluate.run(untrained(place / "leaky", dataset, replace(SPEC, by="row")), place / "out-leaky")
    rows = found["rows"]
    assert rows["trained_on"] == 0
    assert 0 < rows["same_composition_trained_on"] < rows["evaluated"]
    assert "have the composition of a crystal that was trained on" in found["warnings"][0]
    assert found["new_compositions"]["rows"] == rows["evaluated"] - rows["same_composition_trained_on"]


@pytest.mark.usefixtures("quick")
def test_another_dataset_has_no_test_part_and_is_searched_for_known_crystals(place: Path, folder: Path) -> None:
    other = untrained_ensemble(place, n=30, seed=1)
    with pytest.raises(ValueError, match="has no test part; ask for part all"):
        evaluate.run(folder, place / "out-other", dataset=other)
    found = evaluate.run(folder, place / "out-other", dataset=other, part="all")
    assert found["rows"]["evaluated"] == 30
    assert found["rows"]["learned_from"] > 50
    same = place / "renamed.parquet"  # the same crystals under other ids
    crystals = replace(rocksalts(120), ids=np.array([f"new/{k}" for k in range(120)]))
    again = datasets.save(same, crystals, "tc", np.linspace(0, 90, 120), unit="K")
    renamed = evaluate.run(folder, place / "out-renamed", dataset=again, part="all")
    assert renamed["rows"]["trained_on"] == 0
    assert "have the composition" in renamed["warnings"][0]


@pytest.mark.usefixtures("quick")
def test_another_unit_a_wrong_part_and_a_useless_threshold_are_refused(place: Path, folder: Path) -> None:
    volts = datasets.save(place / "eV.parquet", rocksalts(9), "gap", np.arange(9.0), unit="eV")
    with pytest.raises(ValueError, match="is in eV, .* predicts tc in K"):
        evaluate.run(folder, place / "no", dataset=volts, part="all")
    with pytest.raises(ValueError, match="part is 'tests', expected one of test, calibration"):
        evaluate.run(folder, place / "no", part="tests")
    with pytest.raises(ValueError, match=r"0 of \d+ known values are above 500"):
        evaluate.run(folder, place / "no", threshold=500)
    assert not (place / "no").exists()


@pytest.mark.usefixtures("quick")
def test_an_ensemble_without_a_recipe_is_evaluated_with_a_warning(place: Path, dataset: str) -> None:
    bare = untrained(place / "bare", dataset, tasks=None, recipe=None)
    with pytest.raises(ValueError, match="name the dataset to evaluate"):
        evaluate.run(bare, place / "out-bare")
    found = evaluate.run(bare, place / "out-bare", dataset=dataset, part="all")
    assert "does not say what it was trained on: any of the 120 rows" in found["warnings"][0]
    assert found["rivals"] == {}
    assert "Nothing to compare with" in (place / "out-bare/evaluation.md").read_text()


@pytest.mark.usefixtures("quick")
def test_a_second_ensemble_is_compared_on_the_same_rows(place: Path, dataset: str, folder: Path, found: Any) -> None:
    other = untrained(place / "other", dataset, seed=40)
    both = evaluate.run(folder, place / "out-both", against=other)
    assert both["scores"] == found["scores"]
    alone = evaluate.run(other, place / "out-alone")
    assert both["rivals"]["random-40"] == alone["scores"]
    difference = both["compared"]["random-40"]["difference"]
    assert difference == pytest.approx(found["scores"]["mae"] - alone["scores"]["mae"])


@pytest.mark.usefixtures("quick")
def test_a_second_ensemble_that_learned_the_rows_is_refused(place: Path, dataset: str, folder: Path) -> None:
    unfair = untrained(place / "unfair", dataset, replace(SPEC, seed=1))
    with pytest.raises(ValueError, match=r"unfair was trained on \d+ of the \d+ test rows"):
        evaluate.run(folder, place / "out-unfair", against=unfair)


@pytest.mark.usefixtures("quick")
def test_rows_the_start_was_trained_on_are_called_so(place: Path, dataset: str, folder: Path) -> None:
    untrained(place / "before", dataset, replace(SPEC, seed=1))
    described = json.loads((folder / "ensemble.json").read_text())
    after = place / "after"
    shutil.copytree(folder, after)
    described["recipe"]["start"] = {"folder": str(place / "before" / "member-0")}
    (after / "ensemble.json").write_text(json.dumps(described))
    stored.seal(after)
    found = evaluate.run(after, place / "out-after")
    assert "WERE TRAINED ON by" in found["warnings"][0]
    described["recipe"]["start"] = {"folder": str(place / "gone")}
    (after / "ensemble.json").write_text(json.dumps(described))
    stored.seal(after)
    assert "is not known here" in evaluate.run(after, place / "out-after")["warnings"][0]


@pytest.mark.usefixtures("quick")
def test_crystals_that_cannot_be_predicted_are_named(place: Path, dataset: str, folder: Path) -> None:
    crystals = rocksalts(9, seed=5)
    frac = crystals.frac.copy()
    frac[1] = [0.02, 0, 0]
    close = datasets.save(place / "close.parquet", replace(crystals, frac=frac), "tc", np.arange(9.0), unit="K")
    found = evaluate.run(folder, place / "out-close", dataset=close, part="all")
    assert (found["rows"]["evaluated"], found["rows"]["refused"]) == (8, 1)
    other = untrained(place / "close-too", dataset, seed=40)
    both = evaluate.run(folder, place / "out-close-too", dataset=close, part="all", against=other)
    assert (both["rows"]["evaluated"], both["rows"]["refused"]) == (8, 1)  # refused by both, counted once
    assert "two sites that hold 1 and 1 atoms are 0.080 Å apart" in (place / "out-close/evaluation.md").read_text()


def test_the_bundled_tc_ensemble_reproduces_its_card(quick: None, zoo: Path, data: Path, tmp_path: Path) -> None:
    said = Ensemble.load(zoo / "tc-graphs").facts
    said = said.get("tasks", {}).get("tc", said)["test"]
    found = evaluate.run(zoo / "tc-graphs", tmp_path, threshold=20.0)
    assert found["scores"]["mae"] == pytest.approx(said["mae"], rel=1e-3)
    assert found["rows"]["element_set_trained_on"] == 0
    assert [one["range"] for one in found["by_range"]][:2] == ["0", "above 0 to 5"]


@pytest.mark.parametrize(("unit", "error"), [("log10(GPa)", "MAE (log10(GPa))"), ("", "MAE"), ("K", "MAE (K)")])
def test_axes_have_the_whole_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str, error: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    drawn: list[tuple[str, str]] = []

    def note(canvas: FigureCanvasAgg, *_: object, **__: object) -> None:
        (axes,) = canvas.figure.axes
        drawn.append((axes.get_xlabel(), axes.get_ylabel()))

    monkeypatch.setattr(FigureCanvasAgg, "print_png", note)
    known, spread = np.linspace(0.0, 1.0, 50), np.full(50, 0.1)
    truth = Truth(known, np.ones(50), np.arange(50), Property("bulk", unit))
    said = PropertyPrediction(known, spread, known - spread, known + spread, known[:, None], spread)
    figures.draw(tmp_path, truth, said, {}, 0.9, 0.5)
    bulk = f"bulk ({unit})" if unit else "bulk"
    assert drawn[0] == (f"known {bulk}", f"predicted {bulk}")
    assert drawn[3] == (f"known {bulk}", error)
    assert drawn[4][1] == f"share of crystals with bulk above 0.5 {unit}".rstrip() + " found"
