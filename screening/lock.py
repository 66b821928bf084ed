"""One campaign folder, one writer.

Enters: a campaign folder. Leaves: a held LOCK file, or a refusal (exit 73) naming the holder. A lock whose process is
gone (same host, dead or recycled pid, or a reboot since) is taken over.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from screening import durable
from screening.exits import Exit, Failure

log = logging.getLogger(__name__)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the LOCK of a folder for the length of a block."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "LOCK"
    mine = _me()
    with _guard(folder):
        _acquire(path, mine)
    try:
        yield
    finally:
        with _guard(folder):
            if _read(path) == mine:
                path.unlink()


def _acquire(path: Path, mine: dict[str, Any]) -> None:
    if path.exists():
        holder = _read(path)
        if not is_stale(holder):
            raise Failure(
                Exit.LOCKED,
                f"{path.parent} is in use by pid {holder.get('pid')} on {holder.get('host')} since "
                f"{holder.get('started')}; wait for it, or delete {path.name} there if you know it is dead",
            )
        log.warning("took over the lock of pid %s, which is gone", holder.get("pid"))
        path.unlink()
    durable.put_if_absent(path, durable.canonical(mine))


@contextmanager
def _guard(folder: Path) -> Iterator[None]:
    """Serialise looking at the lock and replacing it; the kernel drops this one with the process."""
    with (folder / ".LOCK.guard").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # some network file systems have no flock: put-if-absent still protects the LOCK
            log.debug("no flock on %s: %s", folder, error)
        yield


def is_stale(holder: dict[str, Any]) -> bool:
    """Whether the process that wrote a lock is certainly gone; a lock of another host never is."""
    if holder.get("host") != socket.gethostname():
        return False
    if holder.get("boot_id") != _boot_id():
        return True
    return holder.get("process_start") != _process_start(int(holder.get("pid", -1)))


def _me() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_start": _process_start(os.getpid()),
        "boot_id": _boot_id(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, FileNotFoundError):
        return {}
    return content if isinstance(content, dict) else {}


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _process_start(pid: int) -> str:
    """When a process started, in the kernel's ticks; empty when there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _alive_without_proc(pid)
    return "" if fields[0] == "Z" else fields[19]


def _alive_without_proc(pid: int) -> str:
    if Path("/proc/self/stat").exists() or pid <= 0:
        return ""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "alive"
