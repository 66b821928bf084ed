"""The plots of a report, as numbers in pixels, which a template draws.

Enters: values, portion by portion where there may be millions. Leaves: bars, cells, lines and
marks. Equal values give equal pixels. This module knows no HTML.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.sources.elements import NUMBERS

BINS = 40
"""Bars of a histogram, and cells along a side of a density."""
SIDE = 300
"""Pixels along a side of a square plot."""
MAP = np.array([600.0, 420.0])
"""Most pixels along and across a map."""
LEVELS = tuple(k / 20 for k in range(1, 20))
"""Nominal shares at which coverage is counted."""

Portions = Callable[[], Iterable[NDArray[np.float64]]]


def histogram(values: Portions, marked: Sequence[float] = ()) -> dict[str, Any]:
    """Counts of values, (n,) in portions, and which bars hold the marked ones."""
    ends = [end for some in map(_finite, values()) if len(some) for end in (some.min(), some.max())]
    if not ends:
        return {"bars": [], "low": 0.0, "high": 0.0, "most": 0}
    span = min(ends), max(ends)
    counts, edges = np.histogram([], BINS, span)
    for some in map(_finite, values()):
        counts += np.histogram(some, BINS, span)[0]
    of_marked = np.histogram(_finite(np.asarray(marked, np.float64)), edges)[0]
    most = int(counts.max())
    bars = [
        {"x": 15 * k, "h": 110 * int(n) / most, "n": int(n), "from": float(edges[k]), "to": float(edges[k + 1])}
        | {"marked": int(m), "top": max(110 * min(int(m), int(n)) / most, 2.0) if m else 0.0}
        for k, (n, m) in enumerate(zip(counts, of_marked, strict=True))
    ]
    return {"bars": bars, "low": float(edges[0]), "high": float(edges[-1]), "most": most}


def density(pairs: Callable[[], Iterable[tuple[NDArray[np.float64], NDArray[np.float64]]]]) -> dict[str, Any] | None:
    """Counts of pairs (known, predicted) on one scale, their mean absolute difference and number.

    Pairs with a value that is not finite do not count; None without any other.
    """
    low, high, n, differs = math.inf, -math.inf, 0, 0.0
    for known, found in map(_both, pairs()):
        if len(known):
            low, high = min(low, known.min(), found.min()), max(high, known.max(), found.max())
            n, differs = n + len(known), differs + float(np.abs(known - found).sum())
    if n == 0:
        return None
    span = (low, high) if high > low else (low - 0.5, low + 0.5)
    counts = np.zeros((BINS, BINS))
    for known, found in map(_both, pairs()):
        counts += np.histogram2d(known, found, BINS, (span, span))[0]
    step, shade = SIDE / BINS, np.log1p(counts) / np.log1p(counts.max())
    cells = [
        {"x": step * i, "y": SIDE - step * (j + 1), "n": int(counts[i, j]), "shade": 0.15 + 0.85 * float(shade[i, j])}
        for i, j in np.argwhere(counts).tolist()
    ]
    return {"cells": cells, "step": step, "low": float(span[0]), "high": float(span[1]), "n": n, "mae": differs / n}


def coverage(known: NDArray[np.float64], mean: NDArray[np.float64], std: NDArray[np.float64]) -> dict[str, Any]:
    """How many known values lie as near to the mean as a normal error of this deviation says.

    A point has its place in pixels, its nominal share and the observed one.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.abs(known - mean) / std
    shares = [float((off <= _quantile(level)).mean()) for level in LEVELS]
    points = [
        {"x": SIDE * level, "y": SIDE * (1 - share), "nominal": level, "observed": share}
        for level, share in zip(LEVELS, shares, strict=True)
    ]
    return {"points": points, "n": len(known)}


def scatter(known: NDArray[np.float64], found: NDArray[np.float64], share: float) -> dict[str, Any]:
    """Places (r, 2) and (n, 2) in pixels, both directions on one scale; `share` is handed on.

    A few outermost ones of `known` lie beyond the edge.
    """
    within = np.vstack([np.quantile(known, [0.01, 0.99], axis=0), found])
    low, span = within.min(axis=0), np.maximum(np.ptp(within, axis=0), 1e-9)
    scale = float(np.min(MAP / span))
    width, height = (span * scale).tolist()

    def pixels(places: NDArray[np.float64]) -> list[tuple[float, float]]:
        moved = (places - low) * scale
        return [(round(x, 1), round(height - y, 1)) for x, y in moved.tolist()]

    shown = [(x, y) for x, y in pixels(known) if 0 <= x <= width and 0 <= y <= height]
    return {
        "known": shown,
        "beyond": len(known) - len(shown),
        "found": pixels(found),
        "width": round(width, 1),
        "height": round(height, 1),
        "one": round(scale, 1),
        "share": share,
    }


def periodic_table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every element of some rows: its place, the rows that hold it, and their mean score."""
    scores: dict[str, list[float]] = {}
    for row in rows:
        for symbol in str(row["elements"]).split("-"):
            if symbol in NUMBERS:
                scores.setdefault(symbol, []).append(float(row["score"]))
    most = max(map(len, scores.values()), default=1)
    cells = []
    for symbol in sorted(scores, key=NUMBERS.__getitem__):
        column, line = _place(NUMBERS[symbol])
        own = scores[symbol]
        cells.append(
            {"symbol": symbol, "column": column, "line": line, "n": len(own), "score": sum(own) / len(own)}
            | {"shade": 0.15 + 0.85 * len(own) / most}
        )
    return cells


def empty_places() -> list[tuple[int, int]]:
    """(column, line) of every element in the table."""
    return [_place(number) for number in NUMBERS.values()]


def _place(number: int) -> tuple[int, int]:
    """Column 0 to 17 and line 0 to 8 of an element; the f block stands in lines of its own."""
    if 57 <= number <= 70 or 89 <= number <= 102:
        start = 57 if number < 89 else 89
        return number - start + 2, 7 if number < 89 else 8
    begin, line = max((first, line) for line, first in enumerate((1, 3, 11, 19, 37, 55, 87)) if first <= number)
    after = number - begin
    if line == 0:
        return (0 if after == 0 else 17), 0
    if line < 3:
        return (after if after < 2 else after + 10), line
    return (after if line < 5 or after < 2 else after - 14), line


def _quantile(level: float) -> float:
    """How many deviations from the mean a share `level` of normal errors keeps within."""
    return NormalDist().inv_cdf((1 + level) / 2)


def _both(pair: tuple[NDArray[np.float64], NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    good = np.isfinite(pair[0]) & np.isfinite(pair[1])
    return pair[0][good], pair[1][good]


def _finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values[np.isfinite(values)]
