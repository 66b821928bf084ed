"""The tiers of a cascade: the selection of each is made again, and the ranking is split by tier.

Enters: a ledger whose files were read, or outputs that are as they were written. Leaves: problems
in words, or the rows of each tier. It needs neither models nor the config: a selection names the
rule that made it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from assay.screening.folder.ledger import Ledger, Record
from assay.screening.folder.summary import Summary, Target
from assay.screening.ranking import cascade
from assay.screening.ranking.cascade import Cut
from assay.screening.ranking.rules import Rule
from assay.screening.settings.exits import Failure


def wrong(ledger: Ledger, record: Record) -> Iterator[str]:
    """Defects of a selection, which is made again from the parts of the tier before."""
    tier = int(record.key) - 1
    how = Cut.read(record.detail["cut"])
    try:
        selection = cascade.choose(ledger, tier, how)
        names = [name for name, _ in cascade.chunks(ledger, tier, selection, how)]
        drawn = cascade.members(ledger, tier + 1, only_audit=True) if how.audit is not None else selection.audit
    except (Failure, ValueError):
        return  # listed where chunks and parts are read
    if selection.counts() != record.counts:
        yield f"has other counts ({record.counts}) than follow from the parts of tier {tier} ({selection.counts()})"
    if names != [row["name"] for row in record.detail["chunks"]]:
        yield f"names other crystals for tier {tier + 1} than those that follow from the parts of tier {tier}"
    elif not np.array_equal(np.sort(drawn), selection.audit):
        yield "marks other crystals for the audit than those that its seed draws"


def targets(summary: Summary) -> list[Target]:
    """The property that ranks, as each tier predicts it, the last tier last."""
    tiers = [] if summary.cascade is None else summary.cascade.tiers
    return [
        *(
            replace(summary.target, level=tier.level, calibrated=tier.calibrated, distribution=tier.distribution)
            for tier in tiers
        ),
        summary.target,
    ]


def by_tier(content: pa.Table, rules: Sequence[Rule]) -> Iterator[tuple[pa.Table, Rule]]:
    """The rows of each tier and its rule, the last tier first; all rows, where there is one."""
    if len(rules) == 1:
        yield content, rules[0]
        return
    for tier, rule in reversed([*enumerate(rules)]):
        yield content.filter(content["tier"].to_numpy() == tier), rule


def misplaced(candidates: pa.Table) -> bool:
    """Whether a crystal is ranked before one of a later tier."""
    return "tier" in candidates.column_names and bool((np.diff(candidates["tier"].to_numpy()) > 0).any())
