"""The command with its libraries already imported: a parent that forks one real `assay` process per order.

Enters: a warm-up command, then one JSON order per line on standard input. Leaves: for each order
the number of the new process, and after "go" how it ended. Importing takes two seconds and touches
no campaign folder, so several hundred commands need not repeat it. The forked process is a process
like any other: own number, own session, own signals; it runs `python -m assay` from its first line,
and a SIGKILL ends it.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import random
import runpy
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from tests.chaos.processes import ROOT, alive, environment, family

PR_SET_PTRACER, ANYBODY = 0x59616D61, ctypes.c_ulong(-1)


class Preloaded:
    """The parent, seen from the tests; `with` ends it."""

    def __init__(self, warm_up: Sequence[str | Path], place: Path, extra: Mapping[str, str] | None = None) -> None:
        self._place = place
        command = [sys.executable, "-m", "tests.chaos.preloaded", str(place), *map(str, warm_up)]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(extra),
            text=True,
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._pid = 0
        self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._process.communicate()

    def fork(
        self, arguments: Sequence[str | Path], folder: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> int:
        """A process that waits for `go` before it runs `assay` with these arguments in a folder; its number."""
        order = {
            "arguments": [*map(str, arguments)],
            "folder": str(folder or self._place),
            "environment": environment and dict(environment),
        }
        self._pid = int(self._ask(json.dumps(order)))
        return self._pid

    def go(self, timeout_s: float = 120.0) -> int:
        """Let the process run to its end; its exit code, or minus the signal that killed it."""
        self.let_go()
        return self.result(timeout_s)

    def let_go(self) -> None:
        """Let the process run."""
        self._tell("go")

    def result(self, timeout_s: float = 120.0) -> int:
        """Wait for the end of the process; its exit code, or minus the signal that killed it."""
        watchdog = threading.Timer(timeout_s, os.kill, (self._pid, signal.SIGABRT))
        watchdog.start()
        try:
            return int(self._answer())
        finally:
            watchdog.cancel()

    def run(
        self, arguments: Sequence[str | Path], folder: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `assay` with these arguments to its end, in a folder and in an environment."""
        self.fork(arguments, folder, environment)
        code = self.go(300.0)
        written = [(self._place / name).read_text(errors="replace") for name in ("stdout.txt", "stderr.txt")]
        return subprocess.CompletedProcess([*map(str, arguments)], code, *written)

    def last_words(self) -> str:
        """The end of the standard error of the process that ran last."""
        return (self._place / "stderr.txt").read_text(errors="replace")[-1500:].strip()

    def _ask(self, line: str) -> str:
        self._tell(line)
        return self._answer()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the preloaded command ended: {self.last_words()}")
        return answer


class Forked:
    """A forked command that may be killed before its end; to the tests it is like a `Tree`."""

    def __init__(self, preloaded: Preloaded, arguments: Sequence[str | Path]) -> None:
        self._preloaded = preloaded
        self._pid = preloaded.fork(arguments)
        self._code: int | None = None
        self.started = time.time()
        preloaded.let_go()

    def running(self) -> bool:
        """Whether the command has not ended."""
        return self._code is None and alive(self._pid)

    def kill(self, rng: random.Random) -> int:
        """SIGKILL the command and its descendants; how many there were."""
        pids = family(self._pid, "no mark")
        rng.shuffle(pids)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(pids) if self.finish() == -signal.SIGKILL else 0

    def finish(self, timeout_s: float = 300.0) -> int:
        """Wait for the end; the exit code."""
        if self._code is None:
            self._code = self._preloaded.result(timeout_s)
        return self._code

    def last_words(self) -> str:
        """The end of its standard error."""
        return self._preloaded.last_words()


def serve(place: Path, warm_up: list[str]) -> None:
    """Import what a whole campaign imports, then fork on demand."""
    answer = os.fdopen(os.dup(1), "w")
    names = place / "modules.json"
    pid, door = _fork({"arguments": warm_up, "folder": str(place)}, place, names)
    os.write(door, b"g")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        sys.exit(f"the warm-up ended with {code}")
    for name in json.loads(names.read_text()):
        with contextlib.suppress(Exception):  # a name in sys.modules that cannot be imported alone is a library's own
            importlib.import_module(name)
    print("ready", file=answer, flush=True)  # the only threads are those of allocators, whose libraries allow for fork
    for line in sys.stdin:
        pid, door = _fork(json.loads(line), place, None)
        print(pid, file=answer, flush=True)
        sys.stdin.readline()
        os.write(door, b"g")
        os.close(door)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=answer, flush=True)


def _fork(order: dict[str, Any], place: Path, names: Path | None) -> tuple[int, int]:
    """The number of a process that waits, and the pipe that lets it go."""
    wait, door = os.pipe()
    listen, tell = os.pipe()
    pid = os.fork()
    if pid:
        os.close(wait)
        os.close(tell)
        os.read(listen, 1)
        os.close(listen)
        return pid, door
    os.close(door)
    os.close(listen)
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANYBODY, 0, 0, 0)  # where only descendants may be traced (Yama)
    for number, target in enumerate((Path("/dev/null"), place / "stdout.txt", place / "stderr.txt")):
        os.dup2(os.open(target, os.O_RDWR | os.O_CREAT | (os.O_TRUNC if number else 0), 0o600), number)
    os.chdir(order["folder"])
    if order.get("environment"):
        os.environ.clear()
        os.environ.update(order["environment"])
    os.close(tell)  # from here on every system call is one of the command, for whoever traces it
    if os.read(wait, 1) != b"g":
        os._exit(0)  # the parent is gone
    code = _run(order["arguments"])
    if names is not None:
        names.write_text(json.dumps(list(sys.modules)))
    os._exit(code)


def _run(arguments: list[str]) -> int:
    """`python -m assay ...`; the exit code."""
    sys.argv = ["assay", *arguments]
    code: Any = 0
    try:
        runpy.run_module("assay", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:  # noqa: BLE001 - what the interpreter itself would do
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return int(code or 0)


def wait_for_tracer(pid: int, patience_s: float = 10.0) -> bool:
    """Whether somebody traces the process by now."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if "TracerPid:\t0\n" not in Path(f"/proc/{pid}/status").read_text():
                return True
        time.sleep(0.001)
    return False


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2:])
