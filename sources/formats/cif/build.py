"""Builds a cell from the sites of a CIF and its symmetry operations.

Enters: sites and one reading of the symmetry. Leaves: every atom of the cell, and measures by which
two readings can be compared. This module does not know texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import gemmi
import numpy as np
from numpy.typing import NDArray

from assay.sources.checks import limits, shares
from assay.sources.elements import SYMBOLS
from assay.sources.formats.cif.operations import SITE_TOLERANCE, Operations
from assay.sources.formats.cif.sites import Site
from assay.sources.formats.cif.species import Refused
from assay.sources.formats.cif.symmetry import Reading
from assay.sources.quarantine import Reason

CROWDED_PLACE = shares.MOST_OF_SEVERAL / shares.FULL + 1e-6
"""Atoms on one place that may be rounded shares; `sift` judges sums a little above 1."""
SAME_ATOM = 0.05
"""Å along the longest axis of the cell; images farther apart are two atoms."""
MAX_COMPARED = 2000
"""Sites of a cell whose readings are compared."""


@dataclass(frozen=True, eq=False)
class Built:
    """All atoms of a cell by one reading."""

    source: str
    """The reading."""
    frac: NDArray[np.float64]
    """(S, 3) fractional."""
    owner: NDArray[np.int64]
    """(S,) row of the list of sites."""
    operation: NDArray[np.int64]
    """(S,) operation that makes the site from its row."""
    species: tuple[tuple[tuple[int, float], ...], ...]
    """Atomic numbers and occupancies of each row; none for a row that repeats another one."""
    notes: tuple[str, ...] = ()
    """What had to be decided about rows that share a place."""

    @cached_property
    def amounts(self) -> dict[str, float]:
        """Atoms of each element in the cell."""
        images = np.bincount(self.owner, minlength=len(self.species)).tolist()
        found: dict[str, float] = {}
        for count, species in zip(images, self.species):
            for element, share in species:
                found[SYMBOLS[element]] = found.get(SYMBOLS[element], 0.0) + count * share
        return {symbol: amount for symbol, amount in found.items() if amount}


def build(rows: list[Site], reading: Reading, lattice: NDArray[np.float64]) -> Built:
    """Apply the operations to every site of a cell (3, 3) Å.

    A site that repeats an atom of an earlier one at another image of it is left out.

    Raises:
        Refused: when one place holds more than one atom, or a site is not clearly on or off a
            special position.
    """
    group = reading.operations
    tolerance = min(SITE_TOLERANCE, SAME_ATOM / float(np.linalg.norm(lattice, axis=1).max()))
    if len(group) == 1 and (alone := _alone(rows, reading, tolerance)) is not None:
        return alone
    limits.check("images", len(rows) * len(group), f"{len(rows)} sites under {len(group)} operations")
    notes: list[str] = []
    listed = np.array([_placed(row, group, tolerance, notes) for row in rows]).reshape(-1, 3)
    frac: list[NDArray[np.float64]] = []
    owner: list[int] = []
    made: list[NDArray[np.int64]] = []
    cell = np.empty((0, 3))
    species: list[tuple[tuple[int, float], ...]] = []
    for index, row in enumerate(rows):
        place, hits = _met(cell, listed[index], tolerance)
        limits.check("shares", len(hits), f"line {row.line}")
        if hits and _repeats(rows, listed, [owner[hit] for hit in hits], index, notes):
            species.append(())
            continue
        orbit = group.orbit(place, tolerance)
        if orbit is None:
            message = f"line {row.line}: site {row.label} is neither on a special position nor clearly off it"
            raise Refused(Reason.MALFORMED, f"{message}, by {reading.source}")
        frac.append(orbit[0])
        made.append(orbit[1])
        owner += [index] * len(orbit[1])
        species.append(tuple(row.species))
        cell = np.concatenate([cell, orbit[0]])
        limits.check("sites", len(cell))
    return Built(
        reading.source,
        cell,
        np.array(owner, dtype=np.int64),
        np.concatenate([np.empty(0, np.int64), *made]),
        tuple(species),
        tuple(notes),
    )


def _met(
    cell: NDArray[np.float64], place: NDArray[np.float64], tolerance: float
) -> tuple[NDArray[np.float64], list[int]]:
    """A place (3,), moved onto the first site (S, 3) that stands there already, and those sites."""
    gap = cell - place
    gap -= np.round(gap)
    hits = np.flatnonzero(np.abs(gap).max(axis=1, initial=0.0) < tolerance)
    return (place + gap[hits[0]] if len(hits) else place), hits.tolist()


def _alone(rows: list[Site], reading: Reading, tolerance: float) -> Built | None:
    """The cell without symmetry, None where sites share a place or are too many to be compared."""
    frac = np.array([row.place for row in rows]).reshape(-1, 3)
    gap = frac[:, None] - frac[None] if len(rows) <= MAX_COMPARED else np.zeros((1, 1, 3))
    close = np.abs(gap - np.round(gap)).max(axis=-1) < tolerance
    if np.count_nonzero(close) != len(rows):
        return None
    species = tuple(tuple(row.species) for row in rows)
    return Built(reading.source, frac, np.arange(len(rows)), np.zeros(len(rows), np.int64), species)


def _placed(row: Site, group: Operations, tolerance: float, notes: list[str]) -> NDArray[np.float64]:
    """Where a row stands: as written, or at rounded thirds where these are more special."""
    place, thirds = np.array(row.place), np.array(row.thirds if group.has_threefold else row.place)
    if (place == thirds).all():
        return place
    written, special = group.orbit(place, tolerance), group.orbit(thirds, tolerance)
    if special is None or (written is not None and len(written[0]) <= len(special[0])):
        return place
    notes.append(f"coordinates of {row.label} were taken as thirds: {', '.join(row.written)}")
    return thirds


def _repeats(rows: list[Site], listed: NDArray[np.float64], owners: list[int], index: int, notes: list[str]) -> bool:
    """Whether a row lists an atom again that an earlier row made; False where they share a place.

    Raises:
        Refused: when the place would hold more than one atom.
    """
    row = rows[index]
    before = list(dict.fromkeys(owners))
    total = row.amount + sum(rows[k].amount for k in before)
    twin = next((k for k in before if rows[k].species == row.species), None)
    elsewhere = False
    if twin is not None:
        gap = listed[twin] - listed[index]
        elsewhere = bool(np.abs(gap - np.round(gap)).max() >= SITE_TOLERANCE)
    if total <= CROWDED_PLACE:
        if elsewhere and twin is not None:
            notes.append(f"sites {rows[twin].label} and {row.label} are images of each other; their shares were added")
        return False
    if elsewhere and twin is not None:
        notes.append(f"site {row.label} lists an image of {rows[twin].label} again and was left out")
        return True
    labels = " and ".join([*(rows[k].label for k in before), row.label])
    text = f"{labels} share a place and hold {total:.6g} atoms, at most 1 accepted (1.02 for rounded shares)"
    raise Refused(Reason.BAD_OCCUPANCY, f"line {row.line}: {text}")


def same_crystal(one: Built, other: Built) -> bool:
    """Whether two readings give the same atoms at the same places."""
    if len(one.frac) != len(other.frac) or len(one.frac) > MAX_COMPARED:
        return False
    kinds = [np.array([hash(built.species[k]) for k in built.owner.tolist()]) for built in (one, other)]
    for place, kind in zip(one.frac, kinds[0]):
        gap = other.frac - place
        near = np.abs(gap - np.round(gap)).max(axis=1) < 2 * SITE_TOLERANCE
        if not np.any(near & (kinds[1] == kind)):
            return False
    return True


def closest_ratio(built: Built, lattice: NDArray[np.float64]) -> float:
    """Shortest distance of two atoms, as a multiple of the sum of their covalent radii.

    The radii are those of Cordero et al., Dalton Trans. 2832, 2008, as gemmi holds them. Sites that
    may be alternatives of each other (together at most one atom) are left out. Of a cell too large
    to be compared, 0.
    """
    if len(built.frac) > MAX_COMPARED:
        return 0.0
    steps = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    radius = np.array(
        [max((gemmi.Element(SYMBOLS[z]).covalent_r for z, _ in species), default=1.0) for species in built.species]
    )[built.owner]
    amount = np.array([sum(share for _, share in species) for species in built.species])[built.owner]
    best = np.inf
    for index in np.unique(built.owner, return_index=True)[1].tolist():
        gap = built.frac - built.frac[index]
        gap -= np.round(gap)
        distance = np.linalg.norm((gap[:, None] + steps) @ lattice, axis=-1)
        distance[index, 13] = np.inf
        distance[amount + amount[index] <= CROWDED_PLACE] = np.inf
        best = min(best, float((distance.min(axis=1) / (radius + radius[index])).min()))
    return best


def density(built: Built, lattice: NDArray[np.float64]) -> float:
    """Density in g/cm^3 of the cell (3, 3) Å."""
    mass = sum(amount * float(gemmi.Element(symbol).weight) for symbol, amount in built.amounts.items())
    return 1.66054 * mass / abs(float(np.linalg.det(lattice)))
