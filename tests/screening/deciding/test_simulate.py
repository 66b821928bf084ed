"""Rehearsals: strategies beat chance, hidden values stay hidden, and the same file gives the same bytes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from assay.models.target import Property
from assay.screening.deciding import pool as pools, replay, scores, simulate
from assay.screening.deciding.pool import Pool
from assay.screening.deciding.surrogate import Surrogate
from assay.screening.settings.exits import Failure
from assay.sources import datasets
from assay.sources.crystals import Crystals, concat
from tests.screening.conftest import Command, last_line

FILES = ("simulation.md", "simulation.json", "rounds.parquet", "discovery.png")


@pytest.fixture(scope="module")
def dataset(crystals: Crystals, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Formation energies of about 300 crystals, and a copy of the first 20 under other ids."""
    twins = dataclasses.replace(crystals[:20], ids=np.array([f"twin/{k}" for k in range(20)]))
    both = concat([crystals, twins])
    path = tmp_path_factory.mktemp("pool") / "energies.parquet"
    return datasets.save(path, both, "e_form", both.columns["e_form"], unit="eV/atom")


def content(dataset: str, **keys: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "dataset": dataset,
        "property": {"name": "formation_energy"},
        "order": "ascending",
        "hits": {"top": 30},
        "strategies": ["random", "greedy", "ucb", "ei", "thompson"],
        "start": 20,
        "batch": 10,
        "rounds": 4,
        "seeds": [0, 1, 2],
        "surrogate": {"trees": 16},
    } | keys


def write(folder: Path, dataset: str, **keys: Any) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(content(dataset, **keys)))
    return path


