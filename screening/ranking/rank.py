"""The ranking: scored rows in a total order.

Enters: the scored rows of a campaign and the `rank` section. Leaves: ranked rows with `rank` and
`score`, and the unrankable ones, set aside before any sort (sorts disagree about the place of NaN).
It does not know chunks or models, nor how a score is computed (`assay.screening.ranking.rules`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from assay.screening.ranking.rules import Rule
from assay.screening.settings.exits import Exit, Failure


@dataclass(frozen=True)
class Ranked:
    """The outcome of ranking."""

    candidates: pa.Table
    """Best first: `rank` from 1, the columns of the parts, `score`, the columns that the rule
    adds."""
    unrankable: pa.Table
    """Rows whose prediction is not finite, by id."""


@dataclass(frozen=True)
class Measured:
    """Scored rows as a rule sees them."""

    ids: NDArray[np.str_]
    """(n,) ids of the crystals."""
    std: NDArray[np.float64]
    """(n,) standard deviations, in the unit of the property."""
    scores: NDArray[np.float64]
    """(n,) scores; NaN where the score, the mean or the std is not finite."""
    added: dict[str, NDArray[np.float64]]
    """Columns that the rule adds, each (n,)."""


def rank(scored: pa.Table, rule: Rule, units: Mapping[str, str]) -> Ranked:
    """Order the scored rows; `units` is property -> unit, kept in the field metadata."""
    found = measure(scored, rule)
    finite = np.isfinite(found.scores)
    rows = np.flatnonzero(finite)
    best = rows[order(found.scores[rows], found.std[rows], found.ids[rows], not rule.lowest_first)]
    left = np.flatnonzero(~finite)
    left = left[np.argsort(found.ids[left], kind="stable")]
    table = _with_units(scored, units)
    numbers = pa.array(np.arange(1, len(best) + 1, dtype=np.int64))
    candidates = table.take(best).add_column(0, "rank", numbers)
    for name, column in {"score": found.scores, **found.added}.items():
        candidates = candidates.append_column(name, pa.array(column[best]))
    return Ranked(candidates, table.take(left))


def measure(scored: pa.Table, rule: Rule) -> Measured:
    """The scores of some rows.

    Raises:
        Failure: CONFIG, when the rows lack a column that the rule reads.
    """
    columns = rule.columns()
    lacking = [name for name in columns.values() if name not in scored.column_names]
    if lacking:
        raise Failure(
            Exit.CONFIG,
            f"rank.by: {rule.settings.by} reads {lacking[0]}, which no model predicts and no source "
            f"reports; the scored crystals have: {', '.join(scored.column_names)}",
        )
    values = {name: np.asarray(scored[column].to_numpy(), dtype=np.float64) for name, column in columns.items()}
    scores = rule.score(values)
    finite = np.isfinite(scores) & np.isfinite(values["mean"]) & np.isfinite(values["std"])
    ids = np.array(scored["id"].to_pylist(), dtype=np.str_)
    return Measured(ids, values["std"], np.where(finite, scores, np.nan), rule.adds(values))


def order(scores: NDArray[Any], std: NDArray[Any], ids: NDArray[Any], descending: bool = True) -> NDArray[Any]:
    """Positions of the rows, best first: score, then the smaller std, then id.

    >>> scores, std = np.array([1.0, 2.0, 2.0]), np.array([0.1, 0.3, 0.2])
    >>> order(scores, std, np.array(["a", "b", "c"])).tolist()
    [2, 1, 0]
    """
    table = pa.table({"score": scores, "std": std, "id": pa.array(ids.astype(object), pa.string())})
    keys = [("score", "descending" if descending else "ascending"), ("std", "ascending"), ("id", "ascending")]
    return np.asarray(pc.sort_indices(table, sort_keys=keys).to_numpy(), dtype=np.int64)


def _with_units(table: pa.Table, units: Mapping[str, str]) -> pa.Table:
    fields = []
    for field in table.schema:
        owner = next((name for name in units if field.name.startswith(f"{name}_")), None)
        fields.append(field.with_metadata({"unit": units[owner]}) if owner else field)
    return table.cast(pa.schema(fields))
