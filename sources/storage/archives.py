"""The members of an archive, one after the other, without unpacking it to the disk.

Enters: the stream of a zip or tar archive. Leaves: the name of each file in it, with a way to open
it. Memory and time are bounded: by the number of members, by their bytes after unpacking, and by
the size of the table of contents. This module does not know what the members hold.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, cast

from assay.sources.storage.opening import bounded, through

MAX_MEMBERS = 1_000_000
"""Most files in one archive."""
MAX_ARCHIVE_BYTES = 64 * 2**30
"""Most bytes of one archive, all its members unpacked."""
MAX_CONTENTS_BYTES = 64 * 2**20
"""Largest table of contents, and largest header of one member."""


@dataclass(frozen=True)
class Member:
    """One file in an archive."""

    name: str
    """Its path in the archive."""
    open: Callable[[], BinaryIO]
    """Opens it; a ValueError says why it cannot be read."""


def members(stream: BinaryIO, name: str) -> Iterator[Member]:
    """Yield the files of an archive in its order; folders and links are passed over.

    Open a member before the next one is asked for. `name` is that of the archive.

    Raises:
        ValueError: when the archive is damaged or beyond a limit; members before it were yielded.
    """
    limited = bounded(through(stream, name, MAX_ARCHIVE_BYTES), MAX_ARCHIVE_BYTES, at_once=MAX_CONTENTS_BYTES)
    try:
        files = _zip(limited) if name.lower().endswith(".zip") else _tar(limited)
        for number, member in enumerate(files, start=1):
            if number > MAX_MEMBERS:
                raise ValueError(f"more than {MAX_MEMBERS:,} files in one archive, which is the most accepted")
            yield member
    except ValueError:
        raise
    except Exception as error:  # zipfile and tarfile raise a dozen types
        raise ValueError(
            f"the archive is torn or damaged ({' '.join(str(error).split()) or type(error).__name__})"
        ) from error


def _zip(stream: BinaryIO) -> Iterator[Member]:
    total = 0
    with zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            total += info.file_size
            if total > MAX_ARCHIVE_BYTES:
                raise ValueError(f"more than {MAX_ARCHIVE_BYTES:,} bytes after unpacking, which is the most accepted")
            if not info.is_dir():
                yield Member(info.filename, partial(_zip_member, archive, info))


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> BinaryIO:
    try:
        return bounded(cast("BinaryIO", archive.open(info)), info.file_size)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError) as error:
        raise ValueError(f"cannot be unpacked ({' '.join(str(error).split())})") from error


def _tar(stream: BinaryIO) -> Iterator[Member]:
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        for info in archive:
            archive.members = []  # type: ignore[attr-defined]  # it would keep every header; typeshed does not list it
            if info.isreg():
                yield Member(info.name, partial(_tar_member, archive, info))


def _tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> BinaryIO:
    file = archive.extractfile(info)
    assert file is not None  # a regular file
    return bounded(cast("BinaryIO", file), info.size)
