"""The outputs of a campaign: candidates, unrankable and quarantined crystals, report, summary.

Enters: a plan and the ledger of its folder. Leaves: `candidates.parquet`, `unrankable.parquet`,
`quarantine.parquet`, with filters on predictions also `excluded.parquet`, `report.html` and, last,
`summary.json`. All are functions of the ledger, the rank rule and these filters: they hold no dates
and no machine names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from assay.models.ensemble.checkpoint import finite
from assay.screening.campaign import identify, ranked, tiers
from assay.screening.campaign.judged import Judged
from assay.screening.campaign.plan import Plan
from assay.screening.campaign.ranked import Rows
from assay.screening.campaign.tiers import Tiers
from assay.screening.folder import balance, delivery, reorder, results, snapshot
from assay.screening.folder.balance import Balance
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.results import Results
from assay.screening.folder.summary import Cascade, Excluded, Merged, Model, Property, Relaxation, Summary, Target
from assay.screening.ranking import bounds, select, several, ties
from assay.screening.ranking.standing import Standing, sentences
from assay.screening.ranking.ties import Ties
from assay.screening.settings import digits, names
from assay.screening.settings.printable import escaped
from assay.sources import durable, table
from assay.sources.checks import importing
from assay.sources.crystals import SET_ASIDE
from assay.sources.quarantine import Quarantined, Stage

if TYPE_CHECKING:
    from assay.models.ensemble.ensemble import Ensemble
    from assay.models.potentials.potential import Potential
    from assay.screening.campaign.reporting import evidence, report
else:
    evidence = importing.later("assay.screening.campaign.reporting.evidence")
    report = importing.later("assay.screening.campaign.reporting.report")

WIDTH = 26
"""Letters of a further objective in a table of text."""


def write(plan: Plan, ledger: Ledger) -> Summary:
    """Rank the parts, check the balance, and write the files."""
    judged, limits = Judged(plan, ledger) if plan.stability else None, plan.bounds
    found = Tiers(plan, ledger, judged) if plan.tiers else None
    shortlist = plan.shortlist()
    rows = _whole(plan, found) if found else ranked.in_portions(plan, ledger, judged, shortlist)
    order = rows.candidates
    if shortlist is not None:
        if found is not None:
            found.teach(shortlist)
        order = (shortlist.marked(one, len(plan.tiers)) for one in rows.candidates)
    bad = quarantined(ledger)
    counts = {"ranked": rows.ranked, "unrankable": rows.unrankable}
    counts |= {"excluded": rows.excluded} if limits else {}
    counted = balance.take(ledger, **counts)
    best = Best(min(plan.campaign.rank.top, report.ROWS), rows.standing)
    candidates = map(best.seen, identify.fan_out(order, ledger, plan.campaign.rank.top))
    tables: dict[str, Iterable[pa.Table]] = {
        "candidates": map(_with_nulls, candidates),
        "unrankable": map(_with_nulls, rows.others),
        "quarantine": [table.quarantine_table(bad)],
        **({"excluded": map(_with_nulls, rows.aside)} if limits else {}),
    }
    files = {f"{name}.parquet": reorder.write(tables[name], plan.folder / f"{name}.parquet") for name in tables}
    cascade = found.summary([_model(tier) for tier in plan.tiers]) if found else None
    summary = summarise(plan, ledger, counted, bad, files, cascade)
    summary = replace(
        best.summarised(summary),
        objectives=[*plan.objectives],
        stability=judged.summary() if judged is not None else None,
        excluded=Excluded(limits, rows.reasons) if limits else None,
        selection=shortlist.summary() if shortlist is not None else None,
    )
    means = partial(_column, plan.folder / "candidates.parquet", f"{plan.target.name}_mean")
    drawn = means, partial(_volume_changes, ledger), evidence.gather(plan, ledger, best.rows)
    page = report.render(summary, best.rows, bad, best.columns, *drawn)
    durable.write(plan.folder / "report.html", page)
    durable.write(plan.folder / "summary.json", summary.text())
    _record(ledger, files, counts, {"excluded": rows.reasons} if limits else {})
    if not limits:
        (plan.folder / "excluded.parquet").unlink(missing_ok=True)  # of a ranking with filters
    return summary


def _with_nulls(rows: pa.Table) -> pa.Table:
    """The rows with null for each reported number that is missing.

    NaN is how batches write it; polars and SQL take NaN for larger than every number, so that
    `band_gap > 1` would find the rows without a gap. Predictions stay as they are.
    """
    for place, field in enumerate(rows.schema):
        own = field.name in names.OWN and not field.name.startswith(SET_ASIDE)
        if (not own or field.name.endswith("_spread")) and pa.types.is_floating(field.type):
            column = rows[field.name]
            known = pc.if_else(pc.is_nan(column), pa.scalar(None, field.type), column)
            rows = rows.set_column(place, field, known)
    return rows


def _record(ledger: Ledger, files: dict[str, str], counts: dict[str, int], detail: dict[str, Any]) -> None:
    """Name the outputs in the ledger, where it does not name the same ones already."""
    named = {name: durable.sha256(ledger.folder / name) for name in ("report.html", "summary.json")} | files
    before = ledger.find("ranked", "all")
    if before is None or before.files != named:
        ledger.record("ranked", "all", named, counts, detail)


def _whole(plan: Plan, found: Tiers) -> Rows:
    return ranked.whole(found.rank(), Standing(plan.rule, plan.campaign.rank.top), len(plan.tiers), plan.bounds)


class Best:
    """What the report needs of the candidates while they pass by."""

    def __init__(self, most: int, standing: Standing) -> None:
        """`most` rows are kept."""
        self._most, self._standing = most, standing
        self.columns: list[str] = []
        """Names of all columns."""
        self.rows: list[dict[str, Any]] = []
        """The best rows."""
        self.ties = Ties(standing.rule, most)

    def seen(self, portion: pa.Table) -> pa.Table:
        """Take a portion of the candidates, best first, and give it back."""
        self.columns = portion.column_names
        self.rows += portion.slice(0, self._most - len(self.rows)).to_pylist()
        self._standing.see(portion)
        if not isinstance(self._standing.rule, several.Pareto):  # the hypervolume orders a front
            self.ties.take(portion)
        return portion

    def summarised(self, summary: Summary) -> Summary:
        """A summary with what was learnt of the order, once all candidates were seen."""
        standing = self._standing
        certainty, fronts = standing.certainty(), standing.fronts()
        return replace(summary, ties=self.ties.found(), certainty=certainty, fronts=fronts)


def _column(path: Path, name: str) -> Iterator[NDArray[np.float64]]:
    """The numbers of a column, a portion of the rows at a time."""
    for portion in results.portions(path, [name]):
        yield np.asarray(portion[name].to_numpy(), np.float64)


def _volume_changes(ledger: Ledger) -> Iterator[NDArray[np.float64]]:
    """Of the relaxed crystals, in percent, a chunk at a time; none where nothing was relaxed."""
    for record in ledger.all("relaxed"):
        (chunk,) = snapshot.chunks_in(record)
        yield 100 * ledger.read(record, chunk.path, ["volume_change"])["volume_change"].to_numpy()


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
        filtered=snapshot.filtered(ledger),
        relaxation=None if plan.potential is None else _relaxation(plan.potential, ledger, bad),
    )


def _relaxation(field: Potential, ledger: Ledger, bad: Sequence[Quarantined]) -> Relaxation:
    relaxed = sum(record.counts["relaxed"] for record in ledger.all("relaxed"))
    refused = Counter(str(row.reason) for row in bad if row.stage is Stage.RELAX)
    return Relaxation(field.name, field.version, str(field.scale), relaxed, dict(refused))


def table_text(found: Results, most: int = results.SHOWN) -> list[str]:
    """The best candidates as aligned text, the ties among them, and what a cascade missed."""
    target = found.summary.target
    head, rows = _with_unit(target), found.top(most)
    heads, beside = _other_objectives(found, len(rows))
    lines = [f"{'rank':>4}  {'formula':<24}{head:>20}  {'interval':<20}{heads}  id"]
    for row, others in zip(rows, beside, strict=True):
        mean, std, low, high = digits.measured(row.mean, row.std, row.low, row.high)
        value, interval = f"{mean} ± {std}", f"[{low}, {high}]"
        marks = "".join(f"  ({mark})" for mark in row.marks)
        place = f"{row.rank:>4}  {escaped(row.formula):<24}"
        lines.append(f"{place}{value:>20}  {interval:<20}{others}  {escaped(row.id)}{marks}")
    lines += ties.sentences(found.summary.ties, found.summary.rank.by)
    if found.summary.filtered:
        said = ", ".join(f"{rows:,} by {key}" for key, rows in found.summary.filtered.items())
        lines.append(f"left out before scoring: {escaped(said)}")
    lines += bounds.lines(found.summary.excluded) if found.summary.excluded else []
    if found.summary.fronts is not None:
        lines += sentences(found.summary.certainty, found.summary.fronts, several.of(found.summary))
    if found.summary.selection:
        lines += select.lines(found.summary.selection, found.summary.rank, target)
    cascade = found.summary.cascade
    return lines if cascade is None else lines + tiers.lines(cascade, target.model)


def _other_objectives(found: Results, rows: int) -> tuple[str, list[str]]:
    """Heads, and for each of the first rows the values, of the objectives beside the target."""
    others = [one for one in found.summary.objectives if one.name != found.summary.target.name]
    if not others:
        return "", [""] * rows
    heads = "".join(f"  {_with_unit(one):>{WIDTH}}" for one in others)
    best = found.best(rows).to_pylist()
    return heads, ["".join(f"  {_value(row, one):>{WIDTH}}" for one in others) for row in best]


def _value(row: Mapping[str, Any], target: Target) -> str:
    columns = [f"{target.name}_mean", f"{target.name}_std"] if target.model else [target.name]
    values = [row[column] for column in columns]
    if None in values:
        return "–"
    return " ± ".join(digits.measured(*values)) if len(values) > 1 else digits.alone(values[0])


def _with_unit(target: Target) -> str:
    return f"{target.name} ({target.unit})" if target.unit else target.name


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
