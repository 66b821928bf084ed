"""The refused crystals of a campaign: counts, one example each, and the remedy.

Enters: a campaign folder in any state. Leaves: groups of quarantine records, as JSON or as text.
Nothing is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from assay.screening.folder import snapshot
from assay.screening.folder.ledger import Ledger, Record
from assay.screening.folder.results import Results
from assay.screening.settings.printable import escaped
from assay.sources import table
from assay.sources.quarantine import REMEDIES, Quarantined

By = Literal["reason", "source", "stage"]


def read(folder: Path, by: By = "reason") -> dict[str, Any]:
    """Refused crystals in groups, the largest first.

    Keys: folder, by, total, groups (each: the value of `by`, count, example, remedy). A row of a
    shard that is not sealed yet may still turn out to be a duplicate.

    Raises:
        Failure: CONFIG, when it is no campaign folder; DISK, when the log or a table of refused
            crystals is damaged.
    """
    rows = [(source if by == "source" else str(getattr(row, by)), row) for source, row in _rows(Results(folder), by)]
    counted = Counter(value for value, _ in rows)
    groups = []
    for value, count in sorted(counted.items(), key=lambda item: (-item[1], item[0])):
        reasons = Counter(row.reason for name, row in rows if name == value)
        usual = min(reasons, key=lambda reason: (-reasons[reason], reason))
        example = min((row for name, row in rows if name == value and row.reason == usual), key=lambda row: row.id)
        shown = {name: str(text) for name, text in vars(example).items()}
        groups.append({by: value, "count": count, "example": shown, "remedy": REMEDIES.get(usual, "")})
    return {"folder": str(folder), "by": by, "total": len(rows), "groups": groups}


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The same as text: per group the count, one example and the remedy."""
    if not found["total"]:
        yield "no crystal was refused"
    for group in found["groups"]:
        example = group["example"]
        yield f"{group['count']:>7,}  {group[found['by']]}"
        yield f"         for example {escaped(example['id'])}: {example['reason']}: {escaped(example['message'])}"
        if example["origin"]:
            yield f"         from {escaped(example['origin'])}"
        if group["remedy"]:
            yield f"         {group['remedy']}"


def _rows(results: Results, by: By) -> Iterator[tuple[str, Quarantined]]:
    """(source, row) of every refused crystal; the source is empty unless `by` is source."""
    if by != "source" and results.ranked and "quarantine.parquet" not in results.wrong():
        yield from (("", row) for row in table.quarantine_rows(results.quarantine()))
        return
    ledger = results.ledger
    for plan in ledger.all("plan"):
        for shard in range(snapshot.finished(ledger, plan.key) + 1):
            for record in _records(ledger, plan.key, shard):
                for path in record.files:
                    if path.endswith(".quarantine.parquet") or path.startswith("quarantine/"):
                        yield from ((plan.key, row) for row in table.quarantine_rows(ledger.read(record, path)))
    yield from _later(ledger)


def _later(ledger: Ledger) -> Iterator[tuple[str, Quarantined]]:
    """The same of the later tiers of a cascade, whose chunks hold crystals of every source."""
    for selection in ledger.all("selection"):
        for chunk in selection.detail["chunks"]:
            part = ledger.find("part", chunk["name"])
            refused = [path for path in part.files if path.startswith("quarantine/")] if part else []
            if part and refused:
                columns = ledger.read(selection, chunk["path"], ["id", "source"]).to_pydict()
                source = dict(zip(columns["id"], columns["source"], strict=True))
                rows = [row for path in refused for row in table.quarantine_rows(ledger.read(part, path))]
                yield from ((source[row.id], row) for row in rows)


def _records(ledger: Ledger, source: str, shard: int) -> Iterator[Record]:
    """Records that may hold refused rows of a shard: pages, or chunks and what was made of them."""
    sealed = ledger.find("chunks", snapshot.shard_key(source, shard))
    if sealed is None:
        yield from snapshot.pages(ledger, source, shard)
        return
    yield sealed
    for chunk in sealed.detail["chunks"]:
        found = (ledger.find(kind, chunk["name"]) for kind in ("relaxed", "part"))
        yield from (record for record in found if record is not None)
