"""Intervals from quantiles against fresh rows, in each range of the predicted value."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from assay.models.ensemble.distribution import draws, quantiles
from assay.models.ensemble.distribution.quantiles import QuantileCalibration

EDGES = (10.0, 30.0)


def rows(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draws that are four times too narrow at the top, right in the middle, too wide below."""
    rng = np.random.default_rng(seed)
    center = rng.uniform(0, 50, n)
    wrong = np.select([center < 10, center < 30], [0.3, 1.0], 4.0)
    values = draws.ascending(center[:, None] + rng.normal(0, 2, (n, 80)))
    return values, draws.median(values), center + wrong * rng.normal(0, 2, n), np.ones(n)


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_new_rows_are_covered_in_every_range(level: float) -> None:
    fitted = quantiles.fit(*rows(6000, 1), level, EDGES)
    values, predicted, truth, _ = rows(20_000, 2)
    low, high = fitted.interval(predicted, values)
    for here in (predicted < 10, (predicted >= 10) & (predicted < 30), predicted >= 30):
        inside = (low <= truth) & (truth <= high)
        assert inside[here].mean() == pytest.approx(level, abs=0.025)
    assert fitted.widening[0] < fitted.widening[1] < fitted.widening[2]


def test_the_deviation_is_that_of_the_error_in_every_range() -> None:
    fitted = quantiles.fit(*rows(6000, 1), 0.9, EDGES)
    values, predicted, truth, _ = rows(20_000, 2)
    claimed = fitted.deviation(predicted, draws.spread(values, predicted))
    for here in (predicted < 10, (predicted >= 10) & (predicted < 30), predicted >= 30):
        assert np.sqrt(np.mean((truth - predicted)[here] ** 2)) == pytest.approx(claimed[here].mean(), rel=0.05)
    assert (fitted.deviation(predicted, np.zeros(len(predicted))) > 0).all()


def test_the_predicted_value_lies_in_its_interval() -> None:
    fitted = quantiles.fit(*rows(2000, 1), 0.9, EDGES)
    values = np.array([[0.0] * 40 + [90.0] * 40, [0.0] * 79 + [90.0]])
    for predicted in (values[:, 0], values[:, -1], values.mean(axis=1)):
        low, high = fitted.interval(predicted, values)
        assert (low <= predicted).all()
        assert (high >= predicted).all()


def test_a_row_of_weight_two_counts_as_two() -> None:
    values, predicted, truth, weight = rows(600, 3)
    again = np.concatenate([np.arange(600), np.arange(200)])
    once = quantiles.fit(values, predicted, truth, weight + (np.arange(600) < 200), 0.9, EDGES)
    twice = quantiles.fit(values[again], predicted[again], truth[again], weight[again], 0.9, EDGES)
    np.testing.assert_allclose(once.widening, twice.widening, rtol=0.15, atol=0.1)


def test_chosen_ranges_are_narrow_at_both_ends_and_have_rows_enough() -> None:
    predicted = np.concatenate([np.zeros(1000), np.random.default_rng(0).gamma(0.5, 20.0, 8000)])
    edges = quantiles.choose(predicted)
    counts = np.histogram(predicted, [-np.inf, *edges, np.inf])[0]
    assert counts.min() >= quantiles.LEAST
    assert counts[-1] < 2 * quantiles.LEAST
    assert edges[0] > 0  # no range of the zeros alone below 0
    assert quantiles.choose(np.zeros(5000)) == ()
    assert quantiles.choose(predicted[:500]) == ()


def test_edges_are_chosen_where_none_are_given() -> None:
    values, predicted, truth, weight = rows(3000, 4)
    fitted = quantiles.fit(values, predicted, truth, weight, 0.9)
    assert fitted.edges == quantiles.choose(predicted)
    assert sum(fitted.n) == 3000
    assert len(fitted.widening) == len(fitted.scale) == len(fitted.edges) + 1


def test_the_order_of_draws_does_not_matter() -> None:
    values, predicted, truth, weight = rows(500, 5)
    mixed = np.random.default_rng(0).permuted(values, axis=1)
    assert quantiles.fit(mixed, predicted, truth, weight, 0.9) == quantiles.fit(values, predicted, truth, weight, 0.9)


def test_it_comes_back_from_json_as_it_went() -> None:
    fitted = quantiles.fit(*rows(500, 6), 0.9, EDGES)
    assert QuantileCalibration.read(json.loads(json.dumps(asdict(fitted)))) == fitted


def test_what_cannot_be_calibrated_is_refused() -> None:
    values, predicted, truth, weight = rows(500, 7)
    with pytest.raises(ValueError, match=r"0 calibration rows in the range of predicted values 60 to inf are too few"):
        quantiles.fit(values, predicted, truth, weight, 0.9, (10.0, 60.0))
    with pytest.raises(ValueError, match=r"edges of predicted values are \[30.0, 10.0\], expected ascending numbers"):
        quantiles.fit(values, predicted, truth, weight, 0.9, (30.0, 10.0))
    truth[3] = np.nan
    with pytest.raises(ValueError, match="lacks a finite value"):
        quantiles.fit(values, predicted, truth, weight, 0.9, EDGES)
