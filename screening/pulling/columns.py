"""Columns of a campaign: the units of reported numbers, and whether files fit into one table.

Enters: the name of a column, or Parquet files. Leaves: a unit; nothing, or one line that names two
files and the column that they disagree about. Only schemas are read; values are read where two
schemas disagree.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from assay.screening.settings.exits import Exit, Failure
from assay.sources import table
from assay.sources.databases.provider_table import UNITS

ADVICE = "give it one type, or leave it out of one of them"
"""The way out, for every kind of file."""


def unit(name: str) -> str | None:
    """The unit of a number that databases report; None for a column of the user's own.

    >>> unit("band_gap_hse"), unit("tc")
    ('eV', None)
    """
    return next((unit for stem, unit in UNITS.items() if name == stem or name.startswith(f"{stem}_")), None)


def check(paths: Iterable[Path]) -> None:
    """Refuse files of which one calls a number what another calls a text or a flag.

    Integers go with floats, and a column that holds nothing but nulls goes with anything. A file
    that is no Parquet is left to its reader.

    Raises:
        Failure: CONFIG, with both files and both types.
    """
    first: dict[str, tuple[str, Path]] = {}
    for path in paths:
        try:
            found = table.kinds(table.schema(path))
        except ValueError:
            continue
        for name, kind in found.items():
            if kind == "empty":
                continue
            before, where = first.setdefault(name, (kind, path))
            if before == kind or _empty(path, name):
                continue
            if _empty(where, name):
                first[name] = (kind, path)
                continue
            raise Failure(
                Exit.CONFIG,
                f"column {name!r} holds a {before} in {where} and a {kind} in {path}; {ADVICE}",
            )


def _empty(path: Path, name: str) -> bool:
    try:
        column = table.read(path, [name])[name]
    except ValueError:
        return True
    return bool(column.null_count == len(column))
