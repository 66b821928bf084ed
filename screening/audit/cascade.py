"""The tiers of a cascade: who went on is chosen again, and the order of the candidates is looked at tier by tier.

Enters: a ledger whose files were read, or outputs that are as they were written. Leaves: what is
wrong, in words. It needs neither models nor the config: a selection says by what rule it was made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.screening.folder.ledger import Ledger, Record
from assay.screening.ranking import cascade
from assay.screening.ranking.cascade import Cut
from assay.screening.settings.exits import Failure

if TYPE_CHECKING:
    import pyarrow as pa


def wrong(book: Ledger, record: Record) -> Iterator[str]:
    """What is wrong with a selection, which is made again from the parts of the tier before."""
    tier = int(record.key) - 1
    how = Cut.read(record.detail["cut"])
    try:
        going = cascade.choose(book, tier, how)
        names = [name for name, _ in cascade.chunks(book, tier, going, how)]
        drawn = cascade.members(book, tier + 1, only_audit=True) if how.audit is not None else going.audit
    except (Failure, ValueError):
        return  # told where chunks and parts are read
    if going.counts() != record.counts:
        yield f"has other counts ({record.counts}) than follow from the parts of tier {tier} ({going.counts()})"
    if names != [row["name"] for row in record.detail["chunks"]]:
        yield f"names other crystals for tier {tier + 1} than those that follow from the parts of tier {tier}"
    elif not np.array_equal(np.sort(drawn), going.audit):
        yield "marks other crystals for the audit than those that its seed draws"


def by_tier(
    candidates: pa.Table, unrankable: pa.Table, summary: Mapping[str, Any]
) -> Iterator[tuple[pa.Table, pa.Table, dict[str, Any]]]:
    """(candidates, unrankable, rank section) of each tier, the last one first; all at once without a cascade."""
    if "cascade" not in summary:
        yield candidates, unrankable, summary["rank"]
        return
    settings = [*summary["cascade"]["tiers"], summary["rank"]]
    for tier in reversed(range(len(settings))):
        how = {name: settings[tier][name] for name in ("level", "calibrated")}
        ranked, left = (content.filter(content["tier"].to_numpy() == tier) for content in (candidates, unrankable))
        yield ranked, left, {**summary["rank"], **how}


def misplaced(candidates: pa.Table) -> bool:
    """Whether a crystal stands before one that came farther."""
    return "tier" in candidates.column_names and bool((np.diff(candidates["tier"].to_numpy()) > 0).any())
