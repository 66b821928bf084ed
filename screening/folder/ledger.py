"""The ledger: the log of everything that a campaign has committed.

Enters: tables and counts to commit. Leaves: records in `log/`. Each record names its files with
their sha256, holds the digest of the record before it, and ends with a digest of itself. Readers
trust only files that the log names; any other file was left by a crash. The ledger does not know
what the tables mean.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from assay.screening.settings.exits import Exit, Failure
from assay.sources import durable, table


@dataclass(frozen=True)
class Record:
    """One committed step of a campaign."""

    sequence: int
    """Position in the log, from 0."""
    prev_sha256: str
    """Hex digest of the record file before this one; empty for the first."""
    kind: str
    """The kind of step: plan, page, shard, source, fingerprints, matches, identity, chunks,
    relaxed, selection, part, ranked or again (labels: of Assay before fingerprints)."""
    key: str
    """The name of the step: a later record of the same kind and key replaces an earlier one."""
    files: dict[str, str]
    """Path relative to the campaign folder -> sha256."""
    counts: dict[str, int]
    """Rows by what became of them, for example scored and quarantined."""
    detail: dict[str, Any]
    """Anything else that later steps need, as JSON."""


class Ledger:
    """The log of one campaign folder, for one writer and any number of readers.

    The writer holds the lock of the folder (`assay.screening.folder.lock`). An audit passes
    `complain`: it receives every problem, and a record that cannot be read is left out.

    Raises:
        Failure: DISK, when a record is damaged, missing or out of order; without `complain`.
    """

    def __init__(self, folder: Path, complain: Callable[[Failure], None] | None = None) -> None:
        self.folder = folder
        self.replaced: list[Record] = []
        """Records that a later one of the same kind and key replaced."""
        self._records: dict[str, dict[str, Record]] = defaultdict(dict)
        self._next = 0
        self._tip = ""
        self._load(complain or _refuse)

    def __len__(self) -> int:
        """Records in the log, replaced ones included."""
        return self._next

    def _load(self, complain: Callable[[Failure], None]) -> None:
        known = True  # the digest of the record before
        for path in listed(self.folder / "log"):
            content = path.read_bytes()
            place = int(path.stem)
            if place != self._next:
                complain(damaged(path, f"stands at position {self._next} of the log: a record is missing"))
                known = False
            try:
                record = _parse(path, content)
            except Failure as failure:
                complain(failure)
                self._next, known = place + 1, False
                continue
            if record.sequence != place:
                complain(damaged(path, f"holds record {record.sequence}: the log was changed"))
            elif known and record.prev_sha256 != self._tip:
                complain(damaged(path, "does not follow the record before it: the log was changed"))
            self._remember(record, content)
            self._next, known = place + 1, True

    def _remember(self, record: Record, content: bytes) -> None:
        kind = self._records[record.kind]
        if record.key in kind and record.kind != "again":
            self.replaced.append(kind.pop(record.key))
        kind[record.key] = record
        for gone, key in record.detail.get("withdrawn", ()):
            self._records[gone].pop(key, None)
        self._next = record.sequence + 1
        self._tip = hashlib.sha256(content).hexdigest()

    def commit(
        self,
        kind: str,
        key: str,
        tables: Mapping[str, pa.Table],
        counts: Mapping[str, int],
        detail: Mapping[str, Any] | None = None,
    ) -> Record:
        """Write the tables durably, then append the record that names them.

        Committing twice is harmless. `{sha}` in the name of a table becomes the start of its
        digest, so that two writers never write different content under one name.
        """
        files = dict(self.put(name, content) for name, content in tables.items())
        return self.record(kind, key, files, counts, detail)

    def record(
        self,
        kind: str,
        key: str,
        files: Mapping[str, str],
        counts: Mapping[str, int],
        detail: Mapping[str, Any] | None = None,
    ) -> Record:
        """Append a record about files that are written already."""
        record = Record(self._next, self._tip, kind, key, dict(files), dict(counts), dict(detail or {}))
        text = _text(record)
        try:
            durable.put_if_absent(self.folder / "log" / f"{record.sequence:08d}.json", text)
        except FileExistsError:
            raise Failure(
                Exit.LOCKED, f"another process writes to {self.folder}; wait for it or choose another --output"
            ) from None
        self._remember(record, text.encode("utf-8"))
        return record

    def withdraw(self, kind: str, key: str, records: Sequence[tuple[str, str]]) -> Record:
        """Append a record after which some others, by kind and key, no longer count."""
        return self.record(kind, key, {}, {"withdrawn": len(records)}, {"withdrawn": [list(pair) for pair in records]})

    def put(self, name: str, content: pa.Table) -> tuple[str, str]:
        """Write a table durably; path and digest, for the record that will name it."""
        data = table.encode(content)
        digest = hashlib.sha256(data).hexdigest()
        path = self.folder / name.replace("{sha}", digest[:12])
        durable.make_folder(path.parent)
        with durable.whole(path) as file:
            file.write(data)
        return str(path.relative_to(self.folder)), digest

    def find(self, kind: str, key: str) -> Record | None:
        """The newest record of a kind and key."""
        return self._records[kind].get(key)

    def all(self, kind: str) -> list[Record]:
        """The newest record of every key of a kind, in the order they were committed."""
        return list(self._records[kind].values())

    def read(self, record: Record, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A committed table, its sha256 checked against the record."""
        wrong = self.wrong(name, record.files[name])
        if wrong:
            raise damaged(self.folder / name, wrong)
        return table.read(self.folder / name, columns)

    def wrong(self, name: str, digest: str) -> str:
        """The defect of a committed file; empty when the file is as it was written."""
        try:
            found = durable.sha256(self.folder / name)
        except FileNotFoundError:
            return "is named by the log but is gone"
        return "" if found == digest else f"has sha256 {found[:12]}, the log says {digest[:12]}"

    def files(self) -> Iterator[tuple[Record, str]]:
        """Every committed file but the outputs of the ranking, which can be made again."""
        for kind, records in list(self._records.items()):
            if kind != "ranked":
                for record in records.values():
                    for name in record.files:
                        yield record, name

    def check(self) -> int:
        """Compare every committed file with its digest, and return the number of files.

        Raises:
            Failure: DISK, at the first file that differs or is gone.
        """
        count = 0
        for record, name in self.files():
            wrong = self.wrong(name, record.files[name])
            if wrong:
                raise damaged(self.folder / name, wrong)
            count += 1
        return count


