"""Tables that Assay wrote: they lie among structure files, and hold no crystals.

Enters: the path of a regular file in a format for tables. Leaves: its columns, and whether Assay
wrote it: predictions, refused crystals, candidates, or a batch to measure. This module reads the
beginning of a text and the end of a Parquet file, and no rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from assay.sources import table

ENDINGS = (".parquet", ".csv", ".json", ".jsonl")
"""Formats of the tables that Assay writes."""
PREDICTED = ["id", "formula"]
"""First columns of a table of predictions, before means and standard deviations."""
WRITTEN = "reported_formula"
"""Column behind them with formulas as the input writes them, where formulas were predicted."""
REFUSED = list(table.QUARANTINE_SCHEMA.names)
"""Columns of a table of refused crystals."""
RANKED = ["rank", "id", "formula"]
"""First columns of candidates, and of their exports as tables."""
BATCH = ["pick", "id", "formula", "utility"]
"""First columns of a batch to measure next."""
MAX_LINE = 1 << 20
"""Most characters of a file that are read to find its columns."""


def is_own(path: Path) -> bool:
    """Whether Assay wrote a regular file as a table without crystals."""
    ending = path.suffix.lower()
    if ending not in ENDINGS or (ending != ".parquet" and not _is_table(path)):
        return False
    return any(begins(path, first) for first in (PREDICTED, REFUSED, RANKED, BATCH))


def _is_table(path: Path) -> bool:
    """Whether the first name in a text is that of such a table: a quick look at many files."""
    try:
        with path.open("rb") as file:
            return re.match(rb'(\[?\{)?"(id|rank|pick)"[:,]', file.read(16)) is not None
    except OSError:
        return False


def begins(path: Path, first: Sequence[str]) -> bool:
    """Whether the table in a regular file begins with these columns.

    Behind `PREDICTED` a mean and its standard deviation must follow: tables of other programs begin
    with id and formula, too.
    """
    names = columns(path)
    return names is not None and names[: len(first)] == [*first] and (first != PREDICTED or _with_errors(names))


def columns(path: Path) -> list[str] | None:
    """Columns of a table, from its first row where it is JSON; None for an empty file."""
    try:
        if path.suffix.lower() == ".parquet":
            return None if path.stat().st_size == 0 else list(table.schema(path).names)
        with path.open(encoding="utf-8") as file:
            line = file.readline(MAX_LINE).strip()
        if line in {"", "[]"}:
            return None
        if path.suffix.lower() == ".csv":
            return [name.strip('"') for name in line.split(",")]
        found = json.loads(line.removeprefix("[").removesuffix(",").removesuffix("]"))
    except (ValueError, RecursionError, OSError):
        return []
    return list(found) if isinstance(found, dict) else []


def _with_errors(names: Sequence[str]) -> bool:
    mean, std, *_ = [*(name for name in names[len(PREDICTED) :] if name != WRITTEN), "", ""]
    return mean.endswith("_mean") and std == f"{mean.removesuffix('_mean')}_std"
