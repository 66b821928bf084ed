"""The mapping of one crystal on another, compiled: the lattice first, then the sites.

Enters: two cells of `assay.featurize.identity.cells` with one composition and as many sites.
Leaves: how far the second must be strained and its sites moved to be the first. This module does
not know what is near enough to be the same crystal.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from assay.featurize.identity.cells import Cells, determinant, length2, rarest
from assay.featurize.threads import njit

REACH = 2
"""Vectors of the second cell are sums of up to so many of its shortest ones."""
TOLERANCE, OWN_STRAIN = 0.1, 0.015
"""Å and largest strain, to which an operation must lay a crystal on itself to be its symmetry."""
KEPT, BROKEN = 0.03, 0.1
"""Changes of a strain under an operation, relative to the strain: up to the first the strain keeps
the operation, beyond the second it breaks it."""
NOTHING, EVERYTHING, SOMETHING, PARENT = range(4)


class Mapping(NamedTuple):
    """How one crystal lies on another, at one volume."""

    displacement: float
    """Farthest that a site moves, in units of (V / sites)^(1/3), the mean step left out."""
    strain: float
    """Largest principal logarithmic strain of the lattice."""
    proper: bool
    """Whether a rotation leads from one to the other; False where only a mirror image does."""


def between(
    cells: Cells,
    one: NDArray[np.int64],
    others: Cells,
    other: NDArray[np.int64],
    bounds: tuple[float, float, float],
    small: float = np.inf,
) -> NDArray[np.float64]:
    """(m, 4) displacement, strain, 1.0 if proper, and what the strain breaks, of each pair of rows.

    The numbers are infinite where there is no mapping. What the strain breaks is one of `NOTHING`,
    `EVERYTHING` and `SOMETHING` of the symmetry that the crystals have to within 0.1 Å; `PARENT` is
    `SOMETHING` where the lattice of one of them has all that is broken. A strain up to `small`
    breaks nothing.

    `bounds` are the largest relative difference of vectors, displacement and difference of angles
    in degrees. Of several mappings it is the one that moves least: the larger of the displacement
    and of what the strain moves the end of the cell.
    """
    out = np.empty((len(one), 4))
    length, displacement, angle = bounds
    _pairs(
        tuple(cells.__dict__[n] for n in _FIELDS),
        one,
        tuple(others.__dict__[n] for n in _FIELDS),
        other,
        length,
        displacement,
        math.radians(angle),
        small,
        out,
    )
    return out


_FIELDS = "basis", "frac", "kind", "pointer", "unit"


@njit(cache=True, nogil=True)
def _pairs(cells, one, others, other, length, displacement, angle, small, out):  # type: ignore[no-untyped-def]
    basis, frac, kind, pointer, unit = cells
    for p in range(len(one)):
        i, j = one[p], other[p]
        a, b, c, d = pointer[i], pointer[i + 1], others[3][j], others[3][j + 1]
        out[p] = np.inf
        if b - a == d - c and b > a:
            found, lattice = _map(
                basis[i], frac[a:b], kind[a:b], others[0][j], others[1][c:d], length, displacement, angle
            )
            out[p, :3] = found
            out[p, 3] = NOTHING
            if small < found[1] < np.inf:
                most = TOLERANCE / unit[i]
                out[p, 3] = _broken(basis[i], frac[a:b], kind[a:b], lattice, found[1], small, most)
                if out[p, 3] == SOMETHING:
                    back, lattice = _map(
                        others[0][j], others[1][c:d], kind[a:b], basis[i], frac[a:b], length, displacement, angle
                    )
                    if back[1] < np.inf:
                        seen = _broken(others[0][j], others[1][c:d], kind[a:b], lattice, back[1], small, most)
                        out[p, 3] = PARENT if seen == PARENT else SOMETHING


@njit(cache=True, nogil=True)
def _map(cell, frac, kind, other, places, length, displacement, angle):  # type: ignore[no-untyped-def]
    """The best mapping of one pair of cells, a proper one if there is any, and its lattice."""
    vectors, steps, norms = _vectors(other)
    found, lattice = np.full(3, np.inf), cell
    for hand in (1.0, -1.0):
        lattices, strains = _lattices(cell, vectors, steps, norms, length, angle, hand)
        order = np.argsort(strains, kind="mergesort")
        best = np.inf
        for r in order:
            end = strains[r] * len(frac) ** (1 / 3)
            if end >= best:
                break
            moved = _sites(cell, frac, kind, places @ np.linalg.inv(lattices[r]), displacement)
            if moved <= displacement and max(moved, end) < best:
                best = max(moved, end)
                found[0], found[1], found[2] = moved, strains[r], 1.0 if hand > 0 else 0.0
                lattice = lattices[r] @ other
        if best < np.inf:
            break
    return found, lattice


@njit(cache=True, nogil=True)
def _broken(cell, frac, kind, lattice, size, small, tolerance):  # type: ignore[no-untyped-def]
    """What a strain from the lattice of a cell to another one breaks of its symmetry."""
    inverse = np.linalg.inv(cell)
    gradient = inverse @ lattice
    squares, axes = np.linalg.eigh(gradient @ gradient.T)
    logarithms = 0.5 * np.log(squares)
    strain = (axes * (logarithms - logarithms.mean())) @ axes.T
    vectors, steps, norms = _vectors(cell)
    broken = kept = False
    own = 0.0
    for hand in (1.0, -1.0):
        lattices, strains = _lattices(cell, vectors, steps, norms, 2 * OWN_STRAIN, 4 * OWN_STRAIN, hand)
        for r in range(len(lattices)):
            turn = inverse @ lattices[r] @ cell
            if strains[r] > OWN_STRAIN or abs(abs(turn[0, 0] + turn[1, 1] + turn[2, 2]) - 3) < 1e-6:
                continue
            change = np.abs(turn @ strain @ turn.T - strain).max()
            keeps, breaks = change <= KEPT * size, change > max(small, BROKEN * size)
            if (not keeps or kept) and (not breaks or (broken and strains[r] <= own)):
                continue
            if _sites(cell, frac, kind, frac @ np.linalg.inv(lattices[r]), tolerance) <= tolerance:
                kept, broken = kept or keeps, broken or breaks
                own = max(own, strains[r]) if breaks else own
    if broken and kept:
        return PARENT if own <= 2 * small else SOMETHING
    return EVERYTHING if broken else NOTHING


@njit(cache=True, nogil=True)
def _vectors(cell):  # type: ignore[no-untyped-def]
    """Short vectors of a lattice, their whole numbers, their lengths."""
    size = (2 * REACH + 1) ** 3
    vectors, steps, norms = np.empty((size, 3)), np.empty((size, 3)), np.empty(size)
    k = 0
    for x in range(-REACH, REACH + 1):
        for y in range(-REACH, REACH + 1):
            for z in range(-REACH, REACH + 1):
                steps[k, 0], steps[k, 1], steps[k, 2] = x, y, z
                for axis in range(3):
                    vectors[k, axis] = x * cell[0, axis] + y * cell[1, axis] + z * cell[2, axis]
                norms[k] = math.sqrt(vectors[k, 0] ** 2 + vectors[k, 1] ** 2 + vectors[k, 2] ** 2)
                k += 1
    return vectors, steps, norms


@njit(cache=True, nogil=True)
def _angle(one, other, product):  # type: ignore[no-untyped-def]
    dot = (one[0] * other[0] + one[1] * other[1] + one[2] * other[2]) / product
    return math.acos(min(1.0, max(-1.0, dot)))


@njit(cache=True, nogil=True)
def _lattices(cell, vectors, steps, norms, length, angle, hand):  # type: ignore[no-untyped-def]
    """(m, 3, 3) whole numbers that make the second cell like the first, and the strains (m,)."""
    size = np.sqrt((cell * cell).sum(axis=1))
    angles = (
        _angle(cell[0], cell[1], size[0] * size[1]),
        _angle(cell[0], cell[2], size[0] * size[2]),
        _angle(cell[1], cell[2], size[1] * size[2]),
    )
    near = np.empty((3, len(norms)), np.int64)
    count = np.zeros(3, np.int64)
    for k in range(len(norms)):
        for axis in range(3):
            if abs(norms[k] - size[axis]) <= length * size[axis]:
                near[axis, count[axis]] = k
                count[axis] += 1
    room = 64
    out, strains, m = np.empty((room, 3, 3)), np.empty(room), 0
    inverse = np.linalg.inv(cell)
    trial = np.empty((3, 3))
    for i in near[0, : count[0]]:
        for j in near[1, : count[1]]:
            if abs(_angle(vectors[i], vectors[j], norms[i] * norms[j]) - angles[0]) > angle:
                continue
            for k in near[2, : count[2]]:
                trial[0], trial[1], trial[2] = steps[i], steps[j], steps[k]
                if determinant(trial) != hand:
                    continue
                if abs(_angle(vectors[i], vectors[k], norms[i] * norms[k]) - angles[1]) > angle:
                    continue
                if abs(_angle(vectors[j], vectors[k], norms[j] * norms[k]) - angles[2]) > angle:
                    continue
                if m == room:
                    room *= 2
                    out, strains = _twice(out), _twice1(strains)
                out[m] = trial
                trial[0], trial[1], trial[2] = vectors[i], vectors[j], vectors[k]
                strains[m] = principal(inverse @ trial)
                m += 1
    return out[:m], strains[:m]


@njit(cache=True, nogil=True)
def _twice(array):  # type: ignore[no-untyped-def]
    out = np.empty((2 * len(array), 3, 3))
    out[: len(array)] = array
    return out


@njit(cache=True, nogil=True)
def _twice1(array):  # type: ignore[no-untyped-def]
    out = np.empty(2 * len(array))
    out[: len(array)] = array
    return out


@njit(cache=True, nogil=True)
def principal(gradient):  # type: ignore[no-untyped-def]
    """Largest principal logarithmic strain of a deformation, the change of volume left out."""
    squares = np.linalg.eigvalsh(gradient @ gradient.T)
    a, b, c = 0.5 * math.log(squares[0]), 0.5 * math.log(squares[1]), 0.5 * math.log(squares[2])
    mean = (a + b + c) / 3
    return max(c - mean, mean - a)


@njit(cache=True, nogil=True)
def _sites(cell, frac, kind, places, most):  # type: ignore[no-untyped-def]
    """Farthest step of a site, the mean step left out, over all shifts of the second crystal."""
    first, size = rarest(kind)
    least = np.inf
    steps = np.empty((len(kind), 3))
    shift = np.empty(3)
    for k in range(first, first + size):
        for axis in range(3):
            shift[axis] = places[k, axis] - frac[first, axis]
        if not _paired(cell, frac, kind, places, shift, 4 * most * most, steps):
            continue
        for axis in range(3):
            shift[axis] += steps[:, axis].mean()
        if not _paired(cell, frac, kind, places, shift, 4 * most * most, steps):
            continue
        farthest = 0.0
        for i in range(len(kind)):
            farthest = max(farthest, length2(cell, steps[i, 0], steps[i, 1], steps[i, 2]))
        least = min(least, math.sqrt(farthest))
        if least < 1e-3:
            break
    return least


@njit(cache=True, nogil=True)
def _paired(cell, frac, kind, places, shift, square, steps):  # type: ignore[no-untyped-def]
    """Steps from each site to the nearest of the second crystal; False if too far or shared."""
    n = len(kind)
    taken = np.zeros(n, np.bool_)
    for i in range(n):
        best, least = -1, square
        for j in range(n):
            if kind[j] == kind[i] and not taken[j]:
                away = length2(
                    cell,
                    places[j, 0] - shift[0] - frac[i, 0],
                    places[j, 1] - shift[1] - frac[i, 1],
                    places[j, 2] - shift[2] - frac[i, 2],
                )
                if away <= least:
                    best, least = j, away
        if best < 0:
            return False
        taken[best] = True
        for axis in range(3):
            x = places[best, axis] - shift[axis] - frac[i, axis]
            steps[i, axis] = x - np.rint(x)
    return True
