"""The members of an archive, one after the other, without unpacking it to the disk.

Enters: the stream of a zip or tar archive. Leaves: the name of each file in it, with a way to open
it. Limits bound the number of members, their bytes after unpacking, the ratio of that to the bytes
of the archive, and the table of contents. This module does not know what the members hold.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, cast

from assay.sources.checks import limits
from assay.sources.storage.opening import bounded, through

PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
"""Ways of packing in a zip that take little memory, whatever a member announces."""


@dataclass(frozen=True)
class Member:
    """One file in an archive."""

    name: str
    """Its path in the archive."""
    size: int
    """Its bytes in the archive, packed or not; its own ending may be that of a packed file."""
    open: Callable[[], BinaryIO]
    """Opens it; a ValueError says why it cannot be read."""


def members(stream: BinaryIO, name: str, size: int) -> Iterator[Member]:
    """Yield the files of an archive in its order; folders and links are passed over.

    Open a member before the next one is asked for. `name` and `size` are those of the archive.

    Raises:
        ValueError: when the archive is damaged or beyond a limit; members before it were yielded.
    """
    limited = bounded(through(stream, name, size, "archive"), "archive", limits.most("archive"), careful=True)
    try:
        files = _zip(limited, size) if name.lower().endswith(".zip") else _tar(limited)
        for number, member in enumerate(files, start=1):
            limits.check("members", number)
            yield member
    except ValueError:
        raise
    except Exception as error:  # zipfile and tarfile raise a dozen types
        raise ValueError(
            f"the archive is torn or damaged ({' '.join(str(error).split()) or type(error).__name__})"
        ) from error


def _zip(stream: BinaryIO, size: int) -> Iterator[Member]:
    total = 0
    with zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            limits.check("archive", total + info.file_size)
            if not info.is_dir():
                yield Member(info.filename, info.file_size, partial(_zip_member, archive, info, total, size))
            if not limits.is_beyond("ratio", total + info.file_size, size):
                total += info.file_size


def _zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, total: int, size: int) -> BinaryIO:
    """Open a member, unless it swells the `total` before it beyond the ratio to the archive."""
    limits.check_growth("ratio", total + info.file_size, size)
    if info.compress_type not in PLAIN:
        raise ValueError(f"cannot be unpacked (compression type {info.compress_type}; deflate or bzip2 is needed)")
    try:
        return bounded(cast("BinaryIO", archive.open(info)), "archive", info.file_size)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError) as error:
        raise ValueError(f"cannot be unpacked ({' '.join(str(error).split())})") from error


def _tar(stream: BinaryIO) -> Iterator[Member]:
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        for info in archive:
            archive.members = []  # type: ignore[attr-defined]  # it would keep every header; typeshed does not list it
            if info.isreg():
                yield Member(info.name, info.size, partial(_tar_member, archive, info))


def _tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> BinaryIO:
    file = archive.extractfile(info)
    assert file is not None  # a regular file
    return bounded(cast("BinaryIO", file), "archive", info.size)
