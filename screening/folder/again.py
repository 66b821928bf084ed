"""Sources that were down, and were skipped, are asked again.

Enters: a ledger and the sources of the config. Leaves: the same ledger; where such a source answers
now, the records that rest on its silence are withdrawn. Pages, whole shards and predictions stay.
This module pulls nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator

from assay.screening.folder import snapshot
from assay.screening.folder.ledger import Ledger
from assay.screening.pulling.source import named
from assay.screening.settings.config import Campaign
from assay.screening.settings.exits import one_line

log = logging.getLogger(__name__)
KIND = "again"
"""Kind of the records that withdraw others."""


def skipped(ledger: Ledger) -> list[str]:
    """The sources that were down and were skipped."""
    return [record.key for record in ledger.all("source") if record.detail["down"]]


def ask(ledger: Ledger, campaign: Campaign) -> list[str]:
    """Ask each skipped source again; return those that answer, which are unfinished again."""
    sources, up = named(campaign), []
    for name in skipped(ledger):
        try:
            sources[name].probe()
        except ConnectionError as error:
            log.warning("source %s is still down, and is skipped again: %s", name, one_line(error))
        else:
            log.warning("source %s was down and answers now: it is pulled to its end", name)
            up.append(name)
    if up:
        ledger.withdraw(KIND, "/".join(up), list(_resting(ledger, campaign, up)))
    return up


def forget_parts(ledger: Ledger) -> None:
    """Withdraw what was made of chunks that are cut differently since a source answered."""
    if not ledger.all(KIND):
        return
    names = {chunk.name for chunk in snapshot.chunks(ledger)}
    made = [(kind, record.key) for kind in ("relaxed", "part") for record in ledger.all(kind)]
    stray = [(kind, key) for kind, key in made if key not in names]
    if stray:
        ledger.withdraw(KIND, "parts", stray)


def _resting(ledger: Ledger, campaign: Campaign, up: Collection[str]) -> Iterator[tuple[str, str]]:
    """Kind and key of each record that would be another one if these sources had not been down.

    Ids and duplicates of a shard depend on the shards before it, the clusters of equal crystals on
    all of them.
    """
    changed = False
    for source in campaign.named_sources():
        shards = snapshot.finished(ledger, source)
        cut_short = source in up and shards > 0 and not _whole(ledger, source, shards - 1)
        if source in up:
            yield "source", source
        if cut_short:
            yield "shard", snapshot.shard_key(source, shards - 1)
        for shard in range(shards):
            key = snapshot.shard_key(source, shard)
            touched = changed or (cut_short and shard == shards - 1)
            if (touched or campaign.merges()) and ledger.find("chunks", key) is not None:
                yield "chunks", key
            if touched:
                taken = ledger.all("fingerprints")
                yield from ((record.kind, record.key) for record in taken if _of(record.key) == key)
        changed = changed or source in up
    for kind in ("matches", "identity", "selection", "ranked"):
        yield from ((kind, record.key) for record in ledger.all(kind))


def _whole(ledger: Ledger, source: str, shard: int) -> bool:
    """Whether the last page of a shard came."""
    pages = snapshot.pages(ledger, source, shard)
    return bool(pages) and pages[-1].detail["cursor"] is None


def _of(fingerprints: str) -> str:
    """The key of the shard whose crystals some fingerprints belong to."""
    return fingerprints.rpartition("/")[0]
