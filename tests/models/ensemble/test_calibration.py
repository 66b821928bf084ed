"""Conformal intervals and scaled deviations against their definition and against fresh draws."""

import numpy as np
import pytest

from assay.models.ensemble import calibration
from assay.models.ensemble.calibration import Calibration


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


def test_scaled_deviation_is_the_size_of_the_error() -> None:
    """The draws' errors are three times as large as the spread says."""
    fitted = calibration.fit(*draws(4000, 1), 0.9)
    truth, mean, spread = draws(20_000, 2)
    assert np.sqrt((((truth - mean) / fitted.deviation(spread)) ** 2).mean()) == pytest.approx(1, abs=0.03)
    assert fitted.deviation(spread).mean() > 2 * spread.mean()


def test_scale_follows_its_definition_with_weights() -> None:
    truth, mean, spread = draws(300, 7)
    weight = np.random.default_rng(0).uniform(0.1, 3, 300)
    fitted = calibration.fit(truth, mean, spread, 0.9, weight)
    z = (truth - mean) / (spread + fitted.floor)
    assert fitted.scale == pytest.approx(np.sqrt((weight * z**2).sum() / weight.sum()), rel=1e-12)
    np.testing.assert_allclose(fitted.deviation(spread), fitted.scale * (spread + fitted.floor))


def test_without_a_scale_the_deviation_is_the_spread() -> None:
    _, _, spread = draws(10, 8)
    assert Calibration(0.9, 2.0, 0.5, 100).deviation(spread).tobytes() == spread.tobytes()


def test_order_by_deviation_is_the_order_by_spread() -> None:
    truth, mean, spread = draws(200, 9)
    deviation = calibration.fit(truth, mean, spread, 0.9).deviation(spread)
    assert np.argsort(deviation).tolist() == np.argsort(spread).tolist()


def test_members_that_never_differ_get_the_mean_error_as_measure() -> None:
    """Stacking may give one member all the weight."""
    truth, mean, _ = draws(200, 10)
    fitted = calibration.fit(truth, mean, np.zeros(200), 0.9)
    error = np.abs(truth - mean)
    assert fitted.deviation(np.zeros(1))[0] == pytest.approx(np.sqrt((error**2).mean()))
    assert (error <= fitted.half_width(np.zeros(200))).mean() == pytest.approx(0.9, abs=0.02)
    perfect = calibration.fit(truth, truth, np.zeros(200), 0.9)
    assert np.isfinite([perfect.quantile, perfect.scale, perfect.floor]).all()


@pytest.mark.parametrize("place", [0, 1, 2])
def test_rows_without_a_finite_number_are_refused(place: int) -> None:
    columns = draws(50, 11)
    columns[place][3] = np.nan
    with pytest.raises(ValueError, match="1 of 50 calibration rows lack a finite value or prediction"):
        calibration.fit(*columns, 0.9)
