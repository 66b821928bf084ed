"""Rows that kill the process that works on them: the innocent keep their bytes, the guilty are named."""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from assay.screening.runners.rescue import ChildProcess, Loaded, died, merge_parts, merge_tables, rescue
from assay.screening.runners.worker import Part
from assay.screening.settings.exits import Exit, Failure
from assay.sources.quarantine import Quarantined, Reason, Stage

ROOT = Path(__file__).resolve().parents[3]


def rows_of(marks: Sequence[str]) -> pa.Table:
    """One row per mark."""
    ids = [f"t/{k}" for k in range(len(marks))]
    return pa.table({"id": pa.array(ids, pa.string()), "mark": pa.array(marks, pa.string())})


def deadly(table: pa.Table) -> pa.Table:
    """Dies as the marks say; two rows marked `pair` are too much memory for one process."""
    marks = table["mark"].to_pylist()
    if "exit" in marks:
        os._exit(1)
    if "segv" in marks:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "kill" in marks or marks.count("pair") > 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if "defect" in marks:
        raise ValueError(f"defect among {len(marks)} rows")
    return table.append_column("rows_in_batch", pa.array([len(marks)] * len(marks), pa.int64()))


def as_part(table: pa.Table) -> Part:
    """Work of the kind "score"."""
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
        result, guilty = rescue(table, attempt, merge_tables)
    assert guilty == [5]
    assert result["id"].to_pylist() == [f"t/{k}" for k in range(16) if k != 5]
    assert set(result["rows_in_batch"].to_pylist()) == {15}
    assert len(attempt.tried) <= 2 * math.log2(16) + 4


def test_several_guilty_rows(caplog: pytest.LogCaptureFixture) -> None:
    table = rows_of(["exit" if k in {0, 3} else "segv" if k == 7 else "" for k in range(8)])
    with ChildProcess(deadly) as child, caplog.at_level(logging.WARNING):
        result, guilty = rescue(table, child, merge_tables)
    assert guilty == [0, 3, 7]
    assert result["id"].to_pylist() == ["t/1", "t/2", "t/4", "t/5", "t/6"]
    assert set(result["rows_in_batch"].to_pylist()) == {5}
    assert "t/0, t/3, t/7" in caplog.text


def test_rows_that_kill_only_together_are_all_done() -> None:
    table = rows_of(["pair" if k in {1, 2} else "" for k in range(8)])
    with ChildProcess(deadly) as child:
        attempt = Counted(child)
        result, guilty = rescue(table, attempt, merge_tables)
    assert guilty == []
    assert result["id"].to_pylist() == table["id"].to_pylist()
    assert len(attempt.tried) <= 3 * 8


def test_all_rows_guilty_leaves_an_empty_result() -> None:
    with ChildProcess(deadly) as child:
        result, guilty = rescue(rows_of(["exit", "segv"]), child, merge_tables)
    assert guilty == [0, 1]
    assert result.num_rows == 0
    assert result.column_names == ["id", "mark", "rows_in_batch"]


def test_parts_are_merged_in_row_order() -> None:
    table = rows_of(["pair", "refused", "pair", "refused"])
    with ChildProcess(as_part) as child:
        part, guilty = rescue(table, child, merge_parts)
    assert guilty == []
    assert part.table["id"].to_pylist() == ["t/0", "t/2"]
    assert [row.id for row in part.quarantined] == ["t/1", "t/3"]


MARKS = st.lists(st.sampled_from(["", "", "", "exit", "pair"]), max_size=40)


@given(marks=MARKS)
def test_every_row_is_done_or_guilty_in_a_bounded_number_of_attempts(marks: list[str]) -> None:
    attempt = Counted(simulated)
    result, guilty = rescue(rows_of(marks), attempt, merge_tables)
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

    result, guilty = rescue(rows_of([""] * n), preempted, merge_tables)
    assert guilty == []
    assert result["rows_in_batch"].to_pylist() == [n] * n


def test_a_process_that_dies_without_a_crystal_blames_none() -> None:
    attempt = Counted(lambda _: None)
    with pytest.raises(Failure, match="before it meets a crystal") as caught:
        rescue(rows_of([""] * 256), attempt, merge_tables)
    assert caught.value.code is Exit.CONFIG
    assert len(attempt.tried) <= 5


def test_the_guilty_become_quarantine_records() -> None:
    table = rows_of(["", "exit"]).append_column("origin", pa.array(["here", None]))
    assert [(row.id, row.origin) for row in died(table, [0, 1])] == [("t/0", "here"), ("t/1", "")]
    assert {(row.stage, row.reason) for row in died(table, [1])} == {(Stage.PREDICT, Reason.WORKER_DIED)}


def process_of(table: pa.Table) -> pa.Table:
    """Who worked."""
    return pa.table({"pid": [os.getpid()], "rows": [table.num_rows]})


def test_a_child_is_kept_until_it_dies() -> None:
    with ChildProcess(process_of) as child:
        first, second = child(rows_of([""])), child(rows_of(["", ""]))
        assert first is not None
        assert second is not None
        pid = first["pid"][0].as_py()
        assert second["pid"][0].as_py() == pid != os.getpid()
        assert second["rows"][0].as_py() == 2
        os.kill(pid, signal.SIGKILL)
        assert child(rows_of([""])) is None
        third = child(rows_of([""]))
        assert third is not None
        assert third["pid"][0].as_py() != pid
    assert not Path(f"/proc/{third['pid'][0].as_py()}").exists()


