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

from assay.screening.ranking.compared.together import Note
from assay.screening.ranking.rules import Rule
from assay.screening.settings import names
from assay.screening.settings.exits import Exit, Failure

Facts = Mapping[str, Mapping[str, str]]
"""Predicted property -> metadata of its columns: `unit`, and `functional` where it is known."""


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

    ids: pa.Array
    """(n,) ids of the crystals, as Arrow texts."""
    mean: NDArray[np.float64]
    """(n,) means, in the unit of the property."""
    std: NDArray[np.float64]
    """(n,) standard deviations, in the unit of the property."""
    scores: NDArray[np.float64]
    """(n,) scores; NaN where the score, the mean or the std is not finite."""
    added: dict[str, NDArray[Any]]
    """Columns that the rule adds, each (n,)."""
    values: dict[str, NDArray[np.float64]]
    """What the rule read, each (n,)."""


def rank(scored: pa.Table, rule: Rule, facts: Facts) -> Ranked:
    """Order the scored rows; `facts` go into the field metadata."""
    content = with_scores(with_facts(scored, facts), rule)
    finite = pc.is_finite(content["score"])
    left = without_score(content.filter(pc.invert(finite)).select(scored.column_names), rule)
    return Ranked(numbered(content.filter(finite).sort_by(keys(rule)), 1), left.sort_by("id"))


def keys(rule: Rule) -> list[tuple[str, str]]:
    """Columns of scored rows with a score that order them, best first.

    Equal scores go by the mean, the end of the property that is wanted first, then by the smaller
    std, then by id. A rule of several objectives says itself what goes before the std. A rule whose
    score has a floor, such as the lower end of an interval that
    begins at 0, thus never puts the least promising of many equal rows first.
    """
    columns, first = rule.columns(), "ascending" if rule.lowest_first else "descending"
    then = ((columns["mean"], rule.settings.order),) if rule.then is None else rule.then
    return [("score", first), *then, (columns["std"], "ascending"), ("id", "ascending")]


def with_scores(scored: pa.Table, rule: Rule) -> pa.Table:
    """The rows with `score`, NaN where they cannot be ranked, and the columns that a rule adds."""
    found = measure(scored, rule)
    return with_columns(scored, {"score": found.scores, **found.added})


def with_columns(rows: pa.Table, columns: Mapping[str, NDArray[Any]]) -> pa.Table:
    """The rows with more columns; a probability that is not known is null there, not NaN."""
    for name, column in columns.items():
        rows = rows.append_column(name, pa.array(column, from_pandas=name.startswith("p_")))
    return rows


def without_score(rows: pa.Table, rule: Rule) -> pa.Table:
    """Rows that cannot be ranked, with `lacks`, where a rule of several objectives can tell why."""
    reasons = rule.lacks(read(rows, rule))
    return rows if reasons is None else rows.append_column("lacks", pa.array(reasons, pa.string()))


def numbered(content: pa.Table, first: int) -> pa.Table:
    """Sorted rows with `rank`, counted from `first`."""
    return content.add_column(0, "rank", pa.array(np.arange(first, first + content.num_rows, dtype=np.int64)))


def measure(scored: pa.Table, rule: Rule, note: Note | None = None) -> Measured:
    """The scores of some rows, or of all, where these are compared with one another.

    `note` takes the rows of the best of each draw, from a rule that draws.

    Raises:
        Failure: CONFIG, when the rows lack a column that the rule reads, or it holds no numbers.
    """
    values = read(scored, rule)
    ids = pa.concat_arrays([pa.array([], pa.large_string()), *scored["id"].cast(pa.large_string()).chunks])
    scores, added = rule.measured(ids, values, note)
    finite = np.isfinite(scores) & np.isfinite(values["mean"]) & np.isfinite(values["std"])
    return Measured(ids, values["mean"], values["std"], np.where(finite, scores, np.nan), added, values)


def read(scored: pa.Table, rule: Rule) -> dict[str, NDArray[np.float64]]:
    """The numbers that a rule reads, (n,) each; see `measure`."""
    columns = rule.columns()
    lacking = [name for name in columns.values() if name not in scored.column_names]
    if lacking:
        raise Failure(
            Exit.CONFIG,
            f"rank.by: {rule.settings.by} reads {lacking[0]}, which no model predicts and no source "
            f"reports; the scored crystals have: {', '.join(scored.column_names)}",
        )
    for name in columns.values():
        if not (pa.types.is_integer(kind := scored.schema.field(name).type) or pa.types.is_floating(kind)):
            raise Failure(Exit.CONFIG, f"rank.by: {rule.settings.by} reads {name}, which holds no numbers ({kind})")
    return {name: np.asarray(scored[column].to_numpy(), dtype=np.float64) for name, column in columns.items()}


def best_first(found: Measured, rule: Rule) -> NDArray[np.int64]:
    """Positions of the rows with a finite score, in the order of `keys`."""
    rows = np.flatnonzero(np.isfinite(found.scores))
    ids = found.ids if len(rows) == len(found.scores) else found.ids.take(pa.array(rows))
    columns = rule.columns()
    known = {"score": found.scores, columns["mean"]: found.mean, columns["std"]: found.std, **found.added}
    sorts = [name for name, _ in keys(rule) if name != "id"]
    table = pa.table({"id": ids, **{name: known[name][rows] for name in sorts}})
    order = pc.sort_indices(table, sort_keys=keys(rule))
    return np.asarray(rows[order.to_numpy()], dtype=np.int64)


def with_facts(table: pa.Table, facts: Facts) -> pa.Table:
    """The table with unit and functional of each prediction in the metadata of its field."""
    fields = []
    for field in table.schema:
        owner = next((name for name in facts if names.predicted(field.name, name)), None)
        fields.append(field.with_metadata(facts[owner]) if owner else field)
    return table.cast(pa.schema(fields))
