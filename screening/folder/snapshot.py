"""Pulled shards -> chunks: the snapshot that everything after it works from.

Enters: committed pages, shard by shard in the order of the plan. Leaves: chunk files of fixed size,
crystals sorted by id inside a shard, each named by the hash of its content, so that a chunk depends
on the data alone and not on page borders or arrival. Memory holds one shard at a time and the ids
of all; it does not know servers or models.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from assay.screening.folder import naming
from assay.screening.folder.ledger import Ledger, Record
from assay.screening.folder.naming import Taken
from assay.screening.pulling import filters, source as sources
from assay.screening.settings import names
from assay.screening.settings.config import Campaign
from assay.screening.settings.exits import Exit, Failure, one_line
from assay.sources import table
from assay.sources.crystals import Crystals, empty, set_aside
from assay.sources.quarantine import Quarantined

CONTENT = ("lattice", "site_ptr", "frac", "species_ptr", "numbers", "occupancy")
"""Arrays of `Crystals` that name a chunk, beside the ids."""

BEFORE_SCORES = ("plan", "page", "shard", "source", "fingerprints", "matches", "identity", "chunks", "relaxed")
"""Kinds of the records that depend on no ensemble, see `assay.screening.folder.ledger.Record`."""


@dataclass(frozen=True)
class Chunk:
    """One unit of work."""

    name: str
    """16 hex digits of the sha256 of its crystals; behind the tier, where another tier of a cascade
    chose them."""
    path: str
    """Parquet file, relative to the campaign folder."""
    rows: int


@dataclass(frozen=True)
class Unique:
    """A shard without the rows that had come before."""

    crystals: Crystals
    """Sorted by id, with the column `source`."""
    quarantined: list[Quarantined]
    duplicate: int

    @property
    def received(self) -> int:
        """Rows the shard delivered."""
        return len(self.crystals) + len(self.quarantined) + self.duplicate


def shard_key(source: str, shard: int) -> str:
    """Ledger key of a shard."""
    return f"{source}/{shard:06d}"


def page_key(source: str, shard: int, number: int) -> str:
    """Ledger key of a page."""
    return f"{shard_key(source, shard)}/{number:06d}"


def finished(ledger: Ledger, source: str) -> int:
    """How many shards of a source are pulled whole."""
    count = 0
    while ledger.find("shard", shard_key(source, count)) is not None:
        count += 1
    return count


def pages(ledger: Ledger, source: str, shard: int) -> list[Record]:
    """The pages of one shard in order; those of a walk that was given up are left out."""
    end = ledger.find("shard", shard_key(source, shard))
    found: list[Record] = []
    while end is None or len(found) < end.counts["pages"]:
        record = ledger.find("page", page_key(source, shard, len(found)))
        if record is None or (found and record.detail["walk"] != found[0].detail["walk"]):
            break
        found.append(record)
    return found


def plan_order(ledger: Ledger, campaign: Campaign) -> Iterator[tuple[str, int]]:
    """(source, shard) of all shards pulled whole, as far as the ones before them are pulled too."""
    for source in campaign.named_sources():
        for shard in range(finished(ledger, source)):
            yield source, shard
        if ledger.find("source", source) is None:
            return


def pulled(ledger: Ledger, campaign: Campaign) -> bool:
    """Whether every source is finished."""
    return all(ledger.find("source", source) is not None for source in campaign.named_sources())


def sealed(ledger: Ledger, campaign: Campaign) -> bool:
    """Whether every shard of every source is cut into chunks."""
    shards = plan_order(ledger, campaign)
    return pulled(ledger, campaign) and all(ledger.find("chunks", shard_key(*shard)) is not None for shard in shards)


def unsealed(ledger: Ledger, sources: Sequence[str]) -> list[str]:
    """The sources of which a shard is not pulled or not cut into chunks yet."""
    return [
        source
        for source in sources
        if ledger.find("source", source) is None
        or any(ledger.find("chunks", shard_key(source, shard)) is None for shard in range(finished(ledger, source)))
    ]


def chunks(ledger: Ledger) -> list[Chunk]:
    """Every chunk: those of the sealed shards in plan order, then those of each later tier."""
    return [chunk for tier in range(tiers(ledger)) for chunk in chunks_of(ledger, tier)]


def chunks_of(ledger: Ledger, tier: int) -> list[Chunk]:
    """The chunks that one tier scores; without a cascade there is only tier 0."""
    if tier == 0:
        return [chunk for _, chunk in contents(ledger)]
    record = ledger.find("selection", str(tier))
    return [] if record is None else chunks_in(record)


def chunks_in(record: Record) -> list[Chunk]:
    """The chunks that a record names."""
    return [Chunk(**row) for row in record.detail["chunks"]]


def contents(ledger: Ledger) -> Iterator[tuple[Record, Chunk]]:
    """The chunks of the sealed shards in plan order, each with the record that names its file.

    A chunk that was relaxed holds the crystals that arrived, where they arrived.
    """
    for record in ledger.all("chunks"):
        for chunk in chunks_in(record):
            relaxed = ledger.find("relaxed", chunk.name)
            yield (record, chunk) if relaxed is None else (relaxed, chunks_in(relaxed)[0])


def tiers(ledger: Ledger) -> int:
    """How many tiers have chunks so far."""
    return 1 + len(ledger.all("selection"))


def fingerprinted(ledger: Ledger) -> int:
    """How many crystals have a fingerprint or, in a folder of an older version, a label."""
    return sum(record.counts["rows"] for kind in ("fingerprints", "labels") for record in ledger.all(kind))


def copy(ledger: Ledger, folder: Path) -> None:
    """Begin another campaign in a folder with what this one pulled, merged and relaxed.

    The new folder has a log of its own, without anything that was scored. Copying twice is
    harmless.
    """
    fresh = Ledger(folder)
    records = sorted((one for kind in BEFORE_SCORES for one in ledger.all(kind)), key=lambda one: one.sequence)
    for record in records:
        if fresh.find(record.kind, record.key) is not None:
            continue
        for name in record.files:
            fresh.put(name, ledger.read(record, name))
        fresh.record(record.kind, record.key, record.files, record.counts, record.detail)


def note(ledger: Ledger, source: str, shard: int, taken: Taken) -> None:
    """Add the rows of a shard that was dealt with in an earlier run."""
    rows(ledger, source, shard, taken, [field.name for field in table.CRYSTAL_FIELDS])
    for page in _refused(ledger, source, shard):
        taken.refuse(page)


def unique(ledger: Ledger, source: str, shard: int, taken: Taken) -> Unique:
    """One shard without duplicates, each crystal under its own id; `taken` learns its rows."""
    received = sum(record.counts["received"] for record in pages(ledger, source, shard))
    content = rows(ledger, source, shard, taken)
    content = _ours(content)
    content = content.append_column(names.SOURCE, pa.array([source] * content.num_rows, pa.string()))
    crystals, _ = table.from_table(content.take(pc.sort_indices(content["id"])), "snapshot", sifted=True)
    bad = [row for page in _refused(ledger, source, shard) for row in taken.refuse(page)]
    bad = sorted(bad, key=lambda row: (row.id, row.origin, row.message))
    return Unique(naming.warned(crystals, taken), bad, received - len(crystals) - len(bad))


def taken_ids(campaign: Campaign) -> Taken:
    """No ids yet, for the shards of a campaign in the order of the plan."""
    known = sources.named(campaign)
    licensed = {source.needs_licence for source in known.values()}
    if not campaign.filters.reported and len(licensed) < 2:
        return Taken()  # equal rows are kept or left out alike

    def kept(source: str, content: pa.Table) -> NDArray[np.bool_]:
        crystals, _ = table.from_table(content, "snapshot", sifted=True)
        return filters.by_report(crystals, campaign.filters) & filters.licensed(
            crystals, known[source], campaign.licences
        )

    return Taken(judge=kept)


def rows(
    ledger: Ledger,
    source: str,
    shard: int,
    taken: Taken,
    columns: Sequence[str] | None = None,
    *,
    out: bool = True,
) -> pa.Table:
    """The crystals of a shard that did not come before, under their ids in the campaign.

    `columns` must name every crystal field; others may come, too. Without `out`, only those that
    the campaign keeps by what they report. The rows are added to `taken`.
    """
    columns = columns if taken.judge is None else None
    tables = [
        ledger.read(record, path, columns)
        for record in pages(ledger, source, shard)
        for path in record.files
        if not path.endswith(".quarantine.parquet")
    ]
    try:
        content = pa.concat_tables(tables or [table.to_table(empty())], promote_options="permissive")
    except pa.ArrowException as error:
        what = f"source {source} reports a column with different types in shard {shard}"
        raise Failure(Exit.CONFIG, f"{what} ({one_line(error)}); leave that column out") from None
    kept = None if taken.judge is None else taken.judge(source, _ours(content))
    if kept is not None and not out:
        content, kept = content.filter(pa.array(kept)), None
    return naming.named(content, taken, kept)


def _ours(content: pa.Table) -> pa.Table:
    """The rows of a shard; a column that is called as one of Assay's has its other name."""
    return content.rename_columns([set_aside(column, (names.SOURCE,)) for column in content.column_names])


