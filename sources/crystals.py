"""The batch of crystals: ragged arrays, never lists of objects.

Enters: arrays. Leaves: `Crystals`, checked once at construction.
This module does not know files, servers or graphs. Lengths are in Å.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from assay.sources.elements import SYMBOLS, reduced_formulas

MAX_ATOMIC_NUMBER = 118
GIVEN = "id_prop_"
"""The columns of values that an `id_prop.csv` gives begin so; the number of the value follows."""
WARNINGS = "warnings"
"""Column with the accepted oddities of each crystal, joined by `; `; "" where a crystal has none.
A batch without oddities has no such column."""
SET_ASIDE = "reported_"
"""Start of the name of an input column whose own name Assay uses for another one."""
TEXT = np.dtype(object)
"""The type of texts in an array: each row takes the space of its own text, whatever the longest one
is. Arrays of fixed-width texts (`<U8`) become it when a batch is made. Objects that are no texts
are flags, some of them unknown (None)."""
_SYMBOLS = np.array(SYMBOLS)
_ALPHABETICAL = np.argsort(_SYMBOLS)


@dataclass(frozen=True, eq=False)
class Crystals:
    """`n` crystals with `S` sites and `K` site species in total; one crystal is a batch of one.

    Raises:
        ValueError: when an array breaks an invariant; the message names the array, the crystal and
            the accepted range.
    """

    ids: NDArray[Any]
    """(n,) texts, `provider/id`; a whole number becomes its digits, anything else is refused."""
    lattice: NDArray[np.float64]
    """(n, 3, 3) Å; rows are the vectors a, b, c."""
    site_ptr: NDArray[np.int64]
    """(n + 1,) sites of crystal i are `site_ptr[i]:site_ptr[i + 1]`."""
    frac: NDArray[np.float64]
    """(S, 3) fractional coordinates in [0, 1)."""
    species_ptr: NDArray[np.int64]
    """(S + 1,) species on site s are `species_ptr[s]:species_ptr[s + 1]`."""
    numbers: NDArray[np.uint8]
    """(K,) atomic numbers, 1 to 118."""
    occupancy: NDArray[np.float32]
    """(K,) in (0, 1]; an ordered site has one species at 1."""
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """name -> (n,) array: reported properties, targets, provenance. Among texts None is an empty
    text."""

    def __post_init__(self) -> None:
        if np.any(np.asarray(self.numbers) > MAX_ATOMIC_NUMBER):  # before the cast to 8 bits wraps it into an element
            raise ValueError(f"numbers must be in 1..{MAX_ATOMIC_NUMBER}, got {np.max(self.numbers)}")
        for name, dtype, shape in _LAYOUT:
            array = np.ascontiguousarray(getattr(self, name), dtype=dtype)
            if array.ndim != len(shape) or any(want not in (-1, got) for want, got in zip(shape, array.shape)):
                raise ValueError(f"{name} has shape {array.shape}, expected {shape} with -1 for any length")
            object.__setattr__(self, name, array)
        object.__setattr__(self, "ids", _ids(self.ids))
        object.__setattr__(self, "columns", {k: _column(k, np.asarray(v)) for k, v in self.columns.items()})
        self._check_lengths()
        self._check_values()

    def _check_lengths(self) -> None:
        n, sites, species = len(self.ids), len(self.frac), len(self.numbers)
        if len(self.lattice) != n:
            raise ValueError(f"lattice holds {len(self.lattice)} cells for {n} ids")
        if len(self.occupancy) != species:
            raise ValueError(f"occupancy holds {len(self.occupancy)} values for {species} species")
        _check_pointer("site_ptr", self.site_ptr, n, sites)
        _check_pointer("species_ptr", self.species_ptr, sites, species)
        for name, column in self.columns.items():
            if column.shape[:1] != (n,):
                raise ValueError(f"column {name!r} has shape {column.shape}, expected ({n},)")

    def _check_values(self) -> None:
        self._refuse("lattice", ~np.all(np.isfinite(self.lattice), axis=(1, 2)), "must be finite")
        volume = np.linalg.det(self.lattice)
        self._refuse("lattice", np.asarray(~(np.abs(volume) > 1e-6)), "must have a volume above 1e-6 Å^3")
        inside = np.all((self.frac >= 0) & (self.frac < 1), axis=1)  # False for NaN
        self._refuse("frac", ~inside, "must be finite and in [0, 1)", self.site_crystal)
        good = (self.numbers >= 1) & (self.numbers <= MAX_ATOMIC_NUMBER)
        self._refuse("numbers", ~good, f"must be in 1..{MAX_ATOMIC_NUMBER}", self._species_crystal)
        good = (self.occupancy > 0) & (self.occupancy <= 1)
        self._refuse("occupancy", ~good, "must be in (0, 1]", self._species_crystal)
        crowded = self.site_occupancy > 1 + 1e-4
        self._refuse("occupancy", crowded, "must sum to at most 1 on a site", self.site_crystal)

    def _refuse(self, name: str, bad: NDArray[np.bool_], rule: str, owner: NDArray[np.int64] | None = None) -> None:
        if not bad.any():
            return
        row = int(np.argmax(bad))
        crystal = self.ids[row if owner is None else owner[row]]
        raise ValueError(f"{name} {rule}; crystal {str(crystal)!r} has {getattr(self, name)[row].tolist()!r}")

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        """Exact equality of every array and column (NaN equals NaN)."""
        if not isinstance(other, Crystals):
            return NotImplemented
        arrays = all(np.array_equal(getattr(self, n), getattr(other, n)) for n in ("ids", *_NAMES))
        return arrays and list(self.columns) == list(other.columns) and all(map(self._same_column(other), self.columns))

    __hash__ = None  # type: ignore[assignment]

    def _same_column(self, other: Crystals) -> Any:
        def same(name: str) -> bool:
            mine, theirs = self.columns[name], other.columns[name]
            floats = mine.dtype.kind == "f" and theirs.dtype.kind == "f"
            return bool(np.array_equal(mine, theirs, equal_nan=floats))

        return same

    def __getitem__(self, index: slice) -> Crystals:
        """Crystals of a slice, in order."""
        if not isinstance(index, slice):
            raise TypeError(f"index a batch of crystals with a slice, or use select(); got {type(index).__name__}")
        return self.select(np.arange(len(self))[index])

    def select(self, index: NDArray[Any] | Sequence[int]) -> Crystals:
        """Return the crystals at the given positions, or where a boolean mask is True.

        Positions come in any order and may repeat. A selection of all crystals in order returns
        this batch itself.
        """
        index = np.asarray(index)
        rows = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
        if np.array_equal(rows, np.arange(len(self))):
            return self
        sites, site_ptr = gather_ranges(self.site_ptr, rows)
        species, species_ptr = gather_ranges(self.species_ptr, sites)
        return _trusted(
            ids=self.ids[rows],
            lattice=self.lattice[rows],
            site_ptr=site_ptr,
            frac=self.frac[sites],
            species_ptr=species_ptr,
            numbers=self.numbers[species],
            occupancy=self.occupancy[species],
            columns={name: _taken(column, rows) for name, column in self.columns.items()},
        )

    def with_columns(self, **columns: Any) -> Crystals:
        """The same crystals with columns added or replaced, each (n,)."""
        if not columns:
            return self
        arrays = {name: getattr(self, name) for name in ("ids", *_NAMES)}
        return Crystals(**arrays, columns={**self.columns, **columns})

    def without_columns(self) -> Crystals:
        """The same crystals with their ids alone."""
        return Crystals(**{name: getattr(self, name) for name in ("ids", *_NAMES)})

    @cached_property
    def nsites(self) -> NDArray[np.int64]:
        """(n,) sites in each cell."""
        return np.diff(self.site_ptr)

    @cached_property
    def site_crystal(self) -> NDArray[np.int64]:
        """(S,) crystal that owns each site."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.site_ptr))

    @cached_property
    def species_site(self) -> NDArray[np.int64]:
        """(K,) site that holds each species."""
        return np.repeat(np.arange(len(self.frac)), np.diff(self.species_ptr))

    @property
    def _species_crystal(self) -> NDArray[np.int64]:
        return self.site_crystal[self.species_site]

    @cached_property
    def site_occupancy(self) -> NDArray[np.float64]:
        """(S,) total occupancy of each site, in (0, 1]."""
        weights = self.occupancy.astype(np.float64)
        return np.asarray(np.bincount(self.species_site, weights=weights, minlength=len(self.frac)), dtype=np.float64)

    @cached_property
    def is_ordered(self) -> NDArray[np.bool_]:
        """(n,) True where every site holds one species at occupancy 1 (to 1e-5)."""
        partial = self.occupancy < 1 - 1e-5
        return np.asarray(np.bincount(self._species_crystal[partial], minlength=len(self)) == 0)

    @cached_property
    def volume(self) -> NDArray[np.float64]:
        """(n,) cell volume in Å^3."""
        return np.asarray(np.abs(np.linalg.det(self.lattice)))

    def composition(self) -> NDArray[np.float64]:
        """(n, 119) atoms per cell of each atomic number, occupancy counted; column 0 is unused."""
        width = MAX_ATOMIC_NUMBER + 1
        flat = self._species_crystal * width + self.numbers
        weights = np.round(self.occupancy.astype(np.float64), 5)
        counts = np.bincount(flat, weights=weights, minlength=len(self) * width)
        return np.asarray(counts.reshape(-1, width), dtype=np.float64)

    def elements(self) -> NDArray[Any]:
        """(n,) str, element set in alphabetical order, for example `Ag-Sn-Te`."""
        row, column = np.nonzero(self.composition()[:, _ALPHABETICAL] > 0)
        return _joined("-", _SYMBOLS[_ALPHABETICAL[column]].tolist(), row, len(self))

    def formulas(self) -> NDArray[Any]:
        """(n,) str, reduced formula in chemists' order, for example `Sr0.15La1.85CuO4`.

        It depends on the ratios of the amounts alone: every cell of a crystal has the same formula
        (`assay.sources.elements.reduced_formulas`).
        """
        return reduced_formulas(self.composition())


