"""Reads crystals from `optimade.jsonl[.gz]`, the bulk format of OPTIMADE databases.

Enters: the stream of a file of any size, possibly damaged or hostile. Leaves: `Crystals` with ids
`<file name up to the first dot>/<entry id>`, and quarantine records for lines without a crystal.
The file is streamed; at most `AT_ONCE` entries, or those of one line of the largest size, are in
memory at once. This module does not know the meaning of an entry
(`assay.sources.databases.optimade_entries`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, BinaryIO

from assay.sources.assemble import join
from assay.sources.checks import limits
from assay.sources.crystals import Crystals
from assay.sources.databases.optimade_entries import entries_to_crystals
from assay.sources.quarantine import Quarantined, Reason, Stage
from assay.sources.sift import MAX_SITES

AT_ONCE = 1000
"""Entries of an `optimade.jsonl` converted at once."""

_NO_STRUCTURE = (
    "info",
    "meta",
    "references",
    "links",
    "files",
    "calculations",
    "trajectories",
)
"""Types of the lines of an `optimade.jsonl` that hold no structure."""


def read_jsonl(
    stream: BinaryIO, label: str, origin: str, max_sites: int = MAX_SITES
) -> tuple[Crystals, list[Quarantined]]:
    """Read all crystals of one file; of a damaged file, those before the damage.

    `label` is the name of the file for ids, `origin` its path for records.
    """
    name = PurePath(label).name
    provider = name.split(".")[0]
    parts: list[Crystals] = []
    refused: list[Quarantined] = []
    entries: list[Any] = []
    pending = 0

    def flush() -> None:
        crystals, bad = entries_to_crystals(entries, provider, origin, extra=None, max_sites=max_sites)
        parts.append(crystals)
        refused.extend(bad)
        entries.clear()

    for number, line in _lines(stream):
        try:
            if isinstance(line, Exception):
                raise line
            limits.check("entry values", sum(map(line.count, (b",", b"[", b"{"))))
            entry = json.loads(line, parse_constant=_no_constant)
        except (ValueError, OSError, RecursionError) as error:
            refused.append(_record(f"file/{name}:{number}", origin, error))
            continue
        if not (isinstance(entry, dict) and (entry.get("type") in _NO_STRUCTURE or "x-optimade" in entry)):
            entries.append(entry)
            pending += len(line)
        if len(entries) >= AT_ONCE or pending > limits.most("entry"):
            flush()
            pending = 0
        if len(refused) > limits.most("refused"):
            stop = limits.Exceeded(f"more than {limits.most('refused'):,} lines are refused; the rest is not read")
            refused.append(_record(f"file/{name}:{number + 1}", origin, stop))
            break
    flush()
    return join(parts), refused


def _record(id: str, origin: str, error: Exception) -> Quarantined:
    reason = Reason.TOO_LARGE if isinstance(error, limits.Exceeded) else Reason.UNREADABLE
    message = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return Quarantined(id, origin, Stage.PULL, reason, message)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes | Exception]]:
    """Yield numbered lines within the size limits; of a damaged file, the error comes last."""
    total = number = 0
    while True:
        number += 1
        try:
            line = stream.readline(limits.most("entry") + 1)
            total += len(line)
            for limit, size in (("entry", len(line)), ("unpacked", total)):
                limits.check(limit, size, f"line {number} and all after it are not read")
        except (ValueError, OSError) as error:
            yield number, error
            return
        if not line:
            return
        if line.strip():
            yield number, line
