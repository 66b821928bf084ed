"""The rules that a crystal must keep to enter a batch.

Enters: arrays of a whole batch with unchecked values. Leaves: `Crystals` of the rows that keep all
rules, and a reason with a message for each other row. Shortest distances are not checked here: they
need a neighbour list. This module does not know where the arrays came from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from assay.sources.checks import row_warnings, shares
from assay.sources.checks.unchecked import MAX_COORDINATE, Unchecked, safe_cells
from assay.sources.crystals import MAX_ATOMIC_NUMBER, Crystals, wrap
from assay.sources.quarantine import Reason

MAX_SITES = 400
"""Sites per cell accepted unless the caller says otherwise."""
VOLUME_PER_ATOM = (1.0, 1000.0)
"""Å^3; open interval for the cell volume over the atoms in the cell, occupancy counted."""
DENSE, DENSE_HYDROGEN = 4.0, 2.0
"""Å^3; a cell smaller than this per atom, and per hydrogen atom, gets a warning."""
MAX_CONDITION = 1e3
"""Largest accepted condition number of the lattice matrix, in the Frobenius norm."""

Refusal: TypeAlias = tuple[int, Reason, str]
"""Row, reason and one line of explanation."""
Rule: TypeAlias = Callable[[Unchecked], Iterable[Refusal]]
"""Takes a batch; yields the rows that break the rule."""


def sift(batch: Unchecked, max_sites: int = MAX_SITES) -> tuple[Crystals, list[Refusal]]:
    """Return the crystals that keep all rules, in order, and one refusal for each other row.

    The oddities of an accepted crystal are added to its `warnings`. Sifting the result again
    changes nothing.
    """
    batch, vacant = shares.without_zeros(batch)
    nothing = "every site has occupancy 0, above 0 to 1 accepted"
    refusals = {row: (row, Reason.BAD_OCCUPANCY, nothing) for row in vacant if not np.diff(batch.site_ptr)[row]}
    for rule in (_wrong_size(max_sites), _not_finite, _unknown_species, _bad_occupancies, _bad_cells, _far_away):
        for row, reason, message in rule(batch):
            refusals.setdefault(row, (row, reason, message))
    good = np.ones(len(batch.ids), dtype=bool)
    good[list(refusals)] = False
    place = np.cumsum(good) - 1
    messages = {int(place[row]): [message] for row, message in vacant.items() if good[row]}
    crystals = _build(batch if good.all() else batch.of_rows(good), messages)
    return crystals, [refusals[row] for row in sorted(refusals)]


def _build(batch: Unchecked, messages: dict[int, list[str]]) -> Crystals:
    """The batch as crystals; `messages` are warnings by row."""
    batch = shares.one_per_element(batch)
    exact, crowded = shares.scaled(batch)
    batch = replace(batch, occupancy=exact.astype(np.float32))
    for more in (crowded, _dense(batch)):
        for row, message in more.items():
            messages.setdefault(row, []).append(message)
    return Crystals(
        ids=batch.ids,
        lattice=batch.lattice,
        site_ptr=batch.site_ptr,
        frac=wrap(batch.frac),
        species_ptr=batch.species_ptr,
        numbers=batch.numbers.astype(np.uint8),
        occupancy=batch.occupancy,  # type: ignore[arg-type]  # float32 as of here
        columns=row_warnings.added(batch.columns, messages, len(batch.ids)),
    )


def _dense(batch: Unchecked) -> dict[int, str]:
    """A warning by row about each cell that is smaller than those of known crystals.

    In 175,000 measured and computed crystals, none of those without hydrogen has less than 4.8 Å^3
    per atom; diamond has 5.7. Hydrogen takes less room: LaH10 at 150 GPa has 3.0 Å^3 per atom.
    """
    room = np.where(batch.numbers == 1, DENSE_HYDROGEN, DENSE)
    needed = np.bincount(batch.species_row, batch.occupancy * room, minlength=len(batch.ids))
    volume = np.abs(np.linalg.det(batch.lattice))
    found = np.flatnonzero(volume < needed)
    if not len(found):
        return {}
    atoms = np.bincount(batch.species_row, batch.occupancy, minlength=len(batch.ids))
    words = "Å^3 per atom, less than in any crystal at ordinary pressure"
    return {int(row): f"{volume[row] / atoms[row]:.3g} {words}" for row in found}


# The rules. Each yields (row, reason, message) for rows that break it, once per kind of value.


def _wrong_size(max_sites: int) -> Rule:
    def rule(batch: Unchecked) -> Iterable[Refusal]:
        sites = np.diff(batch.site_ptr)
        for row in np.flatnonzero(sites == 0):
            yield int(row), Reason.MALFORMED, "no occupied site, at least 1 is needed"
        for row in np.flatnonzero(sites > max_sites):
            yield int(row), Reason.TOO_LARGE, f"{sites[row]} sites, at most {max_sites}"

    return rule


def _not_finite(batch: Unchecked) -> Iterable[Refusal]:
    for row in np.flatnonzero(~np.all(np.isfinite(batch.lattice), axis=(1, 2))):
        yield int(row), Reason.NON_FINITE, f"lattice {batch.lattice[row].tolist()} must be finite"
    for site in _first_per_row(~np.all(np.isfinite(batch.frac), axis=1), batch.site_row):
        place = batch.frac[site].tolist()
        yield int(batch.site_row[site]), Reason.NON_FINITE, f"coordinates {place} of a site must be finite"
    owner = batch.species_row
    for item in _first_per_row(~np.isfinite(batch.occupancy), owner):
        yield int(owner[item]), Reason.NON_FINITE, f"occupancy {batch.occupancy[item]} must be finite"


def _bad_cells(batch: Unchecked) -> Iterable[Refusal]:
    largest = np.abs(batch.lattice).max(axis=(1, 2), initial=0.0)
    for row in np.flatnonzero(largest >= MAX_COORDINATE):
        yield int(row), Reason.BAD_LATTICE, f"lattice component {largest[row]:.6g} Å, below {MAX_COORDINATE:g} accepted"
    weights = np.where(np.isfinite(batch.occupancy), batch.occupancy, 0.0)
    atoms = np.bincount(batch.species_row, weights, minlength=len(batch.ids))
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


def _far_away(batch: Unchecked) -> Iterable[Refusal]:
    with np.errstate(all="ignore"):  # not-finite rows were refused before
        reach = np.abs(np.einsum("si,sij->sj", batch.frac, safe_cells(batch.lattice)[batch.site_row])).max(
            axis=1, initial=0.0
        )
    for site in _first_per_row(~(reach < MAX_COORDINATE), batch.site_row):
        message = f"coordinate {reach[site]:.6g} Å from the origin, below {MAX_COORDINATE:g} accepted"
        yield int(batch.site_row[site]), Reason.MALFORMED, message


def _unknown_species(batch: Unchecked) -> Iterable[Refusal]:
    numbers = batch.numbers
    owner = batch.species_row
    whole = (numbers >= 1) & (numbers <= MAX_ATOMIC_NUMBER) & (numbers == np.floor(numbers))
    for item in _first_per_row(~whole, owner):
        message = f"atomic number {numbers[item]:g}, whole numbers 1 to {MAX_ATOMIC_NUMBER} accepted"
        yield int(owner[item]), Reason.UNKNOWN_SPECIES, message


def _bad_occupancies(batch: Unchecked) -> Iterable[Refusal]:
    owner = batch.species_row
    within = (batch.occupancy > 0) & (shares.units(batch.occupancy) <= shares.MOST_OF_ONE)
    for item in _first_per_row(~within, owner):
        yield int(owner[item]), Reason.BAD_OCCUPANCY, f"occupancy {batch.occupancy[item]:g}, 0 to 1 accepted"
    totals = shares.site_units(batch)
    for site in _first_per_row(~(totals <= shares.MOST_OF_SEVERAL), batch.site_row):
        message = f"a site holds {totals[site] / shares.FULL:.6g} atoms, at most 1 accepted (1.02 for rounded shares)"
        yield int(batch.site_row[site]), Reason.BAD_OCCUPANCY, message


def _first_per_row(bad: NDArray[np.bool_], owner: NDArray[np.int64]) -> NDArray[np.int64]:
    found = np.flatnonzero(bad)
    return found[np.unique(owner[found], return_index=True)[1]]
