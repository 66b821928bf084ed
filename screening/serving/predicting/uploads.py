"""Uploaded files and texts -> crystals, read in a process of their own.

Enters: the name and the bytes of a file, a pasted text, or a document of OPTIMADE structures.
Leaves: `Crystals` and a record for each refused one, as for any file: the same limits on size,
atoms and time hold (`assay.screening.pulling.reading`). This module does not know HTTP or models.
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from assay.screening.pulling import reading
from assay.screening.settings.printable import escaped
from assay.sources.assemble import join
from assay.sources.crystals import Crystals
from assay.sources.quarantine import Quarantined
from assay.sources.storage import contents
from assay.sources.storage.kinds import PACKED, Kind, kind_of

SECONDS = 10
"""Processor time for the reading of one upload."""
MOST_CRYSTALS = 200
"""Crystals of one upload."""
ENDINGS = {
    Kind.CIF: ".cif",
    Kind.POSCAR: ".vasp",
    Kind.XYZ: ".extxyz",
    Kind.JSON: ".json",
    Kind.OPTIMADE: ".jsonl",
}
"""Kinds that are read, each with the end of a name."""
NAMELESS = "pasted"


class Unknown(ValueError):
    """An upload of a kind that is not read."""


def read(name: str, content: bytes) -> tuple[Crystals, list[Quarantined]]:
    """Read the crystals of an upload; the kind follows from its name, else from its content.

    Raises:
        Unknown: for a kind that is not read.
        ValueError: when it is empty, holds no crystal, or more than `MOST_CRYSTALS`.
    """
    if not content.strip():
        raise ValueError("the upload is empty")
    kind = kind_of(name) or contents.kind_of(content)
    if kind not in ENDINGS or PurePath(name).suffix.lower() in PACKED:
        what = f"{escaped(name)[:80]} is {kind}" if kind else f"{escaped(name)[:80] or NAMELESS} is of no known kind"
        raise Unknown(f"{what}; read here are {', '.join(ENDINGS)}, not packed")
    with tempfile.TemporaryDirectory(prefix="assay-upload-") as folder:
        path = Path(folder) / _safe(name, ENDINGS[kind])
        path.write_bytes(content)
        try:
            found = [block for block, _ in reading.blocks([str(path)], 1_000, SECONDS)]
        except ValueError as error:
            raise ValueError(str(error).replace(str(path), path.name)) from None
    crystals, refused = join([part for part, _ in found]), [row for _, bad in found for row in bad]
    count = len(crystals) + len(refused)
    if count > MOST_CRYSTALS:
        raise ValueError(f"the upload holds {count:,} crystals, at most {MOST_CRYSTALS} are predicted at once")
    return crystals, [replace(row, origin=path.name, message=row.message.replace(folder, "")) for row in refused]


def structures(document: Any) -> bytes:
    """A document of OPTIMADE as JSON lines: a reply with `data`, a list of entries, or one entry.

    Raises:
        ValueError: when it holds no entry.
    """
    data = document.get("data", document) if isinstance(document, dict) else document
    entries = data if isinstance(data, list) else [data]
    if not entries or not all(isinstance(entry, dict) and "attributes" in entry for entry in entries):
        raise ValueError("expected OPTIMADE structures: a reply with `data`, a list of entries, or one entry")
    head: list[Any] = [{"x-optimade": {"meta": {"api_version": "1.2.0"}}}]
    return "\n".join(json.dumps(line) for line in [*head, *entries]).encode()


def renamed(crystals: Crystals, names: list[str]) -> Crystals:
    """The crystals under other ids."""
    return replace(crystals, ids=np.array(names, dtype=str))


def _safe(name: str, ending: str) -> str:
    """A name for a file of this kind, of harmless letters, which its crystals are named after."""
    last = PurePath(name.replace("\\", "/")).name
    stem = last if kind_of(last) is not None else f"{last}{ending}"
    return re.sub(r"[^A-Za-z0-9._+=-]", "_", stem).lstrip(".")[-100:] if last else f"{NAMELESS}{ending}"
