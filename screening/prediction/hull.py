"""How far the rows of a table lie above a convex hull, in this process.

Enters: a table of formulas with formation energies (CSV or Parquet), the name of the table of the
phases. Leaves: `AboveHull`: one row per formula, and a record of each row that has no formula or no
energy. Energies are compared on one functional alone: who names it must agree. This module does not
know campaigns, nor how energies are predicted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

from assay.models.stability.hull import Hull
from assay.screening.prediction import formulas as of_formulas, phases
from assay.screening.settings import digits
from assay.screening.settings.exits import Exit, Failure
from assay.screening.settings.names import ABOVE_HULL, COLUMNS
from assay.screening.settings.printable import escaped
from assay.sources import datasets, table
from assay.sources.elements import reduced_formulas
from assay.sources.formulas import read as reader
from assay.sources.quarantine import Quarantined, Reason, Stage

UNIT = "eV/atom"
UNSAID = "unknown"
FORMULA = "formula"
SHOWN = 20


@dataclass(frozen=True)
class AboveHull:
    """Rows of a table beside a hull."""

    table: pa.Table
    """`id`, `formula`, the column of energies, `energy_above_hull`, `competing_phases`. A row with
    an element that no phase holds has NaN and null in the last two."""
    refused: list[Quarantined]
    """One record of each row without a formula or a finite energy."""
    functional: str
    """That of all energies."""

    def __len__(self) -> int:
        return int(self.table.num_rows)


def compare(paths: list[Path], reference: str, energy: str, functional: str | None = None) -> AboveHull:
    """Compare formation energies, eV/atom, in a column of tables with the hull of a reference.

    Raises:
        Failure: CONFIG, when a table or column is missing, or energies are not comparable.
    """
    try:
        _, spec = datasets.described(reference)
        given = of_formulas.joined([], paths, FORMULA)
        values = np.concatenate([_numbers(path, energy) for path in paths])
        said = {f"{energy} of {path}": _functional(path, energy) for path in paths}
        if spec.unit not in (UNIT, UNSAID):
            raise ValueError(f"--reference {reference} holds values in {spec.unit!r}, expected {UNIT}")
        agreed = _agreed(said | {f"--reference {reference}": spec.functional}, functional)
        hull = Hull(phases.load(reference))
    except (ValueError, OSError) as error:
        raise Failure(Exit.CONFIG, str(error)) from None
    read = reader.read_many(given.texts)
    wrong = {row: str(error) for row, error in read.refused.items()}
    wrong |= {
        row: f"{energy} is {values[row]}" for row in np.flatnonzero(~np.isfinite(values)).tolist() if row not in wrong
    }
    refused = [
        Quarantined(given.ids[row], given.origins[row], Stage.PULL, Reason.MALFORMED, wrong[row])
        for row in sorted(wrong)
    ]
    rows = [row for row in range(len(values)) if row not in wrong]
    found = hull.mixtures(read.amounts[rows])
    above = pa.array(values[rows] - found.energy)
    metadata = {"unit": UNIT, "functional": agreed}
    columns = {
        pa.field("id", pa.string()): [given.ids[row] for row in rows],
        pa.field(FORMULA, pa.string()): reduced_formulas(read.amounts[rows]).tolist(),
        pa.field(energy, pa.float64(), metadata=metadata): values[rows],
        pa.field(ABOVE_HULL, pa.float64(), metadata=metadata): above,
        pa.field("competing_phases", pa.string(), metadata={"meaning": COLUMNS["competing_phases"]}): hull.texts(found),
    }
    return AboveHull(pa.table([*map(pa.array, columns.values())], schema=pa.schema([*columns])), refused, agreed)


def lines(found: AboveHull, most: int | None = SHOWN) -> Iterator[str]:
    """One line about each of the rows that lie lowest, and one about the energies."""
    ordered = found.table.sort_by([(ABOVE_HULL, "ascending"), ("id", "ascending")])
    for row in ordered.slice(0, most).to_pylist():
        beside = row["competing_phases"] or "holds an element that no phase of the hull holds"
        text = f"{digits.alone(row[ABOVE_HULL])} {UNIT} above" if row["competing_phases"] else "no hull"
        yield f"{escaped(row['id'])}  {row[FORMULA]}  {text}  {escaped(beside)}"
    if most is not None and len(found) > most:
        yield f"... and {len(found) - most:,} more"
    yield f"all energies: {found.functional}"


def _numbers(path: Path, column: str) -> NDArray[np.float64]:
    """(n,) numbers of a column, NaN where there is none."""
    if path.suffix.lower() == ".csv":
        names = csv.open_csv(path).schema.names
        if column not in names:
            raise ValueError(f"{path} has no column {column!r}; it has {', '.join(names)}")
        content = csv.read_csv(path, convert_options=csv.ConvertOptions(include_columns=[column]))
    else:
        content = table.read(path, [column])
    kind = content.schema.field(column).type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_null(kind)):
        raise ValueError(f"column {column!r} of {path} holds {kind}, not numbers")
    return np.asarray(content[column].cast(pa.float64()).to_numpy(), np.float64)


def _functional(path: Path, column: str) -> str:
    """What a Parquet file says of a column; a CSV file says nothing."""
    metadata = table.schema(path).field(column).metadata if path.suffix.lower() == ".parquet" else None
    return str((metadata or {}).get(b"functional", UNSAID.encode()).decode())


def _agreed(said: dict[str, str], stated: str | None) -> str:
    """The one functional that everybody names, or that `--functional` states of the silent ones.

    Raises:
        ValueError: when two differ, or nobody speaks for one.
    """
    named = {who: text for who, text in said.items() if text != UNSAID} | ({"--functional": stated} if stated else {})
    for (first, one), (second, other) in zip(list(named.items())[:-1], list(named.items())[1:], strict=True):
        if one != other:
            raise ValueError(f"{first} is {one!r}, {second} is {other!r}: such energies are not comparable")
    silent = [who for who in said if who not in named]
    if silent and not stated:
        known = f"; --functional {next(iter(named.values()))!r}, if it is that" if named else "; say --functional"
        raise ValueError(f"{' and '.join(silent)} names no functional{known}")
    return next(iter(named.values()))
