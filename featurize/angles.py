"""Angles between the bonds of an atom: the line graph, compiled.

Enters: edges grouped by target. Leaves: ordered pairs of edges that end at the same atom, with the cosine between them.
This module does not know how neighbours were chosen.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray


def triplets(
    target: NDArray[np.int32], vector: NDArray[np.floating], n_nodes: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Every ordered pair of different edges into the same atom.

    Args:
        target: (E,) atom at which each edge ends, ascending.
        vector: (E, 3) Å, from target to source; a zero vector has no angles, its cosines mean nothing.
        n_nodes: number of atoms.

    Returns:
        `edge` (T,) the edge that is updated, ascending, `other` (T,) the edge it sees, `cosine` (T,) in [-1, 1].
    """
    degree = np.bincount(target, minlength=n_nodes)
    total = int((degree * (degree - 1)).sum())
    edge, other, cosine = np.empty(total, np.int32), np.empty(total, np.int32), np.empty(total, np.float32)
    _fill(np.concatenate([[0], np.cumsum(degree)]), vector, edge, other, cosine)
    return edge, other, cosine


@njit(cache=True, nogil=True, error_model="numpy")
def _fill(start, vector, edge, other, cosine):  # type: ignore[no-untyped-def]
    unit = np.empty((3, len(vector)))
    for e in range(len(vector)):
        x, y, z = vector[e, 0], vector[e, 1], vector[e, 2]
        inverse = 1 / math.sqrt(x * x + y * y + z * z)
        unit[0, e], unit[1, e], unit[2, e] = x * inverse, y * inverse, z * inverse
    done = 0
    for v in range(len(start) - 1):
        for e in range(start[v], start[v + 1]):
            x, y, z = unit[0, e], unit[1, e], unit[2, e]
            for o in range(start[v], start[v + 1]):
                if o != e:
                    edge[done] = e
                    other[done] = o
                    cosine[done] = min(1.0, max(-1.0, x * unit[0, o] + y * unit[1, o] + z * unit[2, o]))
                    done += 1
