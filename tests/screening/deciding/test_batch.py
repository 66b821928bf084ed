"""A batch to measure next: the most useful candidates of finished campaigns, none alike, none known."""

from __future__ import annotations

import csv
import json
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml

from assay.models.ensemble import stored
from assay.models.ensemble.ensemble import Ensemble
from assay.screening.deciding import batch
from assay.screening.deciding.batch import Wish
from assay.screening.folder.results import Results
from assay.screening.prediction import predict
from assay.screening.settings.exits import Failure
from assay.sources.crystals import Crystals
from tests.screening import small_campaign
from tests.screening.conftest import Command, last_line

APART = 1.0


@pytest.fixture(scope="module")
def doped(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """500 decorated prototypes with their doping series, ranked by a distribution of Tc."""
    folder = tmp_path_factory.mktemp("doped")
    sources = [{"kind": "prototypes", "n": 500, "seed": 0}]
    path = small_campaign.write_config(folder, zoo / "tc", sources=sources, chunk_size=250)
    planned = small_campaign.make(path)
    small_campaign.run(planned)
    return Results(planned.folder)


@pytest.fixture(scope="module")
def energies(real: Crystals, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """60 crystals by a network that reads graphs, the lowest formation energy first."""
    folder = tmp_path_factory.mktemp("energies")
    small_campaign.write_sources(folder, real)
    planned = small_campaign.make(small_campaign.write_config(folder, model, rank={"order": "ascending"}))
    small_campaign.run(planned)
    return Results(planned.folder)


@pytest.fixture(scope="module")
def tc(zoo: Path) -> Ensemble:
    return predict.load(zoo / "tc")


def gaps(places: np.ndarray) -> np.ndarray:
    """Distances of all pairs."""
    return np.linalg.norm(places[:, None] - places[None], axis=2)[np.triu_indices(len(places), 1)]


def test_places_lie_as_far_from_training_as_ood_distance_says(
    doped: Results, energies: Results, tc: Ensemble, model: Path
) -> None:
    for results, ensemble in ((doped, tc), (energies, predict.load(model))):
        candidates = results.candidates(["id", "ood_distance"])[:8]
        assert ensemble.reference is not None
        places = ensemble.embed(results.crystals(candidates["id"]))
        known = ensemble.reference.points.astype(np.float64) / ensemble.reference.limit
        apart = np.linalg.norm(places[:, None] - known[None], axis=2)
        nearest = np.sort(apart, axis=1)[:, : ensemble.reference.k].mean(axis=1)
        assert nearest == pytest.approx(candidates["ood_distance"].to_numpy(), rel=2e-3)


def test_no_two_crystals_of_a_batch_are_alike(doped: Results, tc: Ensemble) -> None:
    plain = batch.choose(doped, Wish(20, "mean")).rows
    spread = batch.choose(doped, Wish(20, "mean", apart=APART)).rows
    assert gaps(tc.embed(doped.crystals(plain["id"]))).min() < APART
    places = tc.embed(doped.crystals(spread["id"]))
    assert gaps(places).min() > APART
    assert spread["nearest"][1].as_py() == pytest.approx(np.linalg.norm(places[1] - places[0]), rel=1e-5)
    assert spread["nearest"][0].as_py() is None


def test_only_what_lies_near_a_better_one_is_passed_over(doped: Results, tc: Ensemble) -> None:
    every = batch.choose(doped, Wish(10_000, "ei")).rows.to_pylist()
    picked = batch.choose(doped, Wish(12, "ei", apart=APART)).rows["id"].to_pylist()
    assert picked[0] == every[0]["id"]
    ids = [row["id"] for row in every]
    places = dict(zip(ids, tc.embed(doped.crystals(ids)), strict=True))
    for name in ids[: ids.index(picked[-1])]:
        if name not in picked:
            above = [other for other in picked if ids.index(other) < ids.index(name)]
            assert min(np.linalg.norm(places[name] - places[other]) for other in above) <= APART


def test_compositions_that_were_learned_are_left_out(doped: Results, tc: Ensemble) -> None:
    assert tc.learned is not None
    found = batch.choose(doped, Wish(10_000, "mean"))
    (left_out,) = found.left_out.values()
    assert left_out > 0
    assert found.candidates + left_out == doped.summary.balance.ranked == found.rows.num_rows + left_out
    assert not tc.learned.holds(found.rows["formula"].to_pylist()).any()
    assert batch.choose(doped, Wish(10_000, "mean", known=True)).candidates == doped.summary.balance.ranked


def test_utility_is_that_of_the_distribution(doped: Results) -> None:
    by_chance = {row["id"]: row["score"] for row in doped.candidates(["id", "score"]).to_pylist()}
    (rank,) = {doped.summary.rank.by}
    assert rank == "mean"
    found = batch.choose(doped, Wish(50, "mean")).rows.to_pylist()
    assert all(row["utility"] == by_chance[row["id"]] == row["tc_mean"] for row in found)
    rows = doped.candidates().to_pylist()
    chances = batch.choose(doped, Wish(50, "pi", best=20.0)).rows.to_pylist()
    for row in chances[:5]:
        (whole,) = [one for one in rows if one["id"] == row["id"]]
        beyond = [share for share in (1, 5, *range(10, 100, 10), 95, 99) if whole[f"tc_q{share:02d}"] <= 20.0]
        assert 1 - (beyond[-1] + 10) / 100 <= row["utility"] <= 1 - (beyond[-1] if beyond else 0) / 100
    assert all(one["utility"] >= other["utility"] for one, other in pairwise(chances))


def test_low_values_are_wanted_where_the_ranking_says_so(energies: Results) -> None:
    name = "formation_energy_mean"
    every = energies.candidates(["id", name]).sort_by(name)
    found = batch.choose(energies, Wish(10, "mean", known=True)).rows
    assert found["id"].to_pylist() == every["id"].to_pylist()[:10]
    assert found["utility"].to_pylist() == [-value for value in every[name].to_pylist()[:10]]
    gain = batch.choose(energies, Wish(5, "ei", best=-1.0, known=True)).rows
    assert gain[name][0].as_py() == min(every[name].to_pylist())
    assert gain["utility"][0].as_py() == pytest.approx(-1.0 - min(every[name].to_pylist()), abs=0.01)


def test_each_objective_says_which_values_are_wanted(
    energies: Results, real: Crystals, model: Path, tmp_path: Path
) -> None:
    small_campaign.write_sources(tmp_path, real)

    def ranked(**order: object) -> Results:
        wanted = [{"property": "nsites", "order": "ascending"}, {"property": "formation_energy", **order}]
        config = small_campaign.write_config(tmp_path, model, rank={"objectives": wanted})
        planned = small_campaign.make(config)
        small_campaign.run(planned)
        return Results(planned.folder)

    low = batch.choose(ranked(order="ascending"), Wish(10, "mean", known=True)).rows
    assert low["id"] == batch.choose(energies, Wish(10, "mean", known=True)).rows["id"]
    inside = ranked(order="inside", range={"min": -1.0, "max": 0.0})
    with pytest.raises(Failure, match="--by ei: formation_energy is wanted inside a range"):
        batch.choose(inside, Wish(5, known=True))
    assert batch.choose(inside, Wish(5, "std", known=True)).rows.num_rows == 5


def test_any_predicted_property_of_a_campaign_is_asked_for(
    real: Crystals, model: Path, zoo: Path, tmp_path: Path, assay: Command
) -> None:
    small_campaign.write_sources(tmp_path, real)
    path = small_campaign.write_config(tmp_path, model, models=[str(model), str(zoo / "tc-fast")], rank={"top": 9})
    planned = small_campaign.make(path)
    small_campaign.run(planned)
    objectives = "rank.objectives=[{property: formation_energy, order: ascending}, {property: nsites}]"
    done = assay("rank", planned.folder, "--set", "rank.by=pareto", "--set", objectives)  # docs/cascade.md
    assert done.returncode == 0, done.stderr
    results = Results(planned.folder)
    assert results.candidates(["front"])["front"][0].as_py() == 1
    low = batch.choose(results, Wish(5, "mean", known=True)).rows
    assert low["formation_energy_mean"].to_pylist() == sorted(low["formation_energy_mean"].to_pylist())
    warm = batch.choose(results, Wish(5, "mean", "tc", "descending", apart=0.1))
    assert warm.target.unit == "K"
    assert warm.rows["tc_mean"].to_pylist() == sorted(warm.rows["tc_mean"].to_pylist(), reverse=True)
    cold = batch.choose(results, Wish(5, "mean", "tc", "ascending", known=True)).rows
    assert max(cold["tc_mean"].to_pylist()) < min(warm.rows["tc_mean"].to_pylist())
    both = batch.choose(results, Wish(5, "ehvi", known=True)).rows
    assert both["utility"].to_pylist() == sorted(both["utility"].to_pylist(), reverse=True)
    assert both["utility"][0].as_py() > 0
    everyone = batch.choose(results, Wish(10**6, "ehvi", known=True))
    assert everyone.rows.num_rows == everyone.candidates == results.summary.balance.ranked
    done = assay("select", planned.folder, "--by", "ehvi", "--known", "--n", "5", "--output", "e.csv")
    assert done.returncode == 0, done.stderr
    assert "5 of" in done.stderr
    assert "candidates by expected hypervolume improvement over the first front" in done.stderr
    for name, reason in (("tc", "does not rank, so say which end"), ("tcc", "did you mean 'tc'")):
        done = assay("select", planned.folder, "--property", name, "--output", "n.csv")
        assert done.returncode == 78
        assert reason in last_line(done.stderr)
    done = assay("select", planned.folder, "--property", "tc", "--order", "descending", "--output", "n.csv")
    assert done.returncode == 0, done.stderr
    assert "candidates for the highest tc by expected improvement" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--best", "nan"], "--best nan is not finite"),
        (["--by", "ucb", "--kappa", "inf"], "--kappa inf is not finite"),
        (["--by", "mean", "--best", "30"], "--by mean reads none"),
        (
            ["--by", "ei", "--kappa", "2"],
            "--kappa is the number of standard deviations that ucb adds; --by ei reads none",
        ),
        (["--by", "ehvi", "--seed", "1"], "--by ehvi reads none"),
        (["--by", "ehvi", "--property", "tc"], "--by ehvi weighs all objectives of the campaign"),
        (["--apart", "1"], "--apart says how far the crystals of --diverse lie apart"),
    ],
)
def test_numbers_without_a_meaning_are_refused(
    doped: Results, assay: Command, arguments: list[str], message: str
) -> None:
    child = assay("select", doped.folder, *arguments, "--output", "odd.csv")
    assert child.returncode == 2
    assert message in last_line(child.stderr)
    assert not (assay.folder / "odd.csv").exists()


