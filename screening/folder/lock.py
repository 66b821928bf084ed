"""One campaign folder, one writer.

Enters: a campaign folder. Leaves: a held LOCK file whose mtime is a heartbeat, or a refusal (exit
73) naming the holder. A lock whose process is gone, or that stayed silent on another machine, is
taken over. It needs neither `flock` (many network file systems have none, or one that other
machines do not see) nor clocks that agree: put-if-absent decides which is first, and ages are
differences between times of one file server. It does not know what is written.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from assay.screening.settings.exits import Exit, Failure
from assay.sources import durable

log = logging.getLogger(__name__)
BEAT_S = 10.0
"""A holder touches its LOCK this often."""
SILENT_S = 120.0
"""Twelve missed heartbeats, or six of a network file system that shows attributes a minute late."""
TRIES = 100
"""How often a start looks again while others take the same lock over, 0.05 s apart."""
_UNSEEN = "?"


class Verdict(StrEnum):
    """What the lock says about its holder."""

    ALIVE = "alive"
    DEAD = "dead"
    """Of this machine, and the process is gone: ended, its pid recycled, or before a reboot."""
    SILENT = "silent"
    """Of another machine or container, without a heartbeat for more than `SILENT_S`."""
    UNREADABLE = "unreadable"
    """The file does not name the process that wrote it."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a campaign folder."""

    host: str
    pid: int
    started: str
    """UTC, ISO 8601, by the holder's clock."""
    heartbeat: float
    """Age of the last heartbeat in s, by the file server's clock."""
    verdict: Verdict

    def describe(self) -> str:
        """One line: the process, its start, its last heartbeat, the verdict."""
        if self.verdict is Verdict.UNREADABLE:
            return f"somebody unknown (LOCK cannot be read; last change {self.heartbeat:.0f} s ago)"
        return (
            f"pid {self.pid} on {self.host} since {self.started} "
            f"(last heartbeat {self.heartbeat:.0f} s ago; {self.verdict})"
        )


class Hold:
    """A lock that this process holds, kept alive by a thread."""

    def __init__(self, path: Path, content: bytes, beat_s: float) -> None:
        self._path = path
        self._content = content
        self._beat_s = beat_s
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="assay-lock-heartbeat", daemon=True)
        self._thread.start()

    def lost(self) -> bool:
        """Whether another process took the folder over or unlocked it; costs one small read."""
        try:
            return self._path.read_bytes() != self._content
        except FileNotFoundError:
            return True
        except OSError:
            return False  # the file server is away: it is not known

    def release(self) -> None:
        """End the heartbeat and remove the lock, if it still is ours."""
        self._released.set()
        self._thread.join(self._beat_s)
        try:
            _remove(self._path, self._content)
        except OSError:  # a full disk has no room for a claim, and must not hide the error that ends the campaign
            with suppress(OSError):
                if not self.lost():
                    self._path.unlink()

    def _beat(self) -> None:
        while not self._released.wait(self._beat_s):
            if self.lost():
                log.error("%s was taken over by another process", self._path)
                return
            try:
                os.utime(self._path)
            except OSError as error:
                log.warning("no heartbeat: %s", error)


@contextmanager
def held(folder: Path, beat_s: float = BEAT_S) -> Iterator[Hold]:
    """Hold the LOCK of a folder for the length of a block; the `Hold` tells when it is lost.

    Raises:
        Failure: LOCKED, when somebody else holds it.
    """
    path = folder / "LOCK"
    content = _acquire(path)
    hold = Hold(path, content, beat_s)
    try:
        yield hold
    finally:
        hold.release()


def diagnose(folder: Path) -> Holder | None:
    """The holder of a folder, and whether it still lives; None for a folder that is not held."""
    found = _look(folder / "LOCK")
    return found and found[1]


def unlock(folder: Path, *, force: bool = False) -> Holder:
    """Remove a lock that is dead, silent or unreadable, or with `force` any; return its holder.

    Raises:
        Failure: USAGE, when the folder is not locked; LOCKED, when the holder lives and `force` is
            not given.
    """
    path = folder / "LOCK"
    for _ in range(TRIES):
        found = _look(path)
        if found is None:
            raise Failure(Exit.USAGE, f"{folder} is not locked; nothing to do")
        content, holder = found
        if holder.verdict is Verdict.ALIVE and not force:
            raise _refusal(folder, holder)
        if _remove(path, content):
            return holder
        time.sleep(0.05)
    raise Failure(Exit.LOCKED, f"another process is taking {folder} over; try again")


