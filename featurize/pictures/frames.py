"""The cell in which a crystal is shown, placed alike whatever its description was.

Enters: `Crystals`. Leaves: the conventional cell and the positions in it. This module does not know
cameras or networks.

What the conventional cell leaves open, an origin and the axes that the lattice cannot tell apart,
is settled by a generic function of the atoms: the choice with its largest value is taken. Choices
with the same value are related by a symmetry operation of the crystal, so it does not matter which
of them it is.
"""

from __future__ import annotations

import itertools
import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from assay.featurize import standard
from assay.featurize.standard import Conventional
from assay.featurize.threads import njit
from assay.sources.crystals import Crystals

_SAME = 1e-6


def frame(crystals: Crystals, row: int) -> Conventional:
    """The conventional cell of a crystal around an atom of the rarest species.

    a lies along x and b in the xy plane; positions are in [-0.5, 0.5), the atom in the middle at 0.
    Where moyo fails the cell is the given one.
    """
    cell, frac, sites, kinds = standard.conventional(crystals, row)
    centres = np.flatnonzero(kinds == np.argmin(np.bincount(kinds)))
    turns = _turns(cell)
    back = np.linalg.inv(turns)
    vectors, factors = _waves()
    vectors = np.rint(vectors @ back.transpose(0, 2, 1)).astype(np.int64)
    value = _values(frac, 1 + 0.37 * kinds, centres, vectors, factors, abs(vectors).max())
    turn, origin = np.unravel_index(int(np.argmax(value > value.max() - _SAME * len(frac))), value.shape)
    turned = np.einsum("sk,kl->sl", frac, back[turn])
    around = turned - turned[centres[origin]]
    return Conventional(_upright(turns[turn] @ cell), around - np.floor(around + 0.5 + _SAME), sites, kinds)


@njit(cache=True, nogil=True, fastmath=True)
def _values(frac, weight, centres, vectors, factors, most):  # type: ignore[no-untyped-def]
    """(t, o) what the function of the atoms is after each turn, about each of the centres.

    It is the real part of the sum over waves w of factor(w) times the sum over atoms s of weight(s)
    times exp(2 pi i vector(t, w) . (frac(s) - frac(o))).

    Args:
        frac: (s, 3).
        weight: (s,).
        centres: (o,) atoms.
        vectors: (t, w, 3) whole numbers, wave vectors turned back.
        factors: (w,) complex.
        most: largest of all whole numbers.
    """
    n = len(frac)
    real, imaginary = np.empty((3, 2 * most + 1, n)), np.empty((3, 2 * most + 1, n))
    for axis in range(3):
        for s in range(n):
            angle = 2 * math.pi * frac[s, axis]
            one, other = math.cos(angle), math.sin(angle)
            p, q = 1.0, 0.0
            for k in range(most + 1):
                real[axis, most + k, s], imaginary[axis, most + k, s] = p, q
                real[axis, most - k, s], imaginary[axis, most - k, s] = p, -q
                p, q = p * one - q * other, p * other + q * one
    out = np.zeros((len(vectors), len(centres)))
    x, y = np.empty(n), np.empty(n)
    for t in range(len(vectors)):
        for w in range(len(factors)):
            a, b, c = most + vectors[t, w, 0], most + vectors[t, w, 1], most + vectors[t, w, 2]
            ax, bx, cx = real[0, a], real[1, b], real[2, c]
            ay, by, cy = imaginary[0, a], imaginary[1, b], imaginary[2, c]
            p = q = 0.0
            for s in range(n):
                u, v = ax[s] * bx[s] - ay[s] * by[s], ax[s] * by[s] + ay[s] * bx[s]
                x[s], y[s] = u * cx[s] - v * cy[s], u * cy[s] + v * cx[s]
                p += weight[s] * x[s]
                q += weight[s] * y[s]
            f, g = factors[w].real, factors[w].imag
            p, q = f * p - g * q, f * q + g * p
            for o in range(len(centres)):
                out[t, o] += p * x[centres[o]] + q * y[centres[o]]
    return out


def _turns(cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """(t, 3, 3) integer matrices of determinant 1 that turn the lattice onto itself."""
    rows = _steps()
    vectors = rows @ cell
    metric = cell @ cell.T
    products = vectors @ vectors.T
    room = 1e-3 * metric.diagonal()
    like = [np.flatnonzero(abs(products.diagonal() - metric[k, k]) < room[k]) for k in range(3)]
    a, b, c = (part.reshape(-1) for part in np.meshgrid(*like, indexing="ij"))
    good = np.ones(len(a), bool)
    for (one, j), (other, k) in itertools.combinations(((a, 0), (b, 1), (c, 2)), 2):
        good &= abs(products[one, other] - metric[j, k]) < math.sqrt(room[j] * room[k])
    found = np.stack([rows[a[good]], rows[b[good]], rows[c[good]]], axis=1)
    return np.asarray(found[np.linalg.det(found) > 0.5], np.float64)


@cache
def _steps() -> NDArray[np.float64]:
    """(26, 3) lattice vectors of whole numbers from -1 to 1, without zero."""
    return np.array([step for step in itertools.product((-1.0, 0.0, 1.0), repeat=3) if any(step)])


@cache
def _waves() -> tuple[NDArray[np.float64], NDArray[np.complex128]]:
    """(w, 3) integer wave vectors and (w,) factors, whose sum over atoms tells arrangements apart.

    Half of the vectors are even: centred cells and glide planes extinguish most others.
    """
    rng = np.random.default_rng(7)
    vectors = np.concatenate([2 * rng.integers(-4, 5, size=(64, 3)), rng.integers(-5, 6, size=(64, 3))])
    return vectors.astype(np.float64), np.exp(2j * math.pi * rng.random(len(vectors))) / len(vectors)


def _upright(cell: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same cell with a along x and b in the xy plane."""
    lower = np.linalg.cholesky(cell @ cell.T)
    return np.asarray(lower, np.float64)
