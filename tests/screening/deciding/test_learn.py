"""Learning what was measured: a new ensemble, a new campaign, and no measured row that judges itself."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from assay.models.ensemble.ensemble import Ensemble
from assay.models.training import fit
from assay.screening.deciding import learn
from assay.screening.deciding.learn import Wish
from assay.screening.folder.results import Results
from assay.screening.settings import config
from assay.screening.settings.exits import Failure
from assay.screening.training import recipes
from assay.sources import datasets
from tests.screening import small_campaign
from tests.screening.conftest import Command, last_line

TC = {"name": "tc", "unit": "K", "minimum": 0.0}
FAR = 150.0
"""K: a value that no forest of these rows predicts."""
OUTPUTS = ("candidates.parquet", "summary.json", "config.resolved.yaml")


def recipe(network: str, **sizes: Any) -> dict[str, Any]:
    members = [{"network": network, "seed": seed, "sizes": sizes} for seed in range(2)]
    return {"name": "own", "tasks": [{"dataset": "3dsc-tc", "property": TC}], "limit": 500, "members": members,
            "split": {"folds": 2, "calibration": 0.2}, "schedule": {"epochs": 1}}  # fmt: skip


def campaign(folder: Path, content: dict[str, Any], name: str, n: int = 120) -> Results:
    """Decorated prototypes, ranked by an ensemble of this recipe."""
    fit.run(recipes.check(content, "here"), folder / name)
    sources = [{"kind": "prototypes", "n": n, "seed": 0}]
    rank = {"model": name, "property": "tc"}
    path = small_campaign.write_config(folder, folder / name, sources=sources, chunk_size=60, rank=rank)
    planned = small_campaign.make(path)
    small_campaign.run(planned)
    return Results(planned.folder)


@pytest.fixture(scope="module")
def ranked(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    return campaign(tmp_path_factory.mktemp("learn"), recipe("trees", trees=12), "forests")


@pytest.fixture(scope="module")
def tested(ranked: Results) -> str:
    """A formula of an element set that tests the ensemble."""
    split = json.loads((ranked.folder.parent / "forests" / "split.json").read_text())
    rows = datasets.load("3dsc-tc", 500)
    return str(rows.keys["formula"][rows.crystals.ids == split["test"][0]][0])


def test_measured_values_are_learned_and_the_campaign_is_ranked_again(
    ranked: Results, tested: str, tmp_path: Path, assay: Command
) -> None:
    last = ranked.candidates(["id", "formula", "tc_mean"]).to_pylist()[-1]
    rows = [
        "id,formula,value,unit,uncertainty",
        f"{last['id']},,{FAR},K,2",
        f",{tested},{FAR},,",
        ",MgB2,39,K,",
        "proto/none,,4,K,",
        ",MgB2,39,mK,",
        ",MgB2,many,K,",
        ",Qq3,39,K,",
        ",MgB2,39,K,,,5",
        f"{last['id']},MgB2,39,K,",
        ",MgB2,3_9,K,",
    ]
    (tmp_path / "new.csv").write_text("\n".join(rows))
    before = [(ranked.folder / name).read_bytes() for name in OUTPUTS]
    ended = assay("learn", ranked.folder, "--measured", "new.csv", "--output", "next", "--weight", "20")
    assert ended.returncode == 0, ended.stderr
    assert "3 measured values of tc are learned, 7 refused -> next-ensemble" in ended.stderr
    for number, why in {
        5: "scored no crystal with the id 'proto/none'",
        6: "unit is 'mK', tc is in K",
        7: "value is 'many', expected a number",
        8: "'Qq' is no symbol of an element",
        9: "more cells than the file has columns",
        10: "says id and formula, expected one of id, formula, file",
        11: "value is '3_9', expected a number",
    }.items():
        line = next(line for line in ended.stderr.splitlines() if line.startswith(f"line {number} of new.csv: "))
        assert why in line
    assert [(ranked.folder / name).read_bytes() for name in OUTPUTS] == before
    made = Results(tmp_path / "next")
    assert config.load(tmp_path / "next" / "config.resolved.yaml").models == ["next-ensemble"]
    now = {row["id"]: row for row in made.candidates(["id", "tc_mean", "in_training"]).to_pylist()}
    assert set(now) == {*ranked.candidates()["id"].to_pylist()}
    assert now[last["id"]]["tc_mean"] > last["tc_mean"] + 30
    assert now[last["id"]]["in_training"]
    again = assay("learn", ranked.folder, "--measured", "new.csv", "--output", "next", "--weight", "20")
    assert again.returncode == 0, again.stderr
    (tmp_path / "new.csv").write_text("\n".join(rows[:2]))
    other = assay("learn", ranked.folder, "--measured", "new.csv", "--output", "next")
    assert other.returncode == 78
    assert "data holds other values" in last_line(other.stderr)
    assert assay("verify", "next").returncode == 0
    (tmp_path / "more.csv").write_text("formula,value\nNb3Ge,23.2\n")
    third = assay("learn", "next", "--measured", "more.csv", "--output", "third")
    assert third.returncode == 0, third.stderr
    facts = Ensemble.load(tmp_path / "third-ensemble").facts
    assert facts["tasks"]["tc"]["measured"]["rows"] == 4
    weight = datasets.load(str(tmp_path / facts["recipe"]["measured"]["dataset"])).weight.tolist()
    error = np.median(ranked.predictions(["tc_std"])["tc_std"].to_numpy())
    assert weight == [pytest.approx(20 / (1 + (2 / error) ** 2)), 20.0, 20.0, 1.0]
    twice = assay("learn", "third", "--measured", "more.csv", "--output", "elsewhere/next")
    assert (twice.returncode, (tmp_path / "elsewhere").exists()) == (78, False)
    assert "an earlier round of measured values was written to a folder named next, too" in last_line(twice.stderr)
    _judged_by_others(ranked, tmp_path / "next-ensemble", tested)


def test_an_uncertain_value_moves_the_ensemble_less(ranked: Results, tmp_path: Path) -> None:
    name = ranked.candidates(["id"])["id"][-1].as_py()
    settings = config.load(ranked.folder / "config.resolved.yaml")
    found, weights = [], []
    for uncertainty in ("0", "500"):  # of the second measurement of one crystal
        (tmp_path / "new.csv").write_text(f"id,value,uncertainty\n{name},10,0\n{name},{FAR},{uncertainty}\n")
        wish = Wish(tmp_path / "new.csv", tmp_path / f"next-{uncertainty}")
        lesson = learn.prepare(settings, ranked, wish)
        weights.append(lesson.measured.crystals.columns["weight"].tolist())
        (made,) = learn.run(lesson, wish).ensembles
        predicted, _ = made.predict(ranked.crystals([name]))
        found.append(float(predicted.values["tc"].mean[0]))
    assert weights[0] == [1.0, 1.0]
    assert weights[1][0] == 1.0
    assert weights[1][1] < 0.01
    assert found[0] > 50
    assert found[1] < 20


def _again(tmp_path: Path, **changes: Any) -> Any:
    """The recipe by which an ensemble of networks learns measured values."""
    content = {**asdict(recipes.check(recipe("cgcnn", hidden=8), "here")), **changes}
    old: Any = SimpleNamespace(folder=tmp_path, facts={"recipe": content})
    lesson: Any = SimpleNamespace(ensemble=old, learned=SimpleNamespace(name="tc"))
    return learn._recipe(lesson, "later.parquet#measured")


def test_networks_go_on_from_their_weights_unless_these_know_the_folds(tmp_path: Path) -> None:
    assert _again(tmp_path).start.folder == str(tmp_path)
    anew = _again(tmp_path, cross_validation={"folds": 3, "repeats": 1})
    assert anew.start is None
    assert anew.measured.dataset == "later.parquet#measured"


def test_a_member_with_adapters_of_its_own_learns_on_with_them(tmp_path: Path) -> None:
    own = {"folder": "timm", "backbone_rate": 1e-3, "lora": {"rank": 4, "layers": ["source"]}}
    members = recipe("cgcnn", hidden=8)["members"]
    found = _again(tmp_path, members=[{**members[0], "start": own}, members[1]])
    assert found.members[0].start.lora.rank == 4
    assert found.members[0].start.folder == str(tmp_path)
    assert found.members[1].start is None


def _judged_by_others(ranked: Results, folder: Path, tested: str) -> None:
    """The parts are those of the old ensemble, without the groups of which a value was measured."""
    old, new = (json.loads((one / "split.json").read_text()) for one in (ranked.folder.parent / "forests", folder))
    rows = datasets.load("3dsc-tc", 500)
    sets = dict(zip(rows.crystals.ids.tolist(), rows.groups.tolist(), strict=True))
    alike = {sets[name] for name in new["always"] if name in sets}
    (mine,) = set(rows.groups[rows.keys["formula"] == tested])
    assert mine in alike
    assert [name for name in new["always"] if name not in sets] == ["next/2", "next/3", "next/4"]
    for part in ("test", "calibration"):
        assert new[part] == [name for name in old[part] if sets[name] not in alike]
    assert mine in {sets[name] for name in old["test"]}
    loaded = Ensemble.load(folder)
    assert loaded.facts["tasks"]["tc"]["measured"]["rows"] == 3
    assert loaded.facts["tasks"]["tc"]["rows"]["test"] == len(new["test"])
    assert "Every member also learned from 3 values that were measured later" in (folder / "README.md").read_text()


def test_networks_go_on_from_the_weights_of_the_ensemble(
    data: Path,
    tmp_path: Path,
) -> None:
    ranked = campaign(tmp_path, recipe("cgcnn", hidden=8, layers=1, bins=8) | {"limit": 300}, "graphs", 20)
    file = Path(__file__).resolve().parents[2] / "data" / "MgB2.cif"
    (tmp_path / "new.csv").write_text(f"file,formula,value\n{file},,39\n,MgB2,39\n")
    wish = Wish(tmp_path / "new.csv", tmp_path / "next")
    lesson = learn.prepare(config.load(ranked.folder / "config.resolved.yaml"), ranked, wish)
    assert [line.partition(": ")[2] for line in lesson.measured.refused] == [
        "own reads structures, and a formula has none; give an id or a file"
    ]
    planned = learn.run(lesson, wish)
    (made,) = planned.ensembles
    assert made.facts["recipe"]["start"]["folder"] == str(ranked.folder.parent / "graphs")
    assert planned.campaign.rank.model == made.folder.name == "next-ensemble"
    assert all(member.facts["start"] for member in made.members)
    old = Ensemble.load(ranked.folder.parent / "graphs")
    weights = [one.members[0].network.state_dict() for one in (old, made)]
    trunk = [name for name in weights[0] if not name.startswith("heads.") and weights[0][name].ndim == 2]
    moved = max(float(np.abs(weights[0][name] - weights[1][name]).max()) for name in trunk)
    assert 0 < moved < 0.01


def test_what_cannot_be_learned_is_refused(ranked: Results, tmp_path: Path) -> None:
    settings = config.load(ranked.folder / "config.resolved.yaml")
    (tmp_path / "new.csv").write_text("formula,vale\nMgB2,39\n")
    with pytest.raises(Failure, match="has the columns formula, vale; expected value, one of id, formula, file"):
        learn.prepare(settings, ranked, Wish(tmp_path / "new.csv", tmp_path / "next"))
    (tmp_path / "new.csv").write_text("formula,value\nMgB2,-1\n")
    with pytest.raises(Failure, match="line 2 of .*new.csv: value is -1, tc is at least 0 K"):
        learn.prepare(settings, ranked, Wish(tmp_path / "new.csv", tmp_path / "next"))
    with pytest.raises(Failure, match="holds a campaign that assay learn did not make"):
        learn.prepare(settings, ranked, Wish(tmp_path / "new.csv", ranked.folder))
