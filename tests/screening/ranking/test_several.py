"""Several objectives: fronts by brute force with ties, the gate for missing values, draws, other rules, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from assay.screening.folder.summary import Certainty, Fronts, Target
from assay.screening.ranking import rank, several, standing
from assay.screening.ranking.compared import fronts, pfront, swaps, together, topk
from assay.screening.ranking.ties import Ties, sentences
from assay.screening.settings.choice import Rank
from assay.screening.settings.exits import Exit, Failure

TC, ENERGY = Target("tc", "tc", "K", calibrated=True), Target("e", "formation_energy", "eV/atom", calibrated=True)
STABLE = Target("", "p_stable", "")
TARGETS = {target.name: target for target in (TC, ENERGY, STABLE)}
THREE: list[dict[str, Any]] = [
    {"property": "tc", "by": "lower"}, {"property": "formation_energy", "order": "ascending"}, {"property": "p_stable"},
]  # fmt: skip


def rule(objectives: list[dict[str, Any]], **settings: Any) -> several.Several:
    made = Rank.model_validate({"objectives": objectives, **settings})
    judged = [TARGETS[objective.property] for objective in made.objectives]
    found = several.make(made, next(target for target in judged if target.model), judged)
    assert isinstance(found, several.Several)
    return found


def rows(n: int, seed: int = 0, steps: int | None = None) -> pa.Table:
    """Random rows; with `steps` every number is one of few, so that many are equal."""
    rng = np.random.default_rng(seed)
    tc, energy, stable = rng.gamma(2, 6, n), rng.normal(-1, 0.5, n), rng.random(n)
    if steps:
        tc, energy, stable = (np.round(column / np.ptp(column) * steps) for column in (tc, energy, stable))
    std = np.round(rng.uniform(1, 4, n)) if steps else rng.uniform(1, 4, n)
    columns = {"tc_mean": tc, "tc_std": std, "tc_lo": tc - (0 if steps else std), "tc_hi": tc + 2 * std}
    columns |= {f"formation_energy_{part}": energy for part in ("mean", "lo", "hi")} | {"p_stable": stable}
    return pa.table({"id": [f"x/{k:05d}" for k in range(n)], **columns, "formation_energy_std": 0.05 * std})


def peeled(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Fronts by comparing every pair, front after front."""
    found, left, front = np.zeros(len(points), np.int64), np.arange(len(points)), 0
    while len(left):
        front += 1
        here = points[left]
        beaten = np.array([((here >= row).all(axis=1) & (here > row).any(axis=1)).any() for row in here])
        found[left[~beaten]] = front
        left = left[beaten]
    return found


def test_the_order_agrees_with_brute_force_on_5000_crystals_with_ties() -> None:
    content = rows(5_000, steps=12)
    shuffled = content.take(pa.array(np.random.default_rng(1).permutation(5_000)))
    ranked = rank.rank(shuffled, rule(THREE), {}).candidates
    columns = (content[name].to_numpy() for name in ("tc_lo", "formation_energy_mean", "p_stable"))
    points = np.stack([*columns], axis=1) * [1, -1, 1]
    wanted = peeled(points)
    assert len(np.unique(points, axis=0)) < 2_500
    assert wanted.max() > 10
    place = [int(name[2:]) for name in ranked["id"].to_pylist()]
    assert ranked["front"].to_pylist() == wanted[place].tolist()
    keys = [
        (row["front"], -row["hypervolume"], row["tc_std"], row["id"])
        for row in ranked.select(["front", "hypervolume", "tc_std", "id"]).to_pylist()
    ]
    assert keys == sorted(keys)