def test_a_draw_depends_on_the_seed(doped: Results) -> None:
    first, again, other = (
        batch.choose(doped, Wish(20, "thompson", seed=seed)).rows["id"].to_pylist() for seed in (0, 0, 1)
    )
    assert first == again != other


def test_utility_counts_per_cost(energies: Results) -> None:
    wish = Wish(60, "std", cost="nsites", known=True)
    found = batch.choose(energies, wish).rows.to_pylist()
    std = {row["id"]: row["formation_energy_std"] for row in found}
    assert all(row["utility"] == pytest.approx(std[row["id"]] / row["nsites"]) for row in found)
    assert all(one["utility"] >= other["utility"] for one, other in pairwise(found))
    with pytest.raises(Failure, match=r"--cost: --by ucb is -\d.* a negative utility cannot count per cost"):
        batch.choose(energies, Wish(5, "ucb", best=-9.0, cost="nsites", known=True))


@pytest.mark.parametrize(
    ("cost", "message"),
    [("nsite", "has no column 'nsite'; did you mean 'nsites'"), ("formula", "column 'formula' holds string")],
)
def test_a_cost_that_is_none_is_refused(energies: Results, cost: str, message: str) -> None:
    with pytest.raises(Failure, match=message):
        batch.choose(energies, Wish(5, cost=cost, known=True))


