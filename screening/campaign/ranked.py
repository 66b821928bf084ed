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
from assay.screening.ranking import rank, stability
from assay.screening.ranking.rank import Ranked
from assay.screening.ranking.standing import Standing
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
    standing: Standing
    """How sure the order is; it learns the ranks from the candidates that pass by."""


def whole(found: Ranked, standing: Standing, tier: int, most: float | None = None) -> Rows:
    """A ranking that is in memory, of which `tier` is the last one.

    Rows more than `most` eV/atom above the hull are set aside.
    """
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
    best, left, aside = standing.complete(tables[0], tier), *tables[1:]
    return Rows(len(best), len(left), len(aside), [best], [left], [aside], standing)


def in_portions(plan: Plan, ledger: Ledger, judged: Judged | None) -> Rows:
    """The ranking of a campaign without a cascade."""
    scored, rule = judged or Scored(ledger, 0), plan.rule
    standing = Standing(rule, plan.campaign.rank.top)
    bound = plan.campaign.stability.max if plan.campaign.stability else None
    if not scored:
        nothing = worker.score(empty(), plan.ensembles).table if judged is None else judged.blank
        return whole(rank.rank(nothing, rule, plan.units), standing, 0)
    rank.measure(scored.schema.empty_table(), rule)  # it names every column, should one be lacking
    best, left, aside = Order(rank.keys(rule)), Order([("id", "ascending")]), Order([("id", "ascending")])
    reads = [*standing.columns(), *([] if bound is None else [stability.MEAN])]
    for content in scored.tables([*dict.fromkeys(reads)]):
        near, far = _cut(content, bound)
        aside.learn(far)
        _learn(standing.learn(near), best, left)
    _learn(standing.settle(), best, left)
    names = "candidates", "unrankable", "unstable"
    portions = [
        _sorted(order, _parts(plan, scored, standing, bound, place), ledger.folder / f"{name}.parquet")
        for place, (name, order) in enumerate(zip(names, (best, left, aside), strict=True))
    ]
    return Rows(best.rows, left.rows, aside.rows, _numbered(portions[0]), portions[1], portions[2], standing)


def _learn(parted: Iterable[tuple[pa.Table, pa.Table]], best: Order, left: Order) -> None:
    for ranked, others in parted:
        best.learn(ranked)
        left.learn(others)


def _cut(content: pa.Table, bound: float | None) -> tuple[pa.Table, pa.Table]:
    """The rows that may be ranked, and those set aside."""
    near = stability.within(content, bound)
    return content.filter(near), content.filter(pc.invert(near))


def _numbered(portions: Iterable[pa.Table]) -> Iterator[pa.Table]:
    first = 1
    for portion in portions:
        yield rank.numbered(portion, first)
        first += portion.num_rows


def _parts(
    plan: Plan, scored: Scored | Judged, standing: Standing, bound: float | None, place: int
) -> Iterator[pa.Table]:
    """The rows of one output, part by part; first none, which tells the columns."""
    tables = itertools.chain([scored.schema.empty_table()], scored.tables())
    cuts = (_cut(rank.with_units(content, plan.units), bound) for content in tables)
    if place == 2:
        yield from (far for _, far in cuts)
    else:
        yield from (parted[place] for parted in standing.parts(near for near, _ in cuts))


def _sorted(order: Order, tables: Iterator[pa.Table], path: Path) -> Iterator[pa.Table]:
    yield from order.sort(tables if order.rows else itertools.islice(tables, 1), path)
