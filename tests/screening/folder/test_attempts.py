"""The journal of attempts: who was at work when the process died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from assay.screening.folder.attempts import Attempts

ROOT = Path(__file__).resolve().parents[3]


def test_begun_and_never_done_is_counted_over_all_runs(tmp_path: Path) -> None:
    path = tmp_path / "attempts"
    for run in range(3):
        with Attempts(path) as journal:
            assert journal.count("deadly") == run
            journal.begin("deadly")
            assert journal.count("deadly") == run + 1
            journal.begin("good")
            journal.done("good")
            assert journal.count("good") == 0
    with Attempts(path) as journal:
        journal.done("deadly")
    with Attempts(path) as journal:
        assert journal.count("deadly") == 0
        assert path.read_bytes() == b""


def test_blame_survives_the_sigkill_of_the_process_that_began(tmp_path: Path) -> None:
    path = tmp_path / "campaign" / "attempts"
    code = f"""
import os, signal
from pathlib import Path
from assay.screening.folder.attempts import Attempts
journal = Attempts(Path({str(path)!r}))
for k in range(100):
    journal.begin(f"chunk {{k}}")
    if k == 60:
        os.kill(os.getpid(), signal.SIGKILL)
    journal.done(f"chunk {{k}}")
"""
    for killed in (1, 2):
        child = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)})
        assert child.returncode == -signal.SIGKILL
        with Attempts(path) as journal:
            assert [journal.count(f"chunk {k}") for k in range(100)] == [0] * 60 + [killed] + [0] * 39


EVENTS = st.lists(st.tuples(st.sampled_from(["begin", "done", "open"]), st.sampled_from(["a", "b", "a/b c", "é"])))


@given(events=EVENTS)
def test_opening_again_changes_no_count(
    events: list[tuple[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("journal") / "attempts"
    expected = dict.fromkeys(["a", "b", "a/b c", "é"], 0)
    journal = Attempts(path)
    for event, key in events:
        if event == "begin":
            journal.begin(key)
            expected[key] += 1
        elif event == "done":
            journal.done(key)
            expected[key] = 0
        else:
            journal.close()
            journal = Attempts(path)
        assert {key: journal.count(key) for key in expected} == expected
    journal.close()


def test_a_file_torn_anywhere_opens_and_takes_further_lines(tmp_path: Path) -> None:
    path = tmp_path / "attempts"
    whole = b"begin a\nbegin b\ndone a\nbegin b\n"
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        with Attempts(path) as journal:
            assert journal.count("b") == (size >= 16) + (size >= 31)
            assert journal.count("a") == (8 <= size < 23)
            journal.begin("c")
        with Attempts(path) as journal:
            assert journal.count("c") == 1


def test_lines_that_are_not_ours_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "attempts"
    path.write_bytes(b"\xff\xfe\n\nbegin \nbegun x\nbegin x\ndone\n")
    with Attempts(path) as journal:
        assert journal.count("x") == 1
    assert path.read_bytes() == b"begin x\n"


@pytest.mark.parametrize("key", ["", "a\nbegin b"])
def test_a_key_is_one_line(tmp_path: Path, key: str) -> None:
    with Attempts(tmp_path / "attempts") as journal, pytest.raises(ValueError, match="one line"):
        journal.begin(key)
    assert (tmp_path / "attempts").read_bytes() == b""
