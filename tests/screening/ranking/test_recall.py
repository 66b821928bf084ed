"""Recall of a cascade, on populations whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st

from assay.screening.ranking import recall
from assay.screening.ranking.recall import Errors, Recall, Sample


def cascade(
    rng: np.random.Generator, n: int, noise: float, keep: int, audit: int, tails: bool = False
) -> tuple[Sample, np.ndarray, np.ndarray]:
    """A cascade over n crystals; full scores of all, and which of them the last tier scored."""
    full = rng.standard_t(4, n) if tails else rng.normal(size=n)
    cheap = full + noise * rng.normal(size=n)
    best = np.argsort(-cheap)
    rest = rng.permutation(best[keep:])
    drawn, left = rest[:audit], rest[audit:]
    scored = np.zeros(n, bool)
    scored[[*best[:keep], *drawn]] = True
    return Sample(full[best[:keep]], cheap[drawn], full[drawn], cheap[left]), full, scored


def estimated(sample: Sample, k: int) -> Recall:
    found = recall.estimate(sample, k)
    assert found is not None
    return found


@pytest.mark.parametrize(("keep", "audit"), [(100, 150), (300, 300), (60, 500)])
def test_the_bound_by_counting_holds_as_often_as_it_says(keep: int, audit: int) -> None:
    held = []
    for seed in range(150):
        sample, full, scored = cascade(np.random.default_rng(seed), 1000, 1.0, keep, audit)
        held.append(scored[np.argsort(-full)[:50]].mean() >= estimated(sample, 50).at_least)
    assert recall.CONFIDENCE <= np.mean(held) < 1  # and it is no looser than it must be


@given(seen=st.integers(0, 5), n=st.integers(5, 60), size=st.integers(60, 400))
def test_the_bound_is_the_largest_number_that_is_not_unlikely(seen: int, n: int, size: int) -> None:
    most = recall.most_hidden(seen, n, size)

    def at_most_seen(kind: int) -> float:
        return sum(math.comb(kind, j) * math.comb(size - kind, n - j) for j in range(seen + 1)) / math.comb(size, n)

    assert seen <= most <= size - n + seen
    if most < size - n + seen:
        assert at_most_seen(most + 1) <= 0.05
    assert at_most_seen(most) > 0.05


def test_the_rule_of_three() -> None:
    assert recall.most_hidden(0, 500, 10**6) == pytest.approx(3e6 / 500, rel=0.01)


@pytest.mark.parametrize("tails", [False, True])
@pytest.mark.parametrize(("noise", "keep", "audit"), [(0.5, 500, 500), (1.0, 2000, 500), (1.0, 500, 2000)])
def test_both_estimates_are_right_on_average(noise: float, keep: int, audit: int, tails: bool) -> None:
    true, counted, expected = [], [], []
    for seed in range(20):
        sample, full, scored = cascade(np.random.default_rng(seed), 10_000, noise, keep, audit, tails)
        found = estimated(sample, 50)
        true.append(scored[np.argsort(-full)[:50]].mean())
        counted.append(found.counted)
        expected.append(found.expected)
    assert np.mean(counted) == pytest.approx(np.mean(true), abs=0.1)
    assert np.mean(expected) == pytest.approx(np.mean(true), abs=0.06)
    spread = [np.sqrt(np.mean((np.array(estimate) - true) ** 2)) for estimate in (expected, counted)]
    assert spread[0] <= spread[1] + 0.02  # the errors tell more than the count


@given(seed=st.integers(0, 999), keep=st.integers(1, 40), audit=st.integers(1, 60), k=st.integers(1, 60))
def test_what_always_holds(seed: int, keep: int, audit: int, k: int) -> None:
    sample, _, scored = cascade(np.random.default_rng(seed), 60, 1.0, keep, audit)
    found = estimated(sample, k)
    assert 0 <= found.at_least <= found.counted <= 1
    assert found.at_least <= found.at_best <= 1
    assert 0 <= found.expected <= 1
    assert found.aside == 60 - keep
    if not len(sample.aside):  # everything was scored
        assert found.at_least == found.counted == found.expected == scored.mean() == 1


@given(seed=st.integers(0, 99), n=st.integers(1, 90), mark=st.floats(-3, 3))
def test_errors_are_lent_by_the_nearest(seed: int, n: int, mark: float) -> None:
    rng = np.random.default_rng(seed)
    sample = Sample(np.array([]), rng.normal(size=n), rng.normal(size=n), rng.normal(size=30))
    errors = Errors(sample)
    slow = np.zeros(n)
    order = np.argsort(sample.cheap)
    for score in sample.aside:
        near = order[np.sort(np.argsort(np.abs(sample.cheap[order] - score), kind="stable")[: errors.width])]
        slow[near] += (score + sample.full[near] - sample.cheap[near] > mark) / errors.width
    assert errors.by_audited(mark).sum() == pytest.approx(slow.sum())
    assert errors.by_audited(mark) == pytest.approx(slow[order])


def test_an_audited_crystal_that_the_last_tier_refused_beats_nothing() -> None:
    whole, _, _ = cascade(np.random.default_rng(0), 500, 1.0, 20, 100)
    refused = Sample(whole.found, whole.cheap, np.full(100, np.nan), whole.aside)
    found = estimated(refused, 10)
    assert (found.beating, found.counted, found.expected, found.missed) == (0, 1.0, 1.0, 0.0)
    assert found.at_least < 1


def test_who_ties_with_the_best_counts_as_missed() -> None:
    same = np.ones(200)
    found = estimated(Sample(same[:50], np.zeros(100), same[:100], np.zeros(100)), 50)  # probabilities of 1, say
    assert (found.beating, found.at_least) == (100, 0)
    assert found.counted == found.expected == 1 / 50


def test_without_an_audit_nothing_is_said() -> None:
    none = np.array([])
    assert recall.estimate(Sample(np.arange(9.0), none, none, np.arange(3.0)), 5) is None
    assert estimated(Sample(np.arange(9.0), none, none, none), 5).at_least == 1.0


def test_more_wanted_than_survived_is_no_recall() -> None:
    found = estimated(Sample(np.arange(3.0), np.array([0.0]), np.array([0.5]), np.zeros(100)), 50)
    assert found.at_least == 0
    assert found.counted < 0.1
