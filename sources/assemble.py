"""The gate for crystals that arrive one by one as plain Python values.

Enters: untrusted values, one crystal at a time (`Assembler.add`). Leaves: one batch of `Crystals`,
and a quarantine record for each refused crystal. `assay.sources.sift` holds the rules. This module
does not know servers, files or tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.sources.crystals import Crystals, concat, empty
from assay.sources.quarantine import Quarantined, Reason, Stage
from assay.sources.sift import CROWDED, MAX_SITES, Unchecked, pointer, safe_cells, sift

SAME_PLACE = 0.01
"""Å; partly occupied sites closer than this are one disordered site."""
WARNINGS = "warnings"
"""Column with the accepted oddities of a crystal, joined by `; `; empty where there is none."""
MAX_TEXT = 4096
"""Longest accepted id or text, in characters: one long text would widen the whole array column."""


class Assembler:
    """Collects crystals one by one from untrusted Python values; `finish` returns the batch.

    A crystal that cannot be used becomes a record in `quarantined`, never an exception. `add`
    checks shapes and types, `finish` checks values, so `quarantined` is complete after `finish`.
    """

    def __init__(self, max_sites: int = MAX_SITES, stage: Stage = Stage.PULL) -> None:
        self.quarantined: list[Quarantined] = []
        """One record per refused row."""
        self._max_sites, self._stage = max_sites, stage
        self._ids: list[str] = []
        self._origins: list[str] = []
        self._lattices: list[NDArray[np.float64]] = []
        self._coords: list[NDArray[np.float64]] = []
        self._cartesian: list[bool] = []
        self._species: list[int] = []  # species per site, all rows one after the other
        self._numbers: list[Any] = []
        self._occupancy: list[Any] = []
        self._columns: list[Mapping[str, Any]] = []

    def add(
        self,
        id: str,
        origin: str,
        lattice: Any,
        coords: Any,
        site_species: Sequence[Sequence[tuple[int, float]]],
        columns: Mapping[str, Any] | None = None,
        cartesian: bool = False,
        warnings: Sequence[str] = (),
    ) -> None:
        """Take one crystal.

        The rows of `lattice` are the vectors a, b, c in Å. `coords` holds one position per site,
        fractional or, with `cartesian`, in Å. `site_species` holds for each site its pairs of
        atomic number and occupancy. A site without species is vacant and is left out. Partly
        occupied sites at one position become one site. `warnings` says what a reader had to decide;
        the column `warnings` of the crystal holds them.
        """
        try:
            cell, places = _numeric(lattice, "lattice", (3, 3)), _numeric(coords, "coordinates", (-1, 3))
            if len(site_species) != len(places):
                raise ValueError(f"{len(places)} positions but {len(site_species)} sites with species; must be equal")
            if len(places) > self._max_sites:
                self.refuse(id, origin, Reason.TOO_LARGE, f"{len(places)} sites, at most {self._max_sites}")
                return
            pairs = [(float(z), float(occupancy)) for site in site_species for z, occupancy in site]
            _check_texts(id, columns or {})
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            self.refuse(id, origin, Reason.MALFORMED, str(error))
            return
        self._ids.append(id)
        self._origins.append(origin)
        self._lattices.append(cell)
        self._coords.append(places)
        self._cartesian.append(cartesian)
        self._species.extend(map(len, site_species))
        self._numbers.extend(z for z, _ in pairs)
        self._occupancy.extend(occupancy for _, occupancy in pairs)
        self._columns.append({**(columns or {}), WARNINGS: "; ".join(warnings)} if warnings else columns or {})

    def refuse(self, id: object, origin: str, reason: Reason, message: str) -> None:
        """Record a crystal that the caller already knows to be unusable."""
        clean = (_one_line(str(text)) for text in (id, origin, message))
        name, source, line = clean
        self.quarantined.append(Quarantined(name, source, self._stage, reason, line))

    def finish(self) -> tuple[Crystals, list[Quarantined]]:
        """Return the crystals that passed every check, in order, and a record for each other."""
        crystals, refusals = sift(_unify_sites(self._arrays()), self._max_sites)
        for row, reason, message in refusals:
            self.refuse(self._ids[row], self._origins[row], reason, message)
        return crystals, self.quarantined

    def _arrays(self) -> Unchecked:
        lattice = np.array(self._lattices, dtype=np.float64).reshape(-1, 3, 3)
        site_ptr = pointer([len(places) for places in self._coords])
        coords = np.concatenate([np.empty((0, 3)), *self._coords])
        row = np.repeat(np.arange(len(lattice)), np.diff(site_ptr))
        moved = np.array(self._cartesian, dtype=bool)[row]
        if moved.any():
            inverse = np.linalg.inv(safe_cells(lattice))
            coords[moved] = np.einsum("si,sij->sj", coords[moved], inverse[row[moved]])
        return Unchecked(
            ids=np.array(self._ids, dtype=np.str_),
            lattice=lattice,
            site_ptr=site_ptr,
            frac=coords,
            species_ptr=pointer(self._species),
            numbers=np.array(self._numbers, dtype=np.float64),
            occupancy=_rounded(self._occupancy),
            columns=columns_of(self._columns),
        )


def _rounded(occupancy: list[Any]) -> NDArray[np.float64]:
    exact = np.array(occupancy, dtype=np.float64)
    return np.asarray(exact.round(5), dtype=np.float64)


def join(parts: Iterable[Crystals]) -> Crystals:
    """Join batches and keep the columns of each; NaN or "" where a batch lacks a column."""
    parts = [part for part in parts if len(part)]
    if not parts:
        return empty()
    models = {name: column for part in reversed(parts) for name, column in part.columns.items()}
    names = dict.fromkeys(name for part in parts for name in part.columns)
    return concat(
        part.with_columns(**{n: _blank(models[n], len(part)) for n in names if n not in part.columns}) for part in parts
    )


def _blank(model: NDArray[Any], length: int) -> NDArray[Any]:
    text = model.dtype.kind in "UO"
    return np.full((length, *model.shape[1:]), "" if text else np.nan)


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
    """Turn rows into one array per name: float64 or text, with NaN or "" where a row lacks it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: _column([row.get(name) for row in rows]) for name in names}


