"""Fronts of crystals that no other one dominates, and the hypervolume that each adds to its front.

Enters: points (n, m), one column per objective, at least two, higher is better. Leaves: numbers per
point. This is the door of moocore. One point with a NaN would push every complete one off its
fronts, so all numbers must be finite: incomplete rows are set aside before. This module does not
know what an objective is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.screening.ranking.compared import kernels

Floats = NDArray[np.float64]
BEYOND = 0.1
"""The reference point lies so far beyond the worst values, in parts of their ranges."""


def fronts(points: Floats) -> NDArray[np.int64]:
    """(n,) the front of each point, from 1: those that no point of it or of a later one dominates.

    A point dominates another that is nowhere better and somewhere worse. Equal points share a
    front. Up to three objectives take n log n steps; moocore, a front at a time, does more of them.

    >>> fronts(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 0.0]])).tolist()
    [1, 1, 2, 1]
    """
    points, found = _finite(points), np.ones(len(points), np.int64)
    if points.shape[1] > 3:
        return np.asarray(_library().pareto_rank(-points), np.int64) + 1 if len(points) else found
    points = np.pad(points, ((0, 0), (0, 3 - points.shape[1])))
    kernels.layers(points, np.lexsort(-points.T[::-1]), found)
    return found


def first(points: Floats) -> NDArray[np.bool_]:
    """(n,) whether no other point dominates this one.

    >>> first(np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])).tolist()
    [True, False, True]
    """
    return np.asarray(_library().is_nondominated(_finite(points), maximise=True, keep_weakly=True), bool)


def reference(points: Floats) -> Floats:
    """(m,) the reference point: the worst values, moved a tenth of the range farther.

    >>> reference(np.array([[1.0, 0.0], [0.0, 20.0]])).tolist()
    [-0.1, -2.0]
    """
    worst, span = points.min(axis=0), np.ptp(points, axis=0)
    return np.asarray(worst - BEYOND * np.where(span > 0, span, 1.0))


def contributions(points: Floats, front: NDArray[np.int64], like: Floats | None = None) -> Floats:
    """(n,) the part of the hypervolume of its front that a point adds alone.

    The hypervolume is that between front and reference point, where the range of each objective
    counts 1. Each of two equal points adds nothing. Range and reference point are those of the
    points `like`; unset: of these.

    >>> contributions(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1, 1])).round(3).tolist()
    [0.1, 0.1]
    """
    if not len(points):
        return np.empty(0)
    library, like = _library(), points if like is None else like
    low, span = like.min(axis=0), np.ptp(like, axis=0)
    scaled = (low - points) / np.where(span > 0, span, 1.0)  # from 0, the worst, to -1
    order = np.argsort(front, kind="stable")
    scaled, borders = scaled[order], np.flatnonzero(np.diff(front[order])) + 1
    beyond, found = np.full(points.shape[1], BEYOND), np.empty(len(points))
    for start, end in zip([0, *borders], [*borders, len(points)]):
        found[order[start:end]] = library.hv_contributions(scaled[start:end], ref=beyond)
    return found


def _library() -> Any:
    import moocore

    return moocore


def _finite(points: Floats) -> Floats:
    if not np.isfinite(points).all():
        raise ValueError("a point has a coordinate that is not finite; set such rows aside first")
    return np.ascontiguousarray(points, np.float64)
