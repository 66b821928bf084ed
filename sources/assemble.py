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

from assay.sources.checks import coincident, row_warnings, shares
from assay.sources.checks.texts import MAX_TEXT, one_line, one_name, storable
from assay.sources.checks.unchecked import Unchecked, pointer, safe_cells
from assay.sources.crystals import WARNINGS, Crystals, concat, empty, is_text, set_aside, text_array
from assay.sources.quarantine import Quarantined, Reason, Stage
from assay.sources.sift import MAX_SITES, sift


class Kinds:
    """What the columns of several files hold: numbers, texts or flags.

    A file with numbers and texts in one column counts as one with texts.
    """

    def __init__(self) -> None:
        self.contradiction = ""
        """One line about the first column of which two files hold different things; else empty."""
        self._first: dict[str, tuple[str, str]] = {}  # column -> what it holds, and where

    def take(self, name: str, kind: str, origin: str) -> None:
        """Note that a column of a file holds `kind`."""
        known, where = self._first.setdefault(name, (kind, origin))
        if known == kind:
            return
        if where == origin:
            self._first[name] = ("text", origin)
        elif not self.contradiction:
            self.contradiction = f"column {name!r} holds a {known} in {where} and a {kind} in {origin}"

    def take_row(self, columns: Mapping[str, Any], origin: str) -> None:
        """Note what a row holds; a missing value says nothing."""
        for name, value in columns.items():
            if isinstance(value, str):
                if value:
                    self.take(name, "text", origin)
            elif value is not None and not np.isnan(_float(value)):
                self.take(name, "number", origin)

    def take_batch(self, crystals: Crystals, origin: str) -> None:
        """Note what the columns of a table hold."""
        for name, column in crystals.columns.items():
            if is_text(column):
                empty_column = not (column != "").any()
            else:
                empty_column = all(value is None or value != value for value in column.flat)  # noqa: PLR0124 (NaN)
            if not empty_column:
                self.take(name, _kind(column), origin)


class Assembler:
    """Collects crystals one by one from untrusted Python values; `finish` returns the batch.

    A crystal that cannot be used becomes a record in `quarantined`, never an exception. `add`
    checks shapes and types, `finish` checks values, so `quarantined` is complete after `finish`.
    """

    def __init__(self, max_sites: int = MAX_SITES, stage: Stage = Stage.PULL, kinds: Kinds | None = None) -> None:
        self.quarantined: list[Quarantined] = []
        """One record per refused row."""
        self.max_sites = max_sites
        """Largest number of sites of an accepted crystal."""
        self._stage = stage
        self._kinds = kinds
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
        occupied sites at one position become one site. `warnings` are the oddities that a reader
        accepted; the column `warnings` of the crystal holds them behind a text of that name in
        `columns`.
        """
        try:
            cell, places = _numeric(lattice, "lattice", (3, 3)), _numeric(coords, "coordinates", (-1, 3))
            if len(site_species) != len(places):
                raise ValueError(f"{len(places)} positions but {len(site_species)} sites with species; must be equal")
            if len(places) > self.max_sites:
                self.refuse(id, origin, Reason.TOO_LARGE, f"{len(places)} sites, at most {self.max_sites}")
                return
            pairs = [(float(z), float(occupancy)) for site in site_species for z, occupancy in site]
            _check_texts(id, columns or {})
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            self.refuse(id, origin, Reason.MALFORMED, str(error))
            return
        if self._kinds is not None:
            self._kinds.take_row(columns or {}, origin)
        self._ids.append(id)
        self._origins.append(origin)
        self._lattices.append(cell)
        self._coords.append(places)
        self._cartesian.append(cartesian)
        self._species.extend(map(len, site_species))
        self._numbers.extend(z for z, _ in pairs)
        self._occupancy.extend(occupancy for _, occupancy in pairs)
        self._columns.append(_with_warnings(columns or {}, warnings))

    def refuse(self, id: object, origin: str, reason: Reason, message: str) -> None:
        """Record a crystal that the caller already knows to be unusable."""
        name, source, line = one_name(str(id)), one_line(origin), one_line(message)
        self.quarantined.append(Quarantined(name, source, self._stage, reason, line))

    def finish(self) -> tuple[Crystals, list[Quarantined]]:
        """Return the crystals that passed every check, in order, and a record for each other."""
        crystals, refusals = sift(coincident.merge(self._arrays()), self.max_sites)
        for row, reason, message in refusals:
            self.refuse(self._ids[row], self._origins[row], reason, message)
        return replace(crystals, columns=row_warnings.without_blank(crystals.columns)), self.quarantined

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
            ids=text_array(self._ids),
            lattice=lattice,
            site_ptr=site_ptr,
            frac=coords,
            species_ptr=pointer(self._species),
            numbers=np.array(self._numbers, dtype=np.float64),
            occupancy=shares.rounded(self._occupancy),
            columns=columns_of(self._columns),
        )


def join(parts: Iterable[Crystals]) -> Crystals:
    """Join batches and keep the columns of each; a null where a batch lacks a column.

    A column without a value (None throughout) goes with numbers, texts and flags alike. As in
    `assay.sources.table`, a null is NaN among numbers, "" among texts and None among flags.
    """
    parts = [part for part in parts if len(part)]
    if not parts:
        return empty()
    names = dict.fromkeys(name for part in parts for name in part.columns)
    held = [{name: column for name, column in part.columns.items() if not _holds_nothing(column)} for part in parts]
    models = {name: column for columns in reversed(held) for name, column in columns.items()}
    blanks = [
        {n: _blank(models.get(n), len(part)) for n in names if n not in columns} for part, columns in zip(parts, held)
    ]
    return concat(part.with_columns(**blank) for part, blank in zip(parts, blanks))


def _holds_nothing(column: NDArray[Any]) -> bool:
    return column.dtype.kind == "O" and all(value is None for value in column.flat)


def _blank(model: NDArray[Any] | None, length: int) -> NDArray[Any]:
    if model is None:
        return np.full(length, None)
    kind = _kind(model)
    null = {"text": "", "flag": None, "number": np.nan}[kind]
    return np.full((length, *model.shape[1:]), null, dtype=np.float64 if kind == "number" else object)


def _kind(column: NDArray[Any]) -> str:
    return "text" if is_text(column) else "flag" if column.dtype.kind in "Ob" else "number"


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
    """Turn rows into one array per name: float64 or text, with NaN or "" where a row lacks it."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: _column([row.get(name) for row in rows]) for name in names}


