"""Angles between the bonds of an atom: the line graph, compiled.

Enters: edges grouped by target. Leaves: ordered pairs of edges that end at the same atom, with the
cosine between them. This module does not know how neighbours were chosen.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.featurize import threads as cores
from assay.featurize.threads import njit


def triplets(
    target: NDArray[np.int32], vector: NDArray[np.floating[Any]], n_nodes: int, threads: int = 1
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Every ordered pair of different edges into the same atom.

    Args:
        target: (E,) atom at which each edge ends, ascending.
        vector: (E, 3) Å, from target to source; a zero vector has no angles, its cosines mean
            nothing.
        n_nodes: number of atoms.
        threads: that share the atoms; the result is the same for any number.

    Returns:
        `pointer` (n_nodes + 1,) triplets of each atom, `edge` (T,) the edge that is updated,
            ascending, `other` (T,)
        the edge it sees, `cosine` (T,) in [-1, 1].
    """
    into, pointer = _pointers(target, n_nodes)
    unit = _directions(vector)
    total = pointer[-1]
    edge, other, cosine = np.empty(total, np.int32), np.empty(total, np.int32), np.empty(total, np.float32)

    def fill(first: int, last: int) -> None:
        _fill(first, last, into, pointer, unit, edge, other, cosine)

    cores.each(fill, cores.slices(pointer, threads))
    return pointer, edge, other, cosine


@njit(cache=True, nogil=True)
def _pointers(target, n_nodes):  # type: ignore[no-untyped-def]
    """Where the edges into each atom begin (N + 1,), and its triplets (N + 1,)."""
    into, pointer = np.zeros(n_nodes + 1, np.int64), np.zeros(n_nodes + 1, np.int64)
    for e in range(len(target)):
        into[target[e] + 1] += 1
    for v in range(n_nodes):
        pointer[v + 1] = pointer[v] + into[v + 1] * (into[v + 1] - 1)
        into[v + 1] += into[v]
    return into, pointer


@njit(cache=True, nogil=True, error_model="numpy")
def _directions(vector):  # type: ignore[no-untyped-def]
    """(3, E) unit vectors, a row for each component."""
    flat = vector.reshape(-1)  # one dimension, and one array written per loop: LLVM vectorises
    unit, inverse = np.empty((3, len(vector))), np.empty(len(vector))
    for e in range(len(inverse)):
        x, y, z = flat[3 * e], flat[3 * e + 1], flat[3 * e + 2]
        inverse[e] = 1 / math.sqrt(x * x + y * y + z * z)
    for axis in range(3):
        row = unit[axis]
        for e in range(len(inverse)):
            row[e] = flat[3 * e + axis] * inverse[e]
    return unit


@njit(cache=True, nogil=True)
def _fill(begin, end, into, pointer, unit, edge, other, cosine):  # type: ignore[no-untyped-def]
    """Write the triplets of atoms `begin` to `end`, an edge at a time."""
    for v in range(begin, end):
        first, n = into[v], into[v + 1] - into[v] - 1
        ux, uy, uz = unit[0, first : first + n + 1], unit[1, first : first + n + 1], unit[2, first : first + n + 1]
        for r in range(n + 1):
            done = pointer[v] + r * n
            x, y, z = ux[r], uy[r], uz[r]
            row = cosine[done : done + n]
            for o in range(n):
                before = x * ux[o] + y * uy[o] + z * uz[o]
                after = x * ux[o + 1] + y * uy[o + 1] + z * uz[o + 1]
                row[o] = min(1.0, max(-1.0, before if o < r else after))
            ends = edge[done : done + n]
            for o in range(n):
                ends[o] = first + r
            seen = other[done : done + n]
            for o in range(n):
                seen[o] = first + o + (o >= r)
