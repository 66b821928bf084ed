"""Scores of error bars against closed forms and against the uncertainty toolbox's own formulae, written out."""

import numpy as np
import pytest
from scipy import integrate, stats

from assay.models.evaluation import error_bars


def drawn(n: int, claimed: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, mean and std where the true deviation is 1 / claimed times the std."""
    rng = np.random.default_rng(seed)
    mean, std = rng.normal(size=n), rng.uniform(0.5, 3, n)
    return mean + std / claimed * rng.normal(size=n), mean, std


def test_nll_is_that_of_scipy() -> None:
    truth, mean, std = drawn(50)
    assert error_bars.nll(truth, mean, std) == pytest.approx(-stats.norm.logpdf(truth, mean, std).mean())


def test_crps_is_the_integral_that_defines_it() -> None:
    truth, mean, std = np.array([1.3]), np.array([0.2]), np.array([0.7])
    below = integrate.quad(lambda y: stats.norm.cdf(y, 0.2, 0.7) ** 2, -20, 1.3)[0]
    above = integrate.quad(lambda y: stats.norm.sf(y, 0.2, 0.7) ** 2, 1.3, 20)[0]
    assert error_bars.crps(truth, mean, std) == pytest.approx(below + above, rel=1e-6)


def test_crps_becomes_the_mae_and_is_known_for_honest_bars() -> None:
    truth, mean, std = drawn(40_000)
    assert error_bars.crps(truth, mean, 1e-9 * std) == pytest.approx(np.abs(truth - mean).mean(), rel=1e-6)
    assert error_bars.crps(truth, mean, std) == pytest.approx(std.mean() / np.sqrt(np.pi), rel=0.02)


def test_calibration_curve_is_that_of_the_uncertainty_toolbox() -> None:
    truth, mean, std = drawn(300, claimed=1.5)
    expected, observed = error_bars.calibration_curve(truth, mean, std)
    known = []
    for share in np.linspace(0, 1, 100):  # uncertainty_toolbox.metrics_calibration.get_proportion_in_interval
        low, high = stats.norm.ppf(0.5 - share / 2), stats.norm.ppf(0.5 + share / 2)
        z = (mean - truth) / std
        known.append(np.mean((z >= low) & (z <= high)))
    np.testing.assert_allclose(expected, np.linspace(0, 1, 100))
    np.testing.assert_allclose(observed, known)
    area = np.trapezoid(np.abs(np.array(known) - expected), expected)  # the curve never crosses: bars are too wide
    assert error_bars.miscalibration_area(expected, observed) == pytest.approx(area, rel=0.02)


@pytest.mark.parametrize("claimed", [0.5, 1.0, 2.0])
def test_miscalibration_area_has_its_closed_form(claimed: float) -> None:
    """Bars `claimed` times too wide cover 2 cdf(claimed z) - 1 instead of 2 cdf(z) - 1."""
    expected, observed = error_bars.calibration_curve(*drawn(40_000, claimed))
    known = integrate.quad(lambda p: abs(2 * stats.norm.cdf(claimed * stats.norm.ppf(0.5 + p / 2)) - 1 - p), 0, 1)[0]
    assert error_bars.miscalibration_area(expected, observed) == pytest.approx(known, abs=0.006)


def test_the_area_of_crossing_lines_is_exact() -> None:
    x = np.array([0.0, 1.0])
    assert error_bars.miscalibration_area(x, np.array([0.25, 0.75])) == pytest.approx(2 * 0.5 * 0.5 * 0.25)
    assert error_bars.miscalibration_area(np.linspace(0, 1, 5), np.array([0.0, 0, 0, 0, 1])) == pytest.approx(0.375)


@pytest.mark.parametrize("claimed", [0.5, 1.0, 2.0])
def test_ence_is_the_relative_error_of_the_deviation(claimed: float) -> None:
    assert error_bars.ence(*drawn(40_000, claimed)) == pytest.approx(abs(1 - 1 / claimed), abs=0.03)


def test_ence_by_hand() -> None:
    truth, mean, std = np.array([1.0, -1, 4, -4]), np.zeros(4), np.array([1.0, 1, 2, 2])
    assert error_bars.ence(truth, mean, std, bins=2) == pytest.approx((0 + 1) / 2)  # bin 1: 1 = 1, bin 2: 2 against 4


def test_weight_two_is_the_row_twice() -> None:
    truth, mean, std = drawn(60)
    times = np.random.default_rng(1).integers(1, 4, 60)
    twice = error_bars.scores(*(np.repeat(column, times) for column in (truth, mean, std)))
    weighted = error_bars.scores(truth, mean, std, times)
    ence, same = weighted.pop("ence"), twice.pop("ence")
    assert weighted == pytest.approx(twice)
    assert ence == pytest.approx(same, rel=0.3)  # a heavy row falls into one bin, its copies may fall into two


def test_the_interval_is_read_back_as_its_gaussian() -> None:
    half = 1.6448536269514722 * np.array([1.0, 2.0])
    np.testing.assert_allclose(error_bars.gaussian_deviation(half, 0.9), [1, 2])


def test_a_deviation_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"smallest standard deviation is 0\.0"):
        error_bars.scores(np.ones(2), np.ones(2), np.array([1.0, 0.0]))
