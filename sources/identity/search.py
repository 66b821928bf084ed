"""The pairs of equal and related crystals of a batch.

Enters: `Crystals` and their blocks. Leaves: pairs of rows. This module does not know how two
crystals are compared.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

import numpy as np
from numpy.typing import NDArray

from assay.sources.crystals import Crystals
from assay.sources.identity import likeness
from assay.sources.identity.cells import COARSE, FINE, cells
from assay.sources.identity.likeness import Reduced, Relation

log = logging.getLogger(__name__)

LARGEST_BLOCK = 200
"""Rows compared with each other; a larger block is cut, see `confirm`."""


def stamp() -> str:
    """Library versions and tolerances, which decide which crystals are the same.

    Raises:
        ValueError: when a library is missing.
    """
    try:
        versions = [f"{name} {metadata.version(name)}" for name in ("moyopy", "pymatgen")]
    except metadata.PackageNotFoundError as error:
        raise ValueError(
            f"finding the same crystal in two sources needs {error.name}: pip install {error.name}, "
            "or set identity: false"
        ) from None
    bounds = (COARSE, FINE, *likeness.bounds(), LARGEST_BLOCK)
    return ", ".join([*versions, *map(str, bounds)])


@dataclass(frozen=True)
class Compared:
    """Pairs of rows that are alike; the first row of a pair stands for a group of equal rows."""

    same: NDArray[np.int64]
    """(m, 2) pairs that are the same crystal."""
    related: NDArray[np.int64]
    """(k, 2) pairs that are related; each row stands for a group."""
    distance: NDArray[np.float64]
    """(k,) Å, see `Relation`."""
    volume_ratio: NDArray[np.float64]
    """(k,) see `Relation`."""


def confirm(crystals: Crystals, block: NDArray[np.int64]) -> Compared:
    """The pairs of rows that are the same crystal, and those that are related.

    `block` is (n,), from `blocks`; each block may have a call of its own. Inside a block, crystals
    are taken in the order of their ids. Each is compared with the representatives found so
    far, the nearest volume first. It is paired with the first one that is the same; where none is,
    it becomes a representative itself, and is related to those that the loose bounds allow.

    Two crystals are alike only if their space groups at 0.1 Å, their occupants and occupancies are
    equal, and pymatgen's `StructureMatcher` maps the sites of their symmetric cells on each other.
    They are the same if all that is within the bounds `likeness.SAME`, and if neither is distorted
    against the symmetric cell or both are so in one way. A block of more than `LARGEST_BLOCK` rows
    is cut by volume per site into smaller parts of equal size, with a warning; equal crystals in
    two parts stay apart.

    Raises:
        ValueError: when `block` has not one number per crystal.
    """
    block = np.asarray(block, dtype=np.int64)
    if block.shape != (len(crystals),):
        raise ValueError(f"block has shape {block.shape}, expected ({len(crystals)},)")
    found = [
        (int(rows[one]), int(rows[other]), relation)
        for rows in _parts(crystals, block)
        for one, other, relation in _pairs(crystals.select(rows))
    ]
    found.sort(key=lambda pair: pair[:2])
    same = [pair[:2] for pair in found if pair[2].same]
    related = [pair for pair in found if not pair[2].same]
    return Compared(
        np.array(same, dtype=np.int64).reshape(-1, 2),
        np.array([pair[:2] for pair in related], dtype=np.int64).reshape(-1, 2),
        np.array([pair[2].distance for pair in related], dtype=np.float64),
        np.array([pair[2].volume_ratio for pair in related], dtype=np.float64),
    )


def _pairs(crystals: Crystals) -> Iterator[tuple[int, int, Relation]]:
    """Yield pairs of a representative and a row like it; rows are in the order of their ids."""
    leaders: list[tuple[int, Reduced]] = []
    for row, cell in enumerate(cells(crystals)):
        reduced = likeness.reduced(cell)
        if reduced is None:
            continue
        near = sorted(leaders, key=lambda leader: abs(math.log(leader[1].volume / reduced.volume)))
        related = []
        for leader, known in near:
            relation = likeness.compare(known, reduced)
            if relation is not None:
                related.append((leader, row, relation))
            if relation is not None and relation.same:
                yield related[-1]
                break
        else:
            leaders.append((row, reduced))
            yield from related


def _parts(crystals: Crystals, block: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield groups of two or more rows to compare, each in the order of its ids."""
    volume = crystals.volume / crystals.nsites
    order = np.lexsort((crystals.ids, block))
    for rows in np.split(order, np.flatnonzero(np.diff(block[order])) + 1):
        if len(rows) <= LARGEST_BLOCK:
            parts = [rows]
        else:
            parts = np.array_split(rows[np.argsort(volume[rows], kind="stable")], -(-len(rows) // LARGEST_BLOCK))
            size, id = len(rows), crystals.ids[rows[0]]
            log.warning("%d crystals may be the same as %s: compared in %d parts by volume", size, id, len(parts))
        yield from (part[np.argsort(crystals.ids[part], kind="stable")] for part in parts if len(part) > 1)