@pytest.mark.parametrize("m", [2, 3, 4])
def test_fronts_and_contributions_agree_with_their_definition(m: int) -> None:
    rng = np.random.default_rng(m)
    for n, steps in ((0, 3), (1, 3), (40, 3), (150, 6), (60, 1_000)):
        points = rng.integers(0, steps, (n, m)).astype(np.float64)
        front = fronts.fronts(points)
        assert front.tolist() == peeled(points).tolist()
        assert fronts.first(points).tolist() == (front == 1).tolist()
        found = fronts.contributions(points, front)
        if n < 40:
            continue
        span = np.ptp(points, axis=0)
        cells = (rng.random((20_000, m)) * (1 + fronts.BEYOND) - fronts.BEYOND) * span + points.min(axis=0)
        for row in np.flatnonzero(front == 2)[:5]:
            others = points[(front == 2) & (np.arange(n) != row)]
            own = (cells <= points[row]).all(axis=1)
            own[own] = [not (others >= cell).all(axis=1).any() for cell in cells[own]]
            share = own.mean() * (1 + fronts.BEYOND) ** m
            assert found[row] == pytest.approx(share, abs=4 * np.sqrt(share / len(cells)) + 1e-3)


def test_a_crystal_without_an_objective_pushes_nobody_off_and_says_what_it_lacks() -> None:
    content = rows(300)
    before = rank.rank(content, rule(THREE), {}).candidates
    best = before["id"][0].as_py()
    stable = content["p_stable"].to_numpy().copy()
    stable[:3] = np.nan
    tc = content["tc_lo"].to_numpy().copy()
    tc[:2] = [1e9, np.inf]
    at = content.schema.get_field_index
    gaps = content.set_column(at("p_stable"), "p_stable", pa.array(stable)).set_column(
        at("tc_lo"), "tc_lo", pa.array(tc)
    )
    ranked = rank.rank(gaps, rule(THREE), {})
    assert ranked.unrankable["lacks"].to_pylist() == ["p_stable", "tc, p_stable", "p_stable"]
    alone = rank.rank(content.slice(3), rule(THREE), {}).candidates
    assert ranked.candidates.equals(alone)
    assert ranked.candidates["front"][0].as_py() == 1
    assert best in ranked.candidates["id"].to_pylist()
    with pytest.raises(ValueError, match="not finite"):
        fronts.fronts(np.array([[1.0, np.nan]]))


def test_nothing_is_said_of_the_order_of_no_crystals() -> None:
    goals = rule([{"property": "tc"}, {"property": "p_stable"}])
    assert standing.sentences(None, Fronts(0, 0, 0.0, pfront.DRAWS, []), goals) == []
    assert standing.sentences(Certainty(0, 4096, 0.0, []), None, goals) == []
    assert standing.sentences(Certainty(1, 4096, 1.0, []), None, goals)
    one = standing.sentences(None, Fronts(1, 1, 1.0, pfront.DRAWS, [0.0] * len(goals.goals)), goals)
    assert one[0].startswith("1 crystal is on the first of 1 front: ")


def test_p_front_agrees_with_independent_draws_whatever_rows_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pfront, "STRONG", 20)
    monkeypatch.setattr(pfront, "WITNESSES", 50)
    content, rng = rows(250, seed=2), np.random.default_rng(5)
    ranked = rank.rank(content, rule(THREE), {}).candidates.sort_by("id")
    found = ranked["p_front"].to_numpy()
    value = {name: content[name].to_numpy() for name in content.column_names[1:]}
    counts, draws = np.zeros(len(content)), 4_000
    for _ in range(draws):
        tc = value["tc_mean"] + value["tc_std"] * rng.standard_normal(len(content))
        energy = value["formation_energy_mean"] + value["formation_energy_std"] * rng.standard_normal(len(content))
        counts += fronts.first(np.stack([tc, -energy, value["p_stable"]], axis=1))
    share = counts / draws
    error = np.sqrt(share * (1 - share) * (1 / pfront.DRAWS + 1 / draws)) + 2e-3
    assert np.abs((found - share) / error).max() < 4.5
    assert ((share > 0.05) & (share < 0.95)).sum() > 10
    assert (found == 0).sum() > 50
    order = pa.array(rng.permutation(len(content)))
    assert rank.rank(content.take(order), rule(THREE), {}).candidates.sort_by("id").equals(ranked)