def test_another_ensemble_than_that_which_scored_is_refused(doped: Results, zoo: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(doped.folder, tmp_path / "moved"))
    path = folder / "config.resolved.yaml"
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(content | {"models": [str(zoo / "band-gap")]}))
    with pytest.raises(Failure, match="names no ensemble 'tc', which predicts tc"):
        batch.choose(Results(folder), Wish(5))


def test_the_ensemble_of_a_property_is_found_beside_another_of_its_name(
    doped: Results, zoo: Path, tmp_path: Path
) -> None:
    folder, other = tmp_path / "moved", tmp_path / "other"
    shutil.copytree(doped.folder, folder)
    shutil.copytree(zoo / "band-gap", other)
    described = json.loads((other / "ensemble.json").read_text())
    (other / "ensemble.json").write_text(json.dumps(described | {"name": "tc"}))
    stored.seal(other)
    path = folder / "config.resolved.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"models": [str(other), str(zoo / "tc")]}))
    assert batch.choose(Results(folder), Wish(5)).rows == batch.choose(doped, Wish(5)).rows


def test_the_command_writes_a_table(doped: Results, assay: Command) -> None:
    arguments = ["select", doped.folder, "--n", 7, "--by", "ei", "--diverse", "--output", "next.csv"]
    child = assay(*arguments)
    assert child.returncode == 0, child.stderr
    assert child.stdout == "next.csv\n"
    assert "the best predicted value, farther than 0.5 apart" in child.stderr
    assert "of a composition that the ensemble learned from" in child.stderr
    path = assay.folder / "next.csv"
    first = path.read_bytes()
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["pick"] for row in rows] == [str(k) for k in range(1, 8)]
    assert assay(*arguments).returncode == 0
    assert path.read_bytes() == first
    path.write_text("mine\n")
    child = assay(*arguments)
    assert child.returncode == 78
    assert "holds something else than a table of assay select" in last_line(child.stderr)
    assert path.read_text() == "mine\n"
