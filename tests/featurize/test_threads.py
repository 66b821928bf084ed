"""Threads: the slices cover every row once, and how many there are changes no byte of a graph."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import llvmlite.binding
import numpy as np
import pytest

from assay.featurize import threads
from assay.featurize.graphs import GraphSpec, build
from assay.featurize.quotient import of_crystals, quotient
from assay.featurize.threads import each, slices
from assay.sources.crystals import Crystals, concat, empty
from tests.featurize.cells import crystal
from tests.featurize.test_graphs import assert_equal

ANGLES = GraphSpec(angles=True)
MANY = [2, 3, 7]


@pytest.mark.parametrize("threads", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("counts", [[], [5], [0, 0, 0], [1, 1, 1, 1, 1], [100, 1, 1, 1], [1, 1, 1, 100, 0]])
def test_slices_cover_every_row_once(counts: list[int], threads: int) -> None:
    found = slices(np.cumsum([7, *counts]), threads)
    assert 1 <= len(found) <= threads
    assert [row for first, last in found for row in range(first, last)] == list(range(len(counts)))


def test_slices_hold_about_as_much() -> None:
    pointer = np.cumsum([0, *np.random.default_rng(0).integers(1, 40, 600)])
    held = np.diff([pointer[first] for first, _ in slices(pointer, 4)] + [pointer[-1]])
    assert held.min() > 0.95 * held.max()


def test_no_threads_are_refused() -> None:
    with pytest.raises(ValueError, match="threads is 0, expected at least 1"):
        build(empty(), GraphSpec(), threads=0)


def test_results_come_in_order_from_threads_of_their_own() -> None:
    barrier = threading.Barrier(3, timeout=20)  # nobody passes before all three are there

    def work(first: int, last: int) -> tuple[int, int]:
        barrier.wait()
        return first, last

    ranges = [(0, 2), (2, 3), (3, 9)]
    assert each(work, ranges) == ranges


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_in_a_thread_is_raised(threads: int) -> None:
    with pytest.raises(ZeroDivisionError):
        each(lambda first, last: first // (last - 9), [(0, 2), (2, 3), (3, 9)][-threads:])


@pytest.mark.parametrize("threads", MANY)
@pytest.mark.parametrize(
    "spec", [GraphSpec(angles=True), GraphSpec(), GraphSpec(neighbours="radius", cutoff=4.3, angles=True)]
)
def test_any_number_of_threads_gives_the_same_bytes(
    crystals: Crystals, disordered: Crystals, spec: GraphSpec, threads: int
) -> None:
    for batch in (concat([crystals, disordered]), crystals[:2], crystals[:1], empty()):
        assert_equal(build(batch, spec, threads=threads), build(batch, spec))
    isolated = concat([crystal(np.eye(3) * 25, [[0, 0, 0]])] * 5)
    assert_equal(build(isolated, spec, threads=threads), build(isolated, spec))


@pytest.mark.parametrize("threads", MANY)
@pytest.mark.parametrize("angles", [True, False])
def test_any_number_of_threads_gives_the_same_quotients(
    crystals: Crystals, disordered: Crystals, threads: int, angles: bool
) -> None:
    for batch in (concat([crystals[::3], disordered[::3]]), crystals[:1], empty()):
        bare = build(batch, GraphSpec())
        assert_equal(of_crystals(bare, angles=angles, threads=threads), of_crystals(bare, angles=angles))
    assert_equal(of_crystals(build(crystals[::3], GraphSpec()), angles=True), quotient(build(crystals[::3], ANGLES)))


LOADED = """import sys
import numpy as np
from assay.featurize import graphs, quotient
from assay.sources.crystals import empty
quotient.quotient(graphs.build(empty(), graphs.GraphSpec()))
print("numba.np.linalg" in sys.modules)"""


def test_a_compiled_loop_is_loaded_without_a_compiler() -> None:
    run = [sys.executable, "-c", LOADED]
    subprocess.run(run, check=True)
    assert subprocess.run(run, check=True, capture_output=True, text=True).stdout.split() == ["False"]


OWN = """from assay.featurize.threads import njit
from assay.featurize.inner import twice


@njit(cache=True)
def outer(x):
    return twice(x) + 1
"""
INNER = """from assay.featurize.limits import FACTOR
from assay.featurize.threads import njit


@njit(cache=True)
def twice(x):
    return FACTOR * x
"""
LIMITS = """import numpy as np

FACTOR = np.int32({factor})
"""
FILES = "limits.py", "inner.py", "own.py"
CALLED = """import importlib.util, sys
from pathlib import Path
for path in map(Path, sys.argv[1:]):
    spec = importlib.util.spec_from_file_location(f"assay.featurize.{path.stem}", path)
    sys.modules[spec.name] = made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
print(made.outer(3), sum(made.outer.stats.cache_hits.values()), made.outer._cache.cache_path)"""


def called(folder: Path, home: Path, factor: int, **environment: str) -> tuple[int, int, Path]:
    """What a loop returns that has another file's compiled in, whether it was kept, and where.

    That other loop takes a number from a third file.
    """
    folder.mkdir(exist_ok=True)
    for name, text in zip(FILES, (LIMITS.format(factor=factor), INNER, OWN), strict=True):
        (folder / name).write_text(text)
    kept = {name: value for name, value in os.environ.items() if name not in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR")}
    command = [sys.executable, "-c", CALLED, *(str(folder / name) for name in FILES)]
    done = subprocess.run(
        command, env=kept | {"HOME": str(home)} | environment, check=True, capture_output=True, text=True
    )
    value, hits, path = done.stdout.split()
    return int(value), int(hits), Path(path)


def test_copies_of_a_file_share_its_compiled_loops(tmp_path: Path) -> None:
    """Uploads of Ray jobs, clones, wheels: each was compiled anew."""
    home = tmp_path / "home"
    first = called(tmp_path / "one", home, 2)
    assert first[:2] == (7, 0)
    assert first[2].is_relative_to(home)
    assert called(tmp_path / "two", home, 2) == (7, 1, first[2])


def test_a_loop_is_compiled_again_when_one_in_another_file_has_changed(tmp_path: Path) -> None:
    """Numba looks at the file of the loop alone, and would go on with the old factor."""
    home = tmp_path / "home"
    before = called(tmp_path / "one", home, 2)
    after = called(tmp_path / "one", home, 5)
    assert (before[:2], after[:2]) == ((7, 0), (16, 0))
    assert called(tmp_path / "one", home, 2) == (7, 1, before[2])


def test_compiled_loops_lie_where_numba_is_told(tmp_path: Path) -> None:
    given = tmp_path / "given"
    assert called(tmp_path / "one", tmp_path / "home", 2, NUMBA_CACHE_DIR=str(given))[2].is_relative_to(given / "assay")


def test_compiled_loops_lie_beside_the_file_where_the_home_cannot_be_written(tmp_path: Path) -> None:
    found = called(tmp_path / "one", Path("/proc/nowhere"), 2)
    assert found == (7, 0, tmp_path / "one" / "__pycache__")
    assert called(tmp_path / "one", Path("/proc/nowhere"), 2)[:2] == (7, 1)


@pytest.mark.parametrize("name", ["get_host_cpu_name", "get_host_cpu_features"])
def test_each_kind_of_processor_has_a_folder_of_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes of one cluster share a home, and write at once."""
    here = threads._machine()
    monkeypatch.setattr(threads.llvmlite.binding, name, lambda: llvmlite.binding.FeatureMap({"another": True}))
    threads._machine.cache_clear()
    try:
        assert threads._machine() != here
    finally:
        threads._machine.cache_clear()