def _refused(ledger: Ledger, source: str, shard: int) -> Iterator[list[Quarantined]]:
    """The refused rows of a shard, page by page."""
    for record in pages(ledger, source, shard):
        for path in record.files:
            if path.endswith(".quarantine.parquet"):
                yield table.quarantine_rows(ledger.read(record, path))


def seal(
    ledger: Ledger,
    campaign: Campaign,
    shard: tuple[str, int],
    found: Unique,
    columns: Columns,
    same: Collection[str] = frozenset(),
) -> list[Chunk]:
    """Cut a shard into chunks; `same` holds ids of crystals that another row stands for."""
    source, number = shard
    if number == 0:
        filters.warn_of_absent(found.crystals, campaign.filters, source)
    wanted = keep(campaign, source, found.crystals)
    kept = found.crystals.select(wanted)
    alone = np.array([name not in same for name in kept.ids.tolist()], dtype=bool)
    kept = kept.select(alone)
    kinds = table.kinds(table.to_table(kept).schema) if len(kept) else {}
    columns.add(shard_key(*shard), kinds)
    made, tables = [], {}
    for part in _slices(kept, campaign.chunk_size):
        name = content_name(part)
        chunk = Chunk(name, f"snapshot/chunks/{name}.parquet", len(part))
        made.append(chunk)
        tables[chunk.path] = table.to_table(part)
    if found.quarantined:
        tables[f"snapshot/{source}/{number:06d}.quarantine.parquet"] = table.quarantine_table(found.quarantined)
    counts = {
        "received": found.received,
        "unique": len(wanted) - int((~alone).sum()) + len(found.quarantined),
        "duplicate": found.duplicate + int((~alone).sum()),
        "same_crystal": int((~alone).sum()),
        "quarantined": len(found.quarantined),
        "filtered": int((~wanted).sum()),
    }
    detail: dict[str, Any] = {"chunks": [vars(chunk) for chunk in made], "columns": kinds}
    if not wanted.all():
        detail["filtered"] = filtered_by(campaign, source, found.crystals)
    ledger.commit("chunks", shard_key(*shard), tables, counts, detail)
    return made


