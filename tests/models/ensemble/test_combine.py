"""Weights of members against scipy and against what they promise; means and spreads against numpy."""

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy.optimize import minimize

from assay.models.ensemble import combine


def draws(seed: int, k: int = 5, m: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Members with errors of unequal size that have a part in common, and unequal row weights."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=m) * 10
    errors = rng.normal(size=(m, k)) * rng.uniform(0.5, 3, k) + rng.normal(size=(m, 1)) + rng.normal(size=k)
    return truth[:, None] + errors, truth, rng.uniform(0.1, 2, m)


def loss(shares: np.ndarray, members: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> float:
    return float(np.average((members @ shares - truth) ** 2, weights=weight))


@given(seed=st.integers(0, 10_000), k=st.integers(2, 10))
def test_stacking_finds_the_minimum_that_scipy_finds(seed: int, k: int) -> None:
    members, truth, weight = draws(seed, k)
    found = np.array(combine.stacked(members, truth, weight))
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1, abs=1e-12)
    known = minimize(
        loss,
        np.full(k, 1 / k),
        (members, truth, weight),
        "SLSQP",
        bounds=[(0, 1)] * k,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert loss(found, members, truth, weight) <= known.fun * (1 + 1e-8)
    np.testing.assert_allclose(found, known.x, atol=2e-3)


def test_row_weights_equal_repeated_rows() -> None:
    members, truth, _ = draws(3)
    twice = np.concatenate([np.arange(200), np.arange(80)])
    weighted = combine.stacked(members, truth, 1.0 + (np.arange(200) < 80))
    np.testing.assert_allclose(weighted, combine.stacked(members[twice], truth[twice]), atol=1e-9)


def test_a_useless_member_gets_nothing_and_twins_share() -> None:
    members, truth, weight = draws(1, 3)
    members[:, 2] = truth + 3 * (members[:, 0] - truth)  # wrong like the first, only more so
    assert combine.stacked(members, truth, weight)[2] == 0
    twins = np.concatenate([members, members[:, :1]], axis=1)
    shares = combine.stacked(twins, truth, weight)
    assert shares[0] == pytest.approx(shares[3], abs=1e-6)
    assert shares[0] + shares[3] == pytest.approx(combine.stacked(members, truth, weight)[0], abs=1e-6)


def test_perfect_members_are_equal_and_one_perfect_member_is_alone() -> None:
    _, truth, weight = draws(2)
    assert combine.stacked(np.stack([truth] * 3, axis=1), truth, weight) == combine.equal(3)
    members = np.stack([truth, truth + 1, truth - 2], axis=1)
    assert loss(np.array(combine.stacked(members, truth, weight)), members, truth, weight) < 1e-8


def test_order_of_members_does_not_matter() -> None:
    members, truth, weight = draws(8, 6)
    order = np.array([3, 0, 5, 1, 4, 2])
    shuffled = combine.stacked(members[:, order], truth, weight)
    np.testing.assert_allclose(shuffled, np.array(combine.stacked(members, truth, weight))[order], atol=1e-9)


def test_validation_weights_are_inverse_squares() -> None:
    assert combine.by_validation([1.0, 2.0]) == pytest.approx((0.8, 0.2))
    assert combine.by_validation([1e-200, 1e-200]) == (0.5, 0.5)
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="expected finite numbers above 0"):
            combine.by_validation([1.0, bad])


def test_not_finite_and_no_rows_are_refused() -> None:
    members, truth, weight = draws(4)
    with pytest.raises(ValueError, match="got 0 rows"):
        combine.stacked(members[:0], truth[:0])
    members[7, 1] = np.nan
    with pytest.raises(ValueError, match="finite values and predictions"):
        combine.stacked(members, truth, weight)


def test_stacking_leaves_other_groups_to_calibrate_on() -> None:
    members, truth, weight = draws(5)
    groups = np.array([f"g{i // 3 % 40}" for i in range(200)])
    fitted = combine.fit_weights("stacking", members, truth, weight, [], groups)
    used = np.setdiff1d(np.arange(200), fitted.rest)
    assert not set(groups[used]) & set(groups[fitted.rest])
    assert 0.4 <= len(used) / 200 <= 0.6
    assert fitted.weights == combine.stacked(members[used], truth[used], weight[used])
    again = combine.fit_weights("stacking", members, truth, weight, [], groups)
    assert again.rest.tolist() == fitted.rest.tolist()


def test_halves_do_not_depend_on_the_order_of_rows() -> None:
    members, truth, weight = draws(6)
    groups = np.array([f"g{i % 17}" for i in range(200)])
    order = np.random.default_rng(0).permutation(200)
    first = combine.fit_weights("stacking", members, truth, weight, [], groups).rest
    second = combine.fit_weights("stacking", members[order], truth[order], weight[order], [], groups[order]).rest
    assert sorted(order[second].tolist()) == first.tolist()


@pytest.mark.parametrize("sizes", [[199, 1], [1, 199], [100, 1, 99], [1] * 200])
def test_neither_half_is_ever_empty(sizes: list[int]) -> None:
    members, truth, weight = draws(7)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    rest = combine.fit_weights("stacking", members, truth, weight, [], groups).rest
    assert 0 < len(rest) < 200


def test_one_group_cannot_be_halved() -> None:
    members, truth, weight = draws(7)
    with pytest.raises(ValueError, match="200 rows have 1"):
        combine.fit_weights("stacking", members, truth, weight, [], np.zeros(200))


def test_other_kinds_use_up_no_rows() -> None:
    members, truth, weight = draws(9)
    plain = combine.fit_weights("mean", members, truth, weight, [1.0] * 5, np.zeros(200))
    assert plain.weights is None
    by_error = combine.fit_weights("validation", members, truth, weight, [1.0, 1, 1, 1, 2], np.zeros(200))
    assert by_error.weights == combine.by_validation([1.0, 1, 1, 1, 2])
    assert plain.rest.tolist() == by_error.rest.tolist() == list(range(200))


def test_equal_weights_are_the_plain_mean_to_the_last_bit() -> None:
    members, _, _ = draws(10, 7)
    silent = np.full(members.shape, np.nan)
    for shares in (None, combine.equal(7)):
        mean, spread = combine.mean_and_spread(members, shares, silent)
        assert mean.tobytes() == members.mean(axis=1).tobytes()
        assert spread.tobytes() == members.std(axis=1, ddof=1).tobytes()


def test_weighted_mean_and_spread_follow_their_definition() -> None:
    members, _, _ = draws(11, 3)
    shares = (0.5, 0.3, 0.2)
    mean, spread = combine.mean_and_spread(members, shares, np.full(members.shape, np.nan))
    np.testing.assert_allclose(mean, members @ np.array(shares))
    np.testing.assert_allclose(spread, np.sqrt(((members - mean[:, None]) ** 2) @ np.array(shares) * 3 / 2))
    nearly = (1 / 3 + 1e-13, 1 / 3, 1 / 3 - 1e-13)
    np.testing.assert_allclose(
        combine.mean_and_spread(members, nearly, np.full(members.shape, np.nan))[1], members.std(axis=1, ddof=1)
    )


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    members, _, _ = draws(12, 9)
    shares = combine.by_validation(np.arange(1.0, 10).tolist())
    silent = np.full(members.shape, np.nan)
    together = combine.mean_and_spread(members, shares, silent)
    alone = [combine.mean_and_spread(members[i : i + 1], shares, silent[:1]) for i in range(len(members))]
    for k in range(2):
        assert together[k].tobytes() == np.concatenate([one[k] for one in alone]).tobytes()


def test_predicted_variance_is_added_where_members_tell_it() -> None:
    members = np.array([[1.0, 1.0, 1.0], [0.0, 3.0, 0.0]])
    shares = (0.5, 0.25, 0.25)
    variance = np.array([[4.0, 8.0, np.nan], [4.0, 8.0, np.nan]])
    _, plain = combine.mean_and_spread(members, shares, np.full((2, 3), np.nan))
    _, spread = combine.mean_and_spread(members, shares, variance)
    np.testing.assert_allclose(spread**2, plain**2 + (0.5 * 4 + 0.25 * 8) / 0.75)
    _, even = combine.mean_and_spread(members, None, variance)
    np.testing.assert_allclose(even**2, members.var(axis=1, ddof=1) + 6.0)
