"""The files of a campaign folder: which names are those of a campaign, and which are not.

Enters: a folder, or the place of a file in it. Leaves: a judgement by the full pattern of the name.
Only what a killed process of Assay left under such a name is removed. This module reads no content.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from assay.screening.folder import stamp
from assay.screening.folder.ledger import listed
from assay.screening.settings import place
from assay.screening.settings.exits import Exit, Failure
from assay.sources import durable

_SOURCE = r"snapshot/[^/]+/\d{6,}"
_FILES = (
    r"(config\.resolved\.yaml|fingerprint\.json|attempts\.log|report\.html|summary\.json)",
    r"(candidates|unrankable|quarantine|excluded)\.parquet",
    r"log/\d{8,}\.json",
    rf"{_SOURCE}-\d{{6,}}-[0-9a-f]{{12}}(\.quarantine)?\.parquet",
    rf"{_SOURCE}\.quarantine\.parquet",
    r"snapshot/(chunks|tier-\d+)/[0-9a-f]{16}\.parquet",
    r"relaxed/[0-9a-f]{16}(\.quarantine)?\.parquet",
    r"(parts|quarantine)/(tier-\d+/)?[0-9a-f]{16}\.parquet",
    r"identity/(crystals|match/\d{6,}|label/[^/]+/\d{6,}/\d{6,})\.parquet",
)
_OURS = re.compile("|".join(_FILES))
_LOCK = re.compile(r"LOCK|\.{1,2}LOCK\..+\.(tmp|claim|clock)")
"""The lock, and the files of processes that want it; they are never swept."""


def is_ours(file: Path) -> bool:
    """Whether a campaign gives this name to a file, at this place of its folder.

    >>> is_ours(Path("log/00000000.json")), is_ours(Path("snapshot/mine.parquet"))
    (True, False)
    """
    return _OURS.fullmatch(file.as_posix()) is not None


def is_unfinished(file: Path) -> bool:
    """Whether a file is one that a killed process of Assay began to write.

    >>> is_unfinished(Path("log/.00000000.json.4711.0a1b2c3d.tmp")), is_unfinished(Path(".x.tmp"))
    (True, False)
    """
    name = durable.final_name(file.name)
    return name is not None and is_ours(file.with_name(name))


def is_lock(file: Path) -> bool:
    """Whether a file is the lock, or one that a process which wants the lock made."""
    return len(file.parts) == 1 and _LOCK.fullmatch(file.name) is not None


def files(folder: Path) -> Iterator[Path]:
    """Regular files of a campaign's own folders and beside them, relative to `folder`.

    Links are not followed, and no folder is looked into that a campaign does not make.
    """
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_file(follow_symlinks=False):
            yield Path(entry.name)
    for name in stamp.FOLDERS:
        if not (folder / name).is_symlink():
            for at, folders, names in os.walk(folder / name):
                folders.sort()
                paths = (Path(at, file) for file in sorted(names))
                yield from (path.relative_to(folder) for path in paths if path.is_file() and not path.is_symlink())


def sweep(folder: Path) -> None:
    """Remove what killed processes began to write; the caller holds the lock of the folder."""
    for file in files(folder):
        if is_unfinished(file):
            (folder / file).unlink(missing_ok=True)


def expect_free(folder: Path) -> None:
    """Refuse to begin a campaign where other files lie; a folder that holds a campaign passes.

    Raises:
        Failure: CONFIG, when the folder is not empty and holds no campaign, or is one of the
            folders in which another campaign keeps its files.
    """
    began = _holds_campaign(folder)
    place.check(
        folder,
        lambda name: began or is_lock(Path(name)) or is_unfinished(Path(name)),
        "no campaign (no fingerprint.json)",
    )
    here = folder.resolve()
    for child, parent in zip((here, *here.parents), here.parents, strict=False):
        if child.name in stamp.FOLDERS and _holds_campaign(parent):
            what = f"{folder} lies where the campaign in {parent} keeps its files"
            raise Failure(Exit.CONFIG, f"{what}; choose an --output outside {child}")


def _holds_campaign(folder: Path) -> bool:
    return (folder / "fingerprint.json").exists() or bool(listed(folder / "log"))
