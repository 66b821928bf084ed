"""The contents of a campaign folder: every file that the log names, and every record, checked.

Enters: a campaign folder. Leaves: problems, each a `Failure` with its exit code. Each file is read
again and compared with its record, and the records are compared with each other. Memory holds one
file at a time, the ids of one shard, the clusters, the survivors of a cascade, and 16 bytes per
crystal. It needs neither models nor the config.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from assay.models.potentials.columns import MEASURED
from assay.screening.audit import cascade, outputs
from assay.screening.audit.outputs import Ids
from assay.screening.campaign import identify
from assay.screening.folder import again, balance, ledger as ledgers, snapshot
from assay.screening.folder.balance import Balance
from assay.screening.folder.ledger import Ledger, Record
from assay.screening.folder.results import Results
from assay.screening.folder.snapshot import Chunk
from assay.screening.runners.fingerprint import FINGERPRINTS
from assay.screening.runners.match import PAIRS
from assay.screening.settings.exits import Exit, Failure
from assay.sources import table

REPLACEABLE = {"page", "ranked"}
"""Kinds that may be committed again under the same key: the pages of a walk that began anew, and
another ranking."""


class Contents:
    """One reading of a folder. First `read`, then `relate`."""

    def __init__(self, folder: Path) -> None:
        self.problems: list[Failure] = []
        self.ledger = Ledger(folder, self.problems.append)
        self.chained = not self.problems
        """The log is whole, so that records may be compared with each other."""
        self.results = Results(folder, self.ledger)
        self.scored = outputs.rows_of_parts(self.results)
        """The scored rows, after `read`."""
        self.balance: Balance | None = None
        """The balance, after `relate` found that it adds up."""
        self.files = 0
        """Files read."""
        self.crystals = 0
        """In chunks."""
        self._chunked = Ids()
        self._gone: set[str] = set()  # ids that a later tier of a cascade scores

    def read(self) -> None:
        """Compare every file that a record names with that record."""
        for record in self.ledger.all("page"):
            self._page(record)
        for record in (*self.ledger.all("fingerprints"), *self.ledger.all("labels")):
            self._rows(record, _fingerprints() if record.kind == "fingerprints" else {"id": "string"})
        for record in self.ledger.all("matches"):
            self._rows(record, _pairs())
        others = self._identity()
        for record in reversed(self.ledger.all("selection")):
            self._tier(record)
        for record in self.ledger.all("chunks"):
            self._chunks(record, others)

    def relate(self) -> None:
        """Compare the records with each other."""
        for record in self.ledger.replaced:
            if record.kind not in REPLACEABLE:
                self._defect(record, f"{record.kind} {record.key} was committed twice")
        names = {chunk.name for chunk in snapshot.chunks(self.ledger)}
        for record in (*self.ledger.all("relaxed"), *self.ledger.all("part")):
            if record.key not in names and not self.ledger.all(again.KIND):
                self._defect(record, f"{record.kind} {record.key} belongs to no chunk")
        for record in self.ledger.all("selection"):
            for what in cascade.wrong(self.ledger, record):
                self._defect(record, what)
        if self._chunked.doubled():
            self._report(self.ledger.folder, f"has {self._chunked.doubled()} ids that stand in two chunks")
        for record in self.ledger.all("plan"):
            self._pulled(record.key)
        ranked = self.ledger.find("ranked", "all")
        try:
            self.balance = balance.take(self.ledger, **(ranked.counts if ranked else {}))
        except Failure as failure:
            self.problems.append(failure)

    def _page(self, record: Record) -> None:
        total = bad = 0
        for name in record.files:
            refused = name.endswith(".quarantine.parquet")
            rows = self._count(record, name, _quarantine() if refused else _crystals())
            if rows is None:
                return
            total, bad = total + rows, bad + rows * refused
        self._equal(record, "rows received", record.counts["received"], total)
        self._equal(record, "rows quarantined", record.counts["quarantined"], bad)

    def _rows(self, record: Record, schema: Mapping[str, str]) -> None:
        rows = [self._count(record, name, schema) for name in record.files]
        if None not in rows:
            self._equal(record, "rows", record.counts["rows"], sum(filter(None, rows)))

    def _identity(self) -> frozenset[str]:
        """Check the clusters of equal crystals; the ids that a representative stands for."""
        record = self.ledger.find("identity", "all")
        if record is None:
            return frozenset()
        content = self._table(record, identify.PATH, _clusters())
        if content is None:
            return frozenset()
        for what in _inconsistent(self.ledger, content) if self.chained else ():
            self._defect(record, what)
        self._equal(record, "rows", record.counts["rows"], content.num_rows)
        self._equal(record, "rows", record.counts["rows"], snapshot.fingerprinted(self.ledger))
        clusters = dict(zip(content["id"].to_pylist(), content["cluster_id"].to_pylist(), strict=True))
        self._equal(record, "clusters", record.counts["clusters"], len(set(clusters.values())))
        if not self.problems:
            self._equal(record, "related pairs", record.counts["related"], len(identify.related(self.ledger, clusters)))
        return identify.others(self.ledger)

    def _chunks(self, record: Record, others: frozenset[str]) -> None:
        """Check the chunks of one shard, and their parts."""
        last, rows, whole = "", 0, True
        for chunk in snapshot.chunks_in(record):
            ids = self._chunk(record, chunk)
            if ids is None:
                whole = False
                continue
            if [last, *ids] != sorted({last, *ids}):
                self._defect(record, f"the ids of {chunk.path} are not in order")
            if not others.isdisjoint(ids):
                self._defect(record, f"{chunk.path} holds a crystal that another row stands for")
            self._chunked.add(ids)
            last, rows = ids[-1], rows + len(ids)
        self.crystals += rows
        if "filtered" in record.detail:
            self._equal(record, "rows filtered", record.counts["filtered"], sum(record.detail["filtered"].values()))
        tables = [name for name in record.files if name.endswith(".quarantine.parquet")]
        refused = [self._count(record, name, _quarantine()) for name in tables]
        if whole and None not in refused:
            bad = sum(filter(None, refused))
            self._equal(record, "rows quarantined", record.counts["quarantined"], bad)
            self._equal(record, "unique rows", record.counts["unique"], rows + bad + record.counts["filtered"])

    def _tier(self, record: Record) -> None:
        """Check the chunks of a later tier of a cascade, and their parts."""
        found = [self._chunk(record, chunk) for chunk in snapshot.chunks_in(record)]
        self._gone.update(name for ids in found for name in ids or [])

    def _chunk(self, record: Record, chunk: Chunk) -> list[str] | None:
        """Check a chunk and what was made of it; its ids, or None when it is damaged."""
        content = self._table(record, chunk.path, _crystals())
        relaxed, part = (self.ledger.find(kind, chunk.name) for kind in ("relaxed", "part"))
        ids: list[str] | None = None if content is None else content["id"].to_pylist()
        seen, left = (chunk, ids) if relaxed is None else self._relaxed(relaxed, chunk, content)
        if part is not None:
            self._part(part, seen, left)
        if content is not None:
            self._name(record, chunk, content)
        return ids

    def _relaxed(self, record: Record, chunk: Chunk, delivered: pa.Table | None) -> tuple[Chunk, list[str] | None]:
        """Compare a relaxed chunk with the delivered one; the chunk that is scored, and its ids."""
        (seen,) = snapshot.chunks_in(record)
        content = self._table(record, seen.path, _crystals() | dict.fromkeys(MEASURED, "double") | {"steps": "int64"})
        tables = [self._table(record, name, _quarantine()) for name in record.files if name != seen.path]
        if content is None or any(refused is None for refused in tables):
            return seen, None
        refused = {name for found in tables if found is not None for name in found["id"].to_pylist()}
        self._equal(record, "rows relaxed", record.counts["relaxed"], content.num_rows)
        self._equal(record, "rows quarantined", record.counts["quarantined"], len(refused))
        self._equal(record, f"crystals of chunk {chunk.name}", chunk.rows, content.num_rows + len(refused))
        if delivered is not None:
            stays = delivered.filter(
                pa.array([name not in refused for name in delivered["id"].to_pylist()], pa.bool_())
            )
            if not all(stays[name].equals(content[name]) for name in ("id", "species_count", "atomic_numbers")):
                self._defect(record, f"relaxed {chunk.name} holds other atoms than its chunk")
        return seen, content["id"].to_pylist()

    def _name(self, record: Record, chunk: Chunk, content: pa.Table) -> None:
        crystals, refused = table.from_table(content, "chunk")
        self._equal(record, f"crystals in {chunk.path}", chunk.rows, len(crystals) + len(refused))
        if not refused and snapshot.content_name(crystals) != chunk.name.rpartition("/")[2]:
            self._defect(record, f"{chunk.path} is not named for its content")

    def _part(self, record: Record, chunk: Chunk, ids: list[str] | None) -> None:
        scored: list[str] = []
        refused: list[str] = []
        for name in record.files:
            bad = name.startswith("quarantine/")
            content = self._table(record, name, _quarantine() if bad else _part())
            if content is None:
                return
            (refused if bad else scored).extend(content["id"].to_pylist())
            if not bad:
                stays = [name not in self._gone for name in content["id"].to_pylist()]
                self.scored.take(content.filter(pa.array(stays, pa.bool_())))
        self._equal(record, "rows scored", record.counts["scored"], len(scored))
        self._equal(record, "rows quarantined", record.counts["quarantined"], len(refused))
        self._equal(record, f"crystals of chunk {chunk.name}", chunk.rows, len(scored) + len(refused))
        left = set(refused)
        if ids is not None and (scored != [name for name in ids if name not in left] or not left <= set(ids)):
            self._defect(record, f"part {chunk.name} holds other crystals than its chunk")

    def _pulled(self, source: str) -> None:
        """Compare shards with their pages, the source with its shards, chunks with their shard."""
        finished = range(snapshot.finished(self.ledger, source))
        shards = [self.ledger.find("shard", snapshot.shard_key(source, number)) for number in finished]
        for number, shard in enumerate(shards):
            assert shard is not None
            pages = snapshot.pages(self.ledger, source, number)
            self._equal(shard, "pages", shard.counts["pages"], len(pages))
            for what in ("received", "quarantined"):
                self._equal(shard, f"rows {what}", shard.counts[what], sum(page.counts[what] for page in pages))
            cut = self.ledger.find("chunks", shard.key)
            if cut is not None:
                self._equal(cut, "rows received", cut.counts["received"], shard.counts["received"])
        done = self.ledger.find("source", source)
        if done is not None:
            self._equal(done, "shards", done.counts["shards"], len(shards))
            received = sum(shard.counts["received"] for shard in shards if shard)
            self._equal(done, "rows received", done.counts["received"], received)

    def _count(self, record: Record, name: str, schema: Mapping[str, str]) -> int | None:
        content = self._table(record, name, schema)
        return None if content is None else int(content.num_rows)

    def _table(self, record: Record, name: str, schema: Mapping[str, str]) -> pa.Table | None:
        """A committed file, its digest, checksums and types checked; None when it is damaged."""
        self.files += 1
        path = self.ledger.folder / name
        try:
            content = self.ledger.read(record, name)
        except (Failure, ValueError, OSError) as error:
            failure = error if isinstance(error, Failure) else ledgers.damaged(path, f"cannot be read ({error})")
            self.problems.append(failure)
            return None
        types = {column.name: str(column.type) for column in content.schema}
        for column, kind in schema.items():
            if types.get(column) != kind:
                self._defect(record, f"column {column} of {name} is {types.get(column, 'absent')}, not {kind}")
        return content

    def _equal(self, record: Record, what: str, said: int, found: int) -> None:
        if said != found:
            self._defect(record, f"says {said:,} {what}, there are {found:,}")

    def _defect(self, record: Record, what: str) -> None:
        path = self.ledger.folder / "log" / f"{record.sequence:08d}.json"
        self._report(path, f"({record.kind} {record.key}): {what}")

    def _report(self, path: Path, what: str) -> None:
        remedy = "do not use this campaign folder, and report this as a defect"
        self.problems.append(Failure(Exit.BALANCE_BROKEN, f"{path} {what}; {remedy}"))


def _inconsistent(ledger: Ledger, content: pa.Table) -> Iterator[str]:
    """Defects of the clusters, which are made again from the pairs."""
    ids, named = content["id"].to_pylist(), content["cluster_id"].to_pylist()
    place = {name: row for row, name in enumerate(ids)}
    if len(place) != len(ids):
        yield "an id stands in the table of crystals twice"
    try:
        pairs = identify.pairs(ledger)
    except (Failure, ValueError):
        return  # listed where matches are read
    if any(name not in place for side in ("a", "b") for name in pairs[side].to_pylist()):
        yield "a crystal was compared that is not in the table of crystals"
        return
    order = sorted(range(len(ids)), key=ids.__getitem__)
    leader = identify.leaders(ledger, [ids[row] for row in order]).tolist()
    clusters = {(leader[rank], named[row]) for rank, row in enumerate(order)}
    if not len(clusters) == len(set(leader)) == len(set(named)):
        yield "clusters are not those of the pairs"
    if content["representative"].to_pylist() != [name == cluster for name, cluster in zip(ids, named, strict=True)]:
        yield "a cluster has not exactly one representative, the one that it is named for"
    elif any(cluster not in place or named[place[cluster]] != cluster for cluster in named):
        yield "a cluster has no representative"


def _crystals() -> dict[str, str]:
    return {column.name: str(column.type) for column in table.CRYSTAL_FIELDS}


def _quarantine() -> dict[str, str]:
    return {column.name: str(column.type) for column in table.QUARANTINE_SCHEMA}


def _fingerprints() -> dict[str, str]:
    return {column.name: str(column.type) for column in FINGERPRINTS}


def _pairs() -> dict[str, str]:
    return {column.name: str(column.type) for column in PAIRS}


def _clusters() -> dict[str, str]:
    return {"id": "string", "source": "string", "cluster_id": "string", "representative": "bool"}


def _part() -> dict[str, str]:
    return {"id": "string", "formula": "string", "nsites": "int32", "ordered": "bool", "ood": "bool"}