def _column(values: list[Any]) -> NDArray[Any]:
    if all(value is None or isinstance(value, (bool, int, float, np.number, np.bool_)) for value in values):
        return np.array([_float(value) for value in values], dtype=np.float64)
    return np.array(["" if value is None else _text(value) for value in values], dtype=np.str_)


def _float(value: Any) -> float:
    try:
        return np.nan if value is None else float(value)
    except OverflowError:
        return np.nan


def _text(value: Any) -> str:
    return str(value).encode("utf-8", "replace").decode("utf-8")  # lone surrogates cannot be stored


def _one_line(text: str) -> str:
    return " ".join(_text(text).replace("\0", " ").split())[:500]


def _numeric(value: Any, name: str, shape: tuple[int, int]) -> NDArray[np.float64]:
    array = np.asarray(value)
    if array.dtype.kind not in "fiuO":
        raise ValueError(f"{name} must hold numbers, not {array.dtype.type.__name__}")
    if array.ndim != 2 or array.shape[1] != shape[1] or shape[0] not in (-1, array.shape[0]):
        wanted = " x ".join("n" if size < 0 else str(size) for size in shape)
        raise ValueError(f"{name} has shape {array.shape}, expected {wanted}")
    return array.astype(np.float64)  # None becomes NaN and is refused later as not finite


def _check_texts(id: str, columns: Mapping[str, Any]) -> None:
    if not isinstance(id, str) or not id or "\0" in id or id != _text(id):
        raise ValueError(f"id {id!r} must be a non-empty text without NUL characters")
    for name, text in (("id", id), *columns.items()):
        if isinstance(text, str) and len(text) > MAX_TEXT:
            raise ValueError(f"{name} has {len(text)} characters, at most {MAX_TEXT}")


# Disorder written as several sites, or as one element listed twice, is brought to one form.


def _unify_sites(batch: Unchecked) -> Unchecked:
    """Merge partly occupied sites at one position, and equal species on one site."""
    site_row = np.repeat(np.arange(len(batch.ids)), np.diff(batch.site_ptr))
    species_row = np.repeat(site_row, np.diff(batch.species_ptr))
    rows = np.unique(species_row[batch.occupancy < 1])
    if not len(rows):
        return batch
    sites: list[list[int]] = []
    counts: list[int] = []
    numbers: list[float] = []
    occupancy: list[float] = []
    partial = np.isin(np.arange(len(batch.ids)), rows)
    for row in range(len(batch.ids)):
        own = np.arange(batch.site_ptr[row], batch.site_ptr[row + 1])
        groups = _shared_places(batch, row, own) if partial[row] else [[int(site)] for site in own]
        for group in groups:
            species = _species_of(batch, group)
            counts.append(len(species))
            numbers.extend(species.keys())
            occupancy.extend(species.values())
        sites.append([group[0] for group in groups])
    return replace(
        batch,
        site_ptr=pointer([len(firsts) for firsts in sites]),
        frac=batch.frac[[site for firsts in sites for site in firsts]],
        species_ptr=pointer(counts),
        numbers=np.array(numbers, dtype=np.float64),
        occupancy=_rounded(occupancy),
    )


def _shared_places(batch: Unchecked, row: int, own: NDArray[np.int64]) -> list[list[int]]:
    """Group the sites of one crystal that coincide and together hold at most one atom."""
    with np.errstate(all="ignore"):
        gap = batch.frac[own][:, None] - batch.frac[own][None]
        gap = np.linalg.norm((gap - np.round(gap)) @ safe_cells(batch.lattice[row : row + 1])[0], axis=-1)
    totals = {int(site): sum(_species_of(batch, [int(site)]).values()) for site in own}
    groups: list[list[int]] = []
    for here, site in enumerate(own.tolist()):
        for group in groups:
            close = gap[here, group[0] - int(own[0])] < SAME_PLACE
            if close and totals[site] + sum(totals[member] for member in group) <= CROWDED:
                group.append(site)
                break
        else:
            groups.append([site])
    return groups


def _species_of(batch: Unchecked, group: list[int]) -> dict[float, float]:
    species: dict[float, float] = {}
    for site in group:
        for item in range(batch.species_ptr[site], batch.species_ptr[site + 1]):
            number = float(batch.numbers[item])
            species[number] = species.get(number, 0.0) + float(batch.occupancy[item])
    return species
