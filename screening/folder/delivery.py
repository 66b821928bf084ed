"""What each source of a campaign announced and sent.

Enters: the ledger and the sources of the config. Leaves: one `Delivery` per source. It does not
know what became of the rows after they arrived (`assay.screening.folder.balance`).
"""

from __future__ import annotations

from dataclasses import dataclass

from assay.screening.folder import snapshot
from assay.screening.folder.ledger import Ledger
from assay.screening.pulling.source import Source, named
from assay.screening.settings.config import Campaign


@dataclass(frozen=True)
class Delivery:
    """One source: what it is, what it announced, what it sent."""

    name: str
    """Folder under `snapshot/`."""
    kind: str
    title: str
    """The source in words, for people."""
    licence: str
    """SPDX name, or `unknown`."""
    functional: str
    """Functionals behind the reported values, separated by commas; empty where nothing is known."""
    shards: int
    """Shards that were pulled whole."""
    received: int
    """Rows it sent."""
    quarantined: int
    """Rows among them that are no crystals."""
    expected: int | None
    """Rows it announced; None when it announced nothing."""
    complete: bool
    """Whether it sent everything it announced."""
    error: str
    """Why it is not complete."""


def read(ledger: Ledger, campaign: Campaign) -> list[Delivery]:
    """One delivery per source, in the order of the config."""
    return [_read(ledger, name, source) for name, source in named(campaign).items()]


def _read(ledger: Ledger, name: str, source: Source) -> Delivery:
    done = ledger.find("source", name)
    detail = done.detail if done else {}
    shards = snapshot.finished(ledger, name)
    pages = [page for shard in range(shards + 1) for page in snapshot.pages(ledger, name, shard)]
    return Delivery(
        name=name,
        kind=source.kind,
        **vars(source.provenance()),
        shards=shards,
        received=sum(page.counts["received"] for page in pages),
        quarantined=sum(page.counts["quarantined"] for page in pages),
        expected=detail.get("expected"),
        complete=bool(detail.get("complete", False)),
        error=detail.get("error", ""),
    )
