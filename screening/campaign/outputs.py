"""The outputs of a campaign: candidates, unrankable and quarantined crystals, report, summary.

Enters: a plan and the ledger of its folder. Leaves: `candidates.parquet`, `unrankable.parquet`,
`quarantine.parquet`, `report.html` and, last, `summary.json`. All are functions of the ledger and
the rank rule: they hold no dates and no machine names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from assay.models.ensemble.checkpoint import finite
from assay.screening.campaign import identify, report, tiers
from assay.screening.campaign.plan import Plan
from assay.screening.campaign.tiers import Tiers
from assay.screening.folder import balance, delivery, results, snapshot
from assay.screening.folder.balance import Balance
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.results import Results
from assay.screening.folder.summary import Cascade, Merged, Model, Property, Summary
from assay.screening.ranking import rank, rules, ties
from assay.screening.ranking.rank import Ranked
from assay.screening.runners import worker
from assay.screening.settings import digits
from assay.screening.settings.printable import escaped
from assay.sources import durable, table
from assay.sources.crystals import empty
from assay.sources.quarantine import Quarantined

if TYPE_CHECKING:
    from assay.models.ensemble.ensemble import Ensemble


def write(plan: Plan, ledger: Ledger) -> Summary:
    """Rank the parts, check the balance, and write the files."""
    found = Tiers(plan, ledger) if plan.tiers else None
    ranked = found.rank() if found else _rank(plan, ledger)
    bad = quarantined(ledger)
    counted = balance.take(ledger, ranked.candidates.num_rows, ranked.unrankable.num_rows)
    candidates = identify.fan_out(ranked.candidates, ledger)
    tables = {"candidates": candidates, "unrankable": ranked.unrankable, "quarantine": table.quarantine_table(bad)}
    paths = {name: plan.folder / f"{name}.parquet" for name in tables}
    files = {path.name: table.write(tables[name], path) for name, path in paths.items()}
    cascade = found.summary([_model(tier) for tier in plan.tiers]) if found else None
    shown = min(plan.campaign.rank.top, report.ROWS)
    tied = ties.find(ranked.candidates, rules.make(plan.campaign.rank, plan.target), shown)
    summary = replace(summarise(plan, ledger, counted, bad, files, cascade), ties=tied)
    top = candidates.slice(0, shown).to_pylist()
    durable.write(plan.folder / "report.html", report.render(summary, top, bad, ranked))
    durable.write(plan.folder / "summary.json", summary.text())
    named = {name: durable.sha256(plan.folder / name) for name in ("report.html", "summary.json")} | files
    before = ledger.find("ranked", "all")
    if before is None or before.files != named:
        ledger.record("ranked", "all", named, {"ranked": counted.ranked, "unrankable": counted.unrankable})
    return summary


def quarantined(ledger: Ledger) -> list[Quarantined]:
    """Every quarantined crystal of a sealed campaign, by id."""
    rows = snapshot.quarantined(ledger)
    for part in ledger.all("part"):
        for path in part.files:
            if path.startswith("quarantine/"):
                rows += table.quarantine_rows(ledger.read(part, path))
    return sorted(rows, key=lambda row: (row.id, row.origin, row.message))


def summarise(
    plan: Plan,
    ledger: Ledger,
    counted: Balance,
    bad: Sequence[Quarantined],
    files: dict[str, str],
    cascade: Cascade | None = None,
) -> Summary:
    """The campaign in numbers."""
    sources = delivery.read(ledger, plan.campaign)
    compared = identify.counts(ledger)
    return Summary(
        campaign=plan.campaign.name,
        complete=all(source.complete for source in sources),
        balance=counted,
        identity=None if compared is None else Merged(**compared),
        quarantine=dict(Counter(str(row.reason) for row in bad)),
        sources=sources,
        models=[_model(ensemble) for ensemble in plan.ensembles],
        rank=plan.campaign.rank,
        target=plan.target,
        max_bad=plan.campaign.max_bad,
        fingerprint=plan.fingerprint,
        sha256=files,
        cascade=cascade,
    )


def table_text(found: Results, most: int = results.SHOWN) -> list[str]:
    """The best candidates as aligned text, the ties among them, and what a cascade missed."""
    target = found.summary.target
    head = f"{target.name} ({target.unit})"
    lines = [f"{'rank':>4}  {'formula':<24}{head:>20}  {'interval':<20}  id"]
    for row in found.top(most):
        mean, std, low, high = digits.measured(row.mean, row.std, row.low, row.high)
        value, interval = f"{mean} ± {std}", f"[{low}, {high}]"
        marks = "".join(f"  ({mark})" for mark in row.marks)
        lines.append(f"{row.rank:>4}  {escaped(row.formula):<24}{value:>20}  {interval:<20}  {escaped(row.id)}{marks}")
    lines += ties.sentences(found.summary.ties, found.summary.rank.by)
    cascade = found.summary.cascade
    return lines if cascade is None else lines + tiers.lines(cascade, target.model)


def _model(ensemble: Ensemble) -> Model:
    return Model(
        name=ensemble.name,
        members=[member.name for member in ensemble.members],
        sha256=list(ensemble.sha256),
        properties=[Property(item.name, item.unit) for item in ensemble.properties],
        elements=len(ensemble.elements),
        reference=0 if ensemble.reference is None else len(ensemble.reference.points),
        facts=finite(ensemble.facts),
    )


def _rank(plan: Plan, ledger: Ledger) -> Ranked:
    scored = results.scored(ledger, 0)
    if scored is None:
        scored = worker.score(empty(), plan.ensembles).table
    return rank.rank(scored, rules.make(plan.campaign.rank, plan.target), plan.units)
