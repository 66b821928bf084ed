"""The rules that a crystal must keep to enter a batch.

Enters: arrays of a whole batch with unchecked values. Leaves: `Crystals` of the rows that keep all
rules, and a reason with a message for each other row. Shortest distances are not checked here: they
need a neighbour list. This module does not know where the arrays came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from assay.sources.crystals import MAX_ATOMIC_NUMBER, Crystals, wrap
from assay.sources.quarantine import Reason

MAX_SITES = 400
"""Sites per cell accepted unless the caller says otherwise."""
MAX_COORDINATE = 1e4
"""Å; every lattice component and Cartesian coordinate must be smaller in magnitude."""
VOLUME_PER_ATOM = (1.0, 1000.0)
"""Å^3; open interval for the cell volume over the atoms in the cell, occupancy counted."""
MAX_CONDITION = 1e3
"""Largest accepted condition number of the lattice matrix, in the Frobenius norm."""
CROWDED = 1 + 1e-3
"""Largest accepted total occupancy of a site; totals a little above 1 are scaled back to 1."""

Refusal: TypeAlias = tuple[int, Reason, str]
"""Row, reason and one line of explanation."""


@dataclass(frozen=True)
class Unchecked:
    """Arrays shaped as in `Crystals`, with unchecked values; only the pointers are trusted."""

    ids: NDArray[Any]
    """(n,) str."""
    lattice: NDArray[np.float64]
    """(n, 3, 3) Å, any value."""
    site_ptr: NDArray[np.int64]
    """(n + 1,) a crystal may have no site."""
    frac: NDArray[np.float64]
    """(S, 3) fractional, any value."""
    species_ptr: NDArray[np.int64]
    """(S + 1,) a site may have no species: it is vacant and left out of the result."""
    numbers: NDArray[Any]
    """(K,) atomic numbers, any value."""
    occupancy: NDArray[np.float64]
    """(K,) any value."""
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """name -> (n,) array."""


Rule: TypeAlias = Callable[[Unchecked, NDArray[np.int64]], Iterable[Refusal]]
"""Takes a batch and the row of each site; yields the rows that break the rule."""


def sift(batch: Unchecked, max_sites: int = MAX_SITES) -> tuple[Crystals, list[Refusal]]:
    """Return the crystals that keep all rules, in order, and one refusal for each other row."""
    if (np.diff(batch.species_ptr) == 0).any():
        batch = _without_vacant_sites(batch)
    n = len(batch.ids)
    site_row = np.repeat(np.arange(n), np.diff(batch.site_ptr))
    refusals: dict[int, Refusal] = {}
    for rule in (_wrong_size(max_sites), _not_finite, _unknown_species, _bad_occupancies, _bad_cells, _far_away):
        for row, reason, message in rule(batch, site_row):
            refusals.setdefault(row, (row, reason, message))
    good = np.ones(n, dtype=bool)
    good[list(refusals)] = False
    return _build(batch if good.all() else _keep(batch, good)), [refusals[row] for row in sorted(refusals)]


def pointer(counts: Any) -> NDArray[np.int64]:
    """Offsets of ragged rows from the number of items in each."""
    return np.concatenate([[0], np.cumsum(np.asarray(counts, dtype=np.int64))]).astype(np.int64)


def safe_cells(lattice: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same cells, with the unit cube in place of unusable ones (flat, huge or not finite)."""
    ok = np.all(np.abs(lattice) < MAX_COORDINATE, axis=(1, 2))  # False for NaN
    safe = np.where(ok[:, None, None], lattice, np.eye(3))
    flat = np.abs(np.linalg.det(safe)) < 1e-9
    return np.where(flat[:, None, None], np.eye(3), safe)


def _without_vacant_sites(batch: Unchecked) -> Unchecked:
    counts = np.diff(batch.species_ptr)
    site_row = np.repeat(np.arange(len(batch.ids)), np.diff(batch.site_ptr))
    filled = counts > 0
    per_row = np.bincount(site_row[filled], minlength=len(batch.ids))
    return replace(batch, site_ptr=pointer(per_row), frac=batch.frac[filled], species_ptr=pointer(counts[filled]))


def _keep(batch: Unchecked, good: NDArray[np.bool_]) -> Unchecked:
    sites, species = np.diff(batch.site_ptr), np.diff(batch.species_ptr)
    of_site = np.repeat(good, sites)
    of_species = np.repeat(of_site, species)
    return Unchecked(
        ids=batch.ids[good],
        lattice=batch.lattice[good],
        site_ptr=pointer(sites[good]),
        frac=batch.frac[of_site],
        species_ptr=pointer(species[of_site]),
        numbers=batch.numbers[of_species],
        occupancy=batch.occupancy[of_species],
        columns={name: column[good] for name, column in batch.columns.items()},
    )


def _build(batch: Unchecked) -> Crystals:
    totals = _site_totals(batch)
    scale = np.where(totals > 1 + 1e-4, totals, 1.0)
    occupancy = np.minimum(batch.occupancy / np.repeat(scale, np.diff(batch.species_ptr)), 1.0)
    return Crystals(
        ids=batch.ids,
        lattice=batch.lattice,
        site_ptr=batch.site_ptr,
        frac=wrap(batch.frac),
        species_ptr=batch.species_ptr,
        numbers=batch.numbers.astype(np.uint8),
        occupancy=occupancy.astype(np.float32),
        columns=batch.columns,
    )


def _site_totals(batch: Unchecked) -> NDArray[np.float64]:
    site = np.repeat(np.arange(len(batch.frac)), np.diff(batch.species_ptr))
    totals = np.bincount(site, weights=batch.occupancy, minlength=len(batch.frac))
    return np.asarray(totals, dtype=np.float64)