@pytest.fixture(scope="module")
def done(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulation")
    return simulate.run(simulate.read(write(folder, dataset)), folder / "out").parent


def test_greedy_beats_random(done: Path) -> None:
    found = json.loads((done / "simulation.json").read_text())
    by_name = {name: one["hits"][-1] for name, one in found["strategies"].items()}
    for name in ("greedy", "ucb", "ei"):
        assert by_name[name]["low"] > by_name["random"]["high"] * 1.5
    assert found["strategies"]["greedy"]["acceleration"]["mean"] > 1.5
    page = (done / "simulation.md").read_text()
    assert simulate.verdict(found) in page
    assert "finds most hits" in page
    assert "random by" in page


def test_the_table_has_one_row_per_strategy_seed_and_round(done: Path) -> None:
    rounds = pl.read_parquet(done / "rounds.parquet")
    assert rounds.height == 5 * 3 * 5
    assert rounds.filter(pl.col("round") == 0)["hits"].sum() == 0
    assert rounds.filter(pl.col("round") == 4)["measured"].unique().to_list() == [40]
    falls = rounds.group_by("strategy", "seed", maintain_order=True).agg(pl.col("regret").diff().max())
    assert falls["regret"].max() <= 0


def test_the_same_file_gives_the_same_bytes(done: Path, dataset: str, tmp_path: Path) -> None:
    settings = simulate.read(write(tmp_path, dataset))
    simulate.run(settings, tmp_path / "again")
    for name in FILES:
        assert (done / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_a_formula_is_one_row_of_the_pool(dataset: str, crystals: Crystals) -> None:
    pool = pools.load(dataset)
    assert pool.crystals == len(crystals) + 20
    assert pool.formulas == sorted(set(crystals.formulas().tolist()))
    row = pool.formulas.index(str(crystals.formulas()[0]))
    same = crystals.formulas() == crystals.formulas()[0]
    twins = np.concatenate([same, same[:20]])
    energies = crystals.columns["e_form"][np.r_[: len(crystals), :20]]
    assert pool.value[row] == pytest.approx(energies[twins].mean())


@pytest.mark.parametrize("strategy", ["greedy", "ucb", "ei", "pi", "std", "thompson"])
def test_what_is_not_measured_does_not_matter(dataset: str, strategy: replay.Strategy) -> None:
    pool = pools.load(dataset)
    settings = replay.Simulation.model_validate(content(dataset, rounds=1, strategies=[strategy]))
    surrogate = Surrogate.of(pool.atoms, settings.surrogate.spec(), Property("y", ""), settings.surrogate.sizes())
    order = replay.run(settings, pool, surrogate, strategy, 0)
    hidden = np.setdiff1d(np.arange(len(pool)), order[:20])
    value = pool.value.copy()
    value[hidden] = np.random.default_rng(0).permutation(value[hidden]) * 100
    other = replay.run(settings, dataclasses.replace(pool, value=value), surrogate, strategy, 0)
    assert order.tolist() == other.tolist()
    assert len(set(order.tolist())) == len(order) == 30


def test_scores_are_those_of_a_count_by_hand() -> None:
    hit = np.array([True, False, False, True, True, False, False, False, False, False])
    value = np.arange(10, 0, -1).astype(float)
    run = scores.judge("greedy", 0, np.array([9, 8, 3, 7, 4, 6, 0, 1]), hit, value, 2, 2, 0.5)
    assert run.measured.tolist() == [0, 2, 4, 6]
    assert run.hits.tolist() == [0, 1, 2, 3]
    assert run.enrichment[1:] == pytest.approx([1 / 2 / (3 / 8), 2 / 4 / (3 / 8), 3 / 6 / (3 / 8)])
    assert run.regret.tolist() == [8.0, 3.0, 3.0, 0.0]
    assert run.acceleration == pytest.approx(2 * 9 / 4 / 4)  # 2 of 3 hits: blind 4.5 measurements, here 4
    late = scores.judge("random", 0, np.array([9, 8, 7, 6]), hit, value, 2, 2, 0.5)
    assert np.isnan(late.acceleration)


def test_a_blind_draw_is_not_accelerated() -> None:
    rng, hit = np.random.default_rng(0), np.arange(200) < 20
    runs = [scores.judge("r", s, rng.permutation(200), hit, np.ones(200), 0, 1, 0.5) for s in range(400)]
    assert np.mean([1 / run.acceleration for run in runs]) == pytest.approx(1.0, abs=0.03)


def test_seeds_that_cannot_tell_are_said_to_be_so() -> None:
    def runs(name: str, last: list[int]) -> list[scores.Run]:
        none = np.zeros(2)
        return [
            scores.Run(name, k, none.astype(int), np.array([0, hits]), none, none, 1.0) for k, hits in enumerate(last)
        ]

    found = {"greedy": runs("greedy", [10, 12, 11]), "ucb": runs("ucb", [12, 9, 11]), "random": runs("r", [1, 2, 1])}
    said = simulate.verdict({"compared": scores.compare(found)})
    assert "`greedy` finds most hits" in said
    assert "ahead of random by 9.7" in said
    assert "cannot tell it from ucb by 0.3" in said


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"startt": 5}, "unknown key 'startt'; did you mean 'start'"),
        ({"strategies": ["gredy"]}, "strategies.0"),
        ({"strategies": ["ei", "ei"]}, "strategies lists one twice"),
        ({"hits": {"top": 3, "threshold": 1.0}}, "give exactly one of threshold and top"),
        ({"surrogate": {"blocks": ["nothing"]}}, "expected different names out of"),
        ({"seeds": [1]}, "seeds"),
        ({"rounds": 99}, r"start \+ batch \* rounds is 1,010, and .* formulas; measure fewer"),
        ({"hits": {"threshold": -99.0}}, r"hits: 0 of .* formulas are hits; values lie between"),
        ({"start": 1}, "start"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(
    dataset: str, tmp_path: Path, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(Failure, match=message):
        simulate.run(simulate.read(write(tmp_path, dataset, **keys)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_equal_values_teach_nothing() -> None:
    names = [f"A{k}B" for k in range(1, 41)]
    atoms = np.zeros((40, 119))
    atoms[:, 3], atoms[:, 9] = np.arange(1, 41), 1
    pool = Pool(names, atoms, np.r_[np.zeros(39), 1.0], "eV", 40, "")
    keys = {"hits": {"top": 1}, "order": "descending", "start": 5, "batch": 2, "rounds": 2}
    settings = replay.Simulation.model_validate(content("x", **keys))
    surrogate = Surrogate.of(atoms, settings.surrogate.spec(), Property("y", ""), settings.surrogate.sizes())
    with pytest.raises(Failure, match="all 5 formulas measured so far have the value 0, so nothing can be learned"):
        replay.run(settings, pool, surrogate, "ei", 0)


def test_the_command_prints_the_page(dataset: str, assay: Command) -> None:
    config = write(assay.folder, dataset, strategies=["random", "greedy"], rounds=2, seeds=[0, 1])
    child = assay("simulate", config, "--output", "out")
    assert child.returncode == 0, child.stderr
    assert child.stdout == (assay.folder / "out" / "simulation.md").read_text()
    assert "greedy, seed 1: " in child.stderr
    assert sorted(path.name for path in (assay.folder / "out").iterdir()) == sorted([*FILES, ".assay"])
    (assay.folder / "mine").mkdir()
    (assay.folder / "mine" / "notes.txt").write_text("mine")
    child = assay("simulate", config, "--output", "mine")
    assert child.returncode == 78
    assert "holds nothing that assay simulate made" in last_line(child.stderr)