def _joined(glue: str, parts: Sequence[str], row: NDArray[np.int64], n: int) -> NDArray[Any]:
    """(n,) texts: the parts of each row joined by `glue`; `row` is ascending."""
    ends = np.cumsum(np.bincount(row, minlength=n)).tolist()
    return np.array([glue.join(parts[start:end]) for start, end in zip([0, *ends], ends)], dtype=np.str_)


def concat(parts: Iterable[Crystals]) -> Crystals:
    """One batch of all parts in order; only columns that every part has are kept.

    Raises:
        ValueError: when there is no part.
    """
    parts = list(parts)
    if not parts:
        raise ValueError("nothing to concatenate: at least one batch is needed")
    shared = [name for name in parts[0].columns if all(name in part.columns for part in parts)]
    joined = {name: np.concatenate([getattr(p, name) for p in parts]) for name in _NAMES if not name.endswith("_ptr")}
    return _trusted(
        ids=np.concatenate([part.ids for part in parts]),
        site_ptr=join_pointers([part.site_ptr for part in parts]),
        species_ptr=join_pointers([part.species_ptr for part in parts]),
        columns={name: _column(name, np.concatenate([part.columns[name] for part in parts])) for name in shared},
        **joined,
    )


def _trusted(**arrays: Any) -> Crystals:
    """A batch of arrays that come from batches, and were checked there."""
    found = object.__new__(Crystals)
    found.__dict__.update(arrays)
    return found


