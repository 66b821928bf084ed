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

from assay.screening.campaign.judged import Judged
from assay.screening.campaign.plan import Plan
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.reorder import Order
from assay.screening.folder.results import Scored
from assay.screening.folder.summary import Bound
from assay.screening.ranking import bounds, rank
from assay.screening.ranking.rank import Ranked
from assay.screening.ranking.select import Shortlist
from assay.screening.ranking.standing import Standing
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
    standing: Standing
    """How sure the order is; it learns the ranks from the candidates that pass by."""


def whole(found: Ranked, standing: Standing, tier: int, limits: Sequence[Bound] = ()) -> Rows:
    """A ranking in memory, less the rows of its last tier, `tier`, that do not keep the bounds."""
    shared = [name for name in found.unrankable.column_names if name in found.candidates.column_names]
    near, far = zip(*(bounds.split(rows, limits, tier) for rows in (found.candidates, found.unrankable)))
    best = standing.complete(rank.numbered(near[0].drop_columns(["rank"]), 1), tier)
    aside = pa.concat_tables(rows.select([bounds.REASON.name, *shared]) for rows in far).sort_by("id")
    counts = len(best), len(near[1]), len(aside)
    return Rows(bounds.count(aside["reason"]), *counts, [best], [near[1]], [aside], standing)


def in_portions(plan: Plan, ledger: Ledger, judged: Judged | None, shortlist: Shortlist | None = None) -> Rows:
    """The ranking of a campaign without a cascade; a shortlist learns what may be selected."""
    scored, rule, limits = judged or Scored(ledger, 0), plan.rule, plan.bounds
    standing = Standing(rule, plan.campaign.rank.top)
    if not scored:
        nothing = worker.score(empty(), plan.ensembles).table if judged is None else judged.blank
        return whole(rank.rank(nothing, rule, plan.facts), standing, 0, limits)
    rank.measure(scored.schema.empty_table(), rule)  # it names every column, should one be lacking
    best, left, aside = Order(rank.keys(rule)), Order([("id", "ascending")]), Order([("id", "ascending")])
    reads = [*standing.columns(), *bounds.columns(limits), *([] if shortlist is None else shortlist.reads)]
    reasons = Counter[str]()
    for content in scored.tables([*dict.fromkeys(reads)]):
        kept, excluded = bounds.split(content, limits)
        if shortlist is not None:
            shortlist.learn(kept, tests=len(content))
        reasons.update(bounds.count(excluded["reason"]))
        aside.learn(excluded)
        _learn(standing.learn(kept), best, left)
    _learn(standing.settle(), best, left)
    names = "candidates", "unrankable", "excluded"
    portions = [
        _sorted(order, _parts(plan, scored, standing, limits, place), ledger.folder / f"{name}.parquet")
        for place, (name, order) in enumerate(zip(names, (best, left, aside), strict=True))
    ]
    counts = best.rows, left.rows, aside.rows
    return Rows(dict(reasons), *counts, _numbered(portions[0]), portions[1], portions[2], standing)


def _learn(parted: Iterable[tuple[pa.Table, pa.Table]], best: Order, left: Order) -> None:
    for ranked, others in parted:
        best.learn(ranked)
        left.learn(others)


def _numbered(portions: Iterable[pa.Table]) -> Iterator[pa.Table]:
    first = 1
    for portion in portions:
        yield rank.numbered(portion, first)
        first += portion.num_rows


def _parts(
    plan: Plan, scored: Scored | Judged, standing: Standing, limits: Sequence[Bound], place: int
) -> Iterator[pa.Table]:
    """The rows of one output, part by part; first none, which tells the columns."""
    tables = itertools.chain([scored.schema.empty_table()], scored.tables())
    cuts = (bounds.split(rank.with_facts(content, plan.facts), limits) for content in tables)
    if place == 2:
        yield from (excluded for _, excluded in cuts)
    else:
        yield from (parted[place] for parted in standing.parts(kept for kept, _ in cuts))


def _sorted(order: Order, tables: Iterator[pa.Table], path: Path) -> Iterator[pa.Table]:
    yield from order.sort(tables if order.rows else itertools.islice(tables, 1), path)