def _column(values: list[Any]) -> NDArray[Any]:
    if all(value is None or isinstance(value, (bool, int, float, np.number, np.bool_)) for value in values):
        return np.array([_float(value) for value in values], dtype=np.float64)
    return text_array(["" if value is None else storable(value) for value in values])


def _float(value: Any) -> float:
    try:
        return np.nan if value is None else float(value)
    except OverflowError:
        return np.nan


_HELD = {"U": "texts", "S": "texts", "b": "true and false"}
"""What an array of numpy holds, by the kind of its type."""


def _numeric(value: Any, name: str, shape: tuple[int, int]) -> NDArray[np.float64]:
    try:
        array = np.asarray(value)
    except ValueError:  # the words of numpy say nothing about the input
        raise ValueError(f"{name} must be rows of {shape[1]} numbers, and not all rows are") from None
    if array.dtype.kind not in "fiuO":
        raise ValueError(f"{name} must hold numbers, not {_HELD.get(array.dtype.kind, array.dtype.name)}")
    if shape[0] < 0 and array.shape == (0,):
        raise ValueError(f"{name} are empty, at least 1 site is needed")
    if array.ndim != 2 or array.shape[1] != shape[1] or shape[0] not in (-1, array.shape[0]):
        wanted = " x ".join("n" if size < 0 else str(size) for size in shape)
        raise ValueError(f"{name} has shape {array.shape}, expected {wanted}")
    return array.astype(np.float64)  # None becomes NaN and is refused later as not finite


def _check_texts(id: str, columns: Mapping[str, Any]) -> None:
    if not isinstance(id, str) or not id or "\0" in id or id != storable(id):
        raise ValueError(f"id {id!r} must be a non-empty text without NUL characters")
    for name, text in (("id", id), *columns.items()):
        if isinstance(text, str) and len(text) > MAX_TEXT:
            raise ValueError(f"{name} has {len(text)} characters, at most {MAX_TEXT}")


def _with_warnings(columns: Mapping[str, Any], warnings: Sequence[str]) -> Mapping[str, Any]:
    """The columns of one crystal; `warnings` is a text, so a number of that name is set aside."""
    stated = columns.get(WARNINGS)
    own = isinstance(stated, str) or stated is None
    others = {set_aside(name, {WARNINGS}): value for name, value in columns.items() if name != WARNINGS or not own}
    text = row_warnings.joined(stated if isinstance(stated, str) else "", warnings)
    return {**others, WARNINGS: text} if text else others