def _text(record: Record) -> str:
    """A record as JSON, with the field `sha256`: the digest of the text without that field."""
    fields = asdict(record)
    digest = hashlib.sha256(durable.canonical(fields).encode("utf-8")).hexdigest()
    return durable.canonical({**fields, "sha256": digest})


def listed(log: Path) -> list[Path]:
    """The files of the records in order, also while another process adds some.

    One listing of a growing folder may lack a file that is older than its last one. So the folder
    is listed twice: the second listing holds everything up to the last file of the first.
    """
    pattern = f"{'[0-9]' * 8}.json"
    last = max((path.name for path in log.glob(pattern)), default="")
    return sorted(path for path in log.glob(pattern) if path.name <= last)


def _refuse(failure: Failure) -> None:
    raise failure


def _parse(path: Path, content: bytes) -> Record:
    try:
        fields = json.loads(content)
        fields.pop("sha256")
        record = Record(**fields)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise damaged(path, f"is not a log record ({error!r:.200})") from None
    if _text(record).encode("utf-8") != content:
        raise damaged(path, "does not match its own digest")
    return record


def damaged(path: Path, what: str) -> Failure:
    """The failure for a file that is not as it was written; `what` is its defect."""
    return Failure(Exit.DISK, f"{path} {what}; restore the file from a backup, or start again in a new --output folder")
