"""Filters on predictions: what fails, why, and with which probability."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from assay.screening.folder.summary import Bound, Target
from assay.screening.ranking import bounds, rank
from assay.screening.ranking.rules import Probability
from assay.screening.settings.choice import Rank
from assay.screening.settings.names import QUANTILES

ENERGY = Target("m", "energy", "eV/atom", 0.9, calibrated=True)
GAP = Target("m", "gap", "", 0.9)


def bound(target: Target = ENERGY, **ends: float) -> Bound:
    return Bound(target, ends.get("min"), ends.get("max"), ends.get("confidence"))


def table(target: Target = ENERGY, mean: Any = (), std: Any = (), **columns: Any) -> pa.Table:
    centre, width = np.array(mean, float), np.array(std if len(std) else [0.1] * len(mean), float)
    made = {"id": [f"{k:03d}" for k in range(len(centre))], f"{target.name}_mean": centre, f"{target.name}_std": width}
    made[f"{target.name}_hi"] = centre + stats.norm.ppf(0.95) * width
    if target.distribution:
        made |= {f"{target.name}_{part}": centre + width * stats.norm.ppf(share) for part, share in QUANTILES.items()}
    return pa.table(made | columns)


def test_the_predicted_value_decides_both_ends_belong_and_what_is_no_number_fails() -> None:
    rows = table(mean=[-1.0, -0.5, 0.0, 1e-9, -1.1, math.nan, math.inf, -math.inf])
    found = bounds.reasons(rows, [bound(min=-1.0, max=0.0)]).to_pylist()
    none = "has no energy"
    assert found == [None, None, None, "energy above 0 eV/atom", "energy below -1 eV/atom", none, none, none]
    assert bounds.reasons(table(), [bound(max=0.0)]).to_pylist() == []
    nulls = rows.set_column(1, "energy_mean", pa.nulls(8, pa.float64()))
    assert bounds.reasons(nulls, [bound(max=0.0)]).to_pylist() == [none] * 8


def test_the_first_filter_that_fails_is_the_reason_and_rows_are_conserved() -> None:
    rows = table(mean=[-1.0, 1.0, -1.0, 1.0], gap_mean=np.array([2.0, 2.0, 0.5, 0.5]))
    wanted = [bound(GAP, min=1.0), bound(max=0.0)]
    kept, excluded = bounds.split(rows, wanted)
    assert kept.equals(rows.slice(0, 1))
    assert excluded.drop_columns(["reason"]).equals(rows.slice(1))
    assert excluded["reason"].to_pylist() == ["energy above 0 eV/atom", "gap below 1", "gap below 1"]
    assert bounds.count(excluded["reason"]) == {"gap below 1": 2, "energy above 0 eV/atom": 1}
    everything, nothing = bounds.split(rows, [])
    assert everything.equals(rows)
    assert (len(nothing), nothing.column_names) == (0, ["reason", *rows.column_names])


@pytest.mark.parametrize("calibrated", [True, False])
def test_with_a_confidence_the_error_decides_as_the_ranking_by_probability_does(calibrated: bool) -> None:
    target = Target("m", "energy", "eV/atom", 0.9, calibrated=calibrated)
    rng = np.random.default_rng(0)
    mean, std = rng.normal(0.0, 0.3, 500), rng.uniform(0.01, 0.5, 500)
    rows = table(target, mean, std)
    for end, order, side in (("max", "ascending", stats.norm.cdf), ("min", "descending", stats.norm.sf)):
        wanted = bound(target, confidence=0.9, **{end: 0.1})
        passes = bounds.reasons(rows, [wanted]).is_null().to_numpy(zero_copy_only=False)
        rule = Probability(Rank.model_validate({"by": "probability", "threshold": 0.1, "order": order}), target)
        assert (passes == (rank.measure(rows, rule).scores >= 0.9)).all()
        assert (passes == (side(0.1, mean, std) >= 0.9)).all()  # scipy's own normal distribution
        assert 20 < passes.sum() < (mean < 0.1 if end == "max" else mean > 0.1).sum()
    (reason,) = set(bounds.reasons(rows, [wanted]).drop_null().to_pylist())
    assert reason == "energy at least 0.1 eV/atom with a probability below 0.9"


def test_both_ends_hold_together() -> None:
    rows = table(mean=[0.0, 0.0, 0.0, 0.9, 5.0], std=[0.1, 0.55, 0.9, 0.1, 1e-9])
    ends: list[dict[str, float]] = [{"min": -1.0, "max": 1.0}, {"min": -1.0}, {"max": 1.0}]
    both, low, high = (bound(confidence=0.9, **each) for each in ends)
    alone = [bounds.reasons(rows, [one]).is_null().to_pylist() for one in (low, high)]
    assert alone == [[True, True, False, True, True], [True, True, False, False, False]]
    expected = stats.norm.cdf(1.0, [0.0, 0.0, 0.0, 0.9, 5.0], [0.1, 0.55, 0.9, 0.1, 1e-9])
    expected -= stats.norm.cdf(-1.0, [0.0, 0.0, 0.0, 0.9, 5.0], [0.1, 0.55, 0.9, 0.1, 1e-9])
    found = bounds.reasons(rows, [both])
    assert found.is_null().to_pylist() == (expected >= 0.9).tolist() == [True, True, False, False, False]
    assert expected[1] < 0.95  # each end holds with 0.965, both with less
    strict = bound(min=-1.0, max=1.0, confidence=0.95)
    assert bounds.reasons(rows, [strict])[1].as_py() == "energy from -1 to 1 eV/atom with a probability below 0.95"


def test_a_predictive_distribution_decides_where_there_is_one_and_no_error_is_no_certainty() -> None:
    target = Target("m", "energy", "eV/atom", 0.9, calibrated=True, distribution=True)
    mean = np.linspace(-0.5, 0.5, 101)
    rows = table(target, mean, np.full(101, 0.2))
    passes = bounds.reasons(rows, [bound(target, max=0.0, confidence=0.9)]).is_null().to_pylist()
    assert passes == (mean + 0.2 * stats.norm.ppf(0.9) <= 1e-12).tolist()  # q90 is one of the quantiles
    unsure = table(mean=[-9.0], std=[math.nan])
    assert bounds.reasons(unsure, [bound(max=0.0, confidence=0.9)]).to_pylist() == ["has no energy"]
    assert bounds.reasons(unsure, [bound(max=0.0)]).to_pylist() == [None]


def test_of_a_cascade_only_the_last_tier_is_judged() -> None:
    rows = table(mean=[1.0, 1.0, math.nan], tier=pa.array([1, 0, 0], pa.int32()))
    assert bounds.reasons(rows, [bound(max=0.0)], 1).to_pylist() == ["energy above 0 eV/atom", None, None]


def test_the_columns_that_are_read_are_named() -> None:
    assert bounds.columns([bound(max=0.0), bound(GAP, min=1.0)]) == ["energy_mean", "gap_mean"]
    assert bounds.columns([bound(max=0.0, confidence=0.5)]) == ["energy_mean", "energy_std", "energy_hi"]
