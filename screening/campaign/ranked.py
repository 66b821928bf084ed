"""The ranked rows of a campaign, a portion at a time.

Enters: a plan and the ledger of its folder, or a ranking that is in memory. Leaves: portions of
`candidates.parquet` and `unrankable.parquet`. Of each scored row, memory holds the id and the
numbers that rank it; the other columns are read again, part by part, and put into order through a
file (`assay.screening.folder.reorder`). This module does not know tiers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from assay.screening.campaign.plan import Plan
from assay.screening.folder import reorder
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.results import Scored
from assay.screening.ranking import rank, rules
from assay.screening.ranking.rank import Measured, Ranked
from assay.screening.runners import worker
from assay.sources.crystals import empty


@dataclass(frozen=True)
class Rows:
    """All scored rows; each portion is made when it is asked for, once."""

    ranked: int
    unrankable: int
    candidates: Iterable[pa.Table]
    """Portions of the candidates, best first; at least one."""
    others: Iterable[pa.Table]
    """Portions of the rows that cannot be ranked, by id; at least one."""


def whole(found: Ranked) -> Rows:
    """A ranking that is in memory."""
    tables = found.candidates, found.unrankable
    return Rows(*(content.num_rows for content in tables), *([content] for content in tables))


def in_portions(plan: Plan, ledger: Ledger) -> Rows:
    """The ranking of a campaign without a cascade."""
    scored, rule = Scored(ledger, 0), rules.make(plan.campaign.rank, plan.target)
    if not scored:
        return whole(rank.rank(worker.score(empty(), plan.ensembles).table, rule, plan.units))
    rank.measure(scored.schema.empty_table(), rule)  # it names every column, should one be lacking
    keys = pa.concat_tables(scored.tables(["id", *dict.fromkeys(rule.columns().values())]))
    found = rank.measure(keys, rule)
    best, left = rank.split(found, rule)
    others = _ordered(scored, left, len(found.scores), ledger.folder / "unrankable.parquet")
    candidates = _candidates(plan, scored, found, best, ledger.folder / "candidates.parquet")
    return Rows(len(best), len(left), candidates, _with_units(plan, others))


def _candidates(plan: Plan, scored: Scored, found: Measured, best: NDArray[np.int64], path: Path) -> Iterator[pa.Table]:
    start = 0
    for portion in _with_units(plan, _ordered(scored, best, len(found.scores), path)):
        rows = best[start : start + portion.num_rows]
        yield rank.numbered(portion, found, rows, start + 1)
        start += portion.num_rows


def _ordered(scored: Scored, rows: NDArray[np.int64], scored_rows: int, path: Path) -> Iterator[pa.Table]:
    if not len(rows):
        yield scored.schema.empty_table()
        return
    place = np.full(scored_rows, -1)
    place[rows] = np.arange(len(rows))
    yield from reorder.reordered(scored.tables(), place, path)


def _with_units(plan: Plan, portions: Iterable[pa.Table]) -> Iterator[pa.Table]:
    return (rank.with_units(portion, plan.units) for portion in portions)
