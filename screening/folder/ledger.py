"""The ledger: what a campaign folder holds for certain.

Enters: tables and counts to commit. Leaves: records in `log/`, each naming its files with sha256,
chained to the record before it and closed by a digest of itself. Readers read only what the log
names; a file the log does not name is litter of a crash. It does not know what the tables mean.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay.screening.settings.exits import Exit, Failure
from assay.sources import durable

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Record:
    """One committed step of a campaign."""

    sequence: int
    """Position in the log, from 0."""
    prev_sha256: str
    """Hex digest of the record file before this one; empty for the first."""
    kind: str
    """What was committed: plan, page, shard, source, labels, matches, identity, chunks, selection,
    part or ranked."""
    key: str
    """Which one: a later record of the same kind and key replaces an earlier one."""
    files: dict[str, str]
    """Path relative to the campaign folder -> sha256."""
    counts: dict[str, int]
    detail: dict[str, Any]


class Ledger:
    """The log of one campaign folder; one writer at a time (`assay.screening.folder.lock`), and any number of readers.

    Raises:
        Failure: when a record is damaged, missing or out of order (exit 74). With `complain` it is
            told instead, and what cannot be read is left out: for an audit that wants to know
            everything.
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
        if record.key in kind:
            self.replaced.append(kind.pop(record.key))
        kind[record.key] = record
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
        """Write the tables durably, then append the record that names them; committing twice is harmless.

        `{sha}` in the name of a table becomes the start of its digest: writers that do not know of
        each other then never write different content under one name.
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
        """Append a record about files that stand already."""
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

    def put(self, name: str, content: pa.Table) -> tuple[str, str]:
        """Write a table durably; path and digest, for a record. Until one names it, nobody reads it."""
        from assay.sources import table

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
        from assay.sources import table

        wrong = self.wrong(name, record.files[name])
        if wrong:
            raise damaged(self.folder / name, wrong)
        return table.read(self.folder / name, columns)

    def wrong(self, name: str, digest: str) -> str:
        """What is wrong with a committed file; empty when it is as it was written."""
        try:
            found = durable.sha256(self.folder / name)
        except FileNotFoundError:
            return "is named by the log but is gone"
        return "" if found == digest else f"has sha256 {found[:12]}, the log says {digest[:12]}"

    def files(self) -> Iterator[tuple[Record, str]]:
        """Every committed file that later steps may read; what a ranking wrote is left out, it can be made again."""
        for kind, records in list(self._records.items()):
            if kind != "ranked":
                for record in records.values():
                    for name in record.files:
                        yield record, name

    def check(self) -> int:
        """Compare every committed file with its digest, and return how many there are.

        Raises:
            Failure: at the first that differs or is gone (exit 74).
        """
        count = 0
        for record, name in self.files():
            wrong = self.wrong(name, record.files[name])
            if wrong:
                raise damaged(self.folder / name, wrong)
            count += 1
        return count


def _text(record: Record) -> str:
    """What stands in the log for a record: its fields, and `sha256`, the digest of the text without that line."""
    fields = asdict(record)
    digest = hashlib.sha256(durable.canonical(fields).encode("utf-8")).hexdigest()
    return durable.canonical({**fields, "sha256": digest})


def listed(log: Path) -> list[Path]:
    """The records in order, also while another process adds some.

    A listing may then lack one that stands before its last; the next listing, made when all of
    these stood, does not.
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
    """The failure for a file that is not as it was written."""
    return Failure(Exit.DISK, f"{path} {what}; restore the file from a backup, or start again in a new --output folder")