def _acquire(path: Path) -> bytes:
    """Put our LOCK in place; its content."""
    text = durable.canonical(_me())
    for _ in range(TRIES):
        if _put(path, text):
            return text.encode()
        found = _look(path)
        if found is None:
            continue
        content, holder = found
        if holder.verdict not in {Verdict.DEAD, Verdict.SILENT}:
            raise _refusal(path.parent, holder)
        # A silent holder may be suspended and wake up: it is told by `lost`, and could not commit
        # anyway, because the ledger's log is put-if-absent: the first record that we write takes
        # the number of its next one.
        if _remove(path, content):
            log.warning("took over %s from %s", path.parent, holder.describe())
        else:
            time.sleep(0.05)
    raise Failure(Exit.LOCKED, f"other processes are taking {path.parent} over; wait for them and try again")


def _refusal(folder: Path, holder: Holder) -> Failure:
    advice = f"wait for it, or if you know it is dead: assay unlock {folder} --force"
    if holder.verdict is Verdict.UNREADABLE:
        advice = f"if nobody uses it: assay unlock {folder}"
    return Failure(Exit.LOCKED, f"{folder} is in use by {holder.describe()}; {advice}")


def _remove(path: Path, content: bytes) -> bool:
    """Remove a file if it still holds `content`; False if not, or if another process removes it.

    Looking and removing are two steps. A claim named for the content makes them one: only its owner
    may remove that content, and looks again once it is owner. The claim of a process that died with
    it is removed in the same way.
    """
    claim = path.with_name(f".LOCK.{hashlib.sha256(content).hexdigest()[:16]}.claim")
    while not _put(claim, durable.canonical(_me())):
        found = _look(claim)
        if found is not None and (found[1].verdict is Verdict.ALIVE or not _remove(claim, found[0])):
            return False
    try:
        found = _look(path)
        if found is None or found[0] != content:
            return False
        path.unlink(missing_ok=True)
        return True
    finally:
        claim.unlink(missing_ok=True)


def _put(path: Path, text: str) -> bool:
    try:
        durable.put_if_absent(path, text)
    except FileExistsError:
        found = _look(path)  # it is ours when a network file system lost its answer and tried twice
        return found is not None and found[0] == text.encode()
    return True


def _look(path: Path) -> tuple[bytes, Holder] | None:
    """Content of a lock, and the process that wrote it."""
    try:
        try:
            with path.open("rb") as file:  # opening makes a network file system fetch the true mtime
                content, touched = file.read(), os.fstat(file.fileno()).st_mtime
        except (PermissionError, IsADirectoryError):
            content, touched = b"", path.stat().st_mtime
    except FileNotFoundError:
        return None
    age = max(0.0, _now(path.parent) - touched)
    try:
        lock = json.loads(content)
        host, pid, started = str(lock["host"]), int(lock["pid"]), str(lock["started"])
    except (ValueError, TypeError, KeyError):
        return content, Holder("", 0, "", age, Verdict.UNREADABLE)
    return content, Holder(host, pid, started, age, _verdict(lock, age))


def _now(folder: Path) -> float:
    """The file server's time in s; this machine's where nothing can be written."""
    probe = folder / f".LOCK.{secrets.token_hex(8)}.clock"
    try:
        with probe.open("xb") as file:
            os.utime(file.fileno())
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()
    finally:
        with suppress(OSError):
            probe.unlink()


def _verdict(lock: dict[str, Any], age: float) -> Verdict:
    here = _me()
    by_heartbeat = Verdict.SILENT if age > SILENT_S else Verdict.ALIVE
    if any(lock.get(name) != here[name] for name in ("host", "pid_namespace")):
        return by_heartbeat  # containers may share a hostname, and one cannot see the other's processes
    if lock.get("boot_id") != here["boot_id"]:
        # A heartbeat since this machine started is that of another machine with the same name.
        return Verdict.DEAD if age > max(_uptime(), 3 * BEAT_S) else by_heartbeat
    started = _process_start(int(lock["pid"]))
    return Verdict.ALIVE if started in {lock.get("process_start"), _UNSEEN} else Verdict.DEAD


def _me() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_start": _process_start(os.getpid()),
        "boot_id": _boot_id(),
        "pid_namespace": _pid_namespace(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "token": secrets.token_hex(8),
    }


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _uptime() -> float:
    """Seconds since this machine started, sleep included; infinite where that is unknown."""
    try:
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    except (AttributeError, OSError):
        return float("inf")


def _process_start(pid: int) -> str:
    """Start of a process in the kernel's ticks; empty if there is none, `?` if it is hidden."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _exists(pid)  # no /proc, or one that hides the processes of other users
    if fields[0] in {"Z", "X"} and _threads(pid) <= 1:
        return ""
    return fields[19]


def _threads(pid: int) -> int:
    """Threads of a process; the first may be gone while another is in the middle of a write."""
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir()))
    except OSError:
        return 0


def _exists(pid: int) -> str:
    if pid <= 0:
        return ""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return ""
    except PermissionError:
        pass
    return _UNSEEN
