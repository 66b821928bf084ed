"""Blocks of cells and what cameras see of them, compiled.

Enters: the cell in which a crystal is shown, its bonds, cameras. Leaves: the atoms of a block and
the halves of their bonds; and, written into the arrays of `Scenes`, the same in the frame of each
camera, in the order in which they are drawn. This module does not know species or colours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.featurize.threads import njit

EDGE = 1e-3
"""Atoms this far outside the block, in fractions of its cell, are drawn: those on its faces are on
both."""
SAME = 1e-6
"""Difference per atom below which two views are one, see `_marks`."""


@dataclass(frozen=True)
class Bonds:
    """The `e` bonds of the `s` atoms of a cell."""

    ptr: NDArray[np.int64]
    """(s + 1,) those of atom i are `ptr[i]:ptr[i + 1]`."""
    vector: NDArray[np.float64]
    """(e, 3) Å."""
    fraction: NDArray[np.float64]
    """(e, 3) the same in cells."""


@dataclass(frozen=True)
class Block:
    """The `m` atoms of a block of cells and the `t` halves of their bonds, in the cell's frame."""

    atom: NDArray[np.int64]
    """(m,) atom of the cell."""
    position: NDArray[np.float64]
    """(m, 3) Å."""
    half_ptr: NDArray[np.int64]
    """(m + 1,) half bonds that begin at each atom."""
    middle: NDArray[np.float64]
    """(t, 3) Å, where they end."""


def block(cell: NDArray[np.float64], frac: NDArray[np.float64], size: tuple[int, int, int], bonds: Bonds) -> Block:
    """The atoms in a block around the origin, with its faces, and bonds between two of them."""
    atom, fraction, half_ptr, edge = _inside(frac, np.array(size), bonds.ptr, bonds.fraction)
    position = fraction @ cell
    middle = np.repeat(position, np.diff(half_ptr), axis=0) + bonds.vector[edge] / 2
    return Block(atom, position, half_ptr, middle)


def different(
    seen: NDArray[np.float64], weight: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Views of which no two show the same, the first of each, and how many each stands for.

    Args:
        seen: (v, m, 3) Å, the atoms in the frame of every camera.
        weight: (m,) a number for the species of each.
    """
    marks = _marks(seen, weight)
    alike = abs(marks[:, None] - marks).max(axis=2) < SAME * len(weight)
    kept: list[int] = []
    counts = np.zeros(len(marks), np.int64)
    for view, others in enumerate(alike):
        first = next((k for k in kept if others[k]), view)
        if first == view:
            kept.append(view)
        counts[first] += 1
    return np.array(kept), counts[kept]


def _marks(seen: NDArray[np.float64], weight: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """(v, 3) numbers that two views share only if they show the same atoms at the same places."""
    waves = np.array([[0.731, 1.137, 0.419], [-0.523, 0.877, 1.291], [1.083, -0.349, 0.967]])
    return np.asarray(weight @ np.sin(seen @ waves.T + 0.613), np.float64)


def order(seen: NDArray[np.float64]) -> NDArray[np.int64]:
    """(v, m) the atoms of each view (v, m, 3) by depth, nearest first, then by place."""
    places = np.rint(1000 * seen)
    x, y, z = np.moveaxis(places.astype(np.int64), -1, 0)
    if abs(places).max() >= 2**20:  # beyond 1,048 Å; three whole numbers do not fit into one
        return np.lexsort((y, x, -z))
    return np.argsort(((-z << 21) + x << 21) + y, axis=-1, kind="stable")


@njit(cache=True, nogil=True)
def _inside(frac, size, bond_ptr, bond):  # type: ignore[no-untyped-def]
    """Atom (m,), fraction (m, 3), pointer (m + 1,) of half bonds, and the bond (t,) of each."""
    steps = np.empty((3, len(frac), size.max() + 4))
    found = np.zeros((3, len(frac)), np.int64)
    reach = size / 2 + EDGE
    most = halves = 0
    for s in range(len(frac)):
        for axis in range(3):
            for step in range(-(size[axis] // 2 + 1), size[axis] // 2 + 2):
                if abs(frac[s, axis] + step) <= reach[axis]:
                    steps[axis, s, found[axis, s]] = frac[s, axis] + step
                    found[axis, s] += 1
        here = found[0, s] * found[1, s] * found[2, s]
        most, halves = most + here, halves + here * (bond_ptr[s + 1] - bond_ptr[s])
    atom, fraction = np.empty(most, np.int64), np.empty((most, 3))
    half_ptr, edge = np.zeros(most + 1, np.int64), np.empty(halves, np.int64)
    m = t = 0
    for s in range(len(frac)):
        for i in range(found[0, s]):
            for j in range(found[1, s]):
                for k in range(found[2, s]):
                    a, b, c = steps[0, s, i], steps[1, s, j], steps[2, s, k]
                    atom[m], fraction[m, 0], fraction[m, 1], fraction[m, 2] = s, a, b, c
                    for e in range(bond_ptr[s], bond_ptr[s + 1]):
                        if (
                            abs(a + bond[e, 0]) <= reach[0]
                            and abs(b + bond[e, 1]) <= reach[1]
                            and abs(c + bond[e, 2]) <= reach[2]
                        ):
                            edge[t] = e
                            t += 1
                    m += 1
                    half_ptr[m] = t
    return atom, fraction, half_ptr, edge[:t]


@njit(cache=True, nogil=True)
def draw(seen, order, sites, radius, middle, half_ptr, first, centre, site, start, end, owner, reach):  # type: ignore[no-untyped-def]
    """Write the views of a block into the arrays of `Scenes`.

    A stick begins where its atom is, so that sticks are in the order of atoms.

    Of atoms: `seen` (v, m, 3) Å in the frame of each camera, `order` (v, m) of drawing, `sites`
    (m,) of the batch, `radius` (m,) Å, `half_ptr` (m + 1,) half bonds. `middle` is (t, v, 3) Å,
    where half bonds end. `first` spheres of the batch come before these. The rest is filled;
    `reach` (v, 3) Å with the furthest that spheres come from the middle of the image, then with z
    of the furthest and of the nearest point.
    """
    k = t = 0
    for view in range(len(seen)):
        wide, far, near = 0.0, math.inf, -math.inf
        for m in order[view]:
            x, y, z, r = seen[view, m, 0], seen[view, m, 1], seen[view, m, 2], radius[m]
            wide = max(wide, max(abs(x), abs(y)) + r)
            far, near = min(far, z - r), max(near, z + r)
            centre[k, 0], centre[k, 1], centre[k, 2], site[k] = x, y, z, sites[m]
            for h in range(half_ptr[m], half_ptr[m + 1]):
                start[t, 0], start[t, 1], start[t, 2] = x, y, z
                end[t, 0], end[t, 1], end[t, 2] = middle[h, view, 0], middle[h, view, 1], middle[h, view, 2]
                owner[t] = first + k
                t += 1
            k += 1
        reach[view, 0], reach[view, 1], reach[view, 2] = wide, far, near
