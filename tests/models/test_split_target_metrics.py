"""Splits keep groups whole, scalers invert, metrics agree with scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from models import metrics, split
from models.split import SplitSpec
from models.target import Property


@given(st.integers(10, 400), st.integers(0, 5), st.integers(2, 6), st.integers(0, 1000))
def test_no_group_stands_on_two_sides(n_groups: int, seed: int, folds: int, shuffle: int) -> None:
    rng = np.random.default_rng(shuffle)
    groups = np.array([f"g{k}" for k in rng.integers(0, n_groups, 5 * n_groups)])
    if len(set(groups)) < folds + 2:
        return
    spec = SplitSpec(folds=folds, seed=seed)
    found = split.grouped(groups, spec)
    parts = [found.test, found.calibration, *found.folds]
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(groups)))
    sets = [set(groups[part]) for part in parts]
    assert sum(map(len, sets)) == len(set(groups))
    order = rng.permutation(len(groups))
    again = split.grouped(groups[order], spec)
    assert sorted(order[again.test]) == sorted(found.test)


def test_parts_have_the_asked_size() -> None:
    groups = np.array([f"g{k}" for k in np.random.default_rng(0).integers(0, 2000, 10_000)])
    found = split.grouped(groups, SplitSpec(test=0.2, calibration=0.1, folds=5))
    assert len(found.test) == pytest.approx(2000, abs=60)
    assert len(found.calibration) == pytest.approx(1000, abs=60)
    assert [len(fold) for fold in found.folds] == pytest.approx([1400] * 5, abs=60)


def test_each_member_stops_on_its_own_fold() -> None:
    found = split.grouped(np.arange(100).astype(str), SplitSpec(folds=3))
    for k in range(3):
        assert not set(found.train(k)) & set(found.validation(k))
        assert set(found.train(k)) | set(found.validation(k)) == set(found.development())


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="3 groups cannot be divided into 7 parts"):
        split.grouped(np.array(["a", "b", "c"]), SplitSpec())


@pytest.mark.parametrize("transform", ["identity", "arcsinh", "log1p"])
def test_decode_inverts_encode(transform: str) -> None:
    values = np.array([0.0, 0.3, 4.2, 39.0, 133.0])
    prop = Property("tc", "K", transform).fit(values)  # type: ignore[arg-type]
    np.testing.assert_allclose(prop.decode(prop.encode(values)), values, rtol=1e-5, atol=1e-5)
    assert prop.encode(values).mean() == pytest.approx(0, abs=1e-6)


def test_predictions_stay_above_the_physical_minimum() -> None:
    assert Property("tc", "K", minimum=0.0).decode(np.array([-3.0, 2.0])).tolist() == [0.0, 2.0]


def test_fit_ignores_unknown_targets() -> None:
    assert Property("e", "eV").fit(np.array([1.0, np.nan, 3.0])).center == 2


@given(st.integers(2, 60), st.integers(0, 10_000))
def test_regression_agrees_with_scikit_learn(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted, weight = rng.normal(size=n), rng.normal(size=n), rng.uniform(0.1, 1, n)
    found = metrics.regression(truth, predicted, weight)
    assert found["mae"] == pytest.approx(mean_absolute_error(truth, predicted, sample_weight=weight))
    assert found["rmse"] == pytest.approx(root_mean_squared_error(truth, predicted, sample_weight=weight))
    assert found["r2"] == pytest.approx(r2_score(truth, predicted, sample_weight=weight))


def test_spearman_handles_ties() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 100), rng.integers(0, 5, 100)
    assert metrics.spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)


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
