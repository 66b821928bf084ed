"""Measured values as people write them down -> crystals with values to learn from.

Enters: a CSV file, the results of a campaign, the ensemble that shall learn. Leaves: `Measured`.
Each line that cannot be used has its number and the reason. Nothing is trained here.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from assay.screening.prediction import inputs
from assay.screening.settings.exits import Exit, Failure, one_line
from assay.sources import crystals as batches
from assay.sources.crystals import text_array
from assay.sources.formulas import placed, read as reader

if TYPE_CHECKING:
    from collections.abc import Container

    from numpy.typing import NDArray

    from assay.models.ensemble.ensemble import Ensemble
    from assay.models.target import Property
    from assay.screening.folder.results import Results
    from assay.sources.crystals import Crystals

VALUE, NOISE, WEIGHT = "measured", "measured_std", "weight"
"""Columns of the training set."""
WHAT = ("id", "formula", "file")
"""Columns that say what was measured; a line fills one of them."""
SPARE = "spare"
"""Holds what a line says beyond the last column."""
COLUMNS = (*WHAT, "value", "uncertainty", "unit")
"""Columns that a file may have."""


@dataclass(frozen=True)
class Measured:
    """The measured values of a file."""

    crystals: Crystals
    """What was measured, `<round>/<number of the line>`, with the columns `measured`,
    `measured_std` (NaN where unknown) and `weight`, see `shares`. Of a formula the structure means
    nothing."""
    refused: list[str]
    """Number of each other line, and why it cannot be used."""


def read(path: Path, results: Results, ensemble: Ensemble, learned: Property, *, weight: float, round: str) -> Measured:
    """Read measured values of a property; `round` tells their ids from those of earlier files.

    The crystal of an id is the one that was scored.

    Raises:
        Failure: CONFIG, when there is no such file, a column is missing or unknown, or no line can
            be used.
    """
    known = set(results.predictions(["id"])["id"].to_pylist())
    found: dict[int, tuple[Crystals | str, float, float]] = {}
    refused = {}
    for number, row in _rows(path):
        try:
            found[number] = (_what(row, known, ensemble), *_numbers(row, learned))
        except (ValueError, OSError) as error:
            refused[number] = one_line(error)
    lines = [f"line {number} of {path}: {reason}" for number, reason in refused.items()]
    if not found:
        raise Failure(Exit.CONFIG, lines[0] if lines else f"{path} has no line with a value")
    asked = [what for what, _, _ in found.values() if isinstance(what, str)]
    scored = results.crystals(asked)
    place = {name: row for row, name in enumerate(scored.ids.tolist())}
    parts = [scored.select(np.array([place[what]])) if isinstance(what, str) else what for what, _, _ in found.values()]
    numbers = np.array([rest for _, *rest in found.values()], np.float64)
    ids = text_array([f"{round}/{number}" for number in found])
    weights = weight * shares(numbers[:, 1], _error(results, learned))
    columns = {VALUE: numbers[:, 0], NOISE: numbers[:, 1], WEIGHT: weights}
    return Measured(replace(batches.concat(parts), ids=ids, columns=columns), lines)


def shares(noise: NDArray[np.float64], error: float) -> NDArray[np.float64]:
    """(n,) weights of values with these uncertainties, where the ensemble errs by `error`.

    A value counts by the inverse of both variances together, an exact one 1, one as uncertain as
    the ensemble half as much. One of unknown uncertainty (NaN) counts as exact.

    >>> shares(np.array([0.0, 10.0, 30.0, np.nan]), 10.0).tolist()
    [1.0, 0.5, 0.1, 1.0]
    """
    return np.asarray(1 / (1 + (np.nan_to_num(noise) / error) ** 2), np.float64)


def _error(results: Results, learned: Property) -> float:
    """The median calibrated standard deviation of a property over the crystals that were scored."""
    name = f"{learned.name}_std"
    found = results.predictions([name], tier=results.summary.last_tier)[name].to_numpy()
    found = found[np.isfinite(found) & (found > 0)]
    return float(np.median(found)) if len(found) else math.inf


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """The number of each line, and what it says by column."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file, restkey=SPARE, strict=True)
            columns = list(lines.fieldnames or [])
            unknown = [name for name in columns if name not in COLUMNS]
            if unknown or "value" not in columns or not {*WHAT} & {*columns}:
                what = f"has the columns {', '.join(map(str, columns))}"
                raise ValueError(f"{what}; expected value, one of {', '.join(WHAT)}, and maybe uncertainty and unit")
            return [(lines.line_num, {name: str(text or "").strip() for name, text in row.items()}) for row in lines]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise Failure(Exit.CONFIG, f"measured values {path}: {one_line(error)}") from None


def _what(row: dict[str, str], known: Container[str], ensemble: Ensemble) -> Crystals | str:
    """The crystal that a line names, or its id in the campaign."""
    if SPARE in row:
        raise ValueError("has more cells than the file has columns; a text with a comma needs quotes")
    given = [name for name in WHAT if row.get(name)]
    if len(given) != 1:
        raise ValueError(f"says {' and '.join(given) or 'nothing'}, expected one of {', '.join(WHAT)}")
    text = row[given[0]]
    if given[0] == "id":
        if text not in known:
            raise ValueError(f"the campaign scored no crystal with the id {text!r}")
        return text
    if given[0] == "file":
        crystals, bad = inputs.crystals_of(Path(text))
        if len(crystals) != 1:
            raise ValueError(bad[0].message if bad else f"{text} holds {len(crystals)} crystals, expected one")
        return crystals
    if ensemble.structural:
        raise ValueError(f"{ensemble.name} reads structures, and a formula has none; give an id or a file")
    amounts = placed.scaled(reader.read(text).amounts[None])
    if ((amounts > 0) & (amounts < placed.LEAST)).any():
        raise ValueError(f"less than {placed.LEAST:g} atoms of an element in a formula")
    return placed.place(text_array([text]), amounts, {})


def _numbers(row: dict[str, str], learned: Property) -> tuple[float, float]:
    """Value and uncertainty of a line; the latter NaN where it is not said."""
    if row.get("unit") and row["unit"] != learned.unit:
        raise ValueError(f"unit is {row['unit']!r}, {learned.name} is in {learned.unit}")
    value, noise = _number("value", row["value"]), math.nan
    if row.get("uncertainty"):
        noise = _number("uncertainty", row["uncertainty"])
        if noise < 0:
            raise ValueError(f"uncertainty is {noise:g}, expected 0 or more")
    if learned.minimum is not None and value < learned.minimum:
        raise ValueError(f"value is {value:g}, {learned.name} is at least {learned.minimum:g} {learned.unit}")
    return value, noise


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in text:  # 1_0 is 10 to Python alone
        raise ValueError(f"{name} is {text!r}, expected a number")
    return value
