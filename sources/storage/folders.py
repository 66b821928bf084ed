"""Finds the files of a folder or of a pattern, and says what becomes of all the others.

Enters: a folder, or a pattern with `*`, `?`, `[...]` or `**`. Leaves: the files of known kinds in
the order of their paths, a reason for each that cannot be opened, and the number of all others by
their endings. Tables that Assay wrote, and campaigns below the folder, are among the others: their
crystals would be read twice. This module opens no file but these tables.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from assay.sources.storage import own
from assay.sources.storage.kinds import CAMPAIGN, HIDDEN, OWN, counted_as, is_hidden, kind_of
from assay.sources.storage.opening import sort_of

SHOWN = 12
"""Endings that a message names; the files under further ones are counted together."""


@dataclass
class Listing:
    """What a folder holds."""

    files: list[tuple[Path, str]] = field(default_factory=list)
    """Files of known kinds: path, and path below the folder."""
    lost: list[tuple[Path, str, str]] = field(default_factory=list)
    """What cannot be opened: path, path below the folder, reason."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Number of files that are not read, by their endings."""


def walk(root: Path) -> Listing:
    """List a folder and the folders below it, links to folders among them, each folder once.

    Hidden files and folders are counted and not read.
    """
    listing = Listing()
    seen: set[tuple[int, int]] = set()
    folders, linked = [root], list[Path]()
    while folders or linked:
        folder = folders.pop() if folders else linked.pop(0)  # links last: files keep their nearest name
        try:
            where = folder.stat()
            if (where.st_dev, where.st_ino) in seen:
                listing.ignored["links to folders that are read already"] += 1
                continue
            seen.add((where.st_dev, where.st_ino))
            with os.scandir(folder) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            listing.lost.append((folder, _below(folder, root), f"cannot be listed: {error.strerror}"))
            continue
        for entry in entries:
            inner = _sorted_out(entry, root, listing)
            if inner is not None:
                (linked if entry.is_symlink() else folders).append(inner)
    listing.files.sort()
    listing.lost.sort()
    return listing


def is_pattern(path: Path) -> bool:
    """Tell whether a path is no file or folder, but a pattern that may name some."""
    return glob.has_magic(str(path)) and not path.exists()


def matching(pattern: Path) -> Listing:
    """List the files that a pattern names, and those of the folders that it names.

    `**` stands for any folders, also none. The path of a file begins below the last folder before
    the first wildcard.

    Raises:
        FileNotFoundError: when it names nothing.
    """
    fixed = [*takewhile(lambda part: not glob.has_magic(part), pattern.parts)]
    root, found = Path(*fixed), sorted(glob.glob(str(pattern), recursive=True))  # noqa: PTH207 (Path.glob needs a root)
    if not found:
        raise FileNotFoundError(f"no file or folder matches {pattern}")
    listing = Listing()
    walked: list[Path] = []
    for path in map(Path, found):
        if any(path.is_relative_to(folder) for folder in walked):
            continue
        folder = _sorted_out(path, root, listing)
        if folder is not None:
            walked.append(folder)
            inner = walk(folder)
            listing.files += [(file, _below(file, root)) for file, _ in inner.files]
            listing.lost += [(file, _below(file, root), why) for file, _, why in inner.lost]
            listing.ignored += inner.ignored
    return listing


def _sorted_out(entry: os.DirEntry[str] | Path, root: Path, listing: Listing) -> Path | None:
    """Put an entry in its place; return it where it is a folder to list."""
    path = Path(entry)
    if is_hidden(entry.name):
        listing.ignored[HIDDEN] += 1
        return None
    try:
        is_folder, sort = entry.is_dir(), sort_of(entry.stat().st_mode)
    except OSError as error:  # a link that leads nowhere, or in a circle
        broken = f"a broken link to {path.readlink()}" if entry.is_symlink() else "cannot be reached"
        listing.lost.append((path, _below(path, root), f"{broken}: {error.strerror}"))
        return None
    if is_folder and _is_campaign(path):
        listing.ignored[CAMPAIGN] += 1
        return None
    if is_folder:
        return path
    if sort is None and own.is_own(path):
        listing.ignored[OWN] += 1
    elif kind_of(entry.name) is None:
        listing.ignored[counted_as(entry.name) if sort is None else sort.split(" ")[1]] += 1
    elif sort is not None:
        listing.lost.append((path, _below(path, root), f"{sort}, expected a regular file"))
    else:
        listing.files.append((path, _below(path, root)))
    return None


def _is_campaign(folder: Path) -> bool:
    return all((folder / name).exists() for name in ("fingerprint.json", "config.resolved.yaml", "log"))


def _below(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path != root else root.name


def summary(ignored: Counter[str]) -> str:
    """Return the ignored files in one line.

    >>> summary(Counter({".txt": 12, "hidden": 1, "XDATCAR": 1}))
    '12 .txt, 1 XDATCAR, 1 hidden'
    """
    order = sorted(ignored.items(), key=lambda item: (-item[1], item[0]))
    told = [f"{count:,} {ending}" for ending, count in order[:SHOWN]]
    rest = sum(count for _, count in order[SHOWN:])
    return ", ".join([*told, f"{rest:,} others"] if rest else told) or "nothing"
