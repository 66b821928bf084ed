"""Threads: the slices cover every row once, and how many there are changes no byte of a graph."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest

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
