"""Fingerprints: mean distances to neighbours, which near crystals have nearly the same.

Enters: `Crystals`. Leaves: `Fingerprints`: for each its composition, and for each kind of
site the mean distances to the 24 nearest neighbours in units of (V / sites)^(1/3): the average
minimum distances of Widdowson and Kurlin (arXiv:2009.02488), per kind. They do not depend on the
cell, and a small change of the crystal changes them little. This module does not know which
crystals are the same.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.featurize import neighbours
from assay.featurize.identity.cells import Cells, kinds, primitive
from assay.featurize.threads import njit
from assay.sources.crystals import Crystals

log = logging.getLogger(__name__)

NEIGHBOURS = 24
BINS = np.array([2, 4, 6, 8, 12, 16, 20, NEIGHBOURS])
"""A number is the mean over the neighbours up to each of these, from the one before on."""
FINE = 0.02
"""Å, tolerance of the primitive cells."""
MOST_POINTS = 100_000
"""Most lattice points within the longest vector; a very flat cell has more, and comparing it would
take too long."""


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """Of `n` crystals, in their order."""

    ids: NDArray[Any]
    """(n,) texts."""
    compositions: list[str]
    """Kinds of sites with their ratio; empty for a crystal that cannot be compared."""
    pointer: NDArray[np.int64]
    """(n + 1,) numbers of crystal i are `values[pointer[i]:pointer[i + 1]]`."""
    values: NDArray[np.float32]
    """(V/N)^(1/3), mean distances: eight for each kind of site, kinds in alphabetical order."""


def fingerprints(crystals: Crystals) -> Fingerprints:
    """The fingerprint of each crystal."""
    kind, compositions = kinds(crystals)
    cells = primitive(crystals, kind, FINE)
    usable = _usable(crystals, cells)
    rows = np.flatnonzero(usable)
    part = _selected(cells, rows)
    _, _, target, _, distance = neighbours.nearest(
        part.basis, part.frac, part.pointer, NEIGHBOURS, 0.0, dtype=np.float32
    )
    sizes = np.zeros(len(crystals), np.int64)
    sizes[rows] = [1 + part.kind[end - 1] for end in part.pointer[1:].tolist()]
    ends = np.concatenate([[0], np.cumsum(len(BINS) * sizes)])
    values = np.zeros((sizes.sum(), len(BINS)))
    _means(part.pointer, part.kind, target, distance, BINS, np.concatenate([[0], np.cumsum(sizes[rows])]), values)
    texts = [text if good else "" for text, good in zip(compositions, usable.tolist())]
    return Fingerprints(crystals.ids, texts, ends, values.ravel().astype(np.float32))


def _usable(crystals: Crystals, cells: Cells) -> NDArray[np.bool_]:
    """Which crystals have a cell that is not too flat."""
    counts = np.diff(cells.pointer)
    longest = np.linalg.norm(cells.basis, axis=2).max(axis=1)
    flat = 4.19 * (1.1 * longest) ** 3 > MOST_POINTS * counts
    for row in np.flatnonzero(flat & (counts > 0)):
        long, volume = longest[row] * cells.unit[row], counts[row] * cells.unit[row] ** 3
        name = crystals.ids[row]
        log.warning("%s: a cell of %.4g Å^3 with a vector of %.4g Å is too flat to be compared", name, volume, long)
    return np.asarray((counts > 0) & ~flat)


def _selected(cells: Cells, rows: NDArray[np.int64]) -> Cells:
    counts = np.diff(cells.pointer)[rows]
    ends = np.concatenate([[0], np.cumsum(counts)])
    sites = np.repeat(cells.pointer[:-1][rows] - ends[:-1], counts) + np.arange(ends[-1])
    frac = cells.frac[sites]
    return Cells(cells.basis[rows], frac, cells.kind[sites], ends, cells.unit[rows], cells.spread[rows])


@njit(cache=True, nogil=True)
def _means(pointer, kind, target, distance, bins, starts, out):  # type: ignore[no-untyped-def]
    """Mean distances per kind and bin; edges are in the order of their target."""
    edge = 0
    for c in range(len(pointer) - 1):
        sites = np.zeros(starts[c + 1] - starts[c])
        for i in range(pointer[c], pointer[c + 1]):
            first = edge
            while edge < len(target) and target[edge] == i:
                edge += 1
            lengths = distance[first:edge]
            lengths.sort()
            row = starts[c] + kind[i]
            sites[kind[i]] += 1
            low = 0
            for b in range(len(bins)):
                total = 0.0
                for k in range(low, bins[b]):
                    total += lengths[k]
                out[row, b] += total / (bins[b] - low)
                low = bins[b]
        for k in range(len(sites)):
            out[starts[c] + k] /= sites[k]