def set_aside(name: str, taken: Container[str]) -> str:
    """The name of a column of the input beside columns that have the names `taken`.

    A taken name gets one more `reported_`, and so does one that got some before: no two names
    become one, whatever the other columns are.

    >>> [set_aside(name, {"score"}) for name in ("gap", "score", "reported_score")]
    ['gap', 'reported_score', 'reported_reported_score']
    """
    bare = name
    while bare.startswith(SET_ASIDE):
        bare = bare.removeprefix(SET_ASIDE)
    return f"{SET_ASIDE}{name}" if bare in taken else name


def empty() -> Crystals:
    """A batch of no crystals."""
    zero = np.zeros(1, np.int64)
    none = np.empty(0)
    return Crystals(text_array([]), np.empty((0, 3, 3)), zero, np.empty((0, 3)), zero, none, none)  # type: ignore[arg-type]


def text_array(values: Sequence[str]) -> NDArray[Any]:
    """(n,) texts as a column of a batch; without a row the type of the array says "text"."""
    return np.array(values, dtype=TEXT if len(values) else np.str_)


def is_text(column: NDArray[Any]) -> bool:
    """Whether an array holds texts.

    >>> is_text(text_array(["a"])), is_text(text_array([])), is_text(np.array([None]))
    (True, True, False)
    """
    kind = column.dtype.kind
    return kind == "U" or (kind == "O" and column.size > 0 and isinstance(column.flat[0], str))


