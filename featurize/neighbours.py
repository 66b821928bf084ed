"""Neighbour search in periodic cells, compiled, over a whole ragged batch at once.

Enters: lattices, fractional coordinates and pointers. Leaves: directed edges grouped by their
target atom. This module does not know species, features or networks.

The k-nearest search starts from the radius that holds about 1.5 (k + 1) atoms at the cell's mean
density and grows only where some atom found too few, so the result is exact. All images of atoms
that can lie within the radius of any atom are listed once per crystal, for any cell shape; an atom
then measures those of itself and of later atoms in one long loop, which compilers turn into vector
instructions, and every pair found serves both of its atoms.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from assay.featurize import threads as cores
from assay.featurize.threads import njit

ABUNDANCE = 1.5
_GROWTH = 1.1
"""Fewer atoms to begin with, or smaller steps, mean more searches in vain; more mean longer lists
(docs/log.md)."""
_DONE, _EDGES, _IMAGES, _NEIGHBOURS = range(4)
"""What the compiled loop came back for: nothing, or one of three arrays that is too short."""

Edges = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32], NDArray[Any], NDArray[Any]]


class _Space(NamedTuple):
    """Arrays for one crystal of at most `a` atoms with `m` neighbours each, and `g` images."""

    image: NDArray[np.float64]
    """(6, g) Å, x, y, z of the atom in its cell; then the translation in cells along a, b, c."""
    atom: NDArray[np.int32]
    """(g,) atom an image is of, ascending."""
    square: NDArray[np.float64]
    """(g,) Å^2, squared distances from the atom that is measuring."""
    hit: NDArray[np.int32]
    """(max(g, m) + 1,) positions that passed a test."""
    begin: NDArray[np.int64]
    """(a,) first image of each atom."""
    home: NDArray[np.int64]
    """(a,) image of each atom that is the atom itself."""
    position: NDArray[np.float64]
    """(a, 3) Å."""
    met: NDArray[np.int64]
    """(a,) neighbours found so far."""
    bound: NDArray[np.float64]
    """(a,) Å, largest distance that is kept."""
    length: NDArray[np.float64]
    """(a, m) Å."""
    which: NDArray[np.int32]
    """(a, m) image the neighbour was met as: its own, or the atom's own where the neighbour came
    first."""
    other: NDArray[np.int32]
    """(a, m) the neighbour, ascending."""


def nearest(
    lattice: NDArray[np.float64],
    frac: NDArray[np.float64],
    site_ptr: NDArray[np.int64],
    k: int,
    tolerance: float,
    *,
    dtype: DTypeLike = np.float64,
    threads: int = 1,
) -> Edges:
    """Edges from the `k` nearest neighbours of every atom, with the whole shell tied with the k-th.

    A neighbour is kept when its distance is at most that of the k-th nearest plus `tolerance` (Å).

    Returns:
        `edge_ptr` (n + 1,), the edges of each crystal; `source` (E,) and `target` (E,), indices of
        atoms, ascending in target; `vector` (E, 3) Å from target to source and `distance` (E,) Å,
        both computed in float64 and kept as `dtype`. The number of threads changes no byte.
    """
    return _search(lattice, frac, site_ptr, (k, tolerance, 0.0), dtype, threads)


def within(
    lattice: NDArray[np.float64],
    frac: NDArray[np.float64],
    site_ptr: NDArray[np.int64],
    cutoff: float,
    *,
    dtype: DTypeLike = np.float64,
    threads: int = 1,
) -> Edges:
    """Edges from every neighbour closer than `cutoff` (Å), inclusive; same layout as `nearest`."""
    return _search(lattice, frac, site_ptr, (0, 0.0, cutoff), dtype, threads)


def _search(
    lattice: NDArray[np.float64],
    frac: NDArray[np.float64],
    site_ptr: NDArray[np.int64],
    rule: tuple[int, float, float],
    dtype: DTypeLike,
    threads: int,
) -> Edges:
    def some(first: int, last: int) -> Edges:
        return _slice(lattice[first:last], frac, site_ptr[first : last + 1], rule, dtype)

    parts = cores.each(some, cores.slices(site_ptr, threads))
    if len(parts) == 1:
        return parts[0]
    pointers, *edges = zip(*parts, strict=True)
    counts = np.concatenate([np.diff(pointer) for pointer in pointers])
    source, target, vector, distance = (np.concatenate(arrays) for arrays in edges)
    return np.concatenate([[0], np.cumsum(counts)]), source, target, vector, distance


def _slice(
    lattice: NDArray[np.float64],
    frac: NDArray[np.float64],
    site_ptr: NDArray[np.int64],
    rule: tuple[int, float, float],
    dtype: DTypeLike,
) -> Edges:
    """Edges of consecutive crystals; an array that is too short grows, and the loop goes on."""
    k = rule[0]
    atoms, images, neighbours = int(np.diff(site_ptr).max(initial=1)), 1_000, max(64, 3 * k)
    space = _space(atoms, images, neighbours)
    room = max(64, int((site_ptr[-1] - site_ptr[0]) * (k * 1.25 + 2)))
    edges: tuple[NDArray[Any], ...] = (
        *(np.empty(room, np.int32), np.empty(room, np.int32)),
        *(np.empty((room, 3), dtype), np.empty(room, dtype)),
    )
    edge_ptr = np.zeros(len(site_ptr), np.int64)
    row, lack, need = 0, _EDGES, 0
    while lack != _DONE:
        row, lack, need = _batch(row, lattice, frac, site_ptr, *rule, tuple(space), edge_ptr, *edges)
        if lack == _EDGES:
            edges = tuple(_longer(array, edge_ptr[row], need) for array in edges)
        elif lack == _IMAGES:
            images = max(2 * images, need)
        elif lack == _NEIGHBOURS:
            neighbours *= 2
        if lack in (_IMAGES, _NEIGHBOURS):
            space = _space(atoms, images, neighbours)
    source, target, vector, distance = (array[: edge_ptr[-1]] for array in edges)
    return edge_ptr, source, target, vector, distance


def _space(atoms: int, images: int, neighbours: int) -> _Space:
    return _Space(
        image=np.empty((6, images)),
        atom=np.empty(images, np.int32),
        square=np.empty(images),
        hit=np.empty(max(images, neighbours) + 1, np.int32),
        begin=np.empty(atoms, np.int64),
        home=np.empty(atoms, np.int64),
        position=np.empty((atoms, 3)),
        met=np.empty(atoms, np.int64),
        bound=np.empty(atoms),
        length=np.empty((atoms, neighbours)),
        which=np.empty((atoms, neighbours), np.int32),
        other=np.empty((atoms, neighbours), np.int32),
    )


def _longer(array: NDArray[Any], used: int, need: int) -> NDArray[Any]:
    """The first rows of `array` in one at least twice as long."""
    out = np.empty((2 * len(array) + need, *array.shape[1:]), array.dtype)
    out[:used] = array[:used]
    return out


@njit(cache=True, nogil=True)
def _batch(row, lattice, frac, site_ptr, k, tolerance, cutoff, arrays, edge_ptr, source, target, vector, distance):  # type: ignore[no-untyped-def]
    """Fill the edge arrays from crystal `row` on, as far as all arrays are long enough.

    Returns the crystal it came to, the array that is too short there, and the length it needs.
    """
    space = _Space(*arrays)  # made here: numba takes 0.15 ms to find the type of a named tuple, 2 µs for a plain one
    for c in range(row, len(site_ptr) - 1):
        first, last = site_ptr[c], site_ptr[c + 1]
        n = last - first
        cell = lattice[c]
        heights = _heights(cell)
        _cartesian(cell, frac[first:last], space.position)
        radius = cutoff if k == 0 else (3 * ABUNDANCE * (k + 1) * heights[3] / (4 * math.pi * n)) ** (1 / 3)
        while True:
            images = _images(frac[first:last], heights, radius, space)
            if images > len(space.atom):
                return c, _IMAGES, images
            if not _meet(n, images, cell, radius, space):
                return c, _NEIGHBOURS, 0
            if _bounds(n, k, tolerance, radius, space):
                break
            radius *= _GROWTH
        found = 0
        for i in range(n):
            found += space.met[i]
        if edge_ptr[c] + found > len(source):
            return c, _EDGES, found
        edge_ptr[c + 1] = _write(n, first, cell, space, edge_ptr[c], source, target, vector, distance)
    return len(site_ptr) - 1, _DONE, 0


@njit(cache=True, nogil=True)
def _cartesian(cell, frac, out):  # type: ignore[no-untyped-def]
    """Positions in Å."""
    for i in range(len(frac)):
        a, b, c = frac[i, 0], frac[i, 1], frac[i, 2]
        for axis in range(3):
            out[i, axis] = 0.0 + a * cell[0, axis] + b * cell[1, axis] + c * cell[2, axis]  # 0.0 +: never -0.0


@njit(cache=True, nogil=True)
def _heights(cell):  # type: ignore[no-untyped-def]
    """Distances between opposite faces of the cell (Å), then its volume (Å^3)."""
    ax, ay, az, bx, by, bz, cx, cy, cz = cell.flat
    ux, uy, uz = by * cz - bz * cy, bz * cx - bx * cz, bx * cy - by * cx
    vx, vy, vz = cy * az - cz * ay, cz * ax - cx * az, cx * ay - cy * ax
    wx, wy, wz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    volume = abs(ax * ux + ay * uy + az * uz)
    bc, ca, ab = ux * ux + uy * uy + uz * uz, vx * vx + vy * vy + vz * vz, wx * wx + wy * wy + wz * wz
    return volume / math.sqrt(bc), volume / math.sqrt(ca), volume / math.sqrt(ab), volume


@njit(cache=True, nogil=True)
def _reach(frac, axis, margin):  # type: ignore[no-untyped-def]
    """Lowest and highest place along an axis that is within `margin` of an atom; all in cells."""
    low = high = frac[0, axis]
    for i in range(1, len(frac)):
        low, high = min(low, frac[i, axis]), max(high, frac[i, axis])
    return low - margin, high + margin


@njit(cache=True, nogil=True)
def _images(frac, heights, radius, space):  # type: ignore[no-untyped-def]
    """List the images between planes `radius` (Å) outside of all atoms; returns their number.

    If there may be more than the arrays hold, nothing is listed, and the bound is returned.
    """
    beyond = 1e-9  # rounding must not lose an image: its distance decides
    a_from, a_to = _reach(frac, 0, radius / heights[0] + beyond)
    b_from, b_to = _reach(frac, 1, radius / heights[1] + beyond)
    c_from, c_to = _reach(frac, 2, radius / heights[2] + beyond)
    most = math.floor(a_to - a_from + 1) * math.floor(b_to - b_from + 1) * math.floor(c_to - c_from + 1) * len(frac)
    if most > len(space.atom):
        return int(most)
    image, atom = space.image, space.atom
    g = 0
    for s in range(len(frac)):
        x, y, z = space.position[s, 0], space.position[s, 1], space.position[s, 2]
        a_low, a_high = math.ceil(a_from - frac[s, 0]), math.floor(a_to - frac[s, 0])
        b_low, b_high = math.ceil(b_from - frac[s, 1]), math.floor(b_to - frac[s, 1])
        c_low, c_high = math.ceil(c_from - frac[s, 2]), math.floor(c_to - frac[s, 2])
        space.begin[s] = g
        space.home[s] = g - (a_low * (b_high - b_low + 1) + b_low) * (c_high - c_low + 1) - c_low
        for a in range(a_low, a_high + 1):
            for b in range(b_low, b_high + 1):
                for c in range(c_low, c_high + 1):
                    atom[g] = s
                    image[0, g], image[1, g], image[2, g] = x, y, z
                    image[3, g], image[4, g], image[5, g] = a, b, c
                    g += 1
    return g


@njit(cache=True, nogil=True)
def _meet(n, images, cell, radius, space):  # type: ignore[no-untyped-def]
    """Note every pair of atoms within `radius` (Å) at both atoms; False where lists are short.

    The neighbours of an atom come in their own order.

    An atom measures its own images and those of later atoms. With its own it meets every
    translation and its opposite; they are two neighbours, and the atom is at the other end of both.
    """
    length, which, other, met = space.length, space.which, space.other, space.met
    room = length.shape[1]
    met[:n] = 0
    for i in range(n):
        first = space.begin[i]
        square = space.square[first:images]
        _measure(i, first, images, cell, space.position, space.image, square)
        square[space.home[i] - first] = np.inf
        found = _passing(square, radius * radius, space.hit)
        here = met[i]
        if here + found > room:
            return False
        for h in range(found):
            g = first + space.hit[h]
            j = space.atom[g]
            distance = math.sqrt(space.square[g])
            length[i, here], which[i, here], other[i, here] = distance, g, j
            here += 1
            if j != i:
                there = met[j]
                if there == room:
                    return False
                length[j, there], which[j, there], other[j, there] = distance, g, i
                met[j] = there + 1
        met[i] = here
    return True


@njit(cache=True, nogil=True)
def _measure(i, first, last, cell, position, image, square):  # type: ignore[no-untyped-def]
    """Squared distances (Å^2) of some images from atom i.

    The order of the sums is that of `_write`. Slices that begin at 0 and the one array that is
    written let LLVM see that it may vectorise: 5 times as fast.
    """
    px, py, pz = position[i, 0], position[i, 1], position[i, 2]
    x, y, z = image[0, first:last], image[1, first:last], image[2, first:last]
    a, b, c = image[3, first:last], image[4, first:last], image[5, first:last]
    for g in range(len(square)):
        u = x[g] - px + a[g] * cell[0, 0] + b[g] * cell[1, 0] + c[g] * cell[2, 0]
        v = y[g] - py + a[g] * cell[0, 1] + b[g] * cell[1, 1] + c[g] * cell[2, 1]
        w = z[g] - pz + a[g] * cell[0, 2] + b[g] * cell[1, 2] + c[g] * cell[2, 2]
        square[g] = u * u + v * v + w * w


@njit(cache=True, nogil=True)
def _passing(values, bound, hit):  # type: ignore[no-untyped-def]
    """Write where values are up to `bound`, without a branch, to `hit`; returns their number."""
    found = 0
    for k in range(len(values)):
        hit[found] = k
        found += values[k] <= bound
    return found


@njit(cache=True, nogil=True)
def _bounds(n, k, tolerance, radius, space):  # type: ignore[no-untyped-def]
    """Set how far (Å) each atom keeps neighbours; False where `radius` is too short for one."""
    space.bound[:n] = radius
    if k == 0:
        return True
    for i in range(n):
        if space.met[i] < k:
            return False
        space.bound[i] = _smallest(space.length[i, : space.met[i]], k) + tolerance
        if space.bound[i] > radius:
            return False
    return True


@njit(cache=True, nogil=True)
def _smallest(values, k):  # type: ignore[no-untyped-def]
    """The k-th smallest of at least k values from 0 on: the largest with fewer than k below it.

    With some twenty values, comparing all with all in vector instructions is 4 times as fast as
    keeping k in order.
    """
    largest = 0.0
    for p in range(len(values)):
        below = 0
        for q in range(len(values)):
            below += values[q] < values[p]
        candidate = values[p] if below < k else 0.0
        largest = max(largest, candidate)
    return largest


@njit(cache=True, nogil=True)
def _write(n, start, cell, space, done, source, target, vector, distance):  # type: ignore[no-untyped-def]
    """Write the neighbours within each atom's bound as edges from `done` on; returns their end."""
    image, position = space.image, space.position
    for i in range(n):
        length, which, other = space.length[i], space.which[i], space.other[i]
        kept = _passing(length[: space.met[i]], space.bound[i], space.hit)
        for h in range(kept):
            m = space.hit[h]
            g, j = which[m], other[m]
            first = min(i, j)  # of the two, the one that measured
            sign = -1.0 if j < i else 1.0
            a, b, c = image[3, g], image[4, g], image[5, g]
            x, y, z = image[0, g], image[1, g], image[2, g]
            px, py, pz = position[first, 0], position[first, 1], position[first, 2]
            vector[done, 0] = sign * (x - px + a * cell[0, 0] + b * cell[1, 0] + c * cell[2, 0])
            vector[done, 1] = sign * (y - py + a * cell[0, 1] + b * cell[1, 1] + c * cell[2, 1])
            vector[done, 2] = sign * (z - pz + a * cell[0, 2] + b * cell[1, 2] + c * cell[2, 2])
            source[done], target[done], distance[done] = start + j, start + i, length[m]
            done += 1
    return done


@njit(cache=True, nogil=True)
def kth(target, distance, count, k):  # type: ignore[no-untyped-def]
    """(E,) Å, the k-th distance at each edge's target, where edge e stands for `count[e]` edges."""
    out, first = np.empty_like(distance), 0
    for last in range(1, len(target) + 1):
        if last == len(target) or target[last] != target[first]:
            largest = np.float32(0)
            for p in range(first, last):
                below = np.float32(0)
                for q in range(first, last if distance[p] > largest else first):  # a smaller one cannot be the k-th
                    below += count[q] if distance[q] < distance[p] else np.float32(0)
                if below < k:
                    largest = max(largest, distance[p])
            out[first:last], first = largest, last
    return out
