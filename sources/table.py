"""Crystals as Arrow tables and Parquet files.

Enters: `Crystals`, or a table in Assay's own layout or in that of the data packs. Leaves: a table,
or `Crystals` with quarantine records for the refused rows. This module does not know folders
of structure files, servers or predictions.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from assay.sources.checks import shares
from assay.sources.checks.texts import MAX_TEXT
from assay.sources.checks.unchecked import Unchecked, pointer
from assay.sources.crystals import WARNINGS, Crystals, is_text, set_aside, text_array
from assay.sources.durable import whole
from assay.sources.quarantine import Quarantined, Reason, Stage
from assay.sources.sift import MAX_SITES, sift

log = logging.getLogger(__name__)
Sifted = tuple[Crystals, list[Quarantined]]
"""Crystals, and a record for each refused row."""
Refusals = list[tuple[str, Reason, str]]


def _field(name: str, kind: pa.DataType, unit: str, meaning: str) -> pa.Field:
    return pa.field(name, kind, metadata={"unit": unit, "meaning": meaning})


def list_of(kind: pa.DataType) -> pa.DataType:
    """A list, with Parquet's own name inside: a table read and written again is the same."""
    return pa.list_(pa.field("element", kind))


CRYSTAL_FIELDS: tuple[pa.Field, ...] = (
    _field("id", pa.string(), "", "provider/id, unique within a campaign"),
    _field("nsites", pa.int32(), "", "sites in the cell"),
    _field("lattice_vectors", list_of(pa.float64()), "Å", "9 values, row-major, rows are a, b, c"),
    _field("fractional_site_positions", list_of(pa.float64()), "", "3 values per site, in [0, 1)"),
    _field("species_count", list_of(pa.int32()), "", "species on each site"),
    _field("atomic_numbers", list_of(pa.uint8()), "", "one per species, site after site"),
    _field("occupancy", list_of(pa.float32()), "", "one per species, in (0, 1]"),
)
"""The columns every crystal table starts with, in order."""
QUARANTINE_SCHEMA = pa.schema(
    [
        _field("id", pa.string(), "", "provider/id"),
        _field("origin", pa.string(), "", "URL or path the row came from"),
        _field("stage", pa.string(), "", "pull, featurize, predict or relax"),
        _field("reason", pa.string(), "", "code from the closed list assay.sources.quarantine.Reason"),
        _field("message", pa.string(), "", "the offending value and the accepted range"),
    ]
)
"""One row per refused crystal."""

_OWN = tuple(field.name for field in CRYSTAL_FIELDS)
RESERVED = frozenset(_OWN)
"""Names that a column of a batch may not have, because a crystal field has them."""

ENCODING = {"compression": "zstd", "use_dictionary": False, "write_page_checksum": True, "write_statistics": False}
"""How Parquet is written. No checksum guards statistics: after a single flipped bit, a reader that
trusts them would skip rows. Without dictionaries zstd is smaller and quicker."""

_PACK = ("id", "n_sites", "lattice", "frac_coords", "atomic_numbers", "site_index", "occupancy")


def to_table(crystals: Crystals) -> pa.Table:
    """One row per crystal: `CRYSTAL_FIELDS`, then the columns of the batch.

    Raises:
        ValueError: when a column has the name of a crystal field, or more than two dimensions.
    """
    species_start = crystals.species_ptr[crystals.site_ptr]
    arrays = [
        pa.array(crystals.ids.astype(object), pa.string()),
        pa.array(crystals.nsites.astype(np.int32)),
        _lists(9 * np.arange(len(crystals) + 1), crystals.lattice.ravel(), pa.float64()),
        _lists(3 * crystals.site_ptr, crystals.frac.ravel(), pa.float64()),
        _lists(crystals.site_ptr, np.diff(crystals.species_ptr), pa.int32()),
        _lists(species_start, crystals.numbers, pa.uint8()),
        _lists(species_start, crystals.occupancy, pa.float32()),
    ]
    fields = list(CRYSTAL_FIELDS)
    for name, column in crystals.columns.items():
        if name in _OWN:
            raise ValueError(f"column {name!r} has the name of a crystal field; these are taken: {', '.join(_OWN)}")
        arrays.append(_to_arrow(name, column))
        fields.append(pa.field(name, arrays[-1].type))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def from_table(
    table: pa.Table, name: str, max_sites: int = MAX_SITES, *, first: int = 0, sifted: bool = False
) -> Sifted:
    """Read the crystals of a table in Assay's layout or in the layout of the data packs.

    Ids are kept as they are. Scalar columns become columns of the batch. A null becomes NaN among
    numbers, "" among texts and None among flags; a column that holds nothing else becomes None
    throughout. List columns of one fixed length become (n, length). The log notes other columns.
    `name` is the origin in quarantine records, `first` the place of row 0 there. What `to_table`
    made of crystals read before is `sifted`: sifting it again would change nothing.

    Raises:
        ValueError: when the table is in neither layout, or a structure column does not fit.
    """
    if sifted:
        return Crystals(**vars(_own_arrays(table))), []
    layout = _layout_of(table, name)
    table, refused = _without_ragged_rows(table, layout, name, first)
    batch = _own_arrays(table) if layout == "own" else _pack_arrays(table)
    crystals, refusals = sift(batch, max_sites)
    refused += [(str(batch.ids[row]), reason, message) for row, reason, message in refusals]
    return crystals, [Quarantined(id, name, Stage.PULL, reason, message) for id, reason, message in refused]


