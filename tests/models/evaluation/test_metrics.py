"""Scores agree with scikit-learn, weights count rows, intervals and tests respect groups."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, strategies as st
from sklearn.metrics import mean_absolute_error, mean_squared_log_error, r2_score, root_mean_squared_error

from assay.models.evaluation import assessment, metrics, page
from assay.models.target import Property


@given(st.integers(2, 60), st.integers(0, 10_000))
def test_regression_agrees_with_scikit_learn(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted, weight = rng.normal(size=n), rng.normal(size=n), rng.uniform(0.1, 1, n)
    found = metrics.regression(truth, predicted, weight)
    assert found["mae"] == pytest.approx(mean_absolute_error(truth, predicted, sample_weight=weight))
    assert found["rmse"] == pytest.approx(root_mean_squared_error(truth, predicted, sample_weight=weight))
    assert found["r2"] == pytest.approx(r2_score(truth, predicted, sample_weight=weight))


def test_msle_agrees_with_scikit_learn_and_refuses_negative_values() -> None:
    rng = np.random.default_rng(0)
    truth, predicted, weight = rng.exponential(9, 50), rng.exponential(9, 50), rng.uniform(0.1, 1, 50)
    known = mean_squared_log_error(truth, predicted, sample_weight=weight)
    assert metrics.msle(truth, predicted, weight) == pytest.approx(known)
    with pytest.raises(ValueError, match=r"lowest value is -0\.5"):
        metrics.msle(truth, np.where(predicted > 5, predicted, -0.5))


def test_spearman_handles_ties() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 100), rng.integers(0, 5, 100)
    assert metrics.spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert np.isnan(metrics.spearman(a, np.ones(100)))


def test_weight_two_is_the_row_twice() -> None:
    rng = np.random.default_rng(0)
    truth, predicted, times = rng.exponential(size=40), rng.exponential(size=40), rng.integers(1, 4, 40)
    twice = np.repeat(truth, times), np.repeat(predicted, times)
    for score in (metrics.msle, metrics.spearman):
        assert score(truth, predicted, times) == pytest.approx(score(*twice))
    assert metrics.regression(truth, predicted, times) == pytest.approx(metrics.regression(*twice))


def test_ranges_hold_every_row_once() -> None:
    truth = np.array([0.0, 0.0, 0.1, 5.0, 5.1, 77.0, 130.0])
    found = metrics.ranges(truth, (0, 5, 20, 77))
    assert [(name, rows.sum()) for name, rows in found] == [
        ("0", 2),
        ("above 0 to 5", 2),
        ("above 5 to 20", 1),
        ("above 20 to 77", 1),
        ("above 77", 1),
    ]
    assert metrics.ranges(np.array([-1.0, 3.0]), (0, 5))[0][0] == "up to 0"


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=50))
def test_fifths_hold_every_row_once(values: list[int]) -> None:
    truth = np.array(values, float)
    assert np.sum([rows for _, rows in metrics.ranges(truth)], axis=0).tolist() == [1] * len(truth)


def test_mae_difference_resamples_whole_groups() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), 5)
    first, second = rng.normal(size=1000), 1.3 * rng.normal(size=1000)
    found = metrics.mae_difference((first, second), np.ones(1000), groups)
    assert found["difference"] == pytest.approx(np.abs(first).mean() - np.abs(second).mean())
    assert found["low"] < found["difference"] < found["high"] < 0
    same = metrics.mae_difference(
        (np.repeat(rng.normal(size=200), 5), np.repeat(rng.normal(size=200), 5)), np.ones(1000), groups
    )
    alone = metrics.mae_difference((first, second[::-1]), np.ones(1000), np.arange(1000))
    assert same["low"] < 0 < same["high"]
    assert same["high"] - same["low"] > 1.5 * (alone["high"] - alone["low"])  # 200 independent groups, not 1000 rows


def test_intervals_hold_the_score_and_have_the_textbook_width() -> None:
    rng = np.random.default_rng(0)
    n = 2000
    truth = 1e3 + rng.normal(0, 2, n)  # an offset must not cost digits
    predicted, weight = truth + rng.normal(0, 1, n), np.ones(n)
    score, found = (
        metrics.regression(truth, predicted, weight),
        metrics.intervals(truth, predicted, weight, np.arange(n)),
    )
    for name, (low, high) in found.items():
        assert low < score[name] < high, name
    low, high = found["mae"]
    error = np.abs(predicted - truth)
    assert high - low == pytest.approx(2 * 1.96 * error.std() / np.sqrt(n), rel=0.1)
    five = metrics.intervals(np.repeat(truth, 5), np.repeat(predicted, 5), np.ones(5 * n), np.repeat(np.arange(n), 5))
    assert np.array(list(five.values())) == pytest.approx(np.array(list(found.values())))  # copies teach nothing


def test_intervals_are_those_of_scores_of_resampled_groups() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(6), [1, 2, 3, 1, 2, 3])
    truth, predicted, weight = rng.normal(size=12), rng.normal(size=12), rng.uniform(0.2, 1, 12)
    times = np.random.default_rng(0).multinomial(6, np.full(6, 1 / 6), 50)
    drawn = [metrics.regression(truth, predicted, weight * one[groups]) for one in times]
    found = metrics.intervals(truth, predicted, weight, groups, draws=50)
    for name, ends in found.items():
        assert ends == pytest.approx(np.quantile([one[name] for one in drawn], [0.025, 0.975]))


def test_sign_flip_agrees_with_all_flips_written_out() -> None:
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(9), 3)
    first, second, weight = rng.normal(size=27), rng.normal(0, 1.6, 27), rng.uniform(0.5, 1, 27)
    gain = np.bincount(groups, weights=weight * (np.abs(first) - np.abs(second)))
    every = np.abs(np.array(list(product((-1, 1), repeat=9))) @ gain)
    known = float(np.mean(every >= abs(gain.sum()) - 1e-9))
    assert 0.01 < known < 0.9
    assert metrics.sign_flip((first, second), weight, groups) == pytest.approx(known, abs=0.015)


def test_sign_flip_is_fair_when_nothing_differs() -> None:
    rng = np.random.default_rng(0)
    p = [
        metrics.sign_flip((rng.normal(size=60), rng.normal(size=60)), np.ones(60), np.repeat(np.arange(20), 3), 200)
        for _ in range(200)
    ]
    assert np.mean(np.array(p) < 0.1) == pytest.approx(0.1, abs=0.06)
    assert metrics.sign_flip((np.zeros(60), np.ones(60)), np.ones(60), np.arange(60), 999) == pytest.approx(1e-3)
    assert metrics.sign_flip((np.ones(60), np.ones(60)), np.ones(60), np.arange(60), 99) == 1


def test_a_rival_below_zero_has_no_msle_and_the_page_says_so() -> None:
    value = np.arange(1.0, 9.0)
    truth = assessment.Truth(value, np.ones(8), np.arange(8), Property("gap", "eV", minimum=0.0))
    assert assessment.score(truth, value + 0.5)["msle"] > 0
    rival = assessment.score(truth, value - 1.5)  # learned without a minimum
    assert np.isnan(rival["msle"])
    assert rival["mae"] == pytest.approx(1.5)
    assert page.score_cells("rival", rival, logarithmic=True)[-1] == "–"
