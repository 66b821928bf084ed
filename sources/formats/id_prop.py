"""`id_prop.csv`: known values of the structure files beside it, as CGCNN and ALIGNN read them.

Enters: the text of such a list, the files beside it, and their crystals. Leaves: the crystals with
columns `id_prop_1`, `id_prop_2` and so on, NaN where no value is given, and a record for each line
that gives none. A line names a file, with its ending (ALIGNN) or as a CIF without it (CGCNN), and
one number or several; there is no header. This module opens no file, and does not know what the
numbers mean.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from assay.sources.checks.texts import one_name
from assay.sources.crystals import GIVEN, Crystals
from assay.sources.formats.fortran import is_number, real
from assay.sources.formats.records import numbered, quoted
from assay.sources.quarantine import Quarantined, Reason, Stage


@dataclass(frozen=True)
class Given:
    """The lines of a list."""

    values: Mapping[str, tuple[float, ...]]
    """Name -> its values, equally many for each; in the order of the lines."""
    places: Mapping[str, int]
    """Name -> number of its line, from 1 on."""
    refused: Mapping[int, str]
    """Number of a line -> why it gives no value."""

    @property
    def columns(self) -> list[str]:
        """Names of the columns of the values."""
        return [f"{GIVEN}{place}" for place in range(1, len(next(iter(self.values.values()), ())) + 1)]

    def lists(self, file: str) -> bool:
        """Whether a line names a file, by its path below the folder of the list."""
        return file in self.values or (file.endswith(".cif") and file.removesuffix(".cif") in self.values)


def read(text: str) -> Given:
    """Read the lines of a list; a blank line says nothing."""
    found: dict[int, tuple[str, tuple[float, ...]]] = {}
    refused: dict[int, str] = {}
    first = 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            first = first or number
            try:
                found[number] = _parsed(line, may_be_header=number == first)
            except (ValueError, csv.Error) as error:
                refused[number] = str(error)
    usual = Counter(len(values) for _, values in found.values()).most_common(1)
    lines: dict[str, list[int]] = {}
    for number, (name, values) in found.items():
        if len(values) == usual[0][0]:
            lines.setdefault(name.removesuffix(".cif"), []).append(number)
        else:
            refused[number] = f"it has {_counted(len(values))}, other lines have {usual[0][0]}"
    for numbers in lines.values():
        if len(numbers) > 1:
            told = f"{quoted(found[numbers[0]][0])} is on lines {', '.join(map(str, numbers))}; keep one of them"
            refused |= dict.fromkeys(numbers, told)
    kept = {found[numbers[0]][0]: numbers[0] for numbers in lines.values() if len(numbers) == 1}
    return Given({name: found[number][1] for name, number in kept.items()}, kept, refused)


def attach(
    given: Given, label: str, origin: str, files: Mapping[str, str], crystals: Crystals, refused: list[Quarantined]
) -> tuple[Crystals, list[Quarantined]]:
    """Give crystals their values, and return a record for each line that none of them takes.

    `label` is the name of the list in ids. `files` has the name in ids of each file, by its path
    below the folder of the list; the crystal of such a file is `file/NAME`. A file that is refused
    has a record of its own in `refused`.
    """
    rows = {id: row for row, id in enumerate(crystals.ids.tolist())}
    lost = {record.id for record in refused}
    values = np.full((len(crystals), len(given.columns)), np.nan)
    why = dict(given.refused)
    for name, numbers in given.values.items():
        file = name if name in files else f"{name}.cif"
        first, second = (numbered(files[file], place) if file in files else "" for place in (1, 2))
        if second in rows or second in lost:
            why[given.places[name]] = f"{file} holds several structures, and one line cannot say which it means"
        elif first in rows:
            values[rows[first]] = numbers
        elif first not in lost or not first:
            told = f"{quoted(name)} is no file of one structure" if file in files else f"no file {quoted(name)}"
            also = "" if file in files or name.endswith(".cif") else f", nor {quoted(name + '.cif')}"
            why[given.places[name]] = f"{told}{also} beside the list" if file not in files else told
    columns = {name: _kept(crystals, name, values[:, place]) for place, name in enumerate(given.columns)}
    more = [
        Quarantined(one_name(f"file/{label}#{number}"), origin, Stage.PULL, Reason.MALFORMED, f"line {number}: {said}")
        for number, said in sorted(why.items())
    ]
    return crystals.with_columns(**columns), more


def _kept(crystals: Crystals, name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values, and those that another list gave before."""
    before = crystals.columns.get(name)
    return values if before is None or before.dtype.kind != "f" else np.where(np.isnan(values), before, values)


def _parsed(line: str, *, may_be_header: bool) -> tuple[str, tuple[float, ...]]:
    """The name and the values of a line.

    Raises:
        ValueError: when it has no name or no finite number.
    """
    name, *cells = (cell.strip() for cell in next(csv.reader([line], skipinitialspace=True)))
    if not name:
        raise ValueError(f"{quoted(line)} names no file")
    if not cells:
        raise ValueError(f"{quoted(line)} has no value behind a comma")
    numbers = [_number(cell) for cell in cells]
    if may_be_header and all(number is None for number in numbers):
        raise ValueError(f"{quoted(line)} is a header or holds no number; id_prop.csv has no header, delete the line")
    for cell, number in zip(cells, numbers):
        if number is None:
            raise ValueError(f"{quoted(cell)} of {quoted(name)} is no finite number")
    return name, tuple(number for number in numbers if number is not None)


def _number(cell: str) -> float | None:
    value = real(cell) if is_number(cell) else math.inf
    return value if math.isfinite(value) else None


def _counted(count: int) -> str:
    return f"{count} value{'' if count == 1 else 's'}"
