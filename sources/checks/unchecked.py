"""A batch of crystals with unchecked values.

Enters: arrays. Leaves: `Unchecked`, which has the shape of `Crystals` and promises nothing else.
This module does not know rules.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_COORDINATE = 1e4
"""Å; every lattice component and Cartesian coordinate must be smaller in magnitude."""


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
    """(K,) atomic numbers, any value; an element may stand twice on a site."""
    occupancy: NDArray[np.float64]
    """(K,) any value."""
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """name -> (n,) array."""

    @cached_property
    def site_row(self) -> NDArray[np.int64]:
        """(S,) row of each site."""
        return np.repeat(np.arange(len(self.ids)), np.diff(self.site_ptr))

    @cached_property
    def species_site(self) -> NDArray[np.int64]:
        """(K,) site of each species."""
        return np.repeat(np.arange(len(self.frac)), np.diff(self.species_ptr))

    @property
    def species_row(self) -> NDArray[np.int64]:
        """(K,) row of each species."""
        return self.site_row[self.species_site]

    def of_rows(self, wanted: NDArray[np.bool_]) -> Unchecked:
        """The rows where `wanted` (n,) is True."""
        sites, species = np.diff(self.site_ptr), np.diff(self.species_ptr)
        of_site = np.repeat(wanted, sites)
        of_species = np.repeat(of_site, species)
        return Unchecked(
            ids=self.ids[wanted],
            lattice=self.lattice[wanted],
            site_ptr=pointer(sites[wanted]),
            frac=self.frac[of_site],
            species_ptr=pointer(species[of_site]),
            numbers=self.numbers[of_species],
            occupancy=self.occupancy[of_species],
            columns={name: column[wanted] for name, column in self.columns.items()},
        )

    def of_species(self, wanted: NDArray[np.bool_]) -> Unchecked:
        """The same sites with the species where `wanted` (K,) is True; a site may become vacant."""
        counts = np.bincount(self.species_site[wanted], minlength=len(self.frac))
        numbers, occupancy = self.numbers[wanted], self.occupancy[wanted]
        return replace(self, species_ptr=pointer(counts), numbers=numbers, occupancy=occupancy)

    def without_vacant_sites(self) -> Unchecked:
        """The same crystals without the sites that have no species."""
        counts = np.diff(self.species_ptr)
        filled = counts > 0
        if filled.all():
            return self
        sites = np.bincount(self.site_row[filled], minlength=len(self.ids))
        return replace(self, site_ptr=pointer(sites), frac=self.frac[filled], species_ptr=pointer(counts[filled]))


def pointer(counts: Any) -> NDArray[np.int64]:
    """Offsets of ragged rows from the number of items in each."""
    return np.concatenate([[0], np.cumsum(np.asarray(counts, dtype=np.int64))]).astype(np.int64)


def safe_cells(lattice: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same cells, with the unit cube in place of unusable ones (flat, huge or not finite)."""
    ok = np.all(np.abs(lattice) < MAX_COORDINATE, axis=(1, 2))  # False for NaN
    safe = np.where(ok[:, None, None], lattice, np.eye(3))
    flat = np.abs(np.linalg.det(safe)) < 1e-9
    return np.where(flat[:, None, None], np.eye(3), safe)
