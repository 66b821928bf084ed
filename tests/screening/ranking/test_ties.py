"""Ties: the better prediction comes first, and people learn how many rows tie and what would separate them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from assay.screening.folder.summary import Target, Tie
from assay.screening.ranking import rank, rules, ties
from assay.screening.settings import config
from assay.screening.settings.choice import Rank

TARGET = Target("tc", "tc", "K", 0.9, calibrated=True)
CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def floored(means: list[float], stds: list[float]) -> pa.Table:
    """Predictions of a property that cannot be negative: most intervals begin at 0."""
    mean, std = np.array(means), np.array(stds)
    ends = {"tc_lo": np.maximum(mean - 1.645 * std, 0.0), "tc_hi": mean + 1.645 * std}
    return pa.table({"id": [f"x/{row:03d}" for row in range(len(means))], "tc_mean": mean, "tc_std": std} | ends)


def ranked(content: pa.Table, settings: Rank) -> tuple[list[str], list[str]]:
    rule = rules.make(settings, TARGET)
    candidates = rank.rank(content, rule, {}).candidates
    told = {tuple(ties.sentences(found_in(candidates, rule, settings.top, size), settings.by)) for size in (1, 3, 100)}
    assert len(told) == 1, "portions make a difference"
    return candidates["id"].to_pylist(), list(*told)


def found_in(candidates: pa.Table, rule: rules.Rule, shown: int, size: int) -> list[Tie]:
    """The ties when so many rows pass by at once."""
    seen = ties.Ties(rule, shown)
    for start in range(0, max(len(candidates), 1), size):
        seen.take(candidates.slice(start, size))
    return seen.found()


def test_of_equal_lower_ends_the_better_mean_comes_first() -> None:
    content = floored([1.0, 40.0, 20.0, 90.0], [1.0, 30.0, 15.0, 10.0])
    ids, said = ranked(content, Rank(by="lower"))
    assert ids == ["x/003", "x/001", "x/002", "x/000"]  # the last three begin at 0
    assert said == []


def test_towards_the_other_goal_the_lower_mean_comes_first() -> None:
    content = floored([1.0, 40.0, 20.0], [1.0, 30.0, 15.0])
    assert ranked(content, Rank(by="lower", order="ascending"))[0] == ["x/000", "x/002", "x/001"]
    same = floored([5.0, 5.0, 5.0], [2.0, 1.0, 1.0])
    assert ranked(same, Rank())[0] == ["x/001", "x/002", "x/000"]  # then the smaller std, then the id


def test_a_tie_at_the_top_is_told_with_the_rule_that_separates_it() -> None:
    content = floored([float(n) for n in range(1, 31)], [30.0] * 30)
    assert ranked(content, Rank(by="lower"))[1] == [
        (
            "30 of 30 rows tie at the top, at a score of 0 (by lower); `rank.by: mean` would separate them. "
            "Among themselves they stand by mean, then by std and id."
        )
    ]
    same = floored([7.0] * 30, [3.0] * 30)
    assert ranked(same, Rank())[1] == [
        (
            "30 of 30 rows tie at the top, at a score of 7 (by mean); no rule separates them. "
            "Among themselves they stand by std, then by id."
        )
    ]


@pytest.mark.parametrize(("top", "told"), [(3, True), (2, False), (7, False), (50, False)])
def test_a_tie_across_the_last_row_shown_is_told(top: int, told: bool) -> None:
    content = floored([90.0, 80.0, 9.0, 8.0, 7.0, 6.0, 5.0], [1.0, 1.0, 30.0, 30.0, 30.0, 30.0, 30.0])
    said = ranked(content, Rank(by="lower", top=top))[1]
    assert (
        said
        == [
            (
                "5 of 7 rows tie from rank 3, at a score of 0 (by lower); `rank.by: mean` would separate them. "
                "Among themselves they stand by mean, then by std and id."
            )
        ]
        * told
    )


@pytest.mark.parametrize("content", [floored([], []), floored([3.0], [1.0])])
def test_no_row_and_one_row_do_not_tie(content: pa.Table) -> None:
    assert ranked(content, Rank(by="lower"))[1] == []


def test_the_tiers_of_a_cascade_are_not_compared() -> None:
    rule = rules.make(Rank(by="lower"), TARGET)
    candidates = rank.rank(floored([9.0, 8.0, 7.0], [30.0] * 3), rule, {}).candidates
    candidates = candidates.append_column("tier", pa.array([1, 0, 0]))
    assert [found_in(candidates, rule, 50, size) for size in (1, 2, 3)] == [[], [], []]


@pytest.mark.parametrize("name", ["quickstart", "superconductors", "superconductors-cascade"])
def test_the_bundled_superconductor_configs_rank_without_ties(name: str) -> None:
    settings: Any = config.load(CONFIGS / f"{name}.yaml").rank
    generator = np.random.default_rng(0)
    content = floored(generator.gamma(1.0, 6.0, 400).tolist(), generator.uniform(5, 15, 400).tolist())
    assert (content["tc_lo"].to_numpy() == 0).mean() > 0.8
    assert ranked(content, settings)[1] == []
