"""The command as a process tree of its own, and a SIGKILL for every process of it.

Enters: arguments of `assay`. Leaves: a `Tree` that can be killed whole. Every process is found by
its number: as a descendant of the one started here, by the session it opened, or by a mark in its
environment, never by its name.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MARK = "ASSAY_CHAOS_MARK"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS"), "1")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Environment of a command of this checkout: one thread, no cluster from outside."""
    found = os.environ | ONE_THREAD | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"} | dict(extra or {})
    return {name: value for name, value in found.items() if name != "RAY_ADDRESS"}


class Tree:
    """`python -m assay ...` with all processes it starts; output goes to files in `logs`."""

    def __init__(
        self,
        arguments: Sequence[str | Path],
        logs: Path,
        extra: Mapping[str, str] | None = None,
        program: Sequence[str] = ("-m", "assay"),
    ) -> None:
        self.mark = secrets.token_hex(16)
        self.errors = logs / "stderr.txt"
        self.started = time.time()
        command = [sys.executable, *program, *map(str, arguments)]
        with (logs / "stdout.txt").open("wb") as output, self.errors.open("wb") as errors:
            self.root = subprocess.Popen(
                command,
                cwd=logs,
                env=environment({**(extra or {}), MARK: self.mark}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                start_new_session=True,
            )

    def running(self) -> bool:
        """Whether the command itself has not ended."""
        return self.root.poll() is None

    def kill(self, rng: random.Random) -> int:
        """SIGKILL every process, the command first or in random order; how many there were."""
        pids = family(self.root.pid, self.mark)
        rng.shuffle(pids)
        if rng.random() < 0.5:
            pids.sort(key=lambda pid: pid != self.root.pid)
        self._kill(pids)
        killed = set(pids)
        while late := [pid for pid in family(self.root.pid, self.mark) if alive(pid)]:  # born during the first round
            self._kill(late)
            killed |= set(late)
            time.sleep(0.01)
        self.root.wait()
        _wait_gone(killed - {self.root.pid})
        return len(killed)

    def terminate(self) -> None:
        """SIGTERM to the command alone."""
        self.root.send_signal(signal.SIGTERM)

    def finish(self, timeout_s: float = 300.0) -> int:
        """Wait for the end; the exit code. A command that hangs is killed and raises TimeoutExpired."""
        try:
            return self.root.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill(random.Random(0))
            raise

    def survivors(self, patience_s: float = 10.0) -> list[int]:
        """Processes that are still there, some seconds after the command ended."""
        deadline = time.monotonic() + patience_s
        while (left := [pid for pid in family(self.root.pid, self.mark) if alive(pid)]) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left

    def last_words(self) -> str:
        """The end of its standard error."""
        return self.errors.read_text(errors="replace")[-1500:].strip()

    def _kill(self, pids: Sequence[int]) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def family(root: int, mark: str) -> list[int]:
    """`root`, its descendants, the members of its session, and every process that carries the mark."""
    parents, members = {}, {root}
    for path in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(path.name))
        if fields is None:
            continue
        parents[int(path.name)] = int(fields[1])
        if int(fields[3]) == root or _marked(path, mark):
            members.add(int(path.name))
    grown = True
    while grown:
        found = {pid for pid, parent in parents.items() if parent in members}
        grown = not found <= members
        members |= found
    return sorted(members & ({root} | parents.keys()))


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits for its parent to notice its death does not."""
    fields = _stat(pid)
    return fields is not None and fields[0] not in "ZX"


def _stat(pid: int) -> list[str] | None:
    """State, parent, group, session, ... of a process; None when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _marked(path: Path, mark: str) -> bool:
    try:
        return mark.encode() in (path / "environ").read_bytes()
    except OSError:
        return False


def _wait_gone(pids: set[int]) -> None:
    while any(alive(pid) for pid in pids):
        time.sleep(0.002)
