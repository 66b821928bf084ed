"""A child process that works: its death is told, its errors travel, and it never outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pytest

from assay.screening.runners.child import ChildProcess, Loaded
from tests.screening.runners.deadly import rows_of

ROOT = Path(__file__).resolve().parents[3]


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
        child.stall_s = 0.5
        assert child(rows_of(["hang"])) is None
        child.stall_s = 120
        answer = child(rows_of(["", ""]))
        assert answer is not None
        assert answer.num_rows == 2


def test_tables_larger_than_a_pipe_go_through() -> None:
    table = rows_of(["x" * 1000] * 5000)
    with ChildProcess(hang) as child:
        answer = child(table)
    assert answer is not None
    assert answer["mark"].equals(table["mark"])


def refuse(table: pa.Table) -> pa.Table:
    """Raises when it meets a certain row."""
    if "defect" in table["mark"].to_pylist():
        raise ValueError(f"defect among {table.num_rows} rows")
    return process_of(table)


def test_a_defect_is_raised_as_itself_and_costs_no_child() -> None:
    with ChildProcess(refuse) as child:
        before = child(rows_of([""]))
        with pytest.raises(ValueError, match="defect among 2 rows") as caught:
            child(rows_of(["", "defect"]))
        assert "in refuse" in caught.value.__notes__[0]
        after = child(rows_of([""]))
    assert before is not None
    assert after is not None
    assert before.equals(after)  # the same process


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
from assay.screening.runners.child import ChildProcess
from tests.screening.runners.test_child import pause
from tests.screening.runners.deadly import rows_of
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
from assay.screening.runners.child import ChildProcess
from tests.screening.runners.test_child import hang, process_of
from tests.screening.runners.deadly import rows_of
if __name__ == "__main__":
    child = ChildProcess(process_of)
    print(child(rows_of([""]))["pid"][0].as_py(), flush=True)
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