def hang(table: pa.Table) -> pa.Table:
    """Never ends when it meets a certain row."""
    while "hang" in table["mark"].to_pylist():
        time.sleep(0.1)
    return table


def test_a_silent_child_is_dead() -> None:
    with ChildProcess(process_of, stall_s=120) as child:
        assert child(rows_of([""])) is not None
    with ChildProcess(hang, stall_s=20) as child:
        assert child(rows_of([""])) is not None
        child._stall_s = 0.5
        assert child(rows_of(["hang"])) is None
        child._stall_s = 120
        answer = child(rows_of(["", ""]))
        assert answer is not None
        assert answer.num_rows == 2


def test_tables_larger_than_a_pipe_go_through() -> None:
    table = rows_of(["x" * 1000] * 5000)
    with ChildProcess(deadly) as child:
        answer = child(table)
    assert answer is not None
    assert answer["mark"].equals(table["mark"])


def test_a_defect_is_raised_as_itself_and_costs_no_child() -> None:
    with ChildProcess(deadly) as child:
        with pytest.raises(ValueError, match="defect among 2 rows") as caught:
            child(rows_of(["", "defect"]))
        assert "in deadly" in caught.value.__notes__[0]
        assert child._pipe is not None
        assert child(rows_of([""])) is not None


class OddError(Exception):
    """Cannot be rebuilt from its message."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a} and {b}")


def odd(table: pa.Table) -> pa.Table:
    """Raises what cannot travel."""
    raise OddError(1, 2)


def test_an_error_that_cannot_travel_is_told_and_no_death() -> None:
    with ChildProcess(odd) as child, pytest.raises(RuntimeError, match="OddError: 1 and 2"):
        child(rows_of([""]))


def slow_load(mark: str) -> Callable[[pa.Table], pa.Table]:
    """Notes that it was called."""
    with open(mark, "a") as file:
        file.write("loaded\n")
    return process_of


def test_what_the_work_needs_is_loaded_once_and_in_the_child(tmp_path: Path) -> None:
    with ChildProcess(Loaded(partial(slow_load, str(tmp_path / "mark")))) as child:
        assert not (tmp_path / "mark").exists()
        child(rows_of([""]))
        child(rows_of([""]))
    assert (tmp_path / "mark").read_text() == "loaded\n"


def pause(table: pa.Table) -> pa.Table:
    """Takes a moment."""
    time.sleep(1.0)
    return process_of(table)


def test_signals_to_the_group_do_not_kill_the_child(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(f"""
import os, signal, sys, threading, time
sys.path[:0] = [{str(ROOT)!r}]
from assay.screening.runners.rescue import ChildProcess
from tests.screening.runners.test_rescue import pause, rows_of
if __name__ == "__main__":
    got = []
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda number, frame: got.append(number))
    def shower():
        for _ in range(60):
            os.killpg(0, signal.SIGINT), os.killpg(0, signal.SIGTERM)
            time.sleep(0.05)
    thread = threading.Thread(target=shower)
    thread.start()
    child = ChildProcess(pause)
    print([child(rows_of([""])) is not None for _ in range(2)], set(got) == {{2, 15}})
    thread.join()
""")  # and it leaves without closing the child: the interpreter must end all the same
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, start_new_session=True, timeout=120)
    assert done.stdout == "[True, True] True\n", done.stderr
    assert done.returncode == 0


def test_the_child_ends_with_its_parent_whatever_ends_that(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(f"""
import sys
sys.path[:0] = [{str(ROOT)!r}]
from assay.screening.runners.rescue import ChildProcess
from tests.screening.runners.test_rescue import hang, process_of, rows_of
if __name__ == "__main__":
    child = ChildProcess(process_of)
    print(child(rows_of([""]))["pid"][0].as_py(), flush=True)
    child._work = hang
    child.close()
    ChildProcess(hang)(rows_of(["hang"]))
""")
    driver = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    first = int(driver.stdout.readline())
    second: list[int] = []
    deadline = time.monotonic() + 60
    while not second:
        assert time.monotonic() < deadline
        found = Path(f"/proc/{driver.pid}/task/{driver.pid}/children").read_text().split()
        second = [int(pid) for pid in found if int(pid) != first and "spawn_main" in _command(int(pid))]
        time.sleep(0.05)
    driver.kill()
    driver.wait(60)
    while Path(f"/proc/{second[0]}").exists() and _command(second[0]):
        assert time.monotonic() < deadline + 60, "the child outlived its parent"
        time.sleep(0.05)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_a_work_that_cannot_travel_is_told_at_once() -> None:
    with ChildProcess(lambda table: table) as child, pytest.raises(Exception, match=r"pickle|Can't get"):
        child(rows_of([""]))


def test_two_threads_may_have_a_child_each() -> None:
    answers: list[int] = []

    def run(n: int) -> None:
        with ChildProcess(process_of) as child:
            answer = child(rows_of([""] * n))
            assert answer is not None
            answers.append(answer["rows"][0].as_py())

    threads = [threading.Thread(target=run, args=(n,)) for n in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answers) == [1, 2]
