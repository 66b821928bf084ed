"""Acquisition functions: closed forms agree with numerical integration of the same distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest

from assay.models.ensemble.distribution import acquisition, draws
from assay.models.ensemble.distribution.acquisition import ACQUISITIONS, Empirical, Normal, Question

SHARES = (np.arange(100_000) + 0.5) / 100_000
"""Places at which a distribution is summed up."""


def test_a_normal_distribution_is_integrated_exactly() -> None:
    mean, std = np.array([-3.0, 0.0, 0.7, 2.0, 9.0]), np.array([1.0, 0.5, 2.0, 0.1, 4.0])
    belief, best = Normal(mean, std), 1.1
    grid = np.linspace(-12, 12, 400_001)
    density = np.exp(-(grid**2) / 2) / math.sqrt(2 * math.pi)
    for k, gain in enumerate(belief.gain(best)):
        above = np.maximum(mean[k] + std[k] * grid - best, 0)
        assert gain == pytest.approx(np.trapezoid(above * density, grid), abs=1e-9)
        chance = np.trapezoid(density * (above > 0), grid)
        assert belief.above(best)[k] == pytest.approx(chance, abs=1e-4)


def test_far_from_the_best_value_the_gain_stays_ordered_and_positive() -> None:
    belief = Normal(np.array([-8.0, -7.0, -6.0]), np.ones(3))
    gain = belief.gain(0.0)
    assert (np.diff(gain) > 0).all()
    assert gain[0] > 0


def test_a_certain_value_gains_its_margin() -> None:
    belief = Normal(np.array([1.0, 2.0, 3.0]), np.zeros(3))
    assert belief.gain(2.0).tolist() == [0.0, 0.0, 1.0]
    assert belief.above(2.0).tolist() == [0.0, 0.5, 1.0]


def test_quantiles_are_integrated_exactly() -> None:
    rng = np.random.default_rng(0)
    values = np.sort(rng.exponential(20.0, (12, 13)), axis=1)
    values[5, 3:8] = values[5, 3]  # a step without width
    values[6] = 7.0
    shares = np.array([0.01, 0.05, *np.arange(0.1, 0.95, 0.1), 0.95, 0.99])
    belief = Empirical(values.mean(axis=1), values.std(axis=1), values, shares)
    for best in (0.0, 7.5, 20.0, 60.0, 1e3):
        for row, gain, chance in zip(values, belief.gain(best), belief.above(best)):
            places = np.interp(SHARES, shares, row)  # of which the first and the last hold what lies beyond
            assert gain == pytest.approx(np.maximum(places - best, 0).mean(), abs=1e-3)
            if row[0] < best < row[-1]:
                assert chance == pytest.approx((places > best).mean(), abs=1e-4)


def test_many_draws_gain_what_their_mean_says() -> None:
    found = draws.ascending(np.random.default_rng(1).normal(5.0, 2.0, (20, 400)))
    belief = Empirical(found.mean(axis=1), found.std(axis=1), found, draws.levels(400))
    for best in (3.0, 6.0, 9.0):
        assert belief.gain(best) == pytest.approx(np.maximum(found - best, 0).mean(axis=1), abs=0.01)


def test_names_are_answered() -> None:
    belief = Normal(np.array([1.0, 2.0]), np.array([3.0, 0.5]))
    asked = Question(best=1.5, kappa=2.0, shares=np.array([0.5, 0.841344746]))
    found = {name: function(belief, asked).tolist() for name, function in ACQUISITIONS.items()}
    assert found["mean"] == [1.0, 2.0]
    assert found["std"] == [3.0, 0.5]
    assert found["ucb"] == [7.0, 3.0]
    assert found["thompson"] == pytest.approx([1.0, 2.5])
    assert found["ei"] == belief.gain(1.5).tolist()
    assert found["pi"] == belief.above(1.5).tolist()
    with pytest.raises(ValueError, match="thompson needs `shares`"):
        ACQUISITIONS["thompson"](belief, Question())


def test_what_is_drawn_depends_on_name_and_seed_alone() -> None:
    names = [f"mp-{k}" for k in range(5000)]
    found = acquisition.drawn(names, 3)
    order = np.random.default_rng(0).permutation(5000)
    assert (acquisition.drawn([names[k] for k in order], 3) == found[order]).all()
    assert not np.allclose(acquisition.drawn(names, 4), found)
    assert np.quantile(found, [0.1, 0.5, 0.9]) == pytest.approx([0.1, 0.5, 0.9], abs=0.03)
    assert ((found > 0) & (found < 1)).all()
