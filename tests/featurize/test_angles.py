"""Angles: every ordered pair of edges into an atom, with the cosine numpy finds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from assay.featurize.angles import triplets
from assay.featurize.graphs import GraphSpec, build
from tests.featurize.cells import crystal

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals


def test_cosines_equal_numpy(crystals: Crystals) -> None:
    graphs = build(crystals[::10], GraphSpec(angles=True))
    unit = graphs.vector.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    expected = (unit[graphs.triplet_edge] * unit[graphs.triplet_other]).sum(axis=1)
    np.testing.assert_allclose(graphs.cosine, expected, atol=1e-6)
    assert np.abs(graphs.cosine).max() <= 1


def test_every_ordered_pair_once(crystals: Crystals) -> None:
    graphs = build(crystals[::50], GraphSpec(angles=True))
    every = {
        (int(e), int(o))
        for node in range(int(graphs.node_ptr[-1]))
        for e in np.flatnonzero(graphs.target == node)
        for o in np.flatnonzero(graphs.target == node)
        if e != o
    }
    found = list(zip(graphs.triplet_edge.tolist(), graphs.triplet_other.tolist(), strict=True))
    assert len(found) == len(every)
    assert set(found) == every
    assert (np.diff(graphs.triplet_edge) >= 0).all()


def test_pointers_count_the_triplets_of_each_crystal(crystals: Crystals) -> None:
    few = crystals[::50]
    graphs = build(few, GraphSpec(neighbours="radius", cutoff=3.5, angles=True))
    for row in range(len(few)):
        alone = build(few[row : row + 1], graphs.spec)
        assert graphs.triplet_ptr[row + 1] - graphs.triplet_ptr[row] == len(alone.cosine)


def test_rock_salt_angles() -> None:
    cell = np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) * 2.82
    graphs = build(crystal(cell, [[0, 0, 0], [0.5, 0.5, 0.5]]), GraphSpec(k=6, angles=True))
    cosines, counts = np.unique(np.round(graphs.cosine, 5), return_counts=True)
    assert cosines.tolist() == [-1, 0]
    assert counts.tolist() == [2 * 6, 2 * 24]


def test_one_edge_has_no_angle() -> None:
    _, edge, other, cosine = triplets(np.zeros(1, np.int32), np.ones((1, 3)), 3)
    assert len(edge) == len(other) == len(cosine) == 0
