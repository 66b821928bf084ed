"""Ranking: a total order, and nothing that is not a number in it."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from assay.screening.folder.summary import Target
from assay.screening.ranking import rank
from assay.screening.settings.config import Rank

TARGET = Target("m", "tc", "K", 0.9)
few = st.sampled_from([0.0, 1.0, 2.0, -1.0, math.nan, math.inf, -math.inf])
rows = st.lists(st.tuples(few, st.sampled_from([0.5, 1.0]), st.integers(0, 99)), unique_by=lambda row: row[2])


def table(content: list[tuple[float, float, int]]) -> pa.Table:
    mean = np.array([row[0] for row in content], dtype=np.float64)
    std = np.array([row[1] for row in content], dtype=np.float64)
    columns = {"id": pa.array([f"{row[2]:02d}" for row in content], pa.string()), "tc_mean": mean, "tc_std": std}
    return pa.table(columns | {"tc_lo": mean - 2 * std, "tc_hi": mean + 2 * std})


@given(content=rows, descending=st.booleans(), by=st.sampled_from(["mean", "lower", "upper"]))
def test_order_agrees_with_a_plain_sort(content: list[tuple[float, float, int]], descending: bool, by: str) -> None:
    rule = Rank(by=by, order="descending" if descending else "ascending")  # type: ignore[arg-type]
    ranked = rank.rank(table(content), rule, TARGET, {"tc": "K"})
    shift = {"mean": 0, "lower": -2, "upper": 2}[by]
    finite = [row for row in content if math.isfinite(row[0])]
    sign = -1 if descending else 1
    wanted = sorted(finite, key=lambda row: (sign * (row[0] + shift * row[1]), row[1], row[2]))
    assert ranked.candidates["id"].to_pylist() == [f"{row[2]:02d}" for row in wanted]
    assert ranked.candidates["rank"].to_pylist() == list(range(1, len(wanted) + 1))
    assert ranked.candidates.num_rows + ranked.unrankable.num_rows == len(content)
    assert np.isfinite(ranked.candidates["score"].to_numpy()).all()


def test_probability_of_exceeding_is_that_of_a_normal() -> None:
    values = {"mean": np.array([10.0]), "hi": np.array([10 + 1.6448536269514722 * 4]), "lo": np.array([0.0])}
    above = rank.score(values, Rank(by="probability", threshold=14.0))[0]
    assert above == pytest.approx(0.15865525393145707, rel=1e-12)
    below = rank.score(values, Rank(by="probability", threshold=14.0, order="ascending"))[0]
    assert above + below == pytest.approx(1.0)


def test_probability_takes_the_calibrated_deviation_where_there_is_one() -> None:
    content = table([(10.0, 0.5, 1)])  # its interval of 4 deviations implies another one: 1 / 1.645
    rule = Rank(by="probability", threshold=9.5)
    calibrated = rank.rank(content, rule, replace(TARGET, calibrated=True), {}).candidates["score"][0].as_py()
    implied = rank.rank(content, rule, TARGET, {}).candidates["score"][0].as_py()
    assert calibrated == pytest.approx(0.8413447460685429, rel=1e-12)
    assert implied == pytest.approx(statistics.NormalDist().cdf(0.5 * 1.6448536269514722), rel=1e-12)


def test_a_calibrated_deviation_ranks_without_an_interval() -> None:
    content = table([(5.0, 1.0, 1), (6.0, 1.0, 2)])
    content = content.set_column(content.column_names.index("tc_hi"), "tc_hi", pa.array([math.inf, math.inf]))
    ranked = rank.rank(content, Rank(by="probability", threshold=1.0), replace(TARGET, calibrated=True), {})
    assert ranked.candidates["id"].to_pylist() == ["02", "01"]


def test_a_certain_prediction_is_above_at_or_below() -> None:
    values = {"mean": np.array([1.0, 2.0, 3.0]), "hi": np.array([1.0, 2.0, 3.0]), "lo": np.zeros(3)}
    assert rank.score(values, Rank(by="probability", threshold=2.0)).tolist() == [0.0, 0.5, 1.0]


def test_an_endless_interval_cannot_be_ranked_by_probability() -> None:
    content = table([(5.0, 1.0, 1), (6.0, 1.0, 2)])
    content = content.set_column(content.column_names.index("tc_hi"), "tc_hi", pa.array([7.0, math.inf]))
    ranked = rank.rank(content, Rank(by="probability", threshold=1.0), TARGET, {})
    assert ranked.candidates["id"].to_pylist() == ["01"]
    assert ranked.unrankable["id"].to_pylist() == ["02"]


def test_low_values_win_by_probability_when_ascending() -> None:
    ranked = rank.rank(table([(5.0, 1.0, 1), (-1.0, 1.0, 2)]), Rank(by="probability", threshold=0.0, order="ascending"),
                       TARGET, {})  # fmt: skip
    assert ranked.candidates["id"].to_pylist() == ["02", "01"]


def test_units_stand_in_the_field_metadata() -> None:
    ranked = rank.rank(table([(1.0, 1.0, 1)]), Rank(), TARGET, {"tc": "K"})
    assert ranked.candidates.schema.field("tc_mean").metadata == {b"unit": b"K"}


def test_no_engine_puts_something_not_finite_first(tmp_path: object) -> None:
    import polars as pl

    content = [(math.nan, 1.0, 1), (math.inf, 1.0, 2), (3.0, 1.0, 3), (-math.inf, 1.0, 4), (4.0, 1.0, 5)]
    ranked = rank.rank(table(content), Rank(), TARGET, {}).candidates
    frame = pl.from_arrow(ranked)
    assert isinstance(frame, pl.DataFrame)
    assert frame.sort("score", descending=True)["id"][0] == "05"
    assert frame.to_pandas().nlargest(1, "score")["id"].tolist() == ["05"]
    assert ranked["id"][int(np.argmax(ranked["score"].to_numpy()))].as_py() == "05"
