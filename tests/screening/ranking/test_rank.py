"""Ranking: a total order, and nothing that is not a number in it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, strategies as st

from assay.screening.folder.summary import Target
from assay.screening.ranking import rank, rules
from assay.screening.ranking.rank import Ranked
from assay.screening.settings.choice import Rank

TARGET = Target("m", "tc", "K", 0.9)
few = st.sampled_from([0.0, 1.0, 2.0, -1.0, math.nan, math.inf, -math.inf])
rows = st.lists(st.tuples(few, st.sampled_from([0.5, 1.0]), st.integers(0, 99)), unique_by=lambda row: row[2])


def table(content: list[tuple[float, float, int]]) -> pa.Table:
    mean = np.array([row[0] for row in content], dtype=np.float64)
    std = np.array([row[1] for row in content], dtype=np.float64)
    columns = {"id": pa.array([f"{row[2]:02d}" for row in content], pa.string()), "tc_mean": mean, "tc_std": std}
    return pa.table(columns | {"tc_lo": mean - 2 * std, "tc_hi": mean + 2 * std})


def ranking(content: pa.Table, **settings: Any) -> Ranked:
    return rank.rank(content, rules.make(Rank(**settings), TARGET), {"tc": {"unit": "K"}})


@given(content=rows, descending=st.booleans(), by=st.sampled_from(["mean", "lower", "upper"]))
def test_order_agrees_with_a_plain_sort(content: list[tuple[float, float, int]], descending: bool, by: str) -> None:
    ranked = ranking(table(content), by=by, order="descending" if descending else "ascending")
    shift = {"mean": 0, "lower": -2, "upper": 2}[by]
    finite = [row for row in content if math.isfinite(row[0])]
    sign = -1 if descending else 1
    wanted = sorted(finite, key=lambda row: (sign * (row[0] + shift * row[1]), sign * row[0], row[1], row[2]))
    assert ranked.candidates["id"].to_pylist() == [f"{row[2]:02d}" for row in wanted]
    assert ranked.candidates["rank"].to_pylist() == list(range(1, len(wanted) + 1))
    assert ranked.candidates.num_rows + ranked.unrankable.num_rows == len(content)
    assert np.isfinite(ranked.candidates["score"].to_numpy()).all()


def test_units_stand_in_the_field_metadata() -> None:
    ranked = ranking(table([(1.0, 1.0, 1)]))
    assert ranked.candidates.schema.field("tc_mean").metadata == {b"unit": b"K"}


def test_a_column_that_begins_like_a_property_keeps_its_own_facts() -> None:
    facts = {"gap": {"unit": "eV", "functional": "PBE"}, "gap_hse": {"unit": "eV", "functional": "HSE"}}
    names = ["gap_mean", "gap_member_0", "gap_hse_mean", "gap_hse", "gap_direct"]
    found = rank.with_facts(pa.table({name: [1.0] for name in names}), facts).schema
    said = [(found.field(name).metadata or {}).get(b"functional") for name in names]
    assert said == [b"PBE", b"PBE", b"HSE", None, None]


def test_no_engine_puts_something_not_finite_first(tmp_path: object) -> None:
    import polars as pl

    content = [(math.nan, 1.0, 1), (math.inf, 1.0, 2), (3.0, 1.0, 3), (-math.inf, 1.0, 4), (4.0, 1.0, 5)]
    ranked = ranking(table(content)).candidates
    frame = pl.from_arrow(ranked)
    assert isinstance(frame, pl.DataFrame)
    assert frame.sort("score", descending=True)["id"][0] == "05"
    assert frame.to_pandas().nlargest(1, "score")["id"].tolist() == ["05"]
    assert ranked["id"][int(np.argmax(ranked["score"].to_numpy()))].as_py() == "05"
