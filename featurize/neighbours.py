"""Neighbour search in periodic cells, compiled, over a whole ragged batch at once.

Enters: lattices, fractional coordinates and pointers. Leaves: directed edges grouped by their target atom.
This module does not know species, features or networks.

The k-nearest search starts from the radius that holds about 1.6 (k + 1) atoms at the cell's mean density and grows
only where some atom found too few, so the result is exact. Each pair of atoms is visited once, and only the lattice
translations whose slab can reach the other atom are tried, which is exact for any cell shape.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

_GROWTH = 1.25
_OVERFLOW = -1

Edges = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]


def nearest(
    lattice: NDArray[np.float64],
    frac: NDArray[np.float64],
    site_ptr: NDArray[np.int64],
    k: int,
    tolerance: float,
) -> Edges:
    """Edges from the `k` nearest neighbours of every atom, with the whole shell tied with the k-th.

    A neighbour is kept when its distance is at most that of the k-th nearest plus `tolerance` (Å).

    Returns:
        `edge_ptr` (n + 1,) edges of each crystal, `source` (E,), `target` (E,) indices of atoms, ascending in target,
        `vector` (E, 3) Å from target to source, `distance` (E,) Å.
    """
    return _search(lattice, frac, site_ptr, k, tolerance, 0.0)


def within(
    lattice: NDArray[np.float64],
    frac: NDArray[np.float64],
    site_ptr: NDArray[np.int64],
    cutoff: float,
) -> Edges:
    """Edges from every neighbour closer than `cutoff` (Å), inclusive; same layout as `nearest`."""
    return _search(lattice, frac, site_ptr, 0, 0.0, cutoff)


def _search(
    lattice: NDArray[np.float64],
    frac: NDArray[np.float64],
    site_ptr: NDArray[np.int64],
    k: int,
    tolerance: float,
    cutoff: float,
) -> Edges:
    capacity = max(64, int(len(frac) * (k * 1.5 + 4)))
    while True:
        edges = np.empty(capacity, np.int32), np.empty(capacity, np.int32), np.empty((capacity, 3)), np.empty(capacity)
        edge_ptr = np.zeros(len(site_ptr), np.int64)
        found = _batch(lattice, frac, site_ptr, k, tolerance, cutoff, edge_ptr, *edges)
        if found != _OVERFLOW:
            return (edge_ptr, *(array[:found] for array in edges))  # type: ignore[return-value]
        capacity *= 2


@njit(cache=True, nogil=True)
def _batch(lattice, frac, site_ptr, k, tolerance, cutoff, edge_ptr, source, target, vector, distance):  # type: ignore[no-untyped-def]
    """Fill the edge arrays crystal by crystal; the number of edges, or -1 where they are too short."""
    room = 4096
    pair_i, pair_j = np.empty(room, np.int32), np.empty(room, np.int32)
    pair_v = np.empty((room, 4))
    done = 0
    for c in range(len(site_ptr) - 1):
        first, last = site_ptr[c], site_ptr[c + 1]
        n = last - first
        cell = lattice[c]
        heights = _heights(cell)
        volume = heights[3]
        position = _cartesian(cell, frac[first:last])
        radius = cutoff if k == 0 else (3 * 1.6 * (k + 1) * volume / (4 * math.pi * n)) ** (1 / 3)
        while True:
            pairs = _pairs(cell, heights, frac[first:last], position, radius, pair_i, pair_j, pair_v)
            if pairs > len(pair_i):
                room = max(pairs, 2 * room)
                pair_i, pair_j = np.empty(room, np.int32), np.empty(room, np.int32)
                pair_v = np.empty((room, 4))
                continue
            start, order = _group_by_target(n, pairs, pair_i, pair_j)
            bound = np.full(n, radius)
            if k > 0:
                _kth_distance(n, k, start, order, pair_v, bound)
                if bound.max() + tolerance > radius:
                    radius *= _GROWTH
                    continue
                bound += tolerance
            break
        done = _keep(first, start, order, pair_i, pair_j, pair_v, bound, done, source, target, vector, distance)
        if done == _OVERFLOW:
            return _OVERFLOW
        edge_ptr[c + 1] = done
    return done


@njit(cache=True, nogil=True)
def _keep(first, start, order, pair_i, pair_j, pair_v, bound, done, source, target, vector, distance):  # type: ignore[no-untyped-def]
    """Write the pairs within each atom's bound as edges from `done` on; the number of edges, or -1 without room."""
    for i in range(len(start) - 1):
        for slot in range(start[i], start[i + 1]):
            pair = order[slot] >> 1
            length = pair_v[pair, 3]
            if length > bound[i]:
                continue
            if done == len(source):
                return _OVERFLOW
            backward = order[slot] & 1
            sign = -1.0 if backward else 1.0
            source[done] = first + (pair_i[pair] if backward else pair_j[pair])
            target[done] = first + i
            for axis in range(3):
                vector[done, axis] = sign * pair_v[pair, axis]
            distance[done] = length
            done += 1
    return done