def keep(campaign: Campaign, source: str, crystals: Crystals) -> Any:
    """(n,) True for crystals that pass every filter and are under an accepted licence."""
    licensed = filters.licensed(crystals, sources.named(campaign)[source], campaign.licences)
    return filters.keep(crystals, campaign.filters) & licensed


def filtered_by(campaign: Campaign, source: str, crystals: Crystals) -> dict[str, int]:
    """Key of the config -> crystals; each counts once, for the first key that it does not pass."""
    licensed = filters.licensed(crystals, sources.named(campaign)[source], campaign.licences)
    left, found = np.ones(len(crystals), dtype=bool), {}
    for key, passes in [("licences", licensed), *filters.verdicts(crystals, campaign.filters)]:
        found[key] = int((left & ~passes).sum())
        left &= passes
    return {key: count for key, count in found.items() if count}


def filtered(ledger: Ledger) -> dict[str, int]:
    """Key of the config -> crystals that it filtered, in all sealed shards.

    Empty where nothing was filtered, and where an earlier build that did not count sealed a shard.
    """
    records = ledger.all("chunks")
    found = sum((Counter(record.detail.get("filtered", {})) for record in records), Counter[str]())
    return dict(found) if found.total() == sum(record.counts["filtered"] for record in records) else {}


def quarantined(ledger: Ledger) -> list[Quarantined]:
    """The refused rows of the shards that are sealed, and those that did not relax."""
    return [
        row
        for record in (*ledger.all("chunks"), *ledger.all("relaxed"))
        for path in record.files
        if path.endswith(".quarantine.parquet")
        for row in table.quarantine_rows(ledger.read(record, path))
    ]


def content_name(crystals: Crystals) -> str:
    """Name of a chunk: hash of its ids, cells, positions and species, not of reported columns."""
    digest = hashlib.sha256("\0".join(crystals.ids.tolist()).encode("utf-8"))
    for name in CONTENT:
        digest.update(np.ascontiguousarray(getattr(crystals, name)).tobytes())
    return digest.hexdigest()[:16]


class Columns:
    """The columns of the shards that are sealed: all can be put into one table."""

    def __init__(self, ledger: Ledger) -> None:
        self._known: dict[str, tuple[str, str]] = {}  # name -> kind, and the first shard that has it
        for record in ledger.all("chunks"):
            self.add(record.key, record.detail["columns"])

    def add(self, key: str, kinds: Mapping[str, str]) -> None:
        """Learn the kinds of the columns of one shard more.

        Raises:
            Failure: CONFIG, when a shard before has a column of that name and of another kind.
        """
        for name, kind in kinds.items():
            if kind == "empty":
                continue
            before, first = self._known.setdefault(name, (kind, key))
            if before != kind:
                raise Failure(
                    Exit.CONFIG,
                    f"two sources report {name!r} with different types: {before} in {first}, "
                    f"{kind} in {key}; leave one of them out",
                )


def _slices(crystals: Crystals, size: int) -> Sequence[Crystals]:
    return [crystals[start : start + size] for start in range(0, len(crystals), size)]
