"""Neighbours: the same as ASE and pymatgen find in real crystals, and the whole shell where distances are tied."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from assay.featurize import neighbours
from assay.featurize.graphs import Graphs, GraphSpec, build, join
from assay.sources.crystals import concat
from assay.sources.formats import convert
from tests.featurize.cells import crystal, random_rotation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from assay.sources.crystals import Crystals

FCC = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) / 2
BCC = np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]) / 2
CUBE = np.eye(3)
ROCK_SALT = [[0, 0, 0], [0.5, 0.5, 0.5]]
SKEW = np.array([[1, 5, -3], [0, 1, 7], [0, 0, 1]])

Edges = tuple["NDArray[Any]", "NDArray[Any]", "NDArray[Any]"]


def sorted_edges(target: Any, source: Any, vector: Any) -> Edges:
    """Target, source and vector (Å) in an order that rounding cannot change."""
    vector = np.asarray(vector, dtype=np.float64)
    keys = np.round(vector, 3) + 0.0
    order = np.lexsort((keys[:, 2], keys[:, 1], keys[:, 0], source, target))
    return np.asarray(target)[order], np.asarray(source)[order], vector[order]


def ase_edges(crystals: Crystals, cutoff: float) -> Edges:
    """All pairs within `cutoff` (Å) by ASE."""
    from ase.neighborlist import neighbor_list

    parts = []
    for atoms, first in zip(convert.to_ase(crystals), crystals.site_ptr, strict=False):
        i, j, vector = neighbor_list("ijD", atoms, cutoff)
        parts.append((i + first, j + first, vector))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def pymatgen_edges(crystals: Crystals, cutoff: float) -> Edges:
    """All pairs within `cutoff` (Å) by pymatgen's compiled search."""
    from pymatgen.optimization.neighbors import find_points_in_spheres

    parts = []
    for row, first in enumerate(crystals.site_ptr[:-1]):
        cell = np.ascontiguousarray(crystals.lattice[row])
        frac = crystals.frac[first : crystals.site_ptr[row + 1]]
        xyz = np.ascontiguousarray(frac @ cell)
        i, j, image, distance = find_points_in_spheres(xyz, xyz, r=cutoff, pbc=np.ones(3, dtype=np.int64), lattice=cell)
        real = distance > 1e-8
        vector = (frac[j] + image - frac[i]) @ cell
        parts.append((i[real] + first, j[real] + first, vector[real]))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


def assert_same_edges(graphs: Graphs, edges: Edges) -> None:
    mine, yours = sorted_edges(graphs.target, graphs.source, graphs.vector), sorted_edges(*edges)
    np.testing.assert_array_equal(np.bincount(mine[0]), np.bincount(yours[0]))
    np.testing.assert_array_equal(mine[1], yours[1])
    np.testing.assert_allclose(np.linalg.norm(mine[2], axis=1), np.linalg.norm(yours[2], axis=1), atol=2e-6)
    # vectors are compared as sets per (target, source): rounding may swap two of one sum
    np.testing.assert_allclose(mine[2].sum(axis=0), yours[2].sum(axis=0), atol=1e-2)


def nearest_of(edges: Edges, k: int, tolerance: float) -> Edges:
    """The k nearest of each target and what is tied with the k-th, by sorting."""
    target, source, vector = edges
    distance = np.linalg.norm(vector, axis=1)
    order = np.lexsort((distance, target))
    start = np.searchsorted(target[order], np.arange(target.max() + 1))
    assert (np.bincount(target) >= k).all(), "the oracle's cutoff is too small"
    kth = distance[order][start + k - 1]
    keep = distance <= kth[target] + tolerance
    return target[keep], source[keep], vector[keep]


@pytest.mark.parametrize("cutoff", [2.5, 4.0, 6.1])
def test_radius_graph_equals_ase(crystals: Crystals, cutoff: float) -> None:
    few = crystals[::8]
    assert_same_edges(build(few, GraphSpec(neighbours="radius", cutoff=cutoff)), ase_edges(few, cutoff))


@pytest.mark.parametrize("cutoff", [3.0, 5.03, 8.0])
def test_radius_graph_equals_pymatgen(crystals: Crystals, cutoff: float) -> None:
    assert_same_edges(build(crystals, GraphSpec(neighbours="radius", cutoff=cutoff)), pymatgen_edges(crystals, cutoff))


@pytest.mark.parametrize("k", [1, 4, 12, 20])
def test_nearest_graph_equals_pymatgen_sorted(crystals: Crystals, k: int) -> None:
    spec = GraphSpec(k=k)
    assert_same_edges(build(crystals, spec), nearest_of(pymatgen_edges(crystals, 15.0), k, spec.tolerance))


def test_nearest_graph_equals_ase_sorted(crystals: Crystals) -> None:
    few, spec = crystals[::20], GraphSpec()
    assert_same_edges(build(few, spec), nearest_of(ase_edges(few, 9.0), spec.k, spec.tolerance))


def test_disordered_crystals_have_one_node_per_site(disordered: Crystals) -> None:
    few = disordered[::4]
    assert_same_edges(build(few, GraphSpec(neighbours="radius", cutoff=4.0)), pymatgen_edges(few, 4.0))


