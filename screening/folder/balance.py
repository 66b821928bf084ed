"""Rows are conserved: the balance of a campaign.

Enters: the ledger. Leaves: `Accounts`, checked; a broken balance is a failure (exit 70), never a
warning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from assay.screening.folder import snapshot
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.snapshot import Chunk
from assay.screening.pulling import readers
from assay.screening.settings.config import Campaign, DatabaseSource, PrototypeSource, Source
from assay.screening.settings.exits import Exit, Failure


@dataclass(frozen=True)
class Accounts:
    """Where every received row is."""

    received: int
    """Rows the sources sent."""
    unique: int
    duplicate: int
    """Rows whose id had come before, or that another row stands for because both are the same
    crystal."""
    scored: int
    """By the last tier that they reached, in a cascade."""
    quarantined: int
    filtered: int
    pending: int
    """Not pulled into chunks yet, or in a chunk that is not scored yet."""
    ranked: int
    unrankable: int
    """Scored, but the prediction is not finite."""

    def check(self) -> Accounts:
        """Raise when the balance does not hold."""
        rules = {
            "received = unique + duplicate": self.received == self.unique + self.duplicate,
            "unique = scored + quarantined + filtered + pending": self.unique
            == self.scored + self.quarantined + self.filtered + self.pending,
            "scored = ranked + unrankable": self.scored == self.ranked + self.unrankable,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise Failure(Exit.BALANCE_BROKEN, f"{broken[0]} does not hold ({asdict(self)}); do not use this "
                          "campaign folder, and report this as a defect")  # fmt: skip
        return self

    def bad_fraction(self) -> float:
        """Quarantined rows among the unique ones that no filter took out."""
        return self.quarantined / max(self.unique - self.filtered, 1)


def take(ledger: Ledger, ranked: int | None = None, unrankable: int = 0) -> Accounts:
    """Count a campaign as its ledger stands; before ranking, all scored rows count as ranked."""
    counts = dict.fromkeys(("received", "unique", "duplicate", "quarantined", "filtered", "scored", "pending"), 0)
    for source in [record.key for record in ledger.all("plan")]:
        shards = snapshot.finished(ledger, source)
        for shard in range(shards + 1):
            for name, count in _shard(ledger, source, shard).items():
                counts[name] += count
    for tier in range(1, snapshot.tiers(ledger)):
        chosen = snapshot.chunks_of(ledger, tier)
        counts["scored"] -= sum(chunk.rows for chunk in chosen)  # by the tier before; now they wait for this one
        for name, count in _parts(ledger, chosen).items():
            counts[name] += count
    scored = counts["scored"]
    return Accounts(**counts, ranked=scored if ranked is None else ranked, unrankable=unrankable).check()


def _shard(ledger: Ledger, source: str, shard: int) -> dict[str, int]:
    """What became of the rows of one shard so far."""
    sealed = ledger.find("chunks", snapshot.shard_key(source, shard))
    if sealed is None:
        pages = snapshot.pages(ledger, source, shard)
        received = sum(page.counts["received"] for page in pages)
        bad = sum(page.counts["quarantined"] for page in pages)
        return {"received": received, "unique": received, "quarantined": bad, "pending": received - bad}
    counts = {name: sealed.counts[name] for name in ("received", "unique", "duplicate", "quarantined", "filtered")}
    parts = _parts(ledger, [Chunk(**row) for row in sealed.detail["chunks"]])
    return {**counts, **parts, "quarantined": counts["quarantined"] + parts["quarantined"]}


def _parts(ledger: Ledger, chunks: Sequence[Chunk]) -> dict[str, int]:
    """What became of the crystals of some chunks."""
    counts = {"scored": 0, "quarantined": 0, "pending": 0}
    for chunk in chunks:
        part = ledger.find("part", chunk.name)
        counts["pending"] += chunk.rows if part is None else 0
        counts["scored"] += part.counts["scored"] if part else 0
        counts["quarantined"] += part.counts["quarantined"] if part else 0
    return counts


def sources(ledger: Ledger, campaign: Campaign) -> list[dict[str, Any]]:
    """One row per source: what it is, what it announced, what it sent."""
    rows = []
    for name, source in campaign.named_sources().items():
        done = ledger.find("source", name)
        detail = done.detail if done else {}
        shards = snapshot.finished(ledger, name)
        pages = [page for shard in range(shards + 1) for page in snapshot.pages(ledger, name, shard)]
        rows.append({
            "name": name,
            "kind": source.kind,
            "shards": shards,
            "received": sum(page.counts["received"] for page in pages),
            "quarantined": sum(page.counts["quarantined"] for page in pages),
            "expected": detail.get("expected"),
            "complete": bool(detail.get("complete", False)),
            "error": detail.get("error", ""),
            **_provenance(source),
        })  # fmt: skip
    return rows


def reasons(rows: list[Any]) -> dict[str, int]:
    """Quarantine reason -> count, most frequent first."""
    counted = Counter(str(row.reason) for row in rows)
    return dict(sorted(counted.items(), key=lambda item: (-item[1], item[0])))


def _provenance(source: Source) -> dict[str, str]:
    if not isinstance(source, DatabaseSource):
        hypothetical = isinstance(source, PrototypeSource)
        title = "hypothetical crystals (decorated prototypes)" if hypothetical else "own files"
        return {"title": title, "licence": "none needed" if hypothetical else "unknown", "functional": ""}
    provider = readers.provider(source)
    functionals = sorted({item.functional for item in provider.properties if item.functional})
    return {"title": provider.title, "licence": provider.licence, "functional": ", ".join(functionals)}
