"""A key for every crystal: equal where an invariant network cannot tell two crystals apart.

Enters: `Graphs`. Leaves: one number per crystal, made of the classes that
`assay.featurize.refinement` finds. This module does not know where a crystal came from, nor which
of two equal ones is to be kept.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from assay.featurize.graphs import Graphs
from assay.featurize.refinement import colours

TOLERANCE = 1e-3
"""Å: lengths closer than this to the next are one length, and atoms so close to a cutoff are beyond
it."""
GRAIN = 0.01
"""Å, to which lengths are rounded."""


def keys(graphs: Graphs, tolerance: float = TOLERANCE, grain: float = GRAIN) -> NDArray[np.uint64]:
    """(n,) keys: equal for crystals whose graphs are equal.

    The cell, the origin, the axes and the order of sites do not matter.

    Equal keys mean equal shares of each class of atoms and the same classes of bonds with the same
    lengths; angles are not looked at, and a mirror image has the key of the original. A key sees no
    farther than its graph: with the 12 nearest atoms it is one of predictions (stackings of
    graphite layers share it), within 8 Å one of crystals.

    It is a hash: numbers that differ by little may round apart. Descriptions of the same numbers
    keep their key, but of crystals whose coordinates were rounded to 6 decimals 7 % get another
    one, to 5 decimals half of them. Who looks for one crystal in several files or databases wants
    `assay.featurize.identity`.

    Raises:
        ValueError: when the graphs are quotients, the tolerance is below 1e-15, or the grain not
            above 0.
    """
    if not grain > 0:
        raise ValueError(f"grain is {grain} Å, expected above 0")
    bare = _without_angles(graphs, tolerance)
    nodes, edges, _ = colours(bare, tolerance)
    lengths = np.rint(bare.distance / np.float64(grain)).astype(np.uint64)
    atoms, counts, atom_ptr = _classes(nodes, bare.node_ptr)
    bonds, _, bond_ptr = _classes(edges ^ _stir(lengths), bare.edge_ptr)
    if len(counts):  # a supercell has as many classes, of as many times more atoms
        counts //= np.repeat(np.gcd.reduceat(counts, atom_ptr[:-1]), np.diff(atom_ptr))
    return _total(_stir(atoms + counts.astype(np.uint64)), atom_ptr) + _total(_stir(bonds), bond_ptr)


def _without_angles(graphs: Graphs, margin: float) -> Graphs:
    """The graphs without cosines and edges as long as the cutoff, which depend on rounding."""
    most = graphs.spec.cutoff - margin if graphs.spec.neighbours == "radius" else np.inf
    kept = np.flatnonzero(graphs.distance < most)
    none = np.empty(0, np.int32)
    return replace(
        graphs,
        edge_ptr=np.searchsorted(kept, graphs.edge_ptr).astype(np.int64),
        source=graphs.source[kept],
        target=graphs.target[kept],
        vector=graphs.vector[kept],
        distance=graphs.distance[kept],
        triplet_ptr=np.zeros_like(graphs.edge_ptr),
        triplet_edge=none,
        triplet_other=none,
        cosine=np.empty(0, np.float32),
    )


def _classes(
    values: NDArray[np.uint64], pointer: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """Different values of each crystal, how often each occurs, and the pointer to them."""
    owner = np.repeat(np.arange(len(pointer) - 1), np.diff(pointer))
    order = np.lexsort((values, owner))
    values = values[order]
    new = np.ones(len(values), bool)
    new[1:] = (values[1:] != values[:-1]) | (owner[1:] != owner[:-1])  # sorted by owner, so owner[order] is owner
    first = np.flatnonzero(new)
    ends = np.searchsorted(first, pointer)
    return values[first], np.diff(first, append=len(values)), ends


def _stir(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Every bit of a result depends on every bit of its value (splitmix64, Steele et al. 2014)."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _total(values: NDArray[np.uint64], pointer: NDArray[np.int64]) -> NDArray[np.uint64]:
    """(n,) sum of the values of each crystal, modulo 2^64."""
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values, dtype=np.uint64)])
    return np.asarray(sums[pointer[1:]] - sums[pointer[:-1]], np.uint64)
