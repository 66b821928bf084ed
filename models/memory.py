"""How much memory is left, how much a piece of work takes, and whether it ran out.

Enters: a device, a piece of work. Leaves: bytes. This module does not know networks or graphs.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from assay.sources.checks import importing

if TYPE_CHECKING:
    import torch
else:
    torch = importing.later("torch")

_ROOT = Path("/")
_FLOOR = 512 * 2**20
_MESSAGES = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "alloc_failed")
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
"""Of mallopt(3); values in bytes."""
_GROUP_FILES = (
    ("memory.max", "memory.current", "inactive_file"),  # control groups, version 2
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),  # version 1
)


def available(device: torch.device, root: Path = _ROOT) -> int:
    """Bytes this process can still have on a device, or in main memory without swapping.

    Main memory is what the kernel calls available, within the limits of every control group above
    the process (a container, a batch job) and of `ulimit -v`. `root` is where /proc and /sys are
    found.
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    return max(0, min(free for free, _ in _limits(root)))


def is_short(root: Path = _ROOT) -> bool:
    """Whether less than 5 % of the process's main memory is free, or 512 MiB where that is less."""
    limits = list(_limits(root))
    return min(free for free, _ in limits) < min(_FLOOR, 0.05 * min(whole for _, whole in limits))


def used(device: torch.device) -> int:
    """Bytes this process holds now on `device`."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return _fields(_ROOT / "proc/self/status")["VmRSS"]


def peak(device: torch.device, work: Callable[[], object]) -> int:
    """The most bytes this process holds on `device` while `work` runs.

    A kernel that does not let its high-water mark be reset gives that of the whole life of the
    process: too much, which is the safe side.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        (_ROOT / "proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
    work()
    return _fields(_ROOT / "proc/self/status")["VmHWM"]


def keep() -> None:
    """Let the C library keep freed memory, up to 1 GiB, for the next tensor.

    By default it maps, clears and unmaps every large block anew, page by page: a third of the time
    of a prediction, see docs/log.md. Where the library is not glibc nothing happens.
    """
    with contextlib.suppress(AttributeError):
        library = ctypes.CDLL(None)
        if library.mallopt(_MMAP_THRESHOLD, 2**30) or library.mallopt(_MMAP_THRESHOLD, 2**25):  # older ones: 32 MiB
            library.mallopt(_TRIM_THRESHOLD, 2**30)
            library.mallopt(_TOP_PAD, 2**26)


def release() -> None:
    """Free what only cycles hold, and give freed memory that allocators keep back to the system."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
    with contextlib.suppress(AttributeError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out: torch uses three kinds, and numpy a fourth."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _MESSAGES)


def _limits(root: Path) -> Iterator[tuple[int, int]]:
    """Bytes free, and bytes in all, of the machine, every control group, the address space."""
    machine = _fields(root / "proc/meminfo")
    yield machine["MemAvailable"], machine["MemTotal"]
    for folder in _groups(root):
        for limit, usage, cache in _GROUP_FILES:
            with contextlib.suppress(OSError, ValueError):  # no such file, or "max": no limit
                whole = int((folder / limit).read_text())
                reclaimable = _fields(folder / "memory.stat", unit=1)[cache]
                yield whole - int((folder / usage).read_text()) + reclaimable, whole
    address_space = resource.getrlimit(resource.RLIMIT_AS)[0]
    if address_space != resource.RLIM_INFINITY:
        yield address_space - _fields(_ROOT / "proc/self/status")["VmSize"], address_space


def _groups(root: Path) -> Iterator[Path]:
    """Folders of the control groups that hold this process, from the innermost to the root."""
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        inner = mount / path.lstrip("/")
        yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(mount))


def _fields(path: Path, unit: int = 1024) -> dict[str, int]:
    """Numbers of a file of `name: value` lines, in bytes; /proc counts in kB."""
    words = (line.replace(":", " ").split() for line in path.read_text().splitlines())
    return {word[0]: unit * int(word[1]) for word in words if len(word) > 1 and word[1].isdigit()}