RANGES: list[dict[str, float]] = [{"min": 0.0, "max": 40.0}, {"min": -3.0, "max": 0.5}, {"min": 0.0, "max": 1.0}]


@pytest.mark.parametrize("by", ["pareto", "desirability", "lexicographic"])
def test_p_top_k_agrees_with_independent_draws_whatever_rows_are_left_out(
    by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "STRONG", 30)
    weighed = by == "desirability"
    goals = [goal | ({"range": ends} if weighed else {}) for goal, ends in zip(THREE, RANGES)]
    if by == "lexicographic":  # many equal ones in the first objective
        goals[0] = {"property": "tc", "by": "probability", "threshold": 20.0}
    asked, content, rng = rule(goals, by=by, top=12), rows(250, seed=2), np.random.default_rng(5)
    ranked = rank.rank(content, asked, {}).candidates
    found = ranked.sort_by("id")["p_top_k"].to_numpy()
    value = {name: content[name].to_numpy() for name in content.column_names[1:]}
    counts, draws = np.zeros(len(content)), 2_000
    exact = {name: np.zeros(len(content)) for name in ("tc_std", "formation_energy_std")}
    ends = np.stack([value["tc_lo"], -value["formation_energy_mean"], value["p_stable"]], axis=1)
    for _ in range(draws):
        tc, energy = (
            value[f"{name}_mean"] + value[f"{name}_std"] * rng.standard_normal(len(content))
            for name in ("tc", "formation_energy")
        )
        if by == "pareto":
            points = np.stack([tc, -energy, value["p_stable"]], axis=1)
            keys = [-fronts.contributions(points, front := fronts.fronts(points), ends), front]
        elif weighed:
            each = [np.clip(tc / 40, 0, 1), np.clip((0.5 - energy) / 3.5, 0, 1), value["p_stable"]]
            keys = [-np.prod(each, axis=0)]
        else:
            keys = [-value["p_stable"], energy, -(tc > 20.0).astype(float)]
        counts[np.lexsort([value["tc_std"], *keys])[:12]] += 1
    share = counts / draws
    error = np.sqrt(share * (1 - share) * (1 / pfront.DRAWS + 1 / draws)) + 2e-3
    assert np.abs((found - share) / error).max() < 4.5
    assert ((share > 0.05) & (share < 0.95)).sum() > 10
    assert found.sum() == pytest.approx(12)
    order = pa.array(rng.permutation(len(content)))
    assert rank.rank(content.take(order), asked, {}).candidates.equals(ranked)
    monkeypatch.setattr(together, "STRONG", 10**6)  # nothing is left out
    assert rank.rank(content, asked, {}).candidates.equals(ranked)
    for name, none in exact.items():
        content = content.set_column(content.schema.get_field_index(name), name, pa.array(none))
    sure = rank.rank(content, asked, {}).candidates["p_top_k"].to_pylist()
    assert sorted(sure) == [0.0] * 238 + [1.0] * 12
    assert by == "pareto" or sure[:12] == [1.0] * 12  # pareto ranks by the lower end of tc, which stays


