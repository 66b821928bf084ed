"""Conformal intervals against the definition and against fresh draws."""

import numpy as np
import pytest

from models import calibration


def draws(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    std = rng.uniform(0.2, 2, n)
    mean = rng.normal(size=n)
    return mean + 3 * std * rng.normal(size=n), mean, std


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_new_draws_are_covered(level: float) -> None:
    fitted = calibration.fit(*draws(4000, 1), level)
    truth, mean, std = draws(20_000, 2)
    inside = np.abs(truth - mean) <= fitted.half_width(std)
    assert inside.mean() == pytest.approx(level, abs=0.02)


def test_quantile_is_the_ceil_n_plus_one_rank() -> None:
    truth, mean, std = draws(99, 3)
    fitted = calibration.fit(truth, mean, std, 0.9)
    score = np.sort(np.abs(truth - mean) / (std + fitted.floor))
    assert fitted.quantile == score[90 - 1]  # ceil(100 * 0.9) = 90


def test_too_few_crystals_give_an_infinite_interval() -> None:
    assert calibration.fit(*draws(8, 4), 0.9).quantile == np.inf
    assert np.isfinite(calibration.fit(*draws(9, 4), 0.9).quantile)


def test_row_weights_equal_repeated_rows() -> None:
    truth, mean, std = draws(500, 5)
    twice = np.arange(500) < 100
    weighted = calibration.fit(truth, mean, std, 0.9, 1.0 + twice)
    repeated = np.concatenate([np.arange(500), np.arange(100)])
    plain = calibration.fit(truth[repeated], mean[repeated], std[repeated], 0.9)
    assert weighted.quantile * (1 + weighted.floor) == pytest.approx(plain.quantile * (1 + plain.floor), rel=0.05)


def test_agreeing_members_still_have_a_width() -> None:
    fitted = calibration.fit(*draws(100, 6), 0.9)
    assert fitted.half_width(np.zeros(3)).min() > 0
