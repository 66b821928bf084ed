"""Rows that kill the process that works on them: the innocent keep their bytes, the guilty are named."""

from __future__ import annotations

import logging
import math
import pickle
from collections.abc import Callable

import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from assay.screening.runners.child import ChildProcess
from assay.screening.runners.fingerprint import FINGERPRINTS, Fingerprint
from assay.screening.runners.match import Match
from assay.screening.runners.rescue import answer, rescue, rescued
from assay.screening.runners.score import Score
from assay.screening.runners.work import Work, merge_tables
from assay.screening.runners.worker import Part
from assay.screening.settings.exits import Exit, Failure
from assay.sources.quarantine import Quarantined, Reason, Stage
from tests.screening.runners.deadly import deadly, rows_of


def as_part(table: pa.Table) -> Part:
    """What a score makes of it."""
    scored = deadly(table)
    refused = [row for row in range(table.num_rows) if table["mark"][row].as_py() == "refused"]
    bad = [Quarantined(table["id"][row].as_py(), "", Stage.FEATURIZE, Reason.TOO_LARGE, "") for row in refused]
    return Part(scored.take([row for row in range(table.num_rows) if row not in refused]), bad)


class Counted:
    """An attempt that counts."""

    def __init__(self, attempt: Callable[[pa.Table], pa.Table | None]) -> None:
        self.attempt = attempt
        self.tried: list[int] = []

    def __call__(self, table: pa.Table) -> pa.Table | None:
        self.tried.append(table.num_rows)
        return self.attempt(table)


def simulated(table: pa.Table) -> pa.Table | None:
    """What `deadly` does in a child, without one."""
    marks = table["mark"].to_pylist()
    return None if {"exit", "segv", "kill"} & {*marks} or marks.count("pair") > 1 else deadly(table)


@pytest.mark.parametrize("death", ["exit", "segv", "kill"])
def test_one_guilty_row_is_found_and_the_rest_stays_one_batch(death: str) -> None:
    table = rows_of([death if k == 5 else "" for k in range(16)])
    with ChildProcess(deadly) as child:
        attempt = Counted(child)
        result, guilty = answer(rescue(table, merge_tables), attempt)
    assert guilty == [5]
    assert result["id"].to_pylist() == [f"t/{k}" for k in range(16) if k != 5]
    assert set(result["rows_in_batch"].to_pylist()) == {15}
    assert len(attempt.tried) <= 2 * math.log2(16) + 4


def test_several_guilty_rows(caplog: pytest.LogCaptureFixture) -> None:
    table = rows_of(["exit" if k in {0, 3} else "segv" if k == 7 else "" for k in range(8)])
    with ChildProcess(deadly) as child, caplog.at_level(logging.WARNING):
        result, guilty = answer(rescue(table, merge_tables), child)
    assert guilty == [0, 3, 7]
    assert result["id"].to_pylist() == ["t/1", "t/2", "t/4", "t/5", "t/6"]
    assert set(result["rows_in_batch"].to_pylist()) == {5}
    assert "t/0, t/3, t/7" in caplog.text


def test_rows_that_kill_only_together_are_all_done() -> None:
    table = rows_of(["pair" if k in {1, 2} else "" for k in range(8)])
    with ChildProcess(deadly) as child:
        attempt = Counted(child)
        result, guilty = answer(rescue(table, merge_tables), attempt)
    assert guilty == []
    assert result["id"].to_pylist() == table["id"].to_pylist()
    assert len(attempt.tried) <= 3 * 8


def test_all_rows_guilty_leaves_an_empty_result() -> None:
    with ChildProcess(deadly) as child:
        result, guilty = answer(rescue(rows_of(["exit", "segv"]), merge_tables), child)
    assert guilty == [0, 1]
    assert result.num_rows == 0
    assert result.column_names == ["id", "mark", "rows_in_batch"]


def test_parts_are_merged_in_row_order() -> None:
    table = rows_of(["pair", "refused", "pair", "refused"])
    part, guilty = answer(rescue(table, Score().merge), lambda rows: None if simulated(rows) is None else as_part(rows))
    assert guilty == []
    assert part.table["id"].to_pylist() == ["t/0", "t/2"]
    assert [row.id for row in part.quarantined] == ["t/1", "t/3"]


