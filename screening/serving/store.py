"""Predictions of uploads, kept on disk, so that a page can be opened again, also after a restart.

Enters: the predictions of an upload. Leaves: a key, under which they are found again. The key is a
digest of the crystals, of what was refused and of the model: the same upload has the same page. A
store keeps the newest `MOST`. This module does not know HTTP or models.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay.sources import durable, table
from assay.sources.crystals import Crystals

MOST = 1_000
"""Predictions that are kept; the oldest go first."""
KEY = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Kept:
    """One kept prediction."""

    key: str
    crystals: Crystals
    """The predicted crystals."""
    answer: dict[str, Any]
    """What `assay.screening.serving.predicting.answers` says about them."""
    folder: Path

    @property
    def explained(self) -> dict[str, Any]:
        """Number of a crystal -> what each of its atoms adds, where it was asked for."""
        found = self.folder.glob("explained-*.json")
        return {path.stem.removeprefix("explained-"): json.loads(path.read_bytes()) for path in found}

    def explain(self, number: int, content: dict[str, Any]) -> None:
        """Keep what each atom of a crystal adds."""
        durable.write(self.folder / f"explained-{number}.json", json.dumps(content))


class Store:
    """A folder of kept predictions."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def keep(self, crystals: Crystals, answer: dict[str, Any]) -> str:
        """Keep a prediction and return its key."""
        content = table.encode(table.to_table(crystals)).to_pybytes()
        said = json.dumps(answer, sort_keys=True)
        digest = hashlib.sha256(content + said.encode()).hexdigest()[:32]
        folder = self.folder / digest
        if not (folder / "answer.json").exists():
            folder.mkdir(exist_ok=True)
            table.write(table.to_table(crystals), folder / "crystals.parquet")
            durable.write(folder / "answer.json", said)
            self._forget()
        return digest

    def find(self, key: str) -> Kept | None:
        """A kept prediction; None when there is none under this key."""
        folder = self.folder / key
        if not KEY.fullmatch(key) or not (folder / "answer.json").exists():
            return None
        crystals, _ = table.from_table(table.read(folder / "crystals.parquet"), "store")
        return Kept(key, crystals, json.loads((folder / "answer.json").read_bytes()), folder)

    def _forget(self) -> None:
        kept: list[tuple[float, Path]] = []
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):  # another server on this folder was quicker
                kept += [(path.stat().st_mtime, path)] if KEY.fullmatch(path.name) else []
        for _, path in sorted(kept)[:-MOST]:
            shutil.rmtree(path, ignore_errors=True)
