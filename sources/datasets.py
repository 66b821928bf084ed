"""Training sets of crystals with known properties: named sets, and the user's own files.

Enters: a name of `DATASETS` or `FORMULAS` and the folder in the environment variable `ASSAY_DATA`,
or `FILE.parquet#COLUMN`. Leaves: `Dataset`, `FormulaSet`. This module does not know networks or
splits. It downloads nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from assay.sources import table
from assay.sources.crystals import Crystals
from assay.sources.dataset_table import DATASETS, FAMILIES, FORMULAS, DatasetSpec
from assay.sources.elements import SYMBOLS, reduced_formulas
from assay.sources.formulas import read as formulas

__all__ = [
    "DATASETS",
    "FAMILIES",
    "FORMULAS",
    "VARIABLE",
    "Dataset",
    "DatasetSpec",
    "FormulaSet",
    "described",
    "folder",
    "load",
    "load_formulas",
    "same_formula",
    "save",
]

VARIABLE = "ASSAY_DATA"
"""Environment variable that names the folder of data packs."""
SAME_SHARE = 5e-4
"""Largest difference in the atomic share of an element at which two compositions count as one.

Any two formulas of up to 40 atoms differ by more; rounded occupancies differ by less."""


@dataclass(frozen=True)
class Dataset:
    """`n` crystals with one known property."""

    name: str
    """A key of `DATASETS`, or `FILE.parquet#COLUMN`."""
    spec: DatasetSpec
    """Where it came from."""
    crystals: Crystals
    """Accepted crystals with a known value; each id occurs once."""
    target: NDArray[np.float64]
    """(n,) in `spec.unit`."""
    target_std: NDArray[np.float64]
    """(n,) in `spec.unit`, standard deviation of the records behind a value; NaN where it is
    unknown."""
    weight: NDArray[np.float64]
    """(n,) row weights; rows of one formula share a weight of 1 where the set says so."""
    keys: dict[str, NDArray[np.str_]]
    """Labels by which a split can keep rows together, each (n,): `element-set` (`Ag-Sn-Te`),
    `formula` (reduced, written alike in all sets: `Sr0.15La1.85CuO4`), `row` (the id), and `family`
    where the set has classes."""
    sha256: str
    """Of the file."""
    dropped: dict[str, int]
    """Reason -> rows of the set that were refused as crystals, have no value, or were left out
    later."""

    @property
    def groups(self) -> NDArray[np.str_]:
        """(n,) element set of each crystal; a split keeps equal ones together by default."""
        return self.keys["element-set"]

    @property
    def refused(self) -> int:
        """Rows of the set that are not here."""
        return sum(self.dropped.values())

    def select(self, rows: NDArray[np.int64], reason: str = "left out") -> Dataset:
        """The dataset with the given rows only; the others are counted as dropped for `reason`."""
        fewer = len(self.target) - len(rows)
        return replace(
            self,
            crystals=self.crystals.select(rows),
            target=self.target[rows],
            target_std=self.target_std[rows],
            weight=self.weight[rows],
            keys={name: labels[rows] for name, labels in self.keys.items()},
            dropped=_counted(self.dropped, {reason: fewer}),
        )


@dataclass(frozen=True)
class FormulaSet:
    """`n` formulas without a structure, with one known property."""

    name: str
    """A key of `FORMULAS`, or `FILE.parquet#COLUMN`."""
    spec: DatasetSpec
    """Where it came from."""
    atoms: NDArray[np.float64]
    """(n, 119) atoms of each atomic number."""
    target: NDArray[np.float64]
    """(n,) in `spec.unit`."""
    weight: NDArray[np.float64]
    """(n,)"""
    keys: dict[str, NDArray[np.str_]]
    """Labels as those of a `Dataset`: `element-set`, `formula`, and `family` where there is one."""
    sha256: str
    """Of the file."""
    dropped: dict[str, int]
    """Reason -> rows that are not here."""


def folder() -> Path:
    """The data folder.

    Raises:
        FileNotFoundError: when `ASSAY_DATA` is unset or no folder.
    """
    named = os.environ.get(VARIABLE, "")
    if not named or not Path(named).is_dir():
        state = f"is {named!r}, which is no folder" if named else "is not set"
        raise FileNotFoundError(
            f"the environment variable {VARIABLE} {state}; point it at the folder that holds the data packs "
            f"({', '.join(sorted({spec.path for spec in DATASETS.values()}))}), see docs/data.md"
        )
    return Path(named)


def load(name: str, limit: int | None = None) -> Dataset:
    """Read a training set, or its first `limit` rows.

    `name` is a key of `DATASETS`, or `FILE.parquet#COLUMN`: a file in the layout of docs/data.md,
    with the known values in that column. The metadata of the column give its unit, functional,
    licence and origin; a missing one is `unknown`. Its columns `weight`, `family` and
    `COLUMN_std` are used where they exist.

    Raises:
        FileNotFoundError: when the data folder or the file is missing.
        ValueError: for an unknown name or column, a damaged file, ids that occur twice, or when no
            row has a value.
    """
    path, spec, stored = _opened(name, DATASETS)
    if spec.rows:
        stored = stored.filter(stored[spec.rows])
    crystals, records = table.from_table(stored.slice(0, limit), spec.path)
    ids, times = np.unique(crystals.ids, return_counts=True)
    if len(ids) < len(crystals):
        raise ValueError(f"{path} has {times.max()} rows of id {str(ids[times.argmax()])!r}, expected one")
    dropped = Counter(record.reason.value for record in records)
    target = _numbers(crystals, spec.target, path) if spec.target else np.zeros(len(crystals))
    low, high = spec.limits or (-np.inf, np.inf)
    known, sound = np.isfinite(target), (target >= low) & (target <= high)
    reasons = {
        "no value": int((~known).sum()),
        f"not within {low:g} to {high:g} {spec.unit}": int((known & ~sound).sum()),
    }
    crystals, target = crystals.select(known & sound), target[known & sound]
    dropped.update(reasons)
    if not len(crystals):
        raise ValueError(f"{path} has no sound crystal with a value of {spec.target!r}: {_counted(dropped, {})}")
    return Dataset(
        name=name,
        spec=spec,
        crystals=crystals,
        target=target,
        target_std=_numbers(crystals, spec.noise, path) if spec.noise else np.full(len(crystals), np.nan),
        weight=_weights(crystals, spec.weight, path),
        keys=_keys(crystals, spec),
        sha256=_sha256(path),
        dropped=_counted(dropped, {}),
    )


def load_formulas(name: str) -> FormulaSet:
    """Read a table of formulas with known values.

    `name` is a key of `FORMULAS`, or `FILE.parquet#COLUMN`: a file with a column `formula` (`MgB2`,
    `Cu1La1.85Sr0.15O4`) and the known values in that column; `weight` and `family` are used where
    they exist. A row is dropped when its formula cannot be read (`assay.sources.formulas.read`), or
    when it has no value.

    Raises:
        FileNotFoundError: when the data folder or the file is missing.
        ValueError: for an unknown name or column, or when no row is left.
    """
    path, spec, stored = _opened(name, FORMULAS)
    column = spec.formula or "formula"
    if column not in stored.column_names:
        raise ValueError(f"{path} has no column {column!r}; it has {', '.join(stored.column_names)}")
    target = _floats(stored, spec.target, path)
    atoms = formulas.read_many(text or "" for text in stored[column].to_pylist()).amounts
    good = atoms.any(axis=1)
    kept = good & np.isfinite(target)
    if not kept.any():
        raise ValueError(f"{path} has no formula with a value of {spec.target!r}")
    atoms, weight = atoms[kept], np.ones(int(kept.sum()))
    if spec.weight:
        weight = _floats(stored, spec.weight, path)[kept]
        if not (np.isfinite(weight) & (weight > 0)).all():
            raise ValueError(f"column {spec.weight!r} of {path} has a weight that is not above 0")
    keys = {"element-set": _sets(atoms), "formula": reduced_formulas(atoms)}
    if spec.family:
        keys["family"] = _families(spec, np.array(stored[spec.family].to_pylist(), object)[kept].tolist())
    dropped = _counted({"no formula": int((~good).sum()), "no value": int((good & ~kept).sum())}, {})
    return FormulaSet(name, spec, atoms, target[kept], weight, keys, _sha256(path), dropped)


def save(path: Path, crystals: Crystals, column: str, values: ArrayLike, **facts: str) -> str:
    """Write crystals with their known values as a file for `load`, and return `PATH#COLUMN`.

    `values` is (n,), NaN where unknown. `facts` are any of `unit`, `functional`, `licence`,
    `origin`.

    Raises:
        ValueError: when `path` does not end in .parquet, for other facts, or a `column` that a
            crystal field has.
    """
    if path.suffix != ".parquet":
        raise ValueError(f"{path} ends in {path.suffix!r}, expected .parquet")
    if unknown := sorted(set(facts) - set(_FACTS)):
        raise ValueError(f"unknown fact {unknown[0]!r}, expected any of {', '.join(_FACTS)}")
    fresh = table.to_table(crystals.with_columns(**{column: np.asarray(values, np.float64)}))
    place = fresh.schema.get_field_index(column)
    table.write(fresh.set_column(place, fresh.schema.field(place).with_metadata(facts), fresh[column]), path)
    return f"{path}#{column}"


def same_formula(a: Dataset, b: Dataset) -> NDArray[np.bool_]:
    """(len(a),) True where a row of `a` has the composition of a row of `b`, to `SAME_SHARE`.

    The structures may differ. The composition comes from the crystals, occupancies counted, not
    from the formulas that a file states.
    """
    mine, theirs = _shares(a.crystals), _shares(b.crystals)
    order = np.argsort(b.groups, kind="stable")
    names, first = np.unique(b.groups[order], return_index=True)
    rows_of = dict(zip(names.tolist(), np.split(order, first[1:])))
    found = np.zeros(len(mine), dtype=bool)
    for row, group in enumerate(a.groups.tolist()):
        if group in rows_of:
            found[row] = np.abs(theirs[rows_of[group]] - mine[row]).max(axis=1).min() <= SAME_SHARE
    return found


_FACTS = ("unit", "functional", "licence", "origin")


def _opened(name: str, known: Mapping[str, DatasetSpec]) -> tuple[Path, DatasetSpec, Any]:
    """The file of a dataset, its description, and its Arrow table."""
    path, spec = described(name, known)
    return path, spec, table.read(path)


def described(name: str, known: Mapping[str, DatasetSpec] = DATASETS) -> tuple[Path, DatasetSpec]:
    """The file of a dataset and its description, without its rows.

    Raises:
        FileNotFoundError: when the data folder or the file is missing.
        ValueError: for an unknown name or column, or a damaged file.
    """
    file, mark, column = name.rpartition("#")
    if mark and file.endswith(".parquet"):
        path = Path(file)
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; a dataset of your own is FILE.parquet#COLUMN")
        return path, _described(file, column, table.schema(path))
    if name not in known:
        raise ValueError(f"dataset {name!r} is not one of {sorted(known)}, nor FILE.parquet#COLUMN")
    spec = known[name]
    path = folder() / spec.path
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: it is {spec.origin}; see docs/data.md for how to get it")
    return path, spec


def _described(file: str, column: str, schema: Any) -> DatasetSpec:
    """Describe a column of the user's own file."""
    names = schema.names
    if column not in names:
        raise ValueError(f"{file} has no column {column!r}; it has {', '.join(names)}")
    said = {key.decode(): text.decode() for key, text in (schema.field(column).metadata or {}).items()}
    unit, functional, licence, origin = (said.get(fact) or "unknown" for fact in _FACTS)
    weight, noise, family = (name if name in names else "" for name in ("weight", f"{column}_std", "family"))
    return DatasetSpec(file, column, unit, functional, weight, licence, origin, noise=noise, family=family)


