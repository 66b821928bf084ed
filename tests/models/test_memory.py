"""Memory: what is left under every limit, what work takes, and how its end looks."""

import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from assay.models import memory

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
GIB = 2**30


def machine(root: Path, groups: str, free: int = 8 * GIB, total: int = 16 * GIB) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(
        f"MemTotal:  {total // 1024} kB\nMemAvailable: {free // 1024} kB\nHugePages_Total: 0\n"
    )
    (root / "proc/self/cgroup").write_text(groups)
    return root


def group(folder: Path, files: tuple[str, str, str], limit: object, used: int, cache: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in zip(files, (limit, used, f"anon 1\n{files[2]} {cache}\n"), strict=True):
        (folder / (name if name != files[2] else "memory.stat")).write_text(str(value))


V2 = ("memory.max", "memory.current", "inactive_file")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def test_without_groups_it_is_what_the_kernel_calls_available(tmp_path: Path) -> None:
    assert memory.available(CPU, machine(tmp_path, "0::/\n")) == 8 * GIB


def test_the_tightest_group_above_the_process_counts(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/batch/job/step\n")
    group(root / "sys/fs/cgroup/batch/job/step", V2, "max", GIB, 0)
    group(root / "sys/fs/cgroup/batch/job", V2, 4 * GIB, 3 * GIB, GIB // 2)  # pages of files give way
    group(root / "sys/fs/cgroup/batch", V2, 6 * GIB, 3 * GIB, 0)
    assert memory.available(CPU, root) == 1.5 * GIB


def test_older_groups_and_containers_that_see_only_their_root(tmp_path: Path) -> None:
    root = machine(tmp_path, "5:cpu:/a\n4:hugetlb,memory:/docker/abc\n0::/\n")
    group(root / "sys/fs/cgroup/memory", V1, 2 * GIB, GIB, 0)
    group(root / "sys/fs/cgroup/memory/elsewhere", V1, GIB, GIB, 0)
    assert memory.available(CPU, root) == GIB
    group(root / "sys/fs/cgroup/memory", V1, 2 * GIB, 3 * GIB, 0)
    assert memory.available(CPU, root) == 0


@pytest.mark.parametrize(("free", "total", "short"), [(600, 16384, False), (500, 16384, True), (60, 1024, False)])
def test_short_is_five_percent_or_half_a_gibibyte(free: int, total: int, short: bool, tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/\n", free * 2**20, total * 2**20)
    assert memory.is_short(root) == short


def test_a_limit_of_the_address_space_counts() -> None:
    code = (
        "import resource, torch; from assay.models import memory; cpu = torch.device('cpu');"
        "size = 1024 * int(open('/proc/self/status').read().split('VmSize:')[1].split()[0]) + 2**26;"
        "resource.setrlimit(resource.RLIMIT_AS, (size, resource.RLIM_INFINITY)); print(memory.available(cpu))"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)})
    assert 0 < int(child.stdout) <= 2**26, child.stderr


def test_the_peak_of_work_is_seen_and_its_end_too() -> None:
    memory.release()
    before = memory.used(CPU)
    most = memory.peak(CPU, lambda: torch.ones(2**26))  # 256 MiB
    assert 0.95 * 2**28 < most - before < 1.2 * 2**28  # the kernel counts pages in batches
    memory.release()  # after `keep`, which other tests call, freed memory stays until then
    assert memory.used(CPU) - before < 2**26
    assert memory.peak(CPU, lambda: None) - before < 2**26


KEPT = """
import resource, sys, torch
from assay.models import memory
if sys.argv[1] == "keep":
    memory.keep()
def churn():
    for _ in range(20):
        torch.ones(2**24).mul(2.0)  # 64 MiB, twice
churn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
churn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_kept_memory_is_not_mapped_again() -> None:
    def faults(how: str) -> int:
        child = subprocess.run(
            [sys.executable, "-c", KEPT, how], capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}
        )
        return int(child.stdout or f"no answer: {child.stderr}")

    assert faults("keep") < 0.1 * faults("as it is")


def test_real_errors_are_known() -> None:
    for work in (lambda: torch.empty(2**58, dtype=torch.uint8), lambda: np.empty(2**58, np.uint8)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            work()
        assert memory.ran_out(caught.value)
    assert not memory.ran_out(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not memory.ran_out(ValueError("out of memory"))
