"""One writer per campaign folder; a dead one does not block, a live one is never pushed aside."""

from __future__ import annotations

import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from assay.screening.folder import lock
from assay.screening.folder.lock import Verdict
from assay.screening.settings.exits import Exit, Failure
from assay.sources import durable

ROOT = Path(__file__).resolve().parents[3]
ELSEWHERE = {"host": "elsewhere"}
OTHER_CONTAINER = {"pid_namespace": "pid:[1]", "pid": 2**22 + 1}
REBOOTED = {"boot_id": "before the reboot"}


def written() -> dict[str, Any]:
    """What a LOCK of this process says."""
    with tempfile.TemporaryDirectory() as folder, lock.held(Path(folder)):
        content: dict[str, Any] = json.loads((Path(folder) / "LOCK").read_text())
    return content


def plant(folder: Path, change: dict[str, Any], age_s: float = 0.0) -> Path:
    """A LOCK like ours, with some keys changed and a heartbeat so long ago."""
    path = folder / "LOCK"
    path.write_text(durable.canonical(written() | change))
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def start_of(pid: int) -> str:
    """When a process started, as the kernel says it (proc(5), field 22)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def claim_on(path: Path) -> Path:
    """The claim of a process that is about to remove a lock: named for the content of the lock."""
    return path.with_name(f".LOCK.{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}.claim")


def beats() -> bool:
    """Whether some thread of this process keeps a lock alive."""
    return any(thread.name == "assay-lock-heartbeat" for thread in threading.enumerate())


def python(code: str, **options: Any) -> subprocess.Popen[str]:
    """A process of its own that can import us."""
    head = "import os, signal, sys, time; from pathlib import Path; from assay.screening.folder import lock\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        **options,
    )


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in a minute"
        time.sleep(0.01)


def test_a_held_lock_refuses_and_a_released_one_leaves_nothing(tmp_path: Path) -> None:
    with lock.held(tmp_path):
        with pytest.raises(Failure, match=f"in use by pid {os.getpid()}") as caught, lock.held(tmp_path):
            pass
        assert caught.value.code is Exit.LOCKED
    with lock.held(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_refusal_says_who_since_when_how_fresh_and_what_to_do(tmp_path: Path) -> None:
    plant(tmp_path, ELSEWHERE | {"pid": 7, "started": "2026-01-02T03:04:05Z"}, age_s=60)
    with pytest.raises(Failure) as caught, lock.held(tmp_path):
        pass
    text = str(caught.value)
    assert "pid 7 on elsewhere since 2026-01-02T03:04:05Z (last heartbeat 6" in text
    assert f"assay unlock {tmp_path}" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("change", "age_s", "verdict"),
    [
        ({}, 0, Verdict.ALIVE),
        ({}, 1e6, Verdict.ALIVE),
        ({"process_start": "1"}, 0, Verdict.DEAD),
        ({"pid": 2**22 + 1}, 0, Verdict.DEAD),
        ({"pid": 0}, 0, Verdict.DEAD),
        (REBOOTED, 1e9, Verdict.DEAD),
        (REBOOTED, 0, Verdict.ALIVE),
        (ELSEWHERE | {"pid": 2**22 + 1}, 60, Verdict.ALIVE),
        (ELSEWHERE, 180, Verdict.SILENT),
        (OTHER_CONTAINER, 60, Verdict.ALIVE),
        (OTHER_CONTAINER, 180, Verdict.SILENT),
    ],
    ids=[
        "alive", "stopped but there", "recycled pid", "dead pid", "no pid", "rebooted",
        "same name, beating since we started", "other host", "other host, silent", "other container",
        "other container, silent",
    ],
)  # fmt: skip
def test_verdicts(tmp_path: Path, change: dict[str, Any], age_s: float, verdict: Verdict) -> None:
    plant(tmp_path, change, age_s)
    holder = lock.diagnose(tmp_path)
    assert holder is not None
    assert holder.verdict is verdict
    assert abs(holder.heartbeat - age_s) < 30
    assert verdict in holder.describe()


def test_a_process_that_proc_hides_is_not_called_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hidden(self: Path, *arguments: Any, **options: Any) -> str:
        if self.name == "stat":
            raise FileNotFoundError(self)
        return read_text(self, *arguments, **options)

    plant(tmp_path, {"pid": os.getppid(), "process_start": start_of(os.getppid())})
    read_text = Path.read_text
    monkeypatch.setattr(Path, "read_text", hidden)
    holder = lock.diagnose(tmp_path)
    assert holder is not None
    assert holder.verdict is Verdict.ALIVE


def test_ages_are_measured_by_the_file_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path, ELSEWHERE, age_s=60)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: 0.0)
        holder = lock.diagnose(tmp_path)
    assert holder is not None
    assert 60 <= holder.heartbeat < 90


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\x00", b'{"host": "a"}', b'{"host": 1, "pid": "x"}'])
def test_an_unreadable_lock_is_refused_until_it_is_unlocked(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "LOCK").write_bytes(content)
    os.utime(tmp_path / "LOCK", (1e9, 1e9))
    with pytest.raises(Failure, match=f"assay unlock {tmp_path}") as caught, lock.held(tmp_path):
        pass
    assert caught.value.code is Exit.LOCKED
    assert lock.unlock(tmp_path).verdict is Verdict.UNREADABLE
    with lock.held(tmp_path):
        pass


def test_nobody_holds_a_fresh_folder(tmp_path: Path) -> None:
    assert lock.diagnose(tmp_path) is None
    with pytest.raises(Failure, match="not locked") as caught:
        lock.unlock(tmp_path)
    assert caught.value.code is Exit.USAGE


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    child = python(f"with lock.held(Path({str(tmp_path)!r})): os.kill(os.getpid(), signal.SIGKILL)")
    assert child.wait(60) == -signal.SIGKILL
    holder = lock.diagnose(tmp_path)
    assert holder is not None
    assert (holder.pid, holder.verdict) == (child.pid, Verdict.DEAD)
    with lock.held(tmp_path):
        assert json.loads((tmp_path / "LOCK").read_text())["pid"] == os.getpid()


def test_unlock_spares_the_living_and_force_does_not(tmp_path: Path) -> None:
    code = f"with lock.held(Path({str(tmp_path)!r})) as hold:\n print('in', flush=True); input(); print(hold.lost())"
    child = python(code)
    assert child.stdout is not None
    assert child.stdout.readline() == "in\n"
    with pytest.raises(Failure, match=f"in use by pid {child.pid}") as caught:
        lock.unlock(tmp_path)
    assert caught.value.code is Exit.LOCKED
    assert lock.unlock(tmp_path, force=True).pid == child.pid
    with lock.held(tmp_path):  # and what the robbed one does at its end leaves our lock alone
        assert child.communicate("\n", timeout=60)[0] == "True\n"
        holder = lock.diagnose(tmp_path)
        assert holder is not None
        assert holder.pid == os.getpid()


def test_a_live_process_of_a_real_other_pid_namespace_is_not_called_dead(tmp_path: Path) -> None:
    enter = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*enter, "true"], capture_output=True).returncode:
        pytest.skip("no new pid namespace may be made here")
    head = "from pathlib import Path; from assay.screening.folder import lock\n"
    code = f"{head}with lock.held(Path({str(tmp_path)!r})):\n print('in', flush=True); input()"
    child = subprocess.Popen(
        [*enter, sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "in\n"
    holder = lock.diagnose(tmp_path)
    assert holder is not None
    assert (holder.pid, holder.verdict) == (1, Verdict.ALIVE)  # a pid that is another process here
    child.communicate("\n", timeout=60)
    assert lock.diagnose(tmp_path) is None


@pytest.mark.parametrize("change", [ELSEWHERE, OTHER_CONTAINER], ids=["other host", "other container"])
def test_a_silent_holder_is_taken_over_and_unlocked(tmp_path: Path, change: dict[str, Any]) -> None:
    plant(tmp_path, change, age_s=180)
    with lock.held(tmp_path) as hold:
        assert not hold.lost()
    plant(tmp_path, change, age_s=180)
    assert lock.unlock(tmp_path).verdict is Verdict.SILENT
    assert list(tmp_path.iterdir()) == []


def test_a_heartbeat_touches_the_lock_and_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "LOCK"
    with lock.held(tmp_path, beat_s=0.05):
        for _ in range(3):
            os.utime(path, (0, 0))
            wait_until(lambda: path.stat().st_mtime > 0)
    assert not beats()
    plant(tmp_path, {}, age_s=60)
    before = path.stat().st_mtime
    time.sleep(0.2)
    assert path.stat().st_mtime == before


def test_a_robbed_holder_is_told_and_touches_nothing(tmp_path: Path) -> None:
    with lock.held(tmp_path, beat_s=0.05) as hold:
        assert not hold.lost()
        lock.unlock(tmp_path, force=True)
        assert hold.lost()
        path = plant(tmp_path, ELSEWHERE, age_s=60)
        before = path.stat().st_mtime
        wait_until(lambda: not beats())
        assert path.stat().st_mtime == before
        assert hold.lost()
    assert json.loads(path.read_text())["host"] == "elsewhere"


def test_a_claim_whose_owner_died_does_not_block(tmp_path: Path) -> None:
    path = plant(tmp_path, {"process_start": "1"})
    for _ in range(3):  # each taker died with its claim in place, the next one with a claim on that claim
        claim = claim_on(path)
        claim.write_text(durable.canonical(written() | {"process_start": "1"}))
        path = claim
    with lock.held(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_that_another_takes_over_just_now_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = plant(tmp_path, {"process_start": "1"})
    claim_on(path).write_text(durable.canonical(written()))
    monkeypatch.setattr(lock, "TRIES", 3)
    with pytest.raises(Failure, match="other processes") as caught, lock.held(tmp_path):
        pass
    assert caught.value.code is Exit.LOCKED
    assert path.exists()


def test_a_full_disk_does_not_hide_the_error_that_ends_a_campaign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    def campaign() -> None:
        with lock.held(tmp_path):
            monkeypatch.setattr(durable, "put_if_absent", full)
            full(Path("part.parquet"), "")

    with pytest.raises(OSError, match=r"part\.parquet"):
        campaign()
    assert not (tmp_path / "LOCK").exists()


def _come_and_go(folder: Path, seed: int) -> None:
    random = Random(seed)
    while True:
        with suppress(Failure), lock.held(folder), (folder / "oracle").open("a") as oracle:
            fcntl.flock(oracle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: two hold the folder
            oracle.write("in\n")
            oracle.flush()
            time.sleep(0.002 * random.random())


def test_holders_killed_at_any_instant_are_followed_by_exactly_one(tmp_path: Path) -> None:
    context, random = multiprocessing.get_context("fork"), Random(0)
    for seed in range(30):
        pair = [context.Process(target=_come_and_go, args=(tmp_path, 2 * seed + k)) for k in (0, 1)]
        for child in pair:
            child.start()
        time.sleep(0.05 + 0.02 * random.random())
        for child in pair:
            child.kill()
            child.join()
            assert child.exitcode == -signal.SIGKILL, "it met another holder"
    with lock.held(tmp_path):
        assert len((tmp_path / "oracle").read_text().splitlines()) > 30


def _hold(folder: Path, start: Any, entered: Any) -> None:
    start.wait()
    try:
        with lock.held(folder) as hold:
            time.sleep(0.02)  # a second one would come now
            entered.put("robbed" if hold.lost() else "in")
            start.wait()
    except Failure:
        entered.put("refused")
        start.wait()


@pytest.mark.parametrize(
    ("change", "age_s"),
    [(None, 0), ({"process_start": "1"}, 0), (ELSEWHERE, 180)],
    ids=["free", "dead holder", "silent holder"],
)
def test_of_eight_at_once_one_gets_in(tmp_path: Path, change: dict[str, Any] | None, age_s: float) -> None:
    context = multiprocessing.get_context("fork")
    for round_ in range(5):
        folder = tmp_path / str(round_)
        folder.mkdir()
        if change is not None:
            plant(folder, change, age_s)
        start, entered = context.Barrier(8), context.Queue()
        children = [context.Process(target=_hold, args=(folder, start, entered)) for _ in range(8)]
        for child in children:
            child.start()
        outcomes = Counter(entered.get(timeout=60) for _ in children)
        for child in children:
            child.join(60)
        assert outcomes == {"in": 1, "refused": 7}
        assert list(folder.iterdir()) == []
