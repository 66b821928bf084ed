"""SIGKILL at single system calls of the commit protocol.

Enters: a small scenario and its reference. Leaves: one `Hit` per system call that touches the
campaign folder: what was struck, and what was wrong after running again. A first traced run finds
the calls and their ordinal numbers (a random part of a temporary name is no matter); then one run
per call is killed by `strace` on entering it, so that the folder is seen in every state between two
calls. What was really struck is read from the trace, not assumed.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.campaigns import Reference, Scenario, committed, faults
from tests.chaos.preloaded import Preloaded, wait_for_tracer

CALLS = (
    *("openat", "creat", "write", "writev", "pwrite64", "pwritev", "fsync", "fdatasync", "sync_file_range", "close"),
    *("rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat"),
    *("mkdir", "mkdirat", "rmdir", "truncate", "ftruncate", "fallocate"),
)
LINE = re.compile(r"^(?P<pid>\d+) +(?P<call>\w+)\((?P<rest>.*)$")
RANDOM = re.compile(r"(?<=\.)([0-9a-f]{8,}|\d+)(?=\.)")
"""Random and process numbers in the names of hidden files."""


@dataclass(frozen=True)
class Point:
    """A system call of the main thread that touches the campaign folder."""

    call: str
    ordinal: int
    """Which one among all calls of that name in the process, from 1."""
    path: str
    """Relative to the campaign folder, random parts as *."""


@dataclass
class Hit:
    """What became of one point."""

    point: Point
    struck: Point | None
    """What was really struck; None: the run was not killed inside the folder."""
    code: int
    """How the killed run ended; -9: by the SIGKILL."""
    committed: int
    faults: list[str] = field(default_factory=list)


def reason_to_skip(place: Path) -> str:
    """Why system calls cannot be struck here; empty when they can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    probe = subprocess.run(
        [
            "strace",
            "-qq",
            "-e",
            "trace=?rename,close",
            "-e",
            "inject=close:signal=SIGKILL:when=1",
            "-o",
            str(place / "probe"),
            "true",
        ],
        capture_output=True,
        text=True,
    )
    return (
        "" if probe.returncode in (-9, 137) else f"strace cannot trace and inject here: {probe.stderr.strip()[-200:]}"
    )