def kind_of(column: pa.DataType) -> str | None:
    """The kind of a column; two columns of one kind, or with an `empty` one, can be joined.

    None for a column that `from_table` leaves out.

    >>> kind_of(pa.int32()), kind_of(pa.bool_()), kind_of(pa.list_(pa.float64(), 3))
    ('number', 'flag', 'number[3]')
    """
    types = pa.types
    if types.is_dictionary(column):
        return kind_of(column.value_type)
    if types.is_fixed_size_list(column):
        inner = kind_of(column.value_type)
        return inner if inner in (None, "empty") else f"{inner}[{column.list_size}]"
    if column in (pa.string(), pa.large_string(), pa.string_view()) or types.is_temporal(column):
        return "text"
    if types.is_integer(column) or types.is_floating(column):
        return "number"
    return {pa.bool_(): "flag", pa.null(): "empty"}.get(column)


def kinds(schema: pa.Schema) -> dict[str, str]:
    """Name of each column beside the crystal fields -> its kind; `warnings` may hold anything."""
    taken = {*_OWN, *_PACK, WARNINGS}
    found = {field.name: kind_of(field.type) for field in schema if field.name not in taken}
    return {name: kind for name, kind in found.items() if kind is not None}


def schema(path: Path) -> pa.Schema:
    """The schema of a Parquet file, without its rows.

    Raises:
        ValueError: when the file is no Parquet or cannot be opened.
    """
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError) as error:
        raise ValueError(f"{path} is no intact Parquet file: {str(error).splitlines()[0]}") from error


def encode(table: pa.Table) -> pa.Buffer:
    """Make the bytes of a Parquet file, as `ENCODING` says; equal tables give equal bytes."""
    stream = pa.BufferOutputStream()
    pq.write_table(table.combine_chunks(), stream, **ENCODING)
    return stream.getvalue()


def write(table: pa.Table, path: Path) -> str:
    """Write a Parquet file, whole or not at all, and return its sha256 in hex."""
    content = encode(table)
    with whole(Path(path)) as file:
        file.write(content)
    return hashlib.sha256(content).hexdigest()


def read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the table of a Parquet file, with each page checked against its checksum.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is no Parquet, is damaged, or lacks one of `columns`.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            names = file.schema_arrow.names
            missing = sorted(set(columns or ()) - set(names))
            if missing:
                raise ValueError(f"{path} has no column {', '.join(missing)}; it has {', '.join(names)}")
            return file.read(columns=None if columns is None else list(columns))
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError) as error:
        raise ValueError(f"{path} is no intact Parquet file: {str(error).splitlines()[0]}") from error


def quarantine_table(records: Iterable[Quarantined]) -> pa.Table:
    """One row per record, in order, under `QUARANTINE_SCHEMA`."""
    rows = [{**vars(record), "stage": record.stage.value, "reason": record.reason.value} for record in records]
    return pa.Table.from_pylist(rows, schema=QUARANTINE_SCHEMA)


def quarantine_rows(table: pa.Table) -> list[Quarantined]:
    """The records of a quarantine table, in order."""
    return [
        Quarantined(row["id"], row["origin"], Stage(row["stage"]), Reason(row["reason"]), row["message"])
        for row in table.select(QUARANTINE_SCHEMA.names).to_pylist()
    ]


# From arrays to Arrow.


def _lists(offsets: NDArray[Any], values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values, kind), type=list_of(kind))


