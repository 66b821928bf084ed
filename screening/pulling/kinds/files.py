"""The kind `files`: crystals in files of the user.

Enters: paths. Leaves: one block after the other, in the order of the paths. This module knows no
file format (`assay.sources.files`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from assay.screening.pulling import columns, reading
from assay.screening.pulling.local import BLOCK, LocalSource
from assay.screening.pulling.source import Provenance
from assay.screening.settings.exits import Exit, Failure
from assay.screening.settings.section import Text
from assay.sources import durable, files, table
from assay.sources.crystals import Crystals
from assay.sources.quarantine import Quarantined
from assay.sources.storage.kinds import Kind, kind_of


class FileSource(LocalSource):
    """Crystals in files of any kind that `assay.sources.files` reads, or folders of them."""

    kind: Literal["files"]
    paths: Annotated[list[Text], Field(min_length=1)]
    """Files and folders, relative to the current folder."""

    def check(self, licences: Sequence[str], *, begun: bool) -> None:  # noqa: ARG002 (the files are the user's own)
        """Refuse a path without crystals, unless the campaign may have pulled it already."""
        for path in self.paths if not begun else []:
            if not Path(path).exists():
                raise ValueError(f"{path} does not exist; check the path, relative to the current folder")
            files.check(Path(path))

    def describe(self) -> list[str]:
        """The paths, and the number of files in them."""
        count = sum(len(files.found(Path(path))) for path in self.paths)
        return [f"{count:,} {'file' if count == 1 else 'files'} in {', '.join(self.paths)}"]

    def tables(self) -> list[Path]:
        """The Parquet files among the paths, and in the folders among them."""
        return [file for path in self.paths for file in files.found(Path(path)) if kind_of(file.name) is Kind.PARQUET]

    def reports(self) -> frozenset[str] | None:
        """The columns of the Parquet files; None where there are others, or one cannot be read."""
        every = [file for path in self.paths for file in files.found(Path(path))]
        try:
            found = [table.schema(file).names for file in every if kind_of(file.name) is Kind.PARQUET]
        except ValueError:
            return None
        return frozenset(name for names in found for name in names) if len(found) == len(every) else None

    def provenance(self) -> Provenance:
        """Nobody knows the licence of the user's files."""
        return Provenance("own files", "unknown")

    def fingerprint(self) -> str:
        """Names of the files without their folders: the content has a stamp of its own."""
        content: dict[str, Any] = self.model_dump(mode="json", exclude=set(self.neutral))
        return json.dumps({**content, "paths": [Path(path).name for path in self.paths]}, sort_keys=True)

    def content(self) -> dict[str, str]:
        """Digests by place of the path in `paths`, name, and path below a folder.

        A list of values stands for the files that it names, below its own folder. A path that is
        gone has no entry.
        """
        digests: dict[str, str] = {}
        for number, path in enumerate(map(Path, self.paths)):
            for file in files.found(path) if path.exists() else []:
                root = path if path.is_dir() else path.parent
                below = "" if file == path else f"/{file.relative_to(root).as_posix()}"
                digests[f"{number}.{path.name}{below}"] = _digest(file)[:16]
        return digests

    def stamp(self) -> str:
        """Digest of the content of all files that are read, their names aside."""
        digest = hashlib.sha256()
        for path in map(Path, self.paths):
            for file in files.found(path):
                digest.update(_digest(file).encode())
        return digest.hexdigest()

    def read(self) -> Iterator[tuple[Crystals, list[Quarantined]]]:
        """One path after the other, however many files each holds.

        Raises:
            Failure: CONFIG, when a column holds a number in one file and a text in another.
        """
        for block, contradiction in reading.blocks(self.paths, BLOCK):
            if contradiction:
                raise Failure(Exit.CONFIG, f"{contradiction}; {columns.ADVICE}")
            yield block


def _digest(file: Path) -> str:
    """sha256 of a file; a file that was not touched since is not read twice."""
    try:
        found = file.stat()
        return _sha256(file, found.st_ino, found.st_size, found.st_mtime_ns)
    except PermissionError:
        return "may not be read"


@lru_cache(maxsize=2**14)
def _sha256(file: Path, *_: int) -> str:
    return durable.sha256(file)
