"""Crystals made for tests of geometry, and what an atom sees around it, independent of how the cell was written."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.sources.crystals import Crystals, wrap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from assay.featurize.graphs import Graphs


def crystal(lattice: Any, frac: Any, numbers: Any = None) -> Crystals:
    """One ordered crystal; hydrogen where `numbers` is not given."""
    frac = wrap(np.asarray(frac, dtype=np.float64).reshape(-1, 3))
    n = len(frac)
    numbers = np.ones(n, np.uint8) if numbers is None else np.asarray(numbers, np.uint8)
    cell = np.asarray(lattice, dtype=np.float64).reshape(1, 3, 3)
    pointer = np.arange(n + 1)
    return Crystals(np.array(["test/1"]), cell, np.array([0, n]), frac, pointer, numbers, np.ones(n, np.float32))


def random_crystal(seed: int) -> Crystals:
    """A crystal of 1 to 6 atoms: a general cell, or a symmetric one in which many distances are tied."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 7))
    numbers = rng.integers(1, 90, n)
    if rng.random() < 0.5:
        lattice = np.diag(rng.uniform(3, 8, 3)) + rng.uniform(-1.5, 1.5, (3, 3))
        return crystal(lattice, rng.random((n, 3)), numbers)
    places = np.array(list(itertools.product([0, 0.25, 0.5, 0.75], repeat=3)))
    frac = places[rng.choice(len(places), n, replace=False)]
    edges = rng.uniform(3, 8, 3) if rng.random() < 0.3 else np.full(3, rng.uniform(3, 8))
    return crystal(np.diag(edges), frac, numbers)


def random_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """A rotation or rotoreflection."""
    return np.linalg.qr(rng.normal(size=(3, 3)))[0]


def random_cell_change(rng: np.random.Generator) -> NDArray[np.int64]:
    """An integer matrix of determinant 1, -1 or up to 3 in size: another cell, or a small supercell."""
    while True:
        matrix = rng.integers(-2, 3, (3, 3))
        if 1 <= abs(round(float(np.linalg.det(matrix)))) <= 3:
            return matrix


def with_cell(one: Crystals, matrix: NDArray[np.int64]) -> tuple[Crystals, NDArray[np.int64]]:
    """The same crystal in the cell `matrix @ lattice`, and the old site of every new one."""
    inverse = np.linalg.inv(matrix)
    reach = range(-int(np.abs(matrix).sum()) - 1, int(np.abs(matrix).sum()) + 2)
    points = np.array(list(itertools.product(reach, repeat=3))) @ inverse
    inside = ((points > -1e-9) & (points < 1 - 1e-9)).all(axis=1)
    assert inside.sum() == abs(round(float(np.linalg.det(matrix))))
    frac = (one.frac @ inverse)[:, None, :] + points[inside][None, :, :]
    old = np.repeat(np.arange(len(one.frac)), inside.sum())
    return crystal(matrix @ one.lattice[0], frac, one.numbers[old]), old


def environments(graphs: Graphs) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Sorted distances to the neighbours of every node, and the sorted cosines between its edges."""
    nodes = range(int(graphs.node_ptr[-1]))
    centre = graphs.target[graphs.triplet_edge]
    return [(np.sort(graphs.distance[graphs.target == v]), np.sort(graphs.cosine[centre == v])) for v in nodes]


def assert_same_environments(left: Graphs, right: Graphs, match: NDArray[Any] | None = None) -> None:
    """Node i of `right` sees what node `match[i]` of `left` sees."""
    seen, expected = environments(right), environments(left)
    match = np.arange(len(expected)) if match is None else match
    assert len(seen) == len(match)
    for (distances, cosines), source in zip(seen, match, strict=True):
        assert len(distances) == len(expected[source][0])
        np.testing.assert_allclose(distances, expected[source][0], atol=1e-5)
        np.testing.assert_allclose(cosines, expected[source][1], atol=1e-5)
