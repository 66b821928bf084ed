"""The ranked rows of a campaign, a portion at a time.

Enters: a plan and the ledger of its folder, or a ranking that is in memory. Leaves: portions of
`candidates.parquet` and `unrankable.parquet`. The parts are read twice: for the numbers that rank
their rows, and for all columns, which are sorted through a file (`assay.screening.folder.reorder`).
This module does not know tiers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from assay.screening.campaign.plan import Plan
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.reorder import Order
from assay.screening.folder.results import Scored
from assay.screening.ranking import rank, rules
from assay.screening.ranking.rank import Ranked
from assay.screening.ranking.rules import Rule
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
    best, left = Order(rank.keys(rule)), Order([("id", "ascending")])
    for content in scored.tables(["id", *dict.fromkeys(rule.columns().values())]):
        fit, unfit = _parted(content, rule)
        best.learn(fit)
        left.learn(unfit)
    tables = (rank.with_units(content, plan.units) for content in scored.tables())
    candidates = best.sort((_parted(content, rule)[0] for content in tables), ledger.folder / "candidates.parquet")
    return Rows(best.rows, left.rows, _numbered(candidates), _others(plan, scored, rule, left, ledger.folder))


def _parted(content: pa.Table, rule: Rule) -> tuple[pa.Table, pa.Table]:
    """The rows that can be ranked, with their scores, and the others as they are."""
    measured = rank.with_scores(content, rule)
    finite = pc.is_finite(measured["score"])
    return measured.filter(finite), content.filter(pc.invert(finite))


def _numbered(portions: Iterable[pa.Table]) -> Iterator[pa.Table]:
    first = 1
    for portion in portions:
        yield rank.numbered(portion, first)
        first += portion.num_rows


def _others(plan: Plan, scored: Scored, rule: Rule, order: Order, folder: Path) -> Iterator[pa.Table]:
    if not order.rows:
        yield rank.with_units(scored.schema.empty_table(), plan.units)
        return
    tables = (rank.with_units(content, plan.units) for content in scored.tables())
    yield from order.sort((_parted(content, rule)[1] for content in tables), folder / "unrankable.parquet")
