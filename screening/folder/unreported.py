"""Filters on properties that no row of the snapshot reports.

Enters: a ledger whose shards are pulled, and the filters of the campaign. Leaves: names of
properties. This module does not judge: a missing value is outside every range.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow.parquet as pq

from assay.screening.folder import snapshot
from assay.screening.folder.ledger import Ledger, Record
from assay.screening.settings.config import Campaign


def names(ledger: Ledger, campaign: Campaign) -> list[str]:
    """The properties of `filters.reported` without one value in the snapshot, sorted.

    Only a snapshot of which every row is filtered or refused is read for it.
    """
    wanted = sorted(campaign.filters.reported)
    counts = [record.counts for record in ledger.all("chunks")]
    passed = sum(c["unique"] - c["filtered"] - c["quarantined"] for c in counts)
    if not wanted or passed or not sum(c["filtered"] for c in counts):
        return []
    records = [
        record
        for source, shard in snapshot.plan_order(ledger, campaign)
        for record in snapshot.pages(ledger, source, shard)
    ]
    return [name for name in wanted if not any(_reports(ledger, record, name) for record in records)]


def note(ledger: Ledger, campaign: Campaign) -> str:
    """One line about them; empty where there is none."""
    missing = names(ledger, campaign)
    if not missing:
        return ""
    return (
        f"no source reports {', '.join(missing)}, so filters.reported lets nothing through; "
        "check the name, or leave the filter out"
    )


def _reports(ledger: Ledger, record: Record, name: str) -> bool:
    return any(_has_value(ledger, record, path, name) for path in _tables(record.files))


def _has_value(ledger: Ledger, record: Record, path: str, name: str) -> bool:
    if name not in pq.read_schema(ledger.folder / path).names:
        return False
    column = ledger.read(record, path, [name])[name]
    return any(value is not None and value == value for value in column.to_pylist())  # noqa: PLR0124 -- NaN


def _tables(paths: Iterable[str]) -> list[str]:
    return [path for path in paths if not path.endswith(".quarantine.parquet")]
