"""Rows are conserved: the accounting identity of a campaign.

Enters: the ledger. Leaves: `Accounts`, checked; a broken identity is a failure (exit 70), never a warning.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from screening import snapshot
from screening.config import Campaign
from screening.exits import Exit, Failure
from screening.ledger import Ledger


@dataclass(frozen=True)
class Accounts:
    """Where every received row is."""

    received: int
    """Rows the sources sent."""
    unique: int
    duplicate: int
    """Rows whose exact id had come before."""
    scored: int
    quarantined: int
    filtered: int
    pending: int
    """Not pulled into chunks yet, or in a chunk that is not scored yet."""
    ranked: int
    unrankable: int
    """Scored, but the prediction is not finite."""

    def check(self) -> Accounts:
        """Raise when the identity does not hold."""
        rules = {
            "received = unique + duplicate": self.received == self.unique + self.duplicate,
            "unique = scored + quarantined + filtered + pending": self.unique
            == self.scored + self.quarantined + self.filtered + self.pending,
            "scored = ranked + unrankable": self.scored == self.ranked + self.unrankable,
        }
        broken = [rule for rule, holds in rules.items() if not holds]
        if broken:
            raise Failure(Exit.IDENTITY_BROKEN, f"{broken[0]} does not hold ({asdict(self)}); do not use this "
                          "campaign folder, and report this as a defect")  # fmt: skip
        return self

    def bad_fraction(self) -> float:
        """Quarantined rows among the unique ones that no filter took out."""
        return self.quarantined / max(self.unique - self.filtered, 1)


def take(ledger: Ledger, ranked: int | None = None, unrankable: int = 0) -> Accounts:
    """Count a campaign as its ledger stands; before ranking, all scored rows count as ranked."""
    pages = [page for name in _names(ledger) for page in snapshot.pages(ledger, name)]
    received = sum(page.counts["received"] for page in pages)
    sealed = ledger.find("chunks", "all")
    if sealed is None:
        bad = sum(page.counts["quarantined"] for page in pages)
        return Accounts(received, received, 0, 0, bad, 0, received - bad, 0, 0).check()
    chunks = snapshot.chunks(ledger)
    parts = [part for part in (ledger.find("part", chunk.name) for chunk in chunks) if part is not None]
    scored = sum(part.counts["scored"] for part in parts)
    todo = sum(chunk.rows for chunk in chunks if ledger.find("part", chunk.name) is None)
    return Accounts(
        received=received,
        unique=sealed.counts["unique"],
        duplicate=sealed.counts["duplicate"],
        scored=scored,
        quarantined=sealed.counts["quarantined"] + sum(part.counts["quarantined"] for part in parts),
        filtered=sealed.counts["filtered"],
        pending=todo,
        ranked=scored if ranked is None else ranked,
        unrankable=unrankable,
    ).check()


def sources(ledger: Ledger, campaign: Campaign) -> list[dict[str, Any]]:
    """One row per source: what it is, what it announced, what it sent."""
    rows = []
    for name, source in campaign.named_sources().items():
        done, pages = ledger.find("source", name), snapshot.pages(ledger, name)
        detail = done.detail if done else {}
        rows.append({
            "name": name,
            "kind": source.kind,
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


def _provenance(source: Any) -> dict[str, str]:
    if source.kind != "optimade":
        title = "hypothetical crystals (decorated prototypes)" if source.kind == "prototypes" else "own files"
        return {
            "title": title,
            "licence": "none needed" if source.kind == "prototypes" else "unknown",
            "functional": "",
        }
    from sources import providers

    provider = providers.resolve(source.provider)
    functionals = sorted({item.functional for item in provider.properties if item.functional})
    return {"title": provider.title, "licence": provider.licence, "functional": ", ".join(functionals)}


def _names(ledger: Ledger) -> list[str]:
    return sorted({page.key.rpartition("/")[0] for page in ledger.all("page")})
