"""Crystals out of `optimade.jsonl[.gz]`, the bulk format of OPTIMADE databases, streamed.

Enters: a path; a file of any size, damaged or hostile. Leaves: `Crystals` with ids `<name up to the
first dot>/<entry id>`, and quarantine records for lines that hold none. Memory is bounded by
`BATCH` entries or one `MAX_LINE_BYTES`. This module does not know what an entry means
(`assay.sources.databases.optimade_entries`).
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from assay.sources.assemble import join
from assay.sources.crystals import Crystals
from assay.sources.quarantine import Quarantined, Reason, Stage
from assay.sources.sift import MAX_SITES

MAX_UNPACKED_BYTES = 4 * 2**30
"""Largest `optimade.jsonl`, after decompression."""
MAX_LINE_BYTES = 64 * 2**20
"""Longest line of an `optimade.jsonl`."""
BATCH = 1000
"""Entries of an `optimade.jsonl` taken at once."""

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


def read_jsonl(path: Path, max_sites: int = MAX_SITES) -> tuple[Crystals, list[Quarantined]]:
    """All crystals of one file; where the file breaks off, what came before is kept."""
    from assay.sources.databases.optimade_entries import entries_to_crystals

    provider = path.name.split(".")[0]
    parts: list[Crystals] = []
    refused: list[Quarantined] = []
    entries: list[Any] = []
    pending = 0

    def flush() -> None:
        crystals, bad = entries_to_crystals(entries, provider, str(path), extra=None, max_sites=max_sites)
        parts.append(crystals)
        refused.extend(bad)
        entries.clear()

    for number, line in _lines(path):
        try:
            if isinstance(line, Exception):
                raise line
            entry = json.loads(line, parse_constant=_no_constant)
        except (ValueError, OSError, EOFError, zlib.error, RecursionError) as error:
            message = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            refused.append(Quarantined(f"file/{path.name}:{number}", str(path), Stage.PULL, Reason.UNREADABLE, message))
            continue
        if not (isinstance(entry, dict) and (entry.get("type") in _NO_STRUCTURE or "x-optimade" in entry)):
            entries.append(entry)
            pending += len(line)
        if len(entries) >= BATCH or pending > MAX_LINE_BYTES:
            flush()
            pending = 0
    flush()
    return join(parts), refused


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _lines(path: Path) -> Iterator[tuple[int, bytes | Exception]]:
    """Numbered lines within the size limits; where the file breaks off, the last item is the error."""
    total = number = 0
    opener: Any = gzip.open if path.name.lower().endswith(".gz") else open
    with opener(path, "rb") as file:
        while True:
            number += 1
            try:
                line = file.readline(MAX_LINE_BYTES + 1)
                total += len(line)
                if len(line) > MAX_LINE_BYTES or total > MAX_UNPACKED_BYTES:
                    raise ValueError(
                        f"line {number} and all after it: longer than {MAX_LINE_BYTES} bytes, "
                        f"or more than {MAX_UNPACKED_BYTES} bytes in total"
                    )
            except (ValueError, OSError, EOFError, zlib.error) as error:
                yield number, error
                return
            if not line:
                return
            if line.strip():
                yield number, line