def _numbers(crystals: Crystals, name: str, path: Path) -> NDArray[np.float64]:
    column = crystals.columns.get(name)
    if column is not None and column.ndim == 1:
        if column.dtype.kind in "fiu":
            return column.astype(np.float64)
        if all(value is None for value in column.tolist()):  # nulls alone have no kind
            return np.full(len(column), np.nan)
    raise ValueError(f"column {name!r} of {path} has not one number per crystal{_held(column)}")


def _held(column: NDArray[Any] | None) -> str:
    """What a column holds that holds no numbers; nothing of one that is not read."""
    if column is None:
        return ""
    if column.ndim > 1:
        return f" but {column.shape[1]}; give each number a column of its own"
    first = next((value for value in column.tolist() if value is not None and value != ""), "")
    kind = "flags" if isinstance(first, bool) else "texts"
    return f" but {kind}, the first is {first!r}; write it as float64"


def _floats(stored: pa.Table, name: str, path: Path) -> NDArray[np.float64]:
    """(n,) the numbers of a column of a table, NaN where a row has none."""
    kind = stored.schema.field(name).type
    types = pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal, pa.types.is_null
    if not any(fits(kind) for fits in types):
        raise ValueError(f"column {name!r} of {path} has not one number per row but {kind}; write it as float64")
    return np.asarray(stored[name].cast(pa.float64(), safe=False).to_numpy())


