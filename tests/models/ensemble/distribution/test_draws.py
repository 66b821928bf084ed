"""Means, quantiles and probabilities of draws against the same by hand and by numpy."""

import numpy as np
import pytest
from scipy import stats

from assay.models.ensemble.distribution import draws
from assay.models.ensemble.distribution.decision import ADAPTIVE, KINDS, Decision


def sample(n: int = 50, count: int = 120, seed: int = 0) -> np.ndarray:
    return draws.ascending(np.random.default_rng(seed).gamma(1.5, 10.0, (n, count)))


def test_draws_ascend_in_each_row() -> None:
    assert draws.ascending(np.array([[3.0, 1.0], [0.0, 5.0]])).tolist() == [[1.0, 3.0], [0.0, 5.0]]


@pytest.mark.parametrize("trim", [0.0, 0.05, 0.25])
def test_a_trimmed_mean_is_that_of_scipy_where_whole_draws_are_cut(trim: float) -> None:
    values = sample()
    np.testing.assert_allclose(draws.trimmed_mean(values, trim), stats.trim_mean(values, trim, axis=1))


def test_a_draw_on_the_border_counts_in_part() -> None:
    values = np.array([[0.0, 1.0, 2.0, 3.0, 10.0]])  # the middle half: 3/4 of 1, all of 2, 3/4 of 3
    np.testing.assert_allclose(draws.trimmed_mean(values, 0.25), [(0.75 * 1 + 2 + 0.75 * 3) / 2.5])


@pytest.mark.parametrize("share", [0.0, 0.003, 0.05, 0.3, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("count", [1, 2, 7, 120])
def test_quantiles_are_those_of_hazen(share: float, count: int) -> None:
    values = sample(count=count)
    np.testing.assert_allclose(draws.quantile(values, share), np.quantile(values, share, axis=1, method="hazen"))


@pytest.mark.parametrize("count", [1, 2, 7, 120])
def test_the_median_is_that_of_numpy(count: int) -> None:
    values = sample(count=count)
    np.testing.assert_allclose(draws.median(values), np.median(values, axis=1))


def test_the_probability_of_lying_above_a_quantile_is_what_is_left() -> None:
    values = sample()
    for share in (0.05, 0.4, 0.77):
        row = values[3:4]
        threshold = float(draws.quantile(row, share)[0])
        np.testing.assert_allclose(draws.above(row, draws.levels(120), threshold), [1 - share], atol=1e-9)
        np.testing.assert_allclose(draws.below(row, draws.levels(120), threshold), [share], atol=1e-9)


def test_no_probability_is_certain_and_equal_draws_lie_on_one_side() -> None:
    values = np.array([[0.0, 0.0, 0.0, 8.0]])
    shares = draws.levels(4)
    assert draws.above(values, shares, 9.0).tolist() == [1 / 16]
    assert draws.above(values, shares, -1.0).tolist() == [15 / 16]
    assert draws.above(values, shares, 0.0).tolist() == [1 - shares[2]]
    assert draws.below(values, shares, 0.0).tolist() == [shares[0] / 2]
    assert np.isnan(draws.above(np.array([[np.nan, 1.0, 2.0, 3.0]]), shares, 0.5)).all()


def test_a_row_does_not_depend_on_the_others() -> None:
    values = sample(n=300)
    for decide in (Decision("mean"), Decision("interquartile-mean"), Decision(ADAPTIVE, 5.0, 15.0), Decision()):
        assert decide.of(values)[77:79].tobytes() == decide.of(values[77:79]).tobytes()
    assert draws.spread(values, values[:, 0])[5:6].tobytes() == draws.spread(values[5:6], values[5:6, 0]).tobytes()


def test_the_adaptive_mean_goes_from_the_middle_half_to_nearly_all() -> None:
    decide, values = Decision(ADAPTIVE, 10.0, 20.0, trim=0.05), sample()
    middle, wide = draws.trimmed_mean(values, 0.25), draws.trimmed_mean(values, 0.05)
    for shift in (-50.0, 50.0):
        wanted = (middle if shift < 0 else wide) + shift
        np.testing.assert_allclose(decide.of(values + shift), wanted)
    row = values[:1] - middle[0] + 12.5  # a quarter of the way
    np.testing.assert_allclose(decide.of(row), 12.5 + 0.25 * (wide - middle)[:1])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "mode"}, f"decision.kind is 'mode', expected one of {', '.join(KINDS)}"),
        ({"kind": ADAPTIVE, "low": 40.0}, "decision.high is None, expected a number"),
        ({"kind": ADAPTIVE, "low": 40.0, "high": 40.0}, "decision.high is 40, expected above decision.low, 40"),
        ({"kind": ADAPTIVE, "low": float("nan"), "high": 40.0}, "decision.low is nan"),
        ({"kind": "median", "low": 40.0}, "decision.low is 40.0, and only adaptive-trimmed-mean reads it, not median"),
        ({"trim": 0.3}, "decision.trim is 0.3, expected 0 to 0.25"),
    ],
)
def test_a_decision_out_of_range_is_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Decision(**given)  # type: ignore[arg-type] # wrong ones too
