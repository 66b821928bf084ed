"""Scores of a repeated cross-validation: error bars know nothing of the rows that they are judged on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from assay.models.ensemble.distribution import draws
from assay.models.ensemble.distribution.decision import Decision
from assay.models.evaluation import repeated
from assay.models.evaluation.assessment import OURS, Truth
from assay.models.evaluation.repeated import OutOfFold
from assay.models.target import Property
from assay.screening.folder.summary import Target
from assay.screening.ranking.rules import Probability
from assay.screening.settings.choice import Rank
from assay.screening.settings.names import QUANTILES

N = 9000


def example() -> tuple[OutOfFold, Truth]:
    """Two repeats of three folds; the draws scatter about a value that errs more where it is large."""
    rng = np.random.default_rng(0)
    value = rng.gamma(0.5, 20.0, N)
    truth = Truth(value, rng.uniform(0.5, 1.5, N), np.arange(N) // 5, Property("tc", "K", minimum=0.0))
    center = np.maximum(value + rng.normal(0, 0.5 + 0.2 * value, (2, N)), 0)
    drawn = np.sort(np.maximum(center[..., None] + rng.normal(0, 1 + 0.1 * value, (25, 2, N)).transpose(1, 2, 0), 0))
    mean = np.stack([Decision().of(one) for one in drawn])
    fold = np.stack([rng.permutation(N) % 3 for _ in range(2)])
    members = np.stack([mean - 1, mean + 1], axis=2)
    return OutOfFold(fold, mean, drawn.std(axis=2), members, drawn.astype(np.float32)), truth


def test_error_bars_of_a_fold_know_nothing_of_it() -> None:
    found, truth = example()
    before = repeated.predictions(found, truth, 0.9)
    here = found.fold[0] == 1
    value = np.where(here, truth.value + 50, truth.value)
    after = repeated.predictions(found, replace(truth, value=value), 0.9)
    same = np.concatenate([here, np.zeros(N, bool)])
    for name in ("std", "lo", "hi"):
        np.testing.assert_array_equal(getattr(after, name)[same], getattr(before, name)[same])
        assert (getattr(after, name)[~same] != getattr(before, name)[~same]).any()


@pytest.mark.parametrize("draws", [True, False])
def test_coverage_holds_in_each_range_of_the_predicted_value_with_draws_alone(draws: bool) -> None:
    found, truth = example()
    found = found if draws else replace(found, draws=None)
    scores = repeated.measure(found, truth, {}, 0.9)
    assert scores["coverage"] == pytest.approx(0.9, abs=0.02)
    worst = min(part["coverage"] for part in scores["by_predicted"])
    names = [part["range"] for part in scores["by_predicted"]]
    assert names == ["up to 10", "above 10 to 30", "above 30"]
    assert (worst > 0.86) == draws


def test_parts_make_the_whole_and_rivals_are_paired() -> None:
    found, truth = example()
    families = np.array(["a", "b", "c"])[np.arange(N) % 3]
    rivals = {"the same": found.mean, "the truth": np.stack([truth.value] * 2)}
    scores = repeated.measure(found, truth, rivals, 0.9, families, threshold=40.0)
    for table in ("by_range", "by_predicted", "by_family"):
        whole = sum(part["share"] * part["mae"] for part in scores[table])
        assert whole == pytest.approx(scores["scores"]["mae"])
        assert sum(part["rows"] for part in scores[table]) == pytest.approx(N, abs=2)  # means of the repeats
    errors, w = np.abs(found.mean - truth.value), truth.weight
    assert scores["scores"]["mae"] == pytest.approx(np.average(errors.mean(axis=0), weights=w))
    others = families != "a"
    said = {part["family"]: part["mae_of_the_others"] for part in scores["by_family"]}["a"]
    assert said == pytest.approx(np.average(errors.mean(axis=0)[others], weights=w[others]))
    assert scores["compared"]["the same"]["difference"] == 0
    assert scores["compared"]["the truth"]["low"] > 0
    assert scores["ranked"]["the truth"]["precision_50"] == scores["ranked"]["the truth"]["average_precision"] == 1
    assert scores["ranked"]["the truth"]["top_bias"] == 0
    top = np.argsort(-found.mean[0])[:100], np.argsort(-found.mean[1])[:100]
    bias = [np.average((found.mean[k] - truth.value)[rows], weights=w[rows]) for k, rows in enumerate(top)]
    assert scores["ranked"][OURS]["top_bias"] == pytest.approx(np.mean(bias))
    assert "precision_50" not in repeated.ranked(truth, found.mean, None)


def test_error_bars_of_all_rows_have_ranges_as_wide_as_those_of_one_repeat() -> None:
    found, truth = example()
    fitted = repeated.calibrate(found, truth, 0.9)
    assert sum(fitted.n) == 2 * N
    assert min(fitted.n) >= 500
    assert len(fitted.n) > 4


def test_lists_by_probability_are_those_of_a_campaign() -> None:
    found, truth = example()
    assert tuple(QUANTILES.values()) == repeated.SHARES
    listed = repeated.by_probability(truth, found, 40.0)
    assert found.draws is not None
    rule = Probability(Rank(by="probability", threshold=40.0), Target("m", "tc", "K", distribution=True))
    each = []
    for drawn, mean in zip(found.draws.astype(float), found.mean, strict=True):
        values = {part: draws.quantile(drawn, share) for part, share in QUANTILES.items()}
        score = rule.score(values)
        order = sorted(range(N), key=lambda row: (-score[row], -mean[row]))[:50]
        each.append(np.average(truth.value[order] > 40, weights=truth.weight[order]))
    assert listed["precision_50"] == pytest.approx(np.mean(each))
    by_value = repeated.ranked(truth, found.mean, 40.0)["average_precision"]
    assert listed["average_precision"] != by_value
    with pytest.raises(ValueError, match="draws"):
        repeated.by_probability(truth, replace(found, draws=None), 40.0)