def _weights(crystals: Crystals, name: str, path: Path) -> NDArray[np.float64]:
    if not name:
        return np.ones(len(crystals))
    weight = _numbers(crystals, name, path)
    good = np.isfinite(weight) & (weight > 0)
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(f"column {name!r} of {path} is {weight[row]} for {str(crystals.ids[row])!r}, expected above 0")
    return weight


def _counted(counts: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    """The sum of both counts, without zeros."""
    return dict(Counter(counts) + Counter(more))


# Labels.


def _keys(crystals: Crystals, spec: DatasetSpec) -> dict[str, NDArray[np.str_]]:
    keys = {"element-set": crystals.elements(), "formula": _formulas(crystals, spec.formula), "row": crystals.ids}
    if spec.family:
        keys["family"] = _families(spec, crystals.columns[spec.family].tolist())
    return keys


def _families(spec: DatasetSpec, stated: Sequence[Any]) -> NDArray[np.str_]:
    named = ["" if value is None else str(value) for value in stated]
    known = spec.family == _SC_CLASS
    return np.array([FAMILIES.get(s, "mixed") if known else s or "unknown" for s in named], dtype=np.str_)


def _sets(atoms: NDArray[np.float64]) -> NDArray[np.str_]:
    """(n,) element set of each row, as `Crystals.elements` writes it."""
    held = [sorted(SYMBOLS[z] for z in np.flatnonzero(row)) for row in atoms]
    return np.array(["-".join(symbols) for symbols in held], dtype=np.str_)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


_SC_CLASS = "sc_class"


def _formulas(crystals: Crystals, column: str) -> NDArray[np.str_]:
    """(n,) reduced formulas, from `column` where it is named, else from the crystals."""
    if column:
        texts, inverse = np.unique(crystals.columns[column], return_inverse=True)
        found = formulas.read_many(texts.tolist())
        for row, error in found.refused.items():
            raise ValueError(f"column {column!r}: {texts[row]!r}: {error}")
        return reduced_formulas(found.amounts)[inverse]
    return crystals.formulas()


def _shares(crystals: Crystals) -> NDArray[np.float64]:
    """(n, 119) share of each element, of all atoms."""
    amounts = crystals.composition()
    return np.asarray(amounts / amounts.sum(axis=1, keepdims=True))
