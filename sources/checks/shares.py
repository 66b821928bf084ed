"""The shares that species have of a site: the bounds, and the normal form.

Enters: a batch with unchecked occupancies. Leaves: the batch without shares of zero, the species or
sites whose occupancies break a bound, and occupancies that add up to at most 1. Bounds are decided
with whole units of 0.00001, because the binary fractions 0.34, 0.33 and 0.34 do not add up to 1.01.
This module does not know geometry.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.sources.checks.unchecked import Unchecked, pointer

DECIMALS = 5
"""Decimals of an occupancy that count."""
FULL = 10**DECIMALS
"""Units of a full site."""
MOST_OF_ONE = 100_100
"""Units; the largest accepted share of one species, 1.001."""
MOST_OF_SEVERAL = 102_000
"""Units; the largest accepted sum over several shares, 1.02. Shares are published with two or three
decimals, so three or more of them may add up to a little more than 1."""
SCALED = 1 + 0.95 / 10**4
"""A larger sum, thus 1.0001 or more, is scaled to 1."""


def units(occupancy: Any) -> NDArray[np.float64]:
    """Occupancies in whole units; a float64 holds their sums exactly. NaN stays NaN.

    >>> float(units([0.34, 0.33, 0.34]).sum()) / FULL
    1.01
    """
    with np.errstate(over="ignore"):
        return np.asarray(np.rint(np.asarray(occupancy, dtype=np.float64) * FULL))


def rounded(occupancy: Any) -> NDArray[np.float64]:
    """Occupancies as read, to the decimals that count; a negative share stays negative."""
    exact = np.asarray(occupancy, dtype=np.float64)
    nearest = exact.round(DECIMALS)
    return np.where((exact < 0) & (nearest == 0), -1 / FULL, nearest)


def site_units(batch: Unchecked) -> NDArray[np.float64]:
    """(S,) units on each site."""
    return np.asarray(np.bincount(batch.species_site, units(batch.occupancy), minlength=len(batch.frac)))


def without_zeros(batch: Unchecked) -> tuple[Unchecked, dict[int, str]]:
    """The batch without shares of zero and without vacant sites, and a warning by row.

    A share of zero beside others says nothing, as in the end member of a doping series. A site that
    has shares, all of them zero, is left out with a warning. A site without any share was left
    vacant by the reader.
    """
    zero = (units(batch.occupancy) == 0) & (batch.occupancy >= 0)
    if not zero.any():
        return batch.without_vacant_sites(), {}
    left = batch.of_species(~zero)
    emptied = (np.diff(batch.species_ptr) > 0) & (np.diff(left.species_ptr) == 0)
    counts = np.bincount(batch.site_row[emptied], minlength=len(batch.ids))
    messages = {int(row): _vacant(int(counts[row])) for row in np.flatnonzero(counts)}
    return left.without_vacant_sites(), messages


def _vacant(sites: int) -> str:
    return f"{sites} sites with occupancy 0 were left out" if sites > 1 else "a site with occupancy 0 was left out"


def one_per_element(batch: Unchecked) -> Unchecked:
    """The batch with each element once per site, in the order of first mention."""
    if (np.diff(batch.species_ptr) < 2).all():
        return batch
    key = batch.species_site * 1000 + batch.numbers.astype(np.int64)
    _, first, group = np.unique(key, return_index=True, return_inverse=True)
    if len(first) == len(key):
        return batch
    order = np.argsort(first)
    together = np.bincount(group, units(batch.occupancy))[order] / FULL
    alone = (np.bincount(group) == 1)[order]
    occupancy = np.where(alone, batch.occupancy[first[order]], together)
    counts = np.bincount(batch.species_site[first], minlength=len(batch.frac))
    return replace(batch, species_ptr=pointer(counts), numbers=batch.numbers[first[order]], occupancy=occupancy)


def scaled(batch: Unchecked) -> tuple[NDArray[np.float64], dict[int, str]]:
    """(K,) occupancies with no site above 1, and a warning by row."""
    totals = np.bincount(batch.species_site, batch.occupancy, minlength=len(batch.frac))
    crowded = totals > SCALED
    occupancy = np.minimum(batch.occupancy / np.where(crowded, totals, 1.0)[batch.species_site], 1.0)
    sums: dict[int, list[float]] = {}
    stated = site_units(batch) / FULL if crowded.any() else totals
    for site in np.flatnonzero(crowded):
        sums.setdefault(int(batch.site_row[site]), []).append(float(stated[site]))
    return occupancy, {row: _scaled(found) for row, found in sums.items()}


def _scaled(sums: list[float]) -> str:
    low, high = min(sums), max(sums)
    sites = f"{len(sums)} sites" if len(sums) > 1 else "a site"
    span = f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
    return f"occupancies of {sites} add up to {span} and were scaled to 1"
