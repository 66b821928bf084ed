"""The balance of a campaign: where every received row is.

Enters: the ledger. Leaves: a `Balance` that adds up; one that does not is a failure (exit 70),
never a warning. It does not know why a row was refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from assay.screening.folder import snapshot
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.snapshot import Chunk
from assay.screening.settings.exits import Exit, Failure


@dataclass(frozen=True)
class Balance:
    """Counts of rows, by what became of them."""

    received: int
    """Rows the sources sent."""
    unique: int
    duplicate: int
    """Rows whose id came before, and rows that are the same crystal as another row, which stands
    for both."""
    scored: int
    """Predicted; in a cascade, by the last tier that they reached."""
    quarantined: int
    filtered: int
    pending: int
    """Not in a chunk yet, or in a chunk that is not scored yet."""
    ranked: int
    unrankable: int
    """Scored, but the prediction is not finite."""
    excluded: int = 0
    """Scored, but excluded from the ranking by a filter on predictions."""

    def check(self) -> Balance:
        """The same balance, when it adds up.

        Raises:
            Failure: BALANCE_BROKEN, when it does not.
        """
        rules = {
            "received = unique + duplicate": self.received == self.unique + self.duplicate,
            "unique = scored + quarantined + filtered + pending": self.unique
            == self.scored + self.quarantined + self.filtered + self.pending,
            "scored = ranked + unrankable + excluded": self.scored == self.ranked + self.unrankable + self.excluded,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise Failure(
                Exit.BALANCE_BROKEN,
                f"{broken[0]} does not hold ({asdict(self)}); do not use this campaign folder, and report this as a "
                "defect",
            )
        return self

    def counts(self) -> dict[str, int]:
        """The counts by name; without `excluded` where no crystal is."""
        return {name: count for name, count in asdict(self).items() if name != "excluded" or count}

    def bad_fraction(self) -> float:
        """Quarantined rows among the unique ones that no filter took out."""
        return self.quarantined / max(self.unique - self.filtered, 1)


def take(ledger: Ledger, ranked: int | None = None, unrankable: int = 0, excluded: int = 0) -> Balance:
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
    ranked = scored if ranked is None else ranked
    return Balance(**counts, ranked=ranked, unrankable=unrankable, excluded=excluded).check()


def _shard(ledger: Ledger, source: str, shard: int) -> dict[str, int]:
    """What became of the rows of one shard so far."""
    sealed = ledger.find("chunks", snapshot.shard_key(source, shard))
    if sealed is None:
        pages = snapshot.pages(ledger, source, shard)
        received = sum(page.counts["received"] for page in pages)
        bad = sum(page.counts["quarantined"] for page in pages)
        return {"received": received, "unique": received, "quarantined": bad, "pending": received - bad}
    counts = {name: sealed.counts[name] for name in ("received", "unique", "duplicate", "quarantined", "filtered")}
    parts = _parts(ledger, snapshot.chunks_in(sealed))
    return {**counts, **parts, "quarantined": counts["quarantined"] + parts["quarantined"]}


def _parts(ledger: Ledger, chunks: Sequence[Chunk]) -> dict[str, int]:
    """What became of the crystals of some chunks."""
    counts = {"scored": 0, "quarantined": 0, "pending": 0}
    for chunk in chunks:
        relaxed, part = (ledger.find(kind, chunk.name) for kind in ("relaxed", "part"))
        left = relaxed.counts["relaxed"] if relaxed else chunk.rows
        counts["pending"] += left if part is None else 0
        counts["scored"] += part.counts["scored"] if part else 0
        counts["quarantined"] += sum(record.counts["quarantined"] for record in (relaxed, part) if record)
    return counts
