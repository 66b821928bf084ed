"""The ranked rows of a campaign, a portion at a time.

Enters: a plan and the ledger of its folder, or a ranking that is in memory. Leaves: portions of
`candidates.parquet`, `unrankable.parquet` and `unstable.parquet`. The parts are read more than
once: for the numbers that rank their rows, and for all columns, which are sorted through a file
(`assay.screening.folder.reorder`). This module does not know tiers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from assay.screening.campaign.judged import Judged
from assay.screening.campaign.plan import Plan
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.reorder import Order
from assay.screening.folder.results import Scored
from assay.screening.ranking import rank, rules, stability
from assay.screening.ranking.rank import Ranked
from assay.screening.ranking.rules import Rule
from assay.screening.ranking.select import Shortlist
from assay.screening.runners import worker
from assay.sources.crystals import empty


@dataclass(frozen=True)
class Rows:
    """All scored rows; each portion is made when it is asked for, once."""

    ranked: int
    unrankable: int
    unstable: int
    candidates: Iterable[pa.Table]
    """Portions of the candidates, best first; at least one."""
    others: Iterable[pa.Table]
    """Portions of the rows that cannot be ranked, by id; at least one."""
    aside: Iterable[pa.Table]
    """Portions of the rows that lie too far above the hull or have none, by id; at least one."""


def whole(found: Ranked, most: float | None = None) -> Rows:
    """A ranking that is in memory; rows more than `most` eV/atom above the hull are set aside."""
    if most is None:
        tables = found.candidates, found.unrankable, found.unrankable.slice(0, 0)
    else:
        names = found.unrankable.column_names
        near = [stability.within(rows, most) for rows in (found.candidates, found.unrankable)]
        far = [
            rows.filter(pc.invert(kept)).select(names) for rows, kept in zip((found.candidates, found.unrankable), near)
        ]
        ranked = rank.numbered(found.candidates.filter(near[0]).drop_columns(["rank"]), 1)
        tables = ranked, found.unrankable.filter(near[1]), pa.concat_tables(far).sort_by("id")
    return Rows(*(content.num_rows for content in tables), *([content] for content in tables))


def in_portions(plan: Plan, ledger: Ledger, judged: Judged | None, shortlist: Shortlist | None = None) -> Rows:
    """The ranking of a campaign without a cascade; a shortlist learns all scored rows."""
    scored, rule = judged or Scored(ledger, 0), rules.make(plan.campaign.rank, plan.target)
    bound = plan.campaign.stability.max if plan.campaign.stability else None
    if not scored:
        nothing = worker.score(empty(), plan.ensembles).table if judged is None else judged.blank
        return whole(rank.rank(nothing, rule, plan.units))
    rank.measure(scored.schema.empty_table(), rule)  # it names every column, should one be lacking
    best, left, aside = Order(rank.keys(rule)), Order([("id", "ascending")]), Order([("id", "ascending")])
    reads = [*rule.columns().values(), *([] if bound is None else [stability.MEAN])]
    reads += [] if shortlist is None else shortlist.reads
    for content in scored.tables(["id", *dict.fromkeys(reads)]):
        if shortlist is not None:
            shortlist.learn(content)
        for order, rows in zip((best, left, aside), _parted(content, rule, bound), strict=True):
            order.learn(rows)
    names = "candidates", "unrankable", "unstable"
    portions = [
        _sorted(order, _parts(plan, scored, rule, bound, place), ledger.folder / f"{name}.parquet")
        for place, (name, order) in enumerate(zip(names, (best, left, aside), strict=True))
    ]
    return Rows(best.rows, left.rows, aside.rows, _numbered(portions[0]), *portions[1:])


def _parted(content: pa.Table, rule: Rule, bound: float | None) -> tuple[pa.Table, pa.Table, pa.Table]:
    """The rows that are ranked, with their scores; those that cannot be; those set aside."""
    near = stability.within(content, bound)
    kept, aside = content.filter(near), content.filter(pc.invert(near))
    measured = rank.with_scores(kept, rule)
    finite = pc.is_finite(measured["score"])
    return measured.filter(finite), kept.filter(pc.invert(finite)), aside


def _numbered(portions: Iterable[pa.Table]) -> Iterator[pa.Table]:
    first = 1
    for portion in portions:
        yield rank.numbered(portion, first)
        first += portion.num_rows


def _parts(plan: Plan, scored: Scored | Judged, rule: Rule, bound: float | None, place: int) -> Iterator[pa.Table]:
    """The rows of one output, part by part; first none, which tells the columns."""
    for content in itertools.chain([scored.schema.empty_table()], scored.tables()):
        yield _parted(rank.with_units(content, plan.units), rule, bound)[place]


def _sorted(order: Order, tables: Iterator[pa.Table], path: Path) -> Iterator[pa.Table]:
    yield from order.sort(tables if order.rows else itertools.islice(tables, 1), path)
