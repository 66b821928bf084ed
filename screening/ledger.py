"""The ledger: what a campaign folder holds for certain.

Enters: tables and counts to commit. Leaves: records in `log/`, each naming its files with sha256 and chained to the
record before it. Readers read only what the log names; a file the log does not name is litter of a crash. It does
not know what the tables mean.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from screening import durable
from screening.exits import Exit, Failure

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
    """What was committed: page, source, chunks or part."""
    key: str
    """Which one: a later record of the same kind and key replaces an earlier one."""
    files: dict[str, str]
    """Path relative to the campaign folder -> sha256."""
    counts: dict[str, int]
    detail: dict[str, Any]


class Ledger:
    """The log of one campaign folder; one writer at a time (`screening.lock`)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._records: dict[tuple[str, str], Record] = {}
        self._next = 0
        self._tip = ""
        self._load()

    def _load(self) -> None:
        paths = sorted((self.folder / "log").glob("[0-9]*.json"))
        for sequence, path in enumerate(paths):
            content = path.read_bytes()
            try:
                record = Record(**json.loads(content))
            except (ValueError, TypeError) as error:
                raise _damaged(path, f"is not a log record ({error})") from None
            if record.sequence != sequence or path.stem != f"{sequence:08d}":
                raise _damaged(path, f"stands at position {sequence} of the log: a record is missing")
            if record.prev_sha256 != self._tip:
                raise _damaged(path, "does not follow the record before it: the log was changed")
            self._remember(record, content)

    def _remember(self, record: Record, content: bytes) -> None:
        self._records.pop((record.kind, record.key), None)
        self._records[record.kind, record.key] = record
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
        """Write the tables durably, then append the record that names them; committing twice is harmless."""
        from sources import table

        files = {}
        for name, content in tables.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            files[name] = table.write(content, path)
        record = Record(self._next, self._tip, kind, key, files, dict(counts), dict(detail or {}))
        text = durable.canonical(asdict(record))
        try:
            durable.put_if_absent(self.folder / "log" / f"{record.sequence:08d}.json", text)
        except FileExistsError:
            raise Failure(
                Exit.LOCKED, f"another process writes to {self.folder}; wait for it or choose another --output"
            ) from None
        self._remember(record, text.encode("utf-8"))
        return record

    def find(self, kind: str, key: str) -> Record | None:
        """The newest record of a kind and key."""
        return self._records.get((kind, key))

    def all(self, kind: str) -> list[Record]:
        """The newest record of every key of a kind, in key order."""
        found = [record for record in self._records.values() if record.kind == kind]
        return sorted(found, key=lambda record: record.key)

    def read(self, record: Record, name: str) -> pa.Table:
        """A committed table, its sha256 checked against the record."""
        from sources import table

        path = self.folder / name
        try:
            found = durable.sha256(path)
        except FileNotFoundError:
            raise _damaged(path, "is named by the log but is gone") from None
        if found != record.files[name]:
            raise _damaged(path, f"has sha256 {found[:12]}, the log says {record.files[name][:12]}")
        return table.read(path)


def _damaged(path: Path, what: str) -> Failure:
    return Failure(Exit.DISK, f"{path} {what}; restore the file from a backup, or start again in a new --output folder")


def check_fingerprint(folder: Path, current: Mapping[str, str]) -> None:
    """Stamp a new campaign folder; refuse one that was made with something else, old and new side by side."""
    path = folder / "fingerprint.json"
    if not path.exists():
        durable.write(path, durable.canonical(dict(current)))
        return
    try:
        before: dict[str, str] = json.loads(path.read_bytes())
    except ValueError as error:
        raise _damaged(path, f"is not JSON ({error})") from None
    changed = [name for name in sorted({*before, *current}) if before.get(name) != current.get(name)]
    if changed:
        pairs = "; ".join(f"{n}: was {_short(before.get(n))}, now {_short(current.get(n))}" for n in changed)
        raise Failure(
            Exit.CONFIG,
            f"{folder} holds another campaign ({pairs}); restore the old setting or choose a new --output folder",
        )


def _short(value: str | None) -> str:
    text = "absent" if value is None else value
    return text if len(text) <= 80 else f"{text[:60]}...({len(text)} characters)"