def _ids(ids: NDArray[Any]) -> NDArray[Any]:
    found = np.array(ids, dtype=TEXT).reshape(-1)
    if set(map(type, found)) <= {str}:
        return found
    for place, name in enumerate(found):
        if not isinstance(name, str):
            found[place] = _digits(place, name)
    return found


def _digits(place: int, name: object) -> str:
    """The id of a crystal that is named by a whole number."""
    if isinstance(name, int | np.integer) and not isinstance(name, bool):
        return str(name)
    raise ValueError(f"ids must be texts; that of crystal {place} is {name!r}")


def _column(name: str, column: NDArray[Any]) -> NDArray[Any]:
    """A column as a batch holds it: a text that is missing (None) among texts is empty."""
    if column.dtype.kind == "U":
        return column.astype(TEXT) if column.size else column
    if column.dtype.kind != "O" or (types := set(map(type, column.flat))) <= {str}:
        return column
    if not any(issubclass(one, str) for one in types):
        return column
    odd = next((value for value in column.flat if not (value is None or isinstance(value, str))), None)
    if odd is not None:
        raise ValueError(f"column {name!r} holds texts and {odd!r}; give texts alone, None where one is missing")
    missing = np.array([value is None for value in column.flat]).reshape(column.shape)
    return np.where(missing, "", column) if missing.any() else column


def _taken(column: NDArray[Any], rows: NDArray[np.int64]) -> NDArray[Any]:
    return column[rows] if len(rows) or not is_text(column) else np.empty((0, *column.shape[1:]), np.str_)


def wrap(frac: NDArray[Any]) -> NDArray[np.float64]:
    """Fractional coordinates moved into [0, 1), also for tiny negative values that round to 1."""
    wrapped = np.asarray(frac, dtype=np.float64) % 1.0
    return np.where(wrapped >= 1.0, 0.0, wrapped)


_LAYOUT: tuple[tuple[str, Any, tuple[int, ...]], ...] = (
    ("lattice", np.float64, (-1, 3, 3)),
    ("site_ptr", np.int64, (-1,)),
    ("frac", np.float64, (-1, 3)),
    ("species_ptr", np.int64, (-1,)),
    ("numbers", np.uint8, (-1,)),
    ("occupancy", np.float32, (-1,)),
)
_NAMES = tuple(name for name, _, _ in _LAYOUT)


def _check_pointer(name: str, pointer: NDArray[np.int64], owners: int, items: int) -> None:
    if len(pointer) != owners + 1 or pointer[0] != 0 or pointer[-1] != items:
        ends = pointer[[0, -1]].tolist() if len(pointer) else []
        raise ValueError(f"{name} has {len(pointer)} entries with ends {ends}, expected {owners + 1} from 0 to {items}")
    if (np.diff(pointer) < 1).any():
        raise ValueError(f"{name} must grow: entry {int(np.argmin(np.diff(pointer)))} owns nothing")


def gather_ranges(pointer: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of all items owned by `rows`, and the pointer of the result."""
    lengths = np.diff(pointer)[rows]
    fresh = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return np.arange(fresh[-1]) + np.repeat(pointer[:-1][rows] - fresh[:-1], lengths), fresh


def join_pointers(pointers: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The pointer of ragged batches laid end to end."""
    lengths = np.concatenate([np.diff(pointer) for pointer in pointers])
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