# The rules. Each yields (row, reason, message) for rows that break it, once per kind of value.


def _wrong_size(max_sites: int) -> Rule:
    def rule(batch: Unchecked, _: NDArray[np.int64]) -> Iterable[Refusal]:
        sites = np.diff(batch.site_ptr)
        for row in np.flatnonzero(sites == 0):
            yield int(row), Reason.MALFORMED, "no occupied site, at least 1 is needed"
        for row in np.flatnonzero(sites > max_sites):
            yield int(row), Reason.TOO_LARGE, f"{sites[row]} sites, at most {max_sites}"

    return rule


def _not_finite(batch: Unchecked, site_row: NDArray[np.int64]) -> Iterable[Refusal]:
    for row in np.flatnonzero(~np.all(np.isfinite(batch.lattice), axis=(1, 2))):
        yield int(row), Reason.NON_FINITE, f"lattice {batch.lattice[row].tolist()} must be finite"
    for site in _first_per_row(~np.all(np.isfinite(batch.frac), axis=1), site_row):
        place = batch.frac[site].tolist()
        yield int(site_row[site]), Reason.NON_FINITE, f"coordinates {place} of a site must be finite"
    owner = np.repeat(site_row, np.diff(batch.species_ptr))
    for item in _first_per_row(~np.isfinite(batch.occupancy), owner):
        yield int(owner[item]), Reason.NON_FINITE, f"occupancy {batch.occupancy[item]} must be finite"


def _bad_cells(batch: Unchecked, site_row: NDArray[np.int64]) -> Iterable[Refusal]:
    largest = np.abs(batch.lattice).max(axis=(1, 2), initial=0.0)
    for row in np.flatnonzero(largest >= MAX_COORDINATE):
        yield int(row), Reason.BAD_LATTICE, f"lattice component {largest[row]:.6g} Å, below {MAX_COORDINATE:g} accepted"
    weights = np.where(np.isfinite(batch.occupancy), batch.occupancy, 0.0)
    atoms = np.bincount(np.repeat(site_row, np.diff(batch.species_ptr)), weights, minlength=len(batch.ids))
    safe = safe_cells(batch.lattice)
    swapped = (safe != batch.lattice).any(axis=(1, 2))
    space = np.where(swapped, 0.0, np.abs(np.linalg.det(safe))) / np.maximum(atoms, 1e-5)
    low, high = VOLUME_PER_ATOM
    for row in np.flatnonzero(~((space > low) & (space < high))):
        yield int(row), Reason.BAD_LATTICE, f"{space[row]:.6g} Å^3 per atom, {low:g} to {high:g} accepted"
    condition = _condition(safe)
    for row in np.flatnonzero(~(condition < MAX_CONDITION)):
        yield int(row), Reason.BAD_LATTICE, f"condition number {condition[row]:.3g}, below {MAX_CONDITION:g} accepted"


def _condition(lattice: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) condition number |A| |A^-1| in the Frobenius norm.

    The cross products of the rows give the cofactors, which is cheaper than an SVD.
    """
    cofactors = np.cross(np.roll(lattice, -1, axis=1), np.roll(lattice, -2, axis=1))
    norms = np.linalg.norm(lattice, axis=(1, 2)) * np.linalg.norm(cofactors, axis=(1, 2))
    return np.asarray(norms / np.abs(np.linalg.det(lattice)), dtype=np.float64)


def _far_away(batch: Unchecked, site_row: NDArray[np.int64]) -> Iterable[Refusal]:
    with np.errstate(all="ignore"):  # not-finite rows were refused before
        reach = np.abs(np.einsum("si,sij->sj", batch.frac, safe_cells(batch.lattice)[site_row])).max(
            axis=1, initial=0.0
        )
    for site in _first_per_row(~(reach < MAX_COORDINATE), site_row):
        message = f"coordinate {reach[site]:.6g} Å from the origin, below {MAX_COORDINATE:g} accepted"
        yield int(site_row[site]), Reason.MALFORMED, message


def _unknown_species(batch: Unchecked, site_row: NDArray[np.int64]) -> Iterable[Refusal]:
    numbers = batch.numbers
    owner = np.repeat(site_row, np.diff(batch.species_ptr))
    whole = (numbers >= 1) & (numbers <= MAX_ATOMIC_NUMBER) & (numbers == np.floor(numbers))
    for item in _first_per_row(~whole, owner):
        message = f"atomic number {numbers[item]:g}, whole numbers 1 to {MAX_ATOMIC_NUMBER} accepted"
        yield int(owner[item]), Reason.UNKNOWN_SPECIES, message


def _bad_occupancies(batch: Unchecked, site_row: NDArray[np.int64]) -> Iterable[Refusal]:
    owner = np.repeat(site_row, np.diff(batch.species_ptr))
    for item in _first_per_row(~((batch.occupancy > 0) & (batch.occupancy <= CROWDED)), owner):
        yield int(owner[item]), Reason.BAD_OCCUPANCY, f"occupancy {batch.occupancy[item]:g}, above 0 to 1 accepted"
    totals = _site_totals(batch)
    for site in _first_per_row(~(totals <= CROWDED), site_row):
        yield int(site_row[site]), Reason.BAD_OCCUPANCY, f"a site holds {totals[site]:g} atoms, at most 1 accepted"


def _first_per_row(bad: NDArray[np.bool_], owner: NDArray[np.int64]) -> NDArray[np.int64]:
    found = np.flatnonzero(bad)
    return found[np.unique(owner[found], return_index=True)[1]]
