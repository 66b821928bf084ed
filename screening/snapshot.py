"""Pulled pages -> chunks: the snapshot that everything after it works from.

Enters: committed pages of every source. Leaves: chunk files of fixed size, crystals sorted by id over all sources, each
named by the hash of its content, so that a chunk depends on the data alone and not on page borders or arrival order.
Memory holds the whole snapshot once; it does not know servers or models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from screening import filters
from screening.config import Campaign
from screening.exits import Exit, Failure
from screening.ledger import Ledger, Record
from sources.crystals import Crystals, empty
from sources.quarantine import Quarantined

if TYPE_CHECKING:
    import pyarrow as pa

QUARANTINE = "snapshot/quarantine.parquet"


@dataclass(frozen=True)
class Chunk:
    """One unit of work."""

    name: str
    """16 hex digits of the sha256 of its crystals."""
    path: str
    """Parquet file, relative to the campaign folder."""
    rows: int


def seal(ledger: Ledger, campaign: Campaign) -> Record:
    """Merge all pages into chunks, once; counts duplicates and filtered crystals."""
    done = ledger.find("chunks", "all")
    if done is not None:
        return done
    pulled, bad = _merge(ledger, list(campaign.named_sources()))
    received = pulled.num_rows + len(bad)
    crystals, refused = _unique(pulled)
    bad = _unique_bad([*bad, *refused], crystals.ids)
    kept = crystals.select(filters.keep(crystals, campaign.filters))
    from sources import table

    chunks, tables = [], {}
    for part in _slices(kept, campaign.chunk_size):
        chunk = Chunk(content_name(part), f"snapshot/chunks/{content_name(part)}.parquet", len(part))
        chunks.append(chunk)
        tables[chunk.path] = table.to_table(part)
    tables[QUARANTINE] = table.quarantine_table(bad)
    counts = {
        "received": received,
        "unique": len(crystals) + len(bad),
        "duplicate": received - len(crystals) - len(bad),
        "quarantined": len(bad),
        "filtered": len(crystals) - len(kept),
    }
    return ledger.commit("chunks", "all", tables, counts, {"chunks": [vars(chunk) for chunk in chunks]})


def chunks(ledger: Ledger) -> list[Chunk]:
    """The chunks of a sealed snapshot, in id order."""
    record = ledger.find("chunks", "all")
    return [] if record is None else [Chunk(**row) for row in record.detail["chunks"]]


def pages(ledger: Ledger, name: str) -> list[Record]:
    """The committed pages of one source, in page order; leftovers of an earlier attempt are left out."""
    source = ledger.find("source", name)
    found = [record for record in ledger.all("page") if record.key.rpartition("/")[0] == name]
    return found if source is None else found[: source.counts["pages"]]


def content_name(crystals: Crystals) -> str:
    """Name of a chunk: the hash of its ids, cells, positions and species (reported columns are not in it)."""
    digest = hashlib.sha256("\0".join(crystals.ids.tolist()).encode("utf-8"))
    for array in (crystals.lattice, crystals.site_ptr, crystals.frac, crystals.species_ptr, crystals.numbers,
                  crystals.occupancy):  # fmt: skip
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _merge(ledger: Ledger, names: Sequence[str]) -> tuple[pa.Table, list[Quarantined]]:
    import pyarrow as pa

    from sources import table

    tables, bad = [], []
    for name in names:
        for record in pages(ledger, name):
            for path in sorted(record.files):
                content = ledger.read(record, path)
                if path.endswith(".quarantine.parquet"):
                    bad += table.quarantine_rows(content)
                else:
                    columns = ["reported_source" if column == "source" else column for column in content.column_names]
                    source = pa.array([name] * content.num_rows, pa.string())
                    tables.append(content.rename_columns(columns).append_column("source", source))
    if not tables:
        return table.to_table(empty()), bad
    try:
        return pa.concat_tables(tables, promote_options="permissive"), bad
    except pa.ArrowException as error:
        raise Failure(Exit.CONFIG, f"two sources report the same column with different types: {error}") from None


def _unique(pulled: pa.Table) -> tuple[Crystals, list[Quarantined]]:
    """The first row of every id in source order, sorted by id."""
    from sources import table

    ids = np.array(pulled["id"].to_pylist(), dtype=np.str_)
    _, first = np.unique(ids, return_index=True)
    return table.from_table(pulled.take(first), "snapshot")


def _unique_bad(bad: Sequence[Quarantined], good: NDArray[Any]) -> list[Quarantined]:
    """Refused rows that are no duplicate: a good row of the same id wins, then the first; rows without id all stay."""
    seen = set(good.tolist())
    kept = []
    for row in bad:
        if row.id == "" or row.id not in seen:
            kept.append(row)
        seen.add(row.id)
    return sorted(kept, key=lambda row: (row.id, row.origin, row.message))


def _slices(crystals: Crystals, size: int) -> Iterator[Crystals]:
    for start in range(0, len(crystals), size):
        yield crystals[start : start + size]