def _to_arrow(name: str, column: NDArray[Any]) -> pa.Array:
    if column.ndim > 2:
        raise ValueError(f"column {name!r} has shape {column.shape}, at most 2 dimensions can be stored")
    if column.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(_to_arrow(name, column.ravel()), column.shape[1])
    return pa.array(column.astype(object), pa.string()) if is_text(column) else pa.array(column)


# From Arrow to arrays.


def _layout_of(table: pa.Table, name: str) -> str:
    for layout, wanted in (("own", set(_OWN)), ("pack", {"id", "lattice", "frac_coords", "atomic_numbers"})):
        if wanted <= set(table.column_names):
            return layout
    raise ValueError(
        f"{name} holds no crystals: it has the columns {', '.join(table.column_names)}, expected {', '.join(_OWN)} "
        "or id, lattice, frac_coords, atomic_numbers (with site_index, occupancy for disorder)"
    )


def _without_ragged_rows(table: pa.Table, layout: str, name: str, first: int) -> tuple[pa.Table, Refusals]:
    """Remove the rows whose lists do not fit each other, and return their refusals too."""
    own = layout == "own"
    cells, places = _lengths(table, _OWN[2] if own else "lattice"), _lengths(table, _OWN[3] if own else "frac_coords")
    sites = _declared_sites(table, "nsites" if own else "n_sites", places)
    species = _lengths(table, "atomic_numbers")
    wrong = np.select(
        [cells != 9, places != 3 * sites, ~_species_fit(table, own, sites, species), ~_texts_fit(table)],
        [
            "the lattice needs 9 values",
            "positions need 3 values per site",
            "species do not fit the sites",
            f"id missing, or a text longer than {MAX_TEXT} characters",
        ],
        "",
    )
    rows = np.flatnonzero(wrong != "")
    if not len(rows):
        return table, []
    ids = table["id"].take(rows).to_pylist()
    named = [str(i or f"{name}#{first + row}")[:500] for i, row in zip(ids, rows)]
    refused = [(i, Reason.MALFORMED, str(wrong[row])) for i, row in zip(named, rows)]
    return table.filter(pa.array(wrong == "")), refused


def _declared_sites(table: pa.Table, name: str, places: NDArray[np.int64]) -> NDArray[np.int64]:
    if name not in table.column_names:
        return places // 3
    return _flat(pc.fill_null(table[name], -1), name, pa.int64())


def _species_fit(table: pa.Table, own: bool, sites: NDArray[np.int64], species: NDArray[np.int64]) -> NDArray[np.bool_]:
    rows = np.arange(table.num_rows)
    fits = np.ones(table.num_rows, dtype=bool)
    if "occupancy" in table.column_names:
        fits &= _lengths(table, "occupancy") == species
    if own:
        counts = _values(table, "species_count", pa.float64())
        owner = np.repeat(rows, _lengths(table, "species_count"))
        total = np.bincount(owner, np.nan_to_num(counts), minlength=len(rows))
        fits[owner[~(counts >= 1)]] = False
        fits &= (_lengths(table, "species_count") == sites) & (total == species)
        return fits
    if "site_index" not in table.column_names:
        fits &= species == sites
        return fits
    index = _values(table, "site_index", pa.float64())
    owner = np.repeat(rows, _lengths(table, "site_index"))
    fits[owner[~((index >= 0) & (index < sites[owner]))]] = False
    falls = (np.diff(index) < 0) & (np.diff(owner) == 0)
    fits[owner[1:][falls]] = False
    fits &= _lengths(table, "site_index") == species
    return fits


def _texts_fit(table: pa.Table) -> NDArray[np.bool_]:
    fits = np.ones(table.num_rows, dtype=bool)
    for name in table.column_names:
        if pa.types.is_string(table[name].type) or pa.types.is_large_string(table[name].type):
            fits &= _flat(pc.fill_null(pc.utf8_length(table[name]), 0), name, pa.int64()) <= MAX_TEXT
    filled = pc.fill_null(pc.cast(table["id"], pa.string()), "")
    fits &= _flat(pc.utf8_length(filled), "id", pa.int64()) > 0
    return fits


