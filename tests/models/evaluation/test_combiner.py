"""Shares by nested folds: the best of them, none for what adds nothing, and none fitted on the rows they predict."""

import numpy as np
import pytest
from numpy.typing import NDArray

from assay.models.evaluation import combiner


@pytest.fixture(scope="module")
def made() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    truth = rng.gamma(0.5, 20.0, 600)
    good, other = truth + rng.laplace(0, 2, 600), truth + rng.laplace(0, 4, 600)
    noise = good + rng.laplace(0, 30, 600)
    return np.stack([good, other, noise], axis=1), truth, rng.uniform(0.1, 1, 600), rng.integers(0, 5, 600)


def test_shares_are_the_best_of_a_grid_and_what_adds_nothing_gets_none(
    made: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]],
) -> None:
    predicted, truth, weight, _ = made

    def error(shares: NDArray[np.float64]) -> float:
        return float(np.average(np.abs(predicted @ shares - truth), weights=weight))

    found = combiner.least_absolute(predicted, truth, weight)
    grid = [np.array([a, b, 1 - a - b]) for a in np.linspace(0, 1, 41) for b in np.linspace(0, 1 - a, 41)]
    assert error(found) <= min(map(error, grid)) + 1e-9
    assert found.sum() == pytest.approx(1)
    assert found[2] == pytest.approx(0, abs=1e-9)
    assert found[0] > found[1] > 0


def test_the_shares_of_a_fold_do_not_know_its_rows(
    made: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]],
) -> None:
    predicted, truth, weight, fold = made
    values, shares = combiner.nested(predicted, truth, weight, fold)
    changed = np.where(fold == 2, truth + 50, truth)
    again = combiner.nested(predicted, changed, weight, fold)[0]
    assert again[fold == 2].tolist() == values[fold == 2].tolist()
    assert not np.allclose(again[fold != 2], values[fold != 2])
    np.testing.assert_allclose(values, (predicted * shares[fold]).sum(axis=1))
