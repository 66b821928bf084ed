"""Primitive cells of crystals, reduced and scaled, as the compiled comparisons read them.

Enters: `Crystals`. Leaves: `Cells`: for each crystal its primitive cell at a tolerance, with short
vectors, in units in which a site takes the volume 1. This module does not compare crystals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from assay.featurize.threads import njit
from assay.sources.crystals import Crystals
from assay.sources.occupants import occupants

CROWDED = 1e-3
"""Å; two sites of one kind so close are at one place."""


@dataclass(frozen=True, eq=False)
class Cells:
    """`n` cells with `S` sites in total, right-handed, the kinds of each in order."""

    basis: NDArray[np.float64]
    """(n, 3, 3) rows are the vectors, of which none can be made shorter by adding others."""
    frac: NDArray[np.float64]
    """(S, 3) fractional coordinates."""
    kind: NDArray[np.int64]
    """(S,) kind of each site: its place among the kinds of its crystal in alphabetical order."""
    pointer: NDArray[np.int64]
    """(n + 1,) sites of crystal i are `pointer[i]:pointer[i + 1]`."""
    unit: NDArray[np.float64]
    """(n,) Å, (volume / sites)^(1/3): the length in which `basis` is measured."""
    spread: NDArray[np.float64]
    """(n,) Å, how far at most a site of the crystal lies from its place in the primitive cell."""


def kinds(crystals: Crystals) -> tuple[NDArray[np.int64], list[str]]:
    """(S,) the kind of each site, see `Cells`, and per crystal its composition as a text.

    Crystals that may be the same have equal texts: the kinds with their shares of all sites.
    """
    texts = occupants(crystals)
    names = np.array(sorted(set(texts)), dtype=object)
    place = {name: k for k, name in enumerate(names.tolist())}
    number = np.array([place[text] for text in texts], np.int64)
    kind, own, counts, ends = _kinds(number, crystals.site_ptr, len(names))
    words = [f"{name}:{n}" for name, n in zip(names[own], counts.tolist())]
    return kind, [" ".join(words[a:b]) for a, b in pairwise(ends.tolist())]


@njit(cache=True, nogil=True)
def _kinds(number, pointer, most):  # type: ignore[no-untyped-def]
    """(S,) kind of each site; then, crystal by crystal, the kinds, their ratio, and the pointer."""
    kind, own, counts = np.empty_like(number), np.empty_like(number), np.empty_like(number)
    ends = np.zeros(len(pointer), np.int64)
    met, place = np.zeros(most, np.int64), np.empty(most, np.int64)
    for c in range(len(pointer) - 1):
        sites = number[pointer[c] : pointer[c + 1]]
        for k in sites:
            met[k] += 1
        end, divisor = ends[c], 0
        for k in np.sort(sites):
            if met[k] > 0:
                own[end], counts[end], place[k] = k, met[k], end - ends[c]
                divisor = math.gcd(divisor, met[k])
                met[k] = 0
                end += 1
        counts[ends[c] : end] //= max(1, divisor)
        for i in range(len(sites)):
            kind[pointer[c] + i] = place[sites[i]]
        ends[c + 1] = end
    return kind, own[: ends[-1]], counts[: ends[-1]], ends


def primitive(crystals: Crystals, kind: NDArray[np.int64], tolerance: float) -> Cells:
    """The primitive cells at a tolerance in Å: no site moves farther when cells are laid on it.

    A crystal with two sites of one kind at one place has no cell: none of its sites are kept.
    """
    return of_arrays(crystals.lattice, crystals.frac, kind, crystals.site_ptr, tolerance)


def of_arrays(
    lattice: NDArray[np.float64],
    frac: NDArray[np.float64],
    kind: NDArray[np.int64],
    pointer: NDArray[np.int64],
    tolerance: float = 0.0,
) -> Cells:
    """The same for plain arrays; a tolerance of 0 keeps all sites."""
    n = len(lattice)
    basis, own, places = np.zeros((n, 3, 3)), np.empty_like(kind), np.empty_like(frac)
    count, unit, spread = np.zeros(n, np.int64), np.ones(n), np.zeros(n)
    _primitives(lattice, frac, kind, pointer, tolerance, basis, places, own, count, unit, spread)
    ends = np.concatenate([[0], np.cumsum(count)])
    sites = np.repeat(pointer[:-1] - ends[:-1], count) + np.arange(ends[-1])
    return Cells(basis, places[sites], own[sites], ends, unit, spread)


@njit(cache=True, nogil=True)
def _primitives(lattice, frac, kind, pointer, tolerance, basis, out, own, count, unit, spread):  # type: ignore[no-untyped-def]
    """Fill the arrays of `primitive`; a cell has as much room as its crystal has sites."""
    for c in range(len(lattice)):
        a, b = pointer[c], pointer[c + 1]
        order = np.argsort(kind[a:b], kind="mergesort")
        kinds, places = kind[a:b][order], frac[a:b][order]
        cell = lattice[c].copy()
        if determinant(cell) < 0:
            cell = -cell
        shape = shortest(cell)
        places = places @ (cell @ np.linalg.inv(shape))
        if _crowded(shape, places, kinds):
            continue
        images = translations(shape, places, kinds, tolerance)
        if len(images) > 1:
            shape, places, kinds, spread[c] = _folded(shape, places, kinds, images, 9 * tolerance * tolerance)
        m = len(kinds)
        scale = (determinant(shape) / m) ** (1 / 3)
        basis[c], unit[c], count[c] = shape / scale, scale, m
        out[a : a + m], own[a : a + m] = places - np.floor(places), kinds


@njit(cache=True, nogil=True)
def determinant(m):  # type: ignore[no-untyped-def]
    """Of a (3, 3) matrix."""
    return (
        m[0, 0] * (m[1, 1] * m[2, 2] - m[1, 2] * m[2, 1])
        - m[0, 1] * (m[1, 0] * m[2, 2] - m[1, 2] * m[2, 0])
        + m[0, 2] * (m[1, 0] * m[2, 1] - m[1, 1] * m[2, 0])
    )


@njit(cache=True, nogil=True)
def shortest(cell):  # type: ignore[no-untyped-def]
    """A right-handed cell of the same lattice with the shortest vectors (Minkowski)."""
    m = cell.copy()
    for _ in range(100):
        lengths = np.array([m[0] @ m[0], m[1] @ m[1], m[2] @ m[2]])
        order = np.argsort(lengths, kind="mergesort")
        m = m[order]
        changed = False
        step = np.rint(m[0] @ m[1] / (m[0] @ m[0]))
        if step != 0 and abs(m[0] @ m[1]) > (0.5 + 1e-9) * (m[0] @ m[0]):
            m[1] -= step * m[0]
            continue
        best, size = m[2].copy(), m[2] @ m[2] * (1 - 1e-9)
        aa, ab, bb = m[0] @ m[0], m[0] @ m[1], m[1] @ m[1]
        ac, bc = m[0] @ m[2], m[1] @ m[2]
        det = aa * bb - ab * ab
        x, y = np.rint((ac * bb - bc * ab) / det), np.rint((bc * aa - ac * ab) / det)
        for i in (-1.0, 0.0, 1.0):
            for j in (-1.0, 0.0, 1.0):
                other = m[2] - (x + i) * m[0] - (y + j) * m[1]
                if other @ other < size:
                    best, size, changed = other, other @ other, True
        m[2] = best
        if not changed:
            break
    return m if determinant(m) > 0 else -m


@njit(cache=True, nogil=True)
def translations(cell, frac, kind, tolerance):  # type: ignore[no-untyped-def]
    """(m, 3) fractional translations that lay the crystal on itself, the first of them nothing."""
    n = len(kind)
    first, size = rarest(kind)
    found, steps = np.zeros((size, 3)), np.empty((n, 3))
    count = 1
    square = tolerance * tolerance
    for candidate in range(first + 1, first + size):
        shift = frac[candidate] - frac[first]
        fits = True
        for i in range(n):
            place = frac[i] + shift
            j, away = nearest_of(cell, frac, kind, place, kind[i])
            if away > 4 * square:
                fits = False
                break
            for axis in range(3):
                step = frac[j, axis] - place[axis]
                steps[i, axis] = step - np.rint(step)
        if not fits:
            continue
        mean = steps.sum(axis=0) / n
        for i in range(n):
            fits = fits and length2(cell, steps[i, 0] - mean[0], steps[i, 1] - mean[1], steps[i, 2] - mean[2]) <= square
        if fits:
            found[count] = shift + mean
            count += 1
    return found[:count] if n % count == 0 else found[:1]


@njit(cache=True, nogil=True)
def _crowded(cell, frac, kind):  # type: ignore[no-untyped-def]
    """Whether two sites of one kind are at one place."""
    for i in range(len(kind)):
        for j in range(i):
            if kind[j] == kind[i]:
                step = frac[j] - frac[i]
                if length2(cell, step[0], step[1], step[2]) < CROWDED * CROWDED:
                    return True
    return False


@njit(cache=True, nogil=True)
def rarest(kind):  # type: ignore[no-untyped-def]
    """The first site and the number of the sites of the rarest kind; kinds are in order."""
    best, size, start = 0, len(kind), 0
    for i in range(1, len(kind) + 1):
        if i == len(kind) or kind[i] != kind[start]:
            if i - start < size:
                best, size = start, i - start
            start = i
    return best, size


@njit(cache=True, nogil=True)
def nearest_of(cell, frac, kind, place, wanted):  # type: ignore[no-untyped-def]
    """The site of a kind that is nearest to a place, and its squared distance."""
    best, least = -1, np.inf
    for j in range(len(kind)):
        if kind[j] == wanted:
            x, y, z = frac[j, 0] - place[0], frac[j, 1] - place[1], frac[j, 2] - place[2]
            square = length2(cell, x, y, z)
            if square < least:
                best, least = j, square
    return best, least


@njit(cache=True, nogil=True)
def length2(cell, x, y, z):  # type: ignore[no-untyped-def]
    """Squared length of a fractional step, taken to its image next to nothing."""
    x, y, z = x - np.rint(x), y - np.rint(y), z - np.rint(z)
    u = x * cell[0, 0] + y * cell[1, 0] + z * cell[2, 0]
    v = x * cell[0, 1] + y * cell[1, 1] + z * cell[2, 1]
    w = x * cell[0, 2] + y * cell[1, 2] + z * cell[2, 2]
    return u * u + v * v + w * w


@njit(cache=True, nogil=True)
def _folded(cell, frac, kind, images, square):  # type: ignore[no-untyped-def]
    """The crystal in the cell that its translations make, each site the mean of its images."""
    n, m = len(kind), len(images)
    rows = np.zeros((m + 2, 3))
    rows[0, 0] = rows[1, 1] = rows[2, 2] = m
    rows[3:] = np.rint(images[1:] * m)
    shape = shortest(_triangle(rows) @ cell / m)
    if abs(determinant(shape) * m / determinant(cell) - 1) > 1e-6:
        return cell, frac, kind, 0.0  # the translations are no group
    place = frac @ (cell @ np.linalg.inv(shape))
    kept, taken = np.empty(n, np.int64), np.zeros(n, np.bool_)
    count, farthest = 0, 0.0
    for i in range(n):
        if taken[i]:
            continue
        kept[count] = i
        mean, met, steps = np.zeros(3), 0, np.empty((m, 3))
        for j in range(i, n):
            if kind[j] == kind[i] and not taken[j]:
                step = place[j] - place[i]
                step -= np.rint(step)
                if met < m and length2(shape, step[0], step[1], step[2]) <= square:
                    taken[j] = True
                    steps[met] = step
                    mean += step / m
                    met += 1
        if met != m:
            return cell, frac, kind, 0.0
        for k in range(m):
            step = steps[k] - mean
            farthest = max(farthest, length2(shape, step[0], step[1], step[2]))
        place[count] = place[i] + mean
        count += 1
    return shape, place[:count].copy(), kind[kept[:count]], math.sqrt(farthest)


@njit(cache=True, nogil=True)
def _triangle(rows):  # type: ignore[no-untyped-def]
    """(3, 3) basis of the lattice of whole numbers that some rows span."""
    for axis in range(3):
        while True:
            least, where = np.inf, -1
            for r in range(axis, len(rows)):
                if rows[r, axis] != 0 and abs(rows[r, axis]) < least:
                    least, where = abs(rows[r, axis]), r
            swap = rows[axis].copy()
            rows[axis] = rows[where]
            rows[where] = swap
            done = True
            for r in range(axis + 1, len(rows)):
                rows[r] -= math.floor(rows[r, axis] / rows[axis, axis]) * rows[axis]
                done = done and rows[r, axis] == 0
            if done:
                break
    return rows[:3].copy()