def _own_arrays(table: pa.Table) -> Unchecked:
    nsites = _lengths(table, "species_count")
    return Unchecked(
        ids=_strings(table["id"]),
        lattice=_values(table, "lattice_vectors", pa.float64()).reshape(-1, 3, 3),
        site_ptr=pointer(nsites),
        frac=_values(table, "fractional_site_positions", pa.float64()).reshape(-1, 3),
        species_ptr=pointer(_values(table, "species_count", pa.int64())),
        numbers=_values(table, "atomic_numbers", pa.float64()),
        occupancy=_values(table, "occupancy", pa.float64()),
        columns=_columns(table, _OWN),
    )


def _pack_arrays(table: pa.Table) -> Unchecked:
    site_ptr = pointer(_lengths(table, "frac_coords") // 3)
    numbers = _values(table, "atomic_numbers", pa.float64())
    counts, occupancy = np.ones(site_ptr[-1], dtype=np.int64), np.ones(len(numbers))
    if "site_index" in table.column_names:
        first = np.repeat(site_ptr[:-1], _lengths(table, "site_index"))
        counts = np.bincount(first + _values(table, "site_index", pa.int64()), minlength=int(site_ptr[-1]))
    if "occupancy" in table.column_names:
        occupancy = shares.rounded(_values(table, "occupancy", pa.float64()))
    return Unchecked(
        ids=_strings(table["id"]),
        lattice=_values(table, "lattice", pa.float64()).reshape(-1, 3, 3),
        site_ptr=site_ptr,
        frac=_values(table, "frac_coords", pa.float64()).reshape(-1, 3),
        species_ptr=pointer(counts),
        numbers=numbers,
        occupancy=occupancy,
        columns=_columns(table, _PACK),
    )


def _columns(table: pa.Table, taken: Sequence[str]) -> dict[str, NDArray[Any]]:
    free = [name for name in table.column_names if name not in taken]
    stated = table[WARNINGS] if WARNINGS in free else None
    if stated is not None and kind_of(stated.type) in ("text", "empty") and stated.null_count == len(stated):
        free.remove(WARNINGS)
    found = {name: _scalar(table[name]) for name in free}
    kept = {name: column for name, column in found.items() if column is not None}
    if len(kept) < len(found):
        log.info("columns without one value per crystal are left out: %s", ", ".join(found.keys() - kept.keys()))
    own = WARNINGS not in kept or (is_text(kept[WARNINGS]) and kept[WARNINGS].ndim == 1)
    lost = frozenset(() if own else (WARNINGS,))  # it is a text in every batch, so that batches can be joined
    away = lost if set(_OWN) <= set(taken) else lost | RESERVED
    return {set_aside(name, away): column for name, column in kept.items()}


def _scalar(column: pa.ChunkedArray) -> NDArray[Any] | None:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _scalar(column.cast(kind.value_type))
    if pa.types.is_fixed_size_list(kind) and not column.null_count:
        inner = _scalar(pa.chunked_array([column.combine_chunks().flatten()]))
        return None if inner is None else inner.reshape(len(column), kind.list_size)
    if kind_of(kind) is None:
        return None
    if column.null_count == len(column) > 0 or pa.types.is_null(kind):
        return np.full(len(column), None)
    return _strings(column) if kind_of(kind) == "text" else np.asarray(column.to_numpy())


def _strings(column: pa.ChunkedArray) -> NDArray[Any]:
    return text_array(pc.fill_null(column.cast(pa.string()), "").to_pylist())


def _list_array(table: pa.Table, name: str, kind: pa.DataType) -> pa.Array:
    try:
        return table[name].cast(pa.list_(kind)).combine_chunks()
    except pa.ArrowException as error:
        raise ValueError(f"column {name!r} has type {table[name].type}, expected a list of {kind}: {error}") from error


def _values(table: pa.Table, name: str, kind: pa.DataType) -> NDArray[Any]:
    return _flat(_list_array(table, name, kind).flatten(), name, kind)


def _lengths(table: pa.Table, name: str) -> NDArray[np.int64]:
    try:
        lengths = pc.list_value_length(table[name])
    except pa.ArrowException as error:
        raise ValueError(f"column {name!r} has type {table[name].type}, expected a list of numbers") from error
    return _flat(pc.fill_null(lengths, 0), name, pa.int64())


def _flat(values: Any, name: str, kind: pa.DataType) -> NDArray[Any]:
    try:
        flat = values.cast(kind)
    except pa.ArrowException as error:
        raise ValueError(f"column {name!r} has type {values.type}, expected {kind}") from error
    return np.asarray(flat.to_numpy() if isinstance(flat, pa.ChunkedArray) else flat.to_numpy(zero_copy_only=False))