@pytest.mark.parametrize("by", ["pareto", "lexicographic"])
def test_the_pairs_that_change_places_are_those_of_a_count_of_all(by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, content, k = rule(THREE, by=by, top=12), rows(250, seed=3), 12
    content = content.append_column("formula", pa.array(["X"] * len(content)))
    picks: list[NDArray[np.int64]] = []
    measured = rank.measure(content, asked, picks.append)
    inside = np.zeros((pfront.DRAWS, len(content)), bool)
    for draw, best in enumerate(picks):
        inside[draw, best] = True
    assert (inside.sum(axis=1) == k).all()
    assert inside.mean(axis=0).tolist() == measured.added["p_top_k"].tolist()

    whole = standing.Standing(asked, k)
    assert [*whole.learn(content.slice(0, 100)), *whole.learn(content.slice(100))] == []
    assert len([*whole.settle()]) == 1
    ((ranked, _),) = whole.parts(iter([content]))
    ranked = rank.numbered(ranked.sort_by(rank.keys(asked)), 1)
    for start in range(0, len(ranked), 70):
        whole.see(ranked.slice(start, 70))
    said = whole.certainty()
    assert said is not None
    names = ranked["id"].to_pylist()
    order = [int(name.removeprefix("x/")) for name in names]
    shares = {(a, b): (~inside[:, a] & inside[:, b]).mean() for a in order[:k] for b in order[k:]}
    most = sorted(shares.values(), reverse=True)[: swaps.SHOWN]
    assert most[0] > 0.2
    assert [swap.share for swap in said.swaps] == most
    assert [shares[int(swap.above[2:]), int(swap.below[2:])] for swap in said.swaps] == most
    assert [(names[swap.ranks[0] - 1], names[swap.ranks[1] - 1]) for swap in said.swaps] == [
        (swap.above, swap.below) for swap in said.swaps
    ]
    monkeypatch.setattr(topk, "ROOM", 0)  # too many rows to hold: nothing is told
    whole = standing.Standing(asked, k)
    assert [*whole.learn(content)] == []
    assert len([*whole.settle()]) == 1
    assert whole.certainty() == Certainty(k, pfront.DRAWS, 0.0, [])


def test_a_probability_is_wanted_of_values_beyond_its_threshold() -> None:
    goals = [
        {"property": "formation_energy", "order": "ascending", "by": "probability", "threshold": -1.0},
        {"property": "p_stable"},
    ]
    content = pa.table({
        "id": ["deep", "high"], "p_stable": [0.5, 0.5],
        **{f"formation_energy_{part}": [-2.0, 0.0] for part in ("mean", "hi")}, "formation_energy_std": [0.01, 0.01],
    })  # fmt: skip
    ranked = rank.rank(content, rule(goals, top=1), {}).candidates
    assert ranked["id"].to_pylist() == ["deep", "high"]
    assert ranked["p_front"].to_pylist() == ranked["p_top_k"].to_pylist() == [1.0, 0.0]


def test_two_objectives_of_one_model_err_together() -> None:
    above = Target("e", "energy_above_hull", "eV/atom", calibrated=True, derived_from="formation_energy")
    settings = Rank.model_validate({"objectives": [
        {"property": "formation_energy", "order": "ascending"}, {"property": "energy_above_hull", "order": "ascending"},
    ]})  # fmt: skip
    n = 40
    energy, std = np.linspace(-2, 0, n), np.full(n, 0.3)
    columns = {
        f"{name}_{part}": energy for name in ("formation_energy", "energy_above_hull") for part in ("mean", "hi")
    }
    columns |= {f"{name}_std": std for name in ("formation_energy", "energy_above_hull")}
    content = pa.table({"id": [f"x/{k}" for k in range(n)], **columns})
    found = rank.rank(content, several.make(settings, ENERGY, [ENERGY, above]), {}).candidates
    assert sum(found["p_front"].to_pylist()) == pytest.approx(1)  # one crystal is lowest in both, in every draw


def test_a_range_is_enough_or_is_the_goal() -> None:
    content = pa.table({
        "id": ["a", "b", "c"], "tc_mean": [50.0, 30.0, 5.0], "tc_std": [1.0] * 3, "tc_hi": [60.0, 40.0, 15.0],
        "p_stable": [0.2, 0.4, 0.9],
    })  # fmt: skip
    enough = rule([{"property": "tc", "range": {"max": 30.0}}, {"property": "p_stable"}], by="lexicographic")
    ranked = rank.rank(content, enough, {}).candidates
    assert ranked["id"].to_pylist() == ["b", "a", "c"]
    assert ranked["score"].to_pylist() == [1, 2, 3]
    inside = rule([{"property": "tc", "order": "inside", "range": {"min": 4.0, "max": 20.0}}, {"property": "p_stable"}])
    assert rank.rank(content, inside, {}).candidates["id"].to_pylist() == ["c", "b", "a"]
    assert "tc of the ensemble from 4 to 20 K" in inside.sentence()
    weighed = rule(
        [
            {"property": "tc", "range": {"min": 0.0, "max": 50.0}, "weight": 3.0},
            {"property": "p_stable", "range": {"min": 0.0, "max": 1.0}},
        ],
        by="desirability",
    )  # fmt: skip
    ranked = rank.rank(content, weighed, {}).candidates
    assert ranked["id"].to_pylist() == ["a", "b", "c"]
    assert ranked["score"].to_pylist() == pytest.approx([0.2**0.25, 0.6**0.75 * 0.4**0.25, 0.1**0.75 * 0.9**0.25])


def test_people_learn_that_every_crystal_is_worth_nothing() -> None:
    asked = rule(
        [
            {"property": "tc", "range": {"min": 500.0, "max": 600.0}},
            {"property": "p_stable", "range": {"min": 0.0, "max": 1.0}},
        ],
        by="desirability",
    )
    seen = Ties(asked, 10)
    seen.take(rank.rank(rows(30), asked, {}).candidates)
    (said,) = sentences(seen.found(), "desirability")
    assert said.startswith("30 of 30 rows tie at the top, at a score of 0 (by desirability); other ranges")


def test_a_cut_by_one_property_loses_half_of_a_front(data: Path) -> None:
    columns = pq.read_table(data / "mp/mp_labelled_le40.parquet", columns=["gap_pbe", "e_form"])
    gap, energy = (column.to_numpy().astype(np.float64) for column in columns.drop_null().columns)
    on_front = fronts.first(np.stack([gap, -energy], axis=1))
    lowest = np.argsort(energy)
    kept = [int(on_front[lowest[: round(share * len(energy))]].sum()) for share in (0.05, 0.02)]
    assert (len(energy), int(on_front.sum()), *kept) == (62_049, 13, 8, 5)  # docs/cascade.md


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objectives": THREE, "by": "pareot"}, "'pareot' is no ranking rule; did you mean 'pareto'"),
        ({"objectives": THREE, "by": "lower"}, "'lower' ranks one property; several objectives have: pareto"),
        ({"by": "pareto"}, "pareto needs rank.objectives"),
        ({"objectives": THREE[:1]}, "pareto takes 2 to 4 objectives, not 1"),
        ({"objectives": [THREE[0] | {"weight": 2.0}, THREE[1]]}, "leave objectives.0.weight out"),
        ({"objectives": THREE, "by": "desirability"}, "desirability needs objectives.0.range"),
        ({"objectives": [THREE[0], THREE[2] | {"by": "lower"}]}, "objectives.1.by: p_stable has no error"),
        ({"objectives": [THREE[0] | {"by": "lowr"}, THREE[1]]}, "rank.objectives.0.by: 'lowr' is no ranking rule"),
    ],
)  # fmt: skip
def test_settings_that_nothing_can_follow_are_refused(settings: dict[str, Any], message: str) -> None:
    made = Rank.model_validate(settings)
    with pytest.raises(Failure, match=message) as caught:
        several.make(made, TC, [TARGETS[objective.property] for objective in made.objectives])
    assert caught.value.code is Exit.CONFIG


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objectives": THREE, "property": "tc"}, "property is that of one property"),
        ({"objectives": THREE, "order": "ascending"}, "order is that of one property"),
        ({"objectives": [{"property": "tc", "order": "inside"}]}, "needs a range"),
    ],
)
def test_a_config_says_each_thing_once(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rank.model_validate(settings)
    assert Rank.model_validate({"objectives": THREE}).by == "pareto"
    assert "objectives" not in Rank().model_dump()
    assert Rank.model_validate(Rank.model_validate({"objectives": THREE}).model_dump()).by == "pareto"
