"""A key for every crystal: equal where an invariant network cannot tell two crystals apart, in whatever cell they came.

Enters: `Graphs`. Leaves: one number per crystal, made of the classes that `featurize.refinement` finds. This module
does not know where a crystal came from, nor which of two equal ones is to be kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from featurize.graphs import Graphs
from featurize.refinement import colours

TOLERANCE = 1e-3
"""Å, and the same number for cosines: values closer than this to the next are one value."""
GRAIN = 0.01
"""Å, to which lengths are rounded."""


def keys(graphs: Graphs, tolerance: float = TOLERANCE, grain: float = GRAIN) -> NDArray[np.uint64]:
    """(n,) the same number for crystals whose graphs are the same, whatever their cell, origin, axes or order of sites.

    Equal keys mean equal shares of each class of atoms, the same classes of bonds with the same lengths, and the same
    classes of angles where the graphs have them. A key sees no farther than its graph: with the 12 nearest atoms it is
    one of predictions (stackings of graphite layers share it), within 8 Å one of exact duplicates: the same entry in
    two files, a supercell, a mirror image. Two determinations of one crystal differ by more; `sources.identity` finds
    those. A length on the edge of a grain may be rounded either way, and its crystal then has two keys.

    Raises:
        ValueError: when the graphs are quotients, or `tolerance` or `grain` is not above 0.
    """
    if not grain > 0:
        raise ValueError(f"grain is {grain} Å, expected above 0")
    nodes, edges, _ = colours(graphs, tolerance)
    lengths = np.rint(graphs.distance / np.float64(grain)).astype(np.uint64)
    atoms, counts, atom_ptr = _classes(nodes, graphs.node_ptr)
    bonds, _, bond_ptr = _classes(edges ^ _stir(lengths), graphs.edge_ptr)
    if len(counts):  # a supercell has as many classes, of as many times more atoms
        counts //= np.repeat(np.gcd.reduceat(counts, atom_ptr[:-1]), np.diff(atom_ptr))
    return _total(_stir(atoms + counts.astype(np.uint64)), atom_ptr) + _total(_stir(bonds), bond_ptr)


def _classes(
    values: NDArray[np.uint64], pointer: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """The different values of each crystal, how often each occurs, and the pointer to those of each crystal."""
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
