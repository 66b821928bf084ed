"""The ranked rows of a campaign, a portion at a time.

Enters: a plan and the ledger of its folder, or a ranking that is in memory. Leaves: portions of
`candidates.parquet`, `unrankable.parquet` and `excluded.parquet`. The parts are read more than
once: for the numbers that rank their rows, and for all columns, which are sorted through a file
(`assay.screening.folder.reorder`). This module does not know tiers.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from assay.screening.campaign.judged import Judged
from assay.screening.campaign.plan import Plan
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.reorder import Order
from assay.screening.folder.results import Scored
from assay.screening.folder.summary import Bound
from assay.screening.ranking import bounds, rank, rules
from assay.screening.ranking.rank import Ranked
from assay.screening.ranking.rules import Rule
from assay.screening.runners import worker
from assay.sources.crystals import empty


@dataclass(frozen=True)
class Rows:
    """All scored rows; each portion is made when it is asked for, once."""

    reasons: dict[str, int]
    """Reason -> rows that a filter on predictions excluded for it."""
    ranked: int
    unrankable: int
    excluded: int
    candidates: Iterable[pa.Table]
    """Portions of the candidates, best first; at least one."""
    others: Iterable[pa.Table]
    """Portions of the rows that cannot be ranked, by id; at least one."""
    aside: Iterable[pa.Table]
    """Portions of the rows that a filter on predictions excluded, by id; at least one."""


def whole(found: Ranked, limits: Sequence[Bound] = (), last_tier: int = 0) -> Rows:
    """A ranking that is in memory, less the rows of the last tier that do not keep the bounds."""
    names = [bounds.REASON.name, *found.unrankable.column_names]
    near, far = zip(*(bounds.split(rows, limits, last_tier) for rows in (found.candidates, found.unrankable)))
    ranked = rank.numbered(near[0].drop_columns(["rank"]), 1)
    aside = pa.concat_tables(rows.select(names) for rows in far).sort_by("id")
    tables = ranked, near[1], aside
    counts = (content.num_rows for content in tables)
    return Rows(bounds.count(aside["reason"]), *counts, *([content] for content in tables))


def in_portions(plan: Plan, ledger: Ledger, judged: Judged | None) -> Rows:
    """The ranking of a campaign without a cascade."""
    scored, rule, limits = judged or Scored(ledger, 0), rules.make(plan.campaign.rank, plan.target), plan.bounds
    if not scored:
        nothing = worker.score(empty(), plan.ensembles).table if judged is None else judged.blank
        return whole(rank.rank(nothing, rule, plan.units), limits)
    rank.measure(scored.schema.empty_table(), rule)  # it names every column, should one be lacking
    best, left, aside = Order(rank.keys(rule)), Order([("id", "ascending")]), Order([("id", "ascending")])
    reasons = Counter[str]()
    for content in scored.tables(["id", *dict.fromkeys([*rule.columns().values(), *bounds.columns(limits)])]):
        parted = _parted(content, rule, limits)
        reasons.update(bounds.count(parted[2]["reason"]))
        for order, rows in zip((best, left, aside), parted, strict=True):
            order.learn(rows)
    names = "candidates", "unrankable", "excluded"
    portions = [
        _sorted(order, _parts(plan, scored, rule, limits, place), ledger.folder / f"{name}.parquet")
        for place, (name, order) in enumerate(zip(names, (best, left, aside), strict=True))
    ]
    return Rows(dict(reasons), best.rows, left.rows, aside.rows, _numbered(portions[0]), *portions[1:])


def _parted(content: pa.Table, rule: Rule, limits: Sequence[Bound]) -> tuple[pa.Table, pa.Table, pa.Table]:
    """The rows that are ranked, with their scores; those that cannot be; those excluded."""
    kept, excluded = bounds.split(content, limits)
    measured = rank.with_scores(kept, rule)
    finite = pc.is_finite(measured["score"])
    return measured.filter(finite), kept.filter(pc.invert(finite)), excluded


def _numbered(portions: Iterable[pa.Table]) -> Iterator[pa.Table]:
    first = 1
    for portion in portions:
        yield rank.numbered(portion, first)
        first += portion.num_rows


def _parts(plan: Plan, scored: Scored | Judged, rule: Rule, limits: Sequence[Bound], place: int) -> Iterator[pa.Table]:
    """The rows of one output, part by part; first none, which tells the columns."""
    for content in itertools.chain([scored.schema.empty_table()], scored.tables()):
        yield _parted(rank.with_units(content, plan.units), rule, limits)[place]


def _sorted(order: Order, tables: Iterator[pa.Table], path: Path) -> Iterator[pa.Table]:
    yield from order.sort(tables if order.rows else itertools.islice(tables, 1), path)
