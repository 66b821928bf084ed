"""Baselines are hard to beat where the composition tells everything, and never look at the test rows."""

import numpy as np
import pytest

from assay.models.evaluation import baselines, metrics
from assay.models.target import Property
from assay.sources.crystals import Crystals

TC = Property("tc", "K", minimum=0.0)


def rocksalts(n: int, seed: int = 0) -> Crystals:
    """`n` cells of two different elements each."""
    rng = np.random.default_rng(seed)
    pairs = np.array([rng.choice(np.arange(3, 60), 2, replace=False) for _ in range(n)])
    return Crystals(
        ids=np.array([f"test/{k}" for k in range(n)]),
        lattice=np.tile(4.0 * np.eye(3), (n, 1, 1)),
        site_ptr=np.arange(0, 2 * n + 1, 2),
        frac=np.tile([[0.0, 0, 0], [0.5, 0.5, 0.5]], (n, 1)),
        species_ptr=np.arange(2 * n + 1),
        numbers=pairs.ravel(),
        occupancy=np.ones(2 * n, np.float32),
        columns={},
    )


@pytest.fixture(scope="module")
def found() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    crystals = rocksalts(300)
    numbers = crystals.numbers.reshape(-1, 2).astype(float)
    target = np.where((numbers == 8).any(axis=1), 40.0, 0.0) + numbers.mean(axis=1) / 10  # oxygen decides
    train, test = np.arange(220), np.arange(220, 300)
    return baselines.predict(crystals, target, np.ones(300), train, test, TC), target[train], target[test]


def test_every_baseline_predicts_every_test_row(found) -> None:
    predicted, train, test = found
    assert list(predicted) == ["constant (median)", "element-set mean", "gradient boosting", "extra trees"]
    assert all(values.shape == test.shape and np.isfinite(values).all() for values in predicted.values())
    assert set(predicted["constant (median)"]) == {np.sort(train)[109]}


def test_trees_learn_what_the_composition_tells(found) -> None:
    predicted, _, test = found
    error = {name: metrics.regression(test, values)["mae"] for name, values in predicted.items()}
    assert error["extra trees"] < 0.25 * error["constant (median)"]
    assert error["gradient boosting"] < 0.5 * error["constant (median)"]


def test_element_sets_are_looked_up_by_weighted_mean_and_unknown_ones_are_the_constant() -> None:
    crystals = rocksalts(12).select([0, 0, 1, *range(2, 12), 0, 11, 1])
    target = np.array([10.0, 40.0, 7.0, *range(10), -1, -1, -1])
    weight = np.array([1.0, 2.0, *np.ones(14)])
    train, test = np.delete(np.arange(13), 12), np.array([13, 14, 15])
    found = baselines.predict(crystals, target, weight, train, test, TC)
    assert found["element-set mean"].tolist() == [30, found["constant (median)"][0], 7]


def test_test_rows_and_weightless_rows_teach_nothing() -> None:
    crystals, target, weight = rocksalts(80), np.random.default_rng(0).uniform(0, 50, 80), np.ones(80)
    train, test = np.arange(60), np.arange(60, 80)
    first = baselines.predict(crystals, target, weight, train, test, TC)
    other = np.concatenate([target[:60], target[60:][::-1] + 100])
    second = baselines.predict(crystals, other, weight, train, test, TC)
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


def test_a_transformed_property_is_learned_on_both_scales() -> None:
    crystals, target = rocksalts(60), np.random.default_rng(0).exponential(10, 60)
    bent = Property("tc", "K", "arcsinh", minimum=0.0)
    found = baselines.predict(crystals, target, np.ones(60), np.arange(50), np.arange(50, 60), bent)
    assert {"extra trees", "extra trees, arcsinh target", "gradient boosting, arcsinh target"} <= set(found)
    assert min(values.min() for values in found.values()) >= 0