@njit(cache=True, nogil=True)
def _cartesian(cell, frac):  # type: ignore[no-untyped-def]
    """Positions in Å."""
    out = np.zeros_like(frac)
    for i in range(len(frac)):
        for axis in range(3):
            for component in range(3):
                out[i, component] += frac[i, axis] * cell[axis, component]
    return out


@njit(cache=True, nogil=True)
def _heights(cell):  # type: ignore[no-untyped-def]
    """Distances between opposite faces of the cell (Å), then its volume (Å^3)."""
    out = np.empty(4)
    for axis in range(3):
        u, v = cell[(axis + 1) % 3], cell[(axis + 2) % 3]
        x = u[1] * v[2] - u[2] * v[1]
        y = u[2] * v[0] - u[0] * v[2]
        z = u[0] * v[1] - u[1] * v[0]
        out[3] = abs(cell[axis, 0] * x + cell[axis, 1] * y + cell[axis, 2] * z)
        out[axis] = out[3] / math.sqrt(x * x + y * y + z * z)
    return out


@njit(cache=True, nogil=True)
def _pairs(cell, heights, frac, position, radius, pair_i, pair_j, pair_v):  # type: ignore[no-untyped-def]
    """Every pair i <= j and translation within `radius`, once; the number found, also beyond the buffers' length."""
    found = 0
    square = radius * radius
    reach_a, reach_b, reach_c = radius / heights[0], radius / heights[1], radius / heights[2]
    for i in range(len(frac)):
        for j in range(i, len(frac)):
            fa, fb, fc = frac[j, 0] - frac[i, 0], frac[j, 1] - frac[i, 1], frac[j, 2] - frac[i, 2]
            x0, y0, z0 = (
                position[j, 0] - position[i, 0],
                position[j, 1] - position[i, 1],
                position[j, 2] - position[i, 2],
            )
            b_low, b_high = math.ceil(-reach_b - fb), math.floor(reach_b - fb)
            c_low, c_high = math.ceil(-reach_c - fc), math.floor(reach_c - fc)
            for a in range(math.ceil(-reach_a - fa), math.floor(reach_a - fa) + 1):
                xa, ya, za = x0 + a * cell[0, 0], y0 + a * cell[0, 1], z0 + a * cell[0, 2]
                for b in range(b_low, b_high + 1):
                    xb, yb, zb = xa + b * cell[1, 0], ya + b * cell[1, 1], za + b * cell[1, 2]
                    for c in range(c_low, c_high + 1):
                        x, y, z = xb + c * cell[2, 0], yb + c * cell[2, 1], zb + c * cell[2, 2]
                        d2 = x * x + y * y + z * z
                        if d2 > square or (i == j and a == 0 and b == 0 and c == 0):
                            continue
                        if found < len(pair_i):
                            pair_i[found], pair_j[found] = i, j
                            pair_v[found, 0], pair_v[found, 1], pair_v[found, 2] = x, y, z
                            pair_v[found, 3] = math.sqrt(d2)
                        found += 1
    return found


@njit(cache=True, nogil=True)
def _group_by_target(n, pairs, pair_i, pair_j):  # type: ignore[no-untyped-def]
    """Counting sort of both directions of every pair by target; an entry is 2 * pair, plus 1 for j <- i."""
    start = np.zeros(n + 1, np.int64)
    for p in range(pairs):
        start[pair_i[p] + 1] += 1
        if pair_i[p] != pair_j[p]:  # an atom and its own image: both translations are in the list already
            start[pair_j[p] + 1] += 1
    for i in range(n):
        start[i + 1] += start[i]
    fill = start[:-1].copy()
    order = np.empty(start[n], np.int64)
    for p in range(pairs):
        i, j = pair_i[p], pair_j[p]
        order[fill[i]] = 2 * p
        fill[i] += 1
        if i != j:
            order[fill[j]] = 2 * p + 1
            fill[j] += 1
    return start, order


@njit(cache=True, nogil=True)
def _kth_distance(n, k, start, order, pair_v, bound):  # type: ignore[no-untyped-def]
    """Write the distance of each atom's k-th neighbour to `bound`; infinity where it has fewer."""
    best = np.empty(k)
    for i in range(n):
        best[:] = np.inf
        for slot in range(start[i], start[i + 1]):
            length = pair_v[order[slot] >> 1, 3]
            if length >= best[k - 1]:
                continue
            place = k - 1
            while place > 0 and best[place - 1] > length:
                best[place] = best[place - 1]
                place -= 1
            best[place] = length
        bound[i] = best[k - 1]