MARKS = st.lists(st.sampled_from(["", "", "", "exit", "pair"]), max_size=40)


@given(marks=MARKS)
def test_every_row_is_done_or_guilty_in_a_bounded_number_of_attempts(marks: list[str]) -> None:
    attempt = Counted(simulated)
    result, guilty = answer(rescue(rows_of(marks), merge_tables), attempt)
    assert guilty == [k for k, mark in enumerate(marks) if mark == "exit"]
    assert result["id"].to_pylist() == [f"t/{k}" for k, mark in enumerate(marks) if mark != "exit"]
    if marks.count("pair") < 2:
        assert set(result["rows_in_batch"].to_pylist()) <= {len(marks) - len(guilty)}
    assert len(attempt.tried) <= 6 * len(marks) + 2


@given(n=st.integers(1, 30), accidents=st.sets(st.integers(0, 60), max_size=20))
def test_accidents_blame_nobody_and_change_no_bytes_unless_they_strike_twice_running(
    n: int, accidents: set[int]
) -> None:
    calls: dict[int, int] = {}
    tried = 0

    def preempted(table: pa.Table) -> pa.Table | None:
        nonlocal tried
        key = hash(tuple(table["id"].to_pylist()))
        tried += 1
        calls[key] = calls.get(key, 0) + 1
        return None if tried in accidents and calls[key] == 1 else deadly(table)

    result, guilty = answer(rescue(rows_of([""] * n), merge_tables), preempted)
    assert guilty == []
    assert result["rows_in_batch"].to_pylist() == [n] * n


def test_a_process_that_dies_without_a_crystal_blames_none() -> None:
    attempt = Counted(lambda _: None)
    with pytest.raises(Failure, match="before it meets a crystal") as caught:
        answer(rescue(rows_of([""] * 256), merge_tables), attempt)
    assert caught.value.code is Exit.CONFIG
    assert len(attempt.tried) <= 5


def test_a_row_that_kills_is_quarantined_without_fingerprint_or_like_no_other() -> None:
    table = rows_of(["", "exit"]).append_column("origin", pa.array(["here", None]))
    part = answer(rescued(Score(), table), lambda rows: None if simulated(rows) is None else as_part(rows))
    assert part.table["id"].to_pylist() == ["t/0"]
    assert [(row.id, row.origin) for row in part.quarantined] == [("t/1", "")]
    assert {(row.stage, row.reason) for row in part.quarantined} == {(Stage.PREDICT, Reason.WORKER_DIED)}

    def fingerprinted(rows: pa.Table) -> pa.Table | None:
        ids = rows["id"].to_pylist()
        values = [[*ids], ["Cl:1 Na:1"] * len(ids), [[1.0]] * len(ids)]
        arrays = [pa.array(value, field.type) for value, field in zip(values, FINGERPRINTS, strict=True)]
        return None if simulated(rows) is None else pa.Table.from_arrays(arrays, schema=FINGERPRINTS)

    taken = answer(rescued(Fingerprint(), table), fingerprinted).to_pylist()
    assert taken[0] == {"id": "t/0", "composition": "Cl:1 Na:1", "distances": [1.0]}
    assert taken[1] == {"id": "t/1", "composition": "", "distances": []}
    pairs = pa.table({"a": ["t/0"], "b": ["t/2"]})
    found = answer(rescued(Match(), table), lambda rows: None if simulated(rows) is None else pairs)
    assert found.equals(pairs)


@pytest.mark.parametrize("work", [Score(), Score(tier=2), Fingerprint(), Match()])
def test_work_crosses_to_other_processes_as_itself(work: Work[object]) -> None:
    there = pickle.loads(pickle.dumps(work))
    assert there == work
    assert there.name == work.name


def test_a_score_that_loses_a_crystal_is_not_kept() -> None:
    part = as_part(rows_of(["", "refused"]))
    kept = Score().entry("c", 2, part)
    assert (kept.kind, {*kept.tables}) == ("part", {"parts/c.parquet", "quarantine/c.parquet"})
    assert kept.counts == {"scored": 1, "quarantined": 1}
    with pytest.raises(Failure, match="3 crystals became 1 scored and 1 quarantined") as caught:
        Score().entry("c", 3, part)
    assert caught.value.code is Exit.BALANCE_BROKEN
