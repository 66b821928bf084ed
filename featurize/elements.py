"""Element properties as numbers a network or a baseline can read.

Enters: nothing. Leaves: a table by atomic number, 1 to 103. Heavier elements have no row: too few
of their properties are measured. `elements.csv` holds the values, and `element_columns.csv` the
meaning, unit and source of each of its columns.
"""

import csv
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEAVIEST = 103
"""Largest atomic number with a row in the table."""

_TABLE = Path(__file__).with_name("elements.csv")
_COLUMNS = Path(__file__).with_name("element_columns.csv")
_FILLED = 15
"""Columns of the table after number and symbol that networks read, gaps filled; later columns keep
their gaps."""
_SHELLS = {"s": 2, "p": 6, "d": 10, "f": 14}


def check(numbers: NDArray[Any]) -> None:
    """Refuse atomic numbers without a row in the table.

    Raises:
        ValueError: when there is one.
    """
    if len(numbers) and numbers.max() > HEAVIEST:
        raise ValueError(f"no properties for atomic number {numbers.max()}; the table ends at {HEAVIEST}")


@cache
def property_names() -> tuple[str, ...]:
    """Names of the columns of `properties`, in order."""
    return ("number", *_header()[2 : 2 + _FILLED], "valence_electrons", *(f"{shell}_holes" for shell in _SHELLS))


@cache
def properties() -> NDArray[np.float64]:
    """(104, p) raw property values by atomic number; row 0 is NaN.

    A value nobody has measured (atomic radius of a noble gas, say) is taken from the nearest atomic
    number with one.
    """
    raw = np.column_stack([column(name)[1:] for name in ("number", *_header()[2 : 2 + _FILLED])])
    numbers = np.arange(len(raw))
    for values in raw.T:
        known = np.flatnonzero(np.isfinite(values))
        nearest = known[np.abs(numbers[:, None] - known).argmin(axis=1)]
        values[:] = values[nearest]
    shells = raw[:, -len(_SHELLS) :]
    holes = np.where(shells > 0, np.array(list(_SHELLS.values())) - shells, 0)
    table = np.column_stack([raw, shells.sum(axis=1), holes])
    return np.vstack([np.full(table.shape[1], np.nan), table])


@cache
def column(name: str) -> NDArray[np.float64]:
    """(104,) values of one column of the table by atomic number; NaN in its gaps and in row 0."""
    return np.concatenate([[np.nan], _table()[:, _header().index(name)]])


@cache
def sources() -> dict[str, str]:
    """Where the values of each column come from, in the order of the table."""
    with _COLUMNS.open(encoding="utf-8") as file:
        return {row["column"]: row["source"] for row in csv.DictReader(file)}


@cache
def _table() -> NDArray[np.float64]:
    """(103, columns) of the table; NaN in gaps and in place of the symbol."""
    return np.genfromtxt(_TABLE, delimiter=",", skip_header=1, dtype=np.float64)


@cache
def _header() -> tuple[str, ...]:
    with _TABLE.open() as file:
        return tuple(next(csv.reader(file)))


@cache
def unmeasured(name: str) -> tuple[int, ...]:
    """Atomic numbers without a tabulated value in a column of the table."""
    with _TABLE.open() as file:
        return tuple(int(row["number"]) for row in csv.DictReader(file) if not row[name])


@cache
def standardised() -> NDArray[np.float32]:
    """(104, p) properties with zero mean and unit deviation over elements 1 to 103; row 0 is 0."""
    table = properties()[1:]
    scaled = (table - table.mean(axis=0)) / table.std(axis=0)
    return np.vstack([np.zeros(table.shape[1]), scaled]).astype(np.float32)
