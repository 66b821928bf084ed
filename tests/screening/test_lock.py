"""One writer per campaign folder; a dead one does not block."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from screening import lock
from screening.exits import Exit, Failure


def test_a_held_lock_refuses_and_a_released_one_does_not(tmp_path: Path) -> None:
    with lock.held(tmp_path):
        with pytest.raises(Failure, match=f"in use by pid {os.getpid()}") as caught, lock.held(tmp_path):
            pass
        assert caught.value.code is Exit.LOCKED
    with lock.held(tmp_path):
        pass
    assert not (tmp_path / "LOCK").exists()


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        ({}, False),
        ({"host": "elsewhere"}, False),
        ({"boot_id": "before the reboot"}, True),
        ({"process_start": "1"}, True),
        ({"pid": 2**22 + 1}, True),
    ],
    ids=["alive", "other host", "rebooted", "recycled pid", "dead pid"],
)
def test_staleness(change: dict[str, Any], stale: bool) -> None:
    assert lock.is_stale(lock._me() | change) is stale


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    head = "import os, signal; from pathlib import Path; from screening import lock"
    code = f"{head}\nwith lock.held(Path({str(tmp_path)!r})): os.kill(os.getpid(), signal.SIGKILL)"
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(root)}, check=False)
    assert json.loads((tmp_path / "LOCK").read_text())["pid"] != os.getpid()
    with lock.held(tmp_path):
        assert json.loads((tmp_path / "LOCK").read_text())["pid"] == os.getpid()


def _hold(folder: Path, start: Any, entered: Any) -> None:
    start.wait()
    try:
        with lock.held(folder):
            entered.put("in")
            start.wait()
    except Failure:
        entered.put("refused")
        start.wait()


def test_of_many_at_once_one_gets_in(tmp_path: Path) -> None:
    (tmp_path / "LOCK").write_text(json.dumps(lock._me() | {"process_start": "1"}))  # stale: all try to take it over
    context = multiprocessing.get_context("fork")
    start, entered = context.Barrier(6), context.Queue()
    children = [context.Process(target=_hold, args=(tmp_path, start, entered)) for _ in range(6)]
    for child in children:
        child.start()
    outcomes = sorted(entered.get(timeout=30) for _ in children)
    for child in children:
        child.join(30)
    assert outcomes == ["in"] + ["refused"] * 5