@pytest.mark.parametrize(
    ("lattice", "frac", "k", "degree"),
    [
        (FCC * 4.05, [[0, 0, 0]], 12, 12),
        (FCC * 4.05, [[0, 0, 0]], 13, 18),
        (BCC * 2.87, [[0, 0, 0]], 12, 14),
        (BCC * 2.87, [[0, 0, 0]], 8, 8),
        (CUBE * 3.35, [[0, 0, 0]], 12, 18),
        (CUBE * 3.35, [[0, 0, 0]], 6, 6),
        (FCC * 5.64, ROCK_SALT, 12, 18),
        (CUBE * 4.12, ROCK_SALT, 12, 14),
        (FCC * 5.43, [[0, 0, 0], [0.25, 0.25, 0.25]], 12, 16),
    ],
    ids=["fcc", "fcc13", "bcc", "bcc8", "sc", "sc6", "NaCl", "CsCl", "diamond"],
)
def test_a_tied_shell_is_kept_whole(lattice: Any, frac: Any, k: int, degree: int) -> None:
    rng = np.random.default_rng(0)
    for turn in [np.eye(3), *(random_rotation(rng) for _ in range(10))]:
        graphs = build(crystal(lattice @ turn, np.asarray(frac) + rng.random(3)), GraphSpec(k=k))
        assert np.bincount(graphs.target).tolist() == [degree] * len(frac)


def test_a_very_skewed_cell_is_the_same_crystal() -> None:
    graphs = build(crystal(SKEW @ FCC * 4.05, [[0.3, 0.1, 0.9]]), GraphSpec())
    np.testing.assert_allclose(graphs.distance, np.full(12, 4.05 / np.sqrt(2)), rtol=1e-6)


def test_a_flat_and_a_long_cell() -> None:
    for edges in ([2.0, 2.0, 40.0], [1.5, 30.0, 30.0]):
        graphs = build(crystal(np.diag(edges), [[0, 0, 0]]), GraphSpec())
        assert len(graphs.distance) >= 12
        assert graphs.distance.min() == pytest.approx(min(edges))


def test_one_atom_meets_its_own_images_in_pairs() -> None:
    graphs = build(crystal(CUBE * 3.35, [[0.5, 0.5, 0.5]]), GraphSpec())
    assert (graphs.source == graphs.target).all()
    np.testing.assert_allclose(graphs.vector.sum(axis=0), 0, atol=1e-5)
    assert len(np.unique(np.round(graphs.vector, 4), axis=0)) == len(graphs.vector)


def test_tolerance_decides_what_is_tied() -> None:
    almost = crystal(np.diag([3.0, 3.0, 3.0001]), [[0, 0, 0]])
    assert len(build(almost, GraphSpec(k=1)).source) == 4
    assert len(build(almost, GraphSpec(k=1, tolerance=1e-3)).source) == 6


def test_many_neighbours_grow_the_buffers() -> None:
    graphs = build(crystal(CUBE * 2.5, [[0, 0, 0]]), GraphSpec(neighbours="radius", cutoff=20.0))
    inside = np.indices((17, 17, 17)).reshape(3, -1).T - 8
    assert len(graphs.source) == (np.linalg.norm(inside, axis=1) * 2.5 <= 20.0).sum() - 1


def test_any_buffer_may_be_too_short(crystals: Crystals) -> None:
    """A thin cell has many images, a long radius many neighbours and edges; what came before them stays."""
    thin = crystal(np.diag([0.3, 9.0, 9.0]), [[0.2, 0.4, 0.6], [0.7, 0.1, 0.9]])
    dense = crystal(CUBE * 2.5, [[0, 0, 0]])
    for spec in (GraphSpec(), GraphSpec(k=200), GraphSpec(neighbours="radius", cutoff=9.0)):
        batch = concat([replace(crystals[:20], columns={}), thin, dense, replace(crystals[20:40], columns={})])
        whole = build(batch, spec)
        alone = join([build(batch[row : row + 1], spec) for row in range(len(batch))])
        np.testing.assert_array_equal(whole.vector, alone.vector)
        np.testing.assert_array_equal(whole.source, alone.source)
        assert_same_edges(build(thin, spec), brute_edges(thin, spec))
        assert_same_edges(build(dense, spec), brute_edges(dense, spec))


def brute_edges(one: Crystals, spec: GraphSpec) -> Edges:
    """All images up to 12 Å in each direction of the cell, measured one by one."""
    steps = [np.arange(-reach, reach + 1) for reach in np.ceil(12 / np.diag(one.lattice[0])).astype(int) + 1]
    shifts = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1).reshape(-1, 3)
    target, source, shift = np.meshgrid(np.arange(len(one.frac)), np.arange(len(one.frac)), np.arange(len(shifts)))
    target, source, shift = target.ravel(), source.ravel(), shift.ravel()
    vector = (one.frac[source] + shifts[shift] - one.frac[target]) @ one.lattice[0]
    length = np.linalg.norm(vector, axis=1)
    near = (length <= 12) & ((source != target) | (length > 1e-8))
    if spec.neighbours == "nearest":
        return nearest_of((target[near], source[near], vector[near]), spec.k, spec.tolerance)
    near &= length <= spec.cutoff
    return target[near], source[near], vector[near]


def test_atoms_at_one_place_are_neighbours() -> None:
    graphs = build(crystal(CUBE * 6, [[0.2, 0.2, 0.2], [0.2, 0.2, 0.2]]), GraphSpec(k=1))
    assert graphs.distance.tolist() == [0, 0]
    assert graphs.source.tolist() == [1, 0]


def test_float64_is_what_float32_was_rounded_from(crystals: Crystals) -> None:
    cells = crystals.lattice, crystals.frac, crystals.site_ptr
    for fine, coarse in (
        (neighbours.nearest(*cells, 12, 1e-6), neighbours.nearest(*cells, 12, 1e-6, dtype=np.float32)),
        (neighbours.within(*cells, 4.0), neighbours.within(*cells, 4.0, dtype=np.float32)),
    ):
        for exact, rounded in zip(fine, coarse, strict=True):
            np.testing.assert_array_equal(exact.astype(rounded.dtype), rounded)
        assert fine[3].dtype == fine[4].dtype == np.float64
