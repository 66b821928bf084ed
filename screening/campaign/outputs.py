"""What a campaign leaves for people: candidates, quarantine, summary, report.

Enters: a plan and the ledger of its folder. Leaves: `candidates.parquet`, `unrankable.parquet`,
`quarantine.parquet`, `report.html` and, last, `summary.json`. All are functions of the ledger and
the rank rule: no dates, no machine names.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.screening.campaign import identify, report, tiers
from assay.screening.campaign.plan import Plan
from assay.screening.campaign.tiers import Tiers
from assay.screening.folder import balance, snapshot
from assay.screening.folder.balance import Accounts
from assay.screening.folder.ledger import Ledger
from assay.screening.ranking import cascade, rank
from assay.sources import durable
from assay.sources.quarantine import Quarantined

if TYPE_CHECKING:
    import pyarrow as pa


def write(plan: Plan, book: Ledger) -> tuple[dict[str, Any], Accounts]:
    """Rank the parts, check the identity, and write the files."""
    from assay.sources import table

    found = Tiers(plan, book) if plan.tiers else None
    ranked = found.rank() if found else rank.rank(_scored(plan, book), plan.campaign.rank, plan.target, plan.units)
    bad = quarantined(book)
    counted = balance.take(book, ranked.candidates.num_rows, ranked.unrankable.num_rows)
    candidates = identify.fan_out(ranked.candidates, book)
    files = {
        "candidates.parquet": table.write(candidates, plan.folder / "candidates.parquet"),
        "unrankable.parquet": table.write(ranked.unrankable, plan.folder / "unrankable.parquet"),
        "quarantine.parquet": table.write(table.quarantine_table(bad), plan.folder / "quarantine.parquet"),
    }
    summary = summarise(plan, book, counted, bad, files)
    if found is not None:
        summary["cascade"] = {**found.section(), "models": [_model(tier) for tier in plan.tiers]}
    top = candidates.slice(0, plan.campaign.rank.top).to_pylist()
    durable.write(plan.folder / "report.html", report.render(summary, top, bad, ranked))
    durable.write(plan.folder / "summary.json", durable.canonical(summary))
    for name in ("report.html", "summary.json"):
        files[name] = durable.sha256(plan.folder / name)
    before = book.find("ranked", "all")
    if before is None or before.files != files:
        book.record("ranked", "all", files, {"ranked": counted.ranked, "unrankable": counted.unrankable})
    return summary, counted


def quarantined(book: Ledger) -> list[Quarantined]:
    """Every quarantined crystal of a sealed campaign, by id."""
    from assay.sources import table

    rows = snapshot.quarantined(book)
    for part in book.all("part"):
        for path in part.files:
            if path.startswith("quarantine/"):
                rows += table.quarantine_rows(book.read(part, path))
    return sorted(rows, key=lambda row: (row.id, row.origin, row.message))


def summarise(
    plan: Plan, book: Ledger, counted: Accounts, bad: list[Quarantined], files: dict[str, str]
) -> dict[str, Any]:
    """Content of `summary.json`."""
    sources = balance.sources(book, plan.campaign)
    target, rule = plan.target, plan.campaign.rank
    return {
        "campaign": plan.campaign.name,
        "complete": all(row["complete"] for row in sources),
        "accounting": dict(vars(counted)),
        "identity": identify.counts(book),
        "quarantine": balance.reasons(bad),
        "sources": sources,
        "models": [_model(ensemble) for ensemble in plan.ensembles],
        "rank": {**rule.model_dump(mode="json"), "model": target.model, "property": target.name, "unit": target.unit,
                 "level": target.level, "calibrated": target.calibrated},
        "max_bad": plan.campaign.max_bad,
        "fingerprint": plan.fingerprint,
        "sha256": files,
    }  # fmt: skip


def table_text(folder: Path, summary: dict[str, Any], most: int = 10) -> list[str]:
    """The best candidates as aligned text."""
    from assay.sources import table

    name, unit = summary["rank"]["property"], summary["rank"]["unit"]
    parts = [f"{name}_{part}" for part in ("mean", "std", "lo", "hi")]
    distance = ["ood_distance"] if any(model.get("reference") for model in summary["models"]) else []
    last = len(summary["cascade"]["tiers"]) if "cascade" in summary else 0
    columns = ["rank", "id", "formula", "ood", *distance, *parts, *(["tier"] if last else [])]
    rows = table.read(folder / "candidates.parquet", columns).slice(0, most).to_pylist()
    lines = [f"{'rank':>4}  {'formula':<24}{f'{name} ({unit})':>20}  {'interval':<20}  id"]
    for row in rows:
        mean, std, lo, hi = (row[part] for part in parts)
        mark = "  (new element)" if row["ood"] else ""
        mark += "  (unlike training)" if (row.get("ood_distance") or 0.0) > 1 else ""
        mark += "" if row.get("tier", last) == last else f"  (tier {row['tier']} only)"
        lines.append(f"{row['rank']:>4}  {row['formula']:<24}{f'{mean:.4g} ± {std:.2g}':>20}  "
                     f"{f'[{lo:.4g}, {hi:.4g}]':<20}  {row['id']}{mark}")  # fmt: skip
    if last:
        lines += tiers.lines(summary["cascade"], summary["rank"]["model"])
    return lines


def _model(ensemble: Any) -> dict[str, Any]:
    return {
        "name": ensemble.name,
        "members": [member.name for member in ensemble.members],
        "sha256": list(ensemble.sha256),
        "properties": [{"name": item.name, "unit": item.unit} for item in ensemble.properties],
        "elements": len(ensemble.elements),
        "reference": 0 if ensemble.reference is None else len(ensemble.reference.points),
        "facts": ensemble.facts,
    }


def _scored(plan: Plan, book: Ledger) -> pa.Table:
    from assay.screening.runners import worker
    from assay.sources.crystals import empty

    found = cascade.parts(book, 0)
    return worker.score(empty(), plan.ensembles).table if found is None else found
