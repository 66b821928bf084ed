"""Ranking rules: scores, sentences, refusals, and a rule from outside the package that ranks a campaign."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from assay.screening.audit import audit
from assay.screening.campaign import plan, preview
from assay.screening.folder.results import Results
from assay.screening.folder.summary import Target
from assay.screening.ranking import rank, rules
from assay.screening.ranking.rank import Ranked
from assay.screening.ranking.rules import Floats, Rule
from assay.screening.settings import config
from assay.screening.settings.choice import Rank
from assay.screening.settings.exits import Exit, Failure
from assay.sources.crystals import Crystals
from tests.screening import small_campaign

TARGET = Target("m", "tc", "K", 0.9)
ONE_SIDED = statistics.NormalDist().inv_cdf(0.95)


def table(mean: list[float], hi: list[float]) -> pa.Table:
    columns = {"tc_mean": mean, "tc_std": [1.0] * len(mean), "tc_lo": [0.0] * len(mean), "tc_hi": hi}
    return pa.table({"id": [f"{row:02d}" for row in range(len(mean))]} | columns)


def ranking(content: pa.Table, target: Target = TARGET, **settings: Any) -> Ranked:
    return rank.rank(content, rules.make(Rank(**settings), target), {})


def score(mean: list[float], hi: list[float], target: Target = TARGET, **settings: Any) -> list[float]:
    found = rank.measure(table(mean, hi), rules.make(Rank(**settings), target))
    return found.scores.tolist()


def test_probability_of_exceeding_is_that_of_a_normal() -> None:
    (above,) = score([10.0], [10 + ONE_SIDED * 4], by="probability", threshold=14.0)
    assert above == pytest.approx(0.15865525393145707, rel=1e-12)
    (below,) = score([10.0], [10 + ONE_SIDED * 4], by="probability", threshold=14.0, order="ascending")
    assert above + below == pytest.approx(1.0)


def test_probability_takes_the_calibrated_deviation_where_there_is_one() -> None:
    asked = {"by": "probability", "threshold": 9.0}  # an interval of 2 to the upper end implies a deviation of 1.2
    (calibrated,) = score([10.0], [12.0], replace(TARGET, calibrated=True), **asked)
    (implied,) = score([10.0], [12.0], **asked)
    assert calibrated == pytest.approx(0.8413447460685429, rel=1e-12)
    assert implied == pytest.approx(statistics.NormalDist().cdf(ONE_SIDED / 2), rel=1e-12)


def test_a_calibrated_deviation_ranks_without_an_interval() -> None:
    content = table([5.0, 6.0], [math.inf, math.inf])
    ranked = ranking(content, replace(TARGET, calibrated=True), by="probability", threshold=1.0)
    assert ranked.candidates["id"].to_pylist() == ["01", "00"]


def test_a_certain_prediction_is_above_at_or_below() -> None:
    assert score([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], by="probability", threshold=2.0) == [0.0, 0.5, 1.0]


def test_an_endless_interval_cannot_be_ranked_by_probability() -> None:
    ranked = ranking(table([5.0, 6.0], [7.0, math.inf]), by="probability", threshold=1.0)
    assert ranked.candidates["id"].to_pylist() == ["00"]
    assert ranked.unrankable["id"].to_pylist() == ["01"]


def test_low_values_win_by_probability_when_ascending() -> None:
    ranked = ranking(table([5.0, -1.0], [7.0, 1.0]), by="probability", threshold=0.0, order="ascending")
    assert ranked.candidates["id"].to_pylist() == ["01", "00"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "mean tc of the ensemble, highest first"),
        ({"by": "lower"}, "lower end of the calibrated 90% interval of tc, highest first"),
        ({"by": "upper", "order": "ascending"}, "upper end of the calibrated 90% interval of tc, lowest first"),
        ({"by": "probability", "threshold": 20.0}, "probability that tc lies above 20 K, highest first"),
        (
            {"by": "probability", "threshold": 0.5, "order": "ascending"},
            "probability that tc lies below 0.5 K, highest first",
        ),
    ],
)
def test_a_rule_is_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    assert rules.make(Rank(**settings), TARGET).sentence() == sentence


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"by": "lowr"}, "rank.by: 'lowr' is no ranking rule; did you mean 'lower'?"),
        ({"by": "zzz"}, "rank.by: 'zzz' is no ranking rule; there is: mean, lower, upper, probability"),
        ({"by": "probability"}, "rank.by: probability needs a threshold, in the unit of the property"),
    ],
)
def test_a_wrong_rule_is_refused_before_anything_is_pulled(
    settings: dict[str, Any], reason: str, model: Path, tmp_path: Path
) -> None:
    path = small_campaign.write_config(tmp_path, model, rank=settings)
    for name in "ab":
        (tmp_path / f"{name}.parquet").touch()
    with pytest.raises(Failure) as caught:
        plan.make(config.load(path))
    assert str(caught.value) == reason
    assert caught.value.code is Exit.CONFIG


class Optimistic(Rule):
    """A rule of a user: mean plus some deviations, per atom; the settings call their number threshold."""

    reads = ("mean", "std", "nsites")

    def check(self) -> None:
        if self.settings.threshold is None:
            raise ValueError("needs a threshold, in deviations")

    def score(self, values: Mapping[str, Floats]) -> Floats:
        assert self.settings.threshold is not None
        sign = -1 if self.lowest_first else 1
        return (values["mean"] + sign * self.settings.threshold * values["std"]) / values["nsites"]

    def adds(self, values: Mapping[str, Floats]) -> dict[str, Floats]:
        return {"doubt": values["std"] / np.abs(values["mean"])}

    @property
    def subject(self) -> str:
        return f"hopeful {self.target.name} per atom"


@pytest.fixture
def optimistic(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The rule is registered; the `rank` section of a config that names it."""
    monkeypatch.setitem(rules.RULES, "optimistic", Optimistic)
    return {"by": "optimistic", "threshold": 2.0, "order": "ascending", "top": 5}