class Striker:
    """Runs a scenario in a preloaded process under strace."""

    def __init__(self, scenario: Scenario, reference: Reference, preloaded: Preloaded, place: Path) -> None:
        self._scenario, self._reference, self._preloaded, self._place = scenario, reference, preloaded, place
        self._runs = 0
        self.base: Path | None = None
        """A campaign folder that every run begins with, a copy each; None: an empty one."""

    def halfway(self, points: Sequence[Point]) -> Path:
        """From now on begin with a campaign that was killed on entering a call in the middle of the given ones."""
        self.base = None
        folder = self._place / f"halfway-{self._runs}"
        self._traced(folder, points[len(points) // 2])
        self.base = folder
        return folder

    def points(self) -> list[Point]:
        """The system calls of an undisturbed run that touch its folder, in order."""
        folder = self._place / f"traced-{self._runs}"
        pid, code, trace = self._traced(folder, None)
        if code != self._reference.code:
            raise RuntimeError(f"a traced run ended with {code}: {self._preloaded.last_words()}")
        return touching(trace, pid, folder)

    def unsynced(self, left_out: str = "no call") -> list[str]:
        """What an undisturbed run makes visible before it is durable, as if it had not made one of its calls."""
        folder = self._place / f"traced-{self._runs}"
        pid, _, trace = self._traced(folder, None)
        return unsynced([line for line in trace if f" {left_out}(" not in line], pid, folder)

    def strike(self, point: Point, tries: int = 3) -> Hit:
        """Kill a fresh campaign on entering this call, run it again, compare; again where another call was struck.

        The garbage collector may close a descriptor earlier in one run than in the next, which moves the ordinals.
        """
        hit = self._strike(point)
        return self.strike(point, tries - 1) if tries > 1 and hit.struck != point and not hit.faults else hit

    def _strike(self, point: Point) -> Hit:
        folder = self._place / f"struck-{self._runs}"
        pid, code, trace = self._traced(folder, point)
        touched = touching(trace, pid, folder) if code == -9 else []
        struck = touched[-1] if touched and _was_last(trace, pid, touched[-1]) else None
        hit = Hit(point, struck, code, committed(folder))
        self._preloaded.fork(self._arguments(folder))
        hit.faults = faults(folder, self._reference, self._preloaded.go(), self._preloaded.last_words())
        if not hit.faults:
            shutil.rmtree(folder)
        return hit

    def _traced(self, folder: Path, point: Point | None) -> tuple[int, int, Sequence[str]]:
        """Process number, exit code and trace of one run."""
        self._runs += 1
        if self.base is not None:
            shutil.copytree(self.base, folder)
        pid, output = self._preloaded.fork(self._arguments(folder)), self._place / "trace"
        calls = ",".join(f"?{call}" for call in CALLS)
        command = ["strace", "-f", "-qq", "-y", "-s", "0", "-o", str(output), "-e", f"trace={calls}", "-p", str(pid)]
        if point is not None:
            command += ["-e", f"inject={point.call}:signal=SIGKILL:when={point.ordinal}"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as strace:
            if not wait_for_tracer(pid):
                strace.kill()
                self._preloaded.go()
                raise RuntimeError(f"strace did not attach: {strace.communicate()[1]}")
            code = self._preloaded.go()
        return pid, code, output.read_text(errors="replace").splitlines()

    def _arguments(self, folder: Path) -> list[str]:
        return ["run", str(self._scenario.config), "--output", str(folder), *self._scenario.arguments]


def touching(trace: Sequence[str], pid: int, folder: Path) -> list[Point]:
    """The calls of a process in a trace that touch a folder."""
    counts: Counter[str] = Counter()
    inside = re.compile(r'[<"]' + re.escape(str(folder)) + r'(?P<path>[^>"]*)[>"]')
    points = []
    for line in trace:
        found = LINE.match(line)
        if found is None or int(found["pid"]) != pid:
            continue
        counts[found["call"]] += 1
        if place := inside.search(found["rest"]):
            path = place["path"].lstrip("/") or "."
            path = RANDOM.sub("*", path) if path.rpartition("/")[2].startswith(".") else path
            points.append(Point(found["call"], counts[found["call"]], path))
    return points


def unsynced(trace: Sequence[str], pid: int, folder: Path) -> list[str]:
    """Steps of the main thread that a power cut could undo in part.

    A file must be flushed before it gets its name; the folder that holds the name, before the next
    record of the log gets its own.
    """
    dirty: set[str] = set()
    names: set[str] = set()
    found = []
    for line in trace:
        call = LINE.match(line)
        paths = re.findall(r'[<"](' + re.escape(str(folder)) + r'[^>"]*)[>"]', call["rest"]) if call else []
        if call is None or int(call["pid"]) != pid or not paths:
            continue
        if call["call"].startswith(("write", "pwrite", "fallocate", "ftruncate")):
            dirty.add(paths[0])
        elif call["call"] in ("fsync", "fdatasync"):
            dirty.discard(paths[0])
            names.discard(paths[0])
        elif call["call"].startswith(("rename", "link")):
            source, target = paths[0], Path(paths[-1])
            if source in dirty:
                found.append(f"{target.name} gets its name before its content is flushed")
            if target.parent.name == "log" and (left := names - {str(target.parent)}):
                found.append(f"record {target.name} gets its name before {', '.join(sorted(left))} is flushed")
            names.add(str(target.parent))
    return found + [f"{name} is never flushed" for name in sorted(names)]


def sample(points: Sequence[Point], n: int, rng: random.Random) -> list[Point]:
    """At most `n` points in order: one of every kind of call, the rest at random."""
    if n >= len(points):
        return list(points)
    first = {point.call: point for point in rng.sample(points, len(points))}
    rest = rng.sample([point for point in points if point not in first.values()], max(0, n - len(first)))
    chosen = {*first.values(), *rest}
    return [point for point in points if point in chosen]


def _was_last(trace: Sequence[str], pid: int, point: Point) -> bool:
    """Whether the main thread made no call after this one."""
    calls = [found for line in trace if (found := LINE.match(line)) and int(found["pid"]) == pid]
    return calls[-1]["call"] == point.call and sum(c["call"] == point.call for c in calls) == point.ordinal