def test_a_rule_from_outside_ranks_a_campaign(
    optimistic: dict[str, Any], model: Path, real: Crystals, tmp_path: Path
) -> None:
    small_campaign.write_sources(tmp_path, real)
    planned = small_campaign.make(small_campaign.write_config(tmp_path, model, rank=optimistic))
    small_campaign.run(planned)
    results = Results(tmp_path / "out")
    rows = results.candidates().to_pylist()
    name = planned.target.name
    wanted = [(row[f"{name}_mean"] - 2 * row[f"{name}_std"]) / row["nsites"] for row in rows]
    assert [row["score"] for row in rows] == wanted == sorted(wanted)
    assert [row["doubt"] for row in rows] == [row[f"{name}_std"] / abs(row[f"{name}_mean"]) for row in rows]
    sentence = f"hopeful {name} per atom, lowest first"
    assert sentence in (tmp_path / "out" / "report.html").read_text()
    assert f"rank by {sentence}" in preview.lines(planned)
    assert audit.check(tmp_path / "out").problems == []


def test_a_rule_from_outside_cuts_a_cascade(
    optimistic: dict[str, Any], model: Path, real: Crystals, tmp_path: Path
) -> None:
    small_campaign.write_sources(tmp_path, real)
    full = small_campaign.some_members(tmp_path / "full", model, (0, 1))
    fast = small_campaign.some_members(tmp_path / "fast", model, (2, 3))
    cascade = {"tiers": [{"model": str(fast), "keep": 10}], "audit": 4}
    path = small_campaign.write_config(tmp_path, full, rank=optimistic, cascade=cascade)
    small_campaign.run(small_campaign.make(path))
    results = Results(tmp_path / "out")
    rows = results.candidates().to_pylist()
    best = sorted(row["tier_0_score"] for row in rows)[:10]
    assert sorted(row["tier_0_score"] for row in rows if row["tier"] == 1 and not row["audit"]) == best
    for tier in (1, 0):
        scores = [row["score"] for row in rows if row["tier"] == tier]
        assert scores == sorted(scores)
    assert results.summary.cascade is not None
    assert results.summary.cascade.recall is not None
    assert audit.check(tmp_path / "out").problems == []


def test_a_campaign_of_an_unknown_rule_is_told_by_the_audit(
    optimistic: dict[str, Any], model: Path, real: Crystals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_campaign.write_sources(tmp_path, real)
    small_campaign.run(small_campaign.make(small_campaign.write_config(tmp_path, model, rank=optimistic)))
    monkeypatch.delitem(rules.RULES, "optimistic")
    assert Results(tmp_path / "out").summary.rank.by == "optimistic"
    (problem,) = audit.check(tmp_path / "out").problems
    assert "'optimistic' is no ranking rule" in str(problem)


def test_a_column_that_nobody_has_is_named() -> None:
    class Needy(Optimistic):
        reads = ("mean", "band_gap")

    with pytest.raises(Failure, match="reads band_gap, which no model predicts and no source reports"):
        rank.measure(table([1.0], [2.0]), Needy(Rank(by="needy", threshold=1.0), TARGET))
