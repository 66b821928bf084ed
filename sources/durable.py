"""Files that are either whole or absent, even after a crash or on a full disk.

Enters: a path, and for small files their text. Leaves: the file, which appears under its name once
its whole content is on the disk. This module does not know the meaning of the content.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

_TEMPORARY = re.compile(r"\.(.+)\.([0-9]+)\.[0-9a-f]{8}\.tmp")
"""Names of the files that `whole` and `unnamed` write to."""


@contextmanager
def whole(path: Path, *, absent: bool = False, synced: bool = True) -> Iterator[BinaryIO]:
    """Replace `path`: temporary name in the same folder, fsync, rename, fsync of the folder.

    With `absent`, the file is created and never replaced: the first of several writers succeeds.
    Without `synced` there is no fsync: after a crash of the machine the file may be damaged, so
    its reader must notice that and be able to do without it.

    Raises:
        FileExistsError: with `absent`, when another writer was first.
        OSError: with the name of `path`; the old file, if any, is untouched and no new one is left.
    """
    temporary = _temporary(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            if synced:
                os.fsync(file.fileno())
        if absent:
            os.link(temporary, path)
            temporary.unlink()
        else:
            temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # write and fsync do not say which file the disk had no room for
        raise
    if synced:
        sync_folder(path.parent)


def unnamed(path: Path) -> BinaryIO:
    """An empty file beside `path` that ends with this process: it has no name once it is open."""
    temporary = _temporary(path)
    file = temporary.open("x+b")
    temporary.unlink()
    return file


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, each durable before anything is put into it."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Flush the file names of a folder to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, text: str) -> None:
    """Replace `path` by a file with this text, whole or not at all."""
    make_folder(path.parent)
    with whole(path) as file:
        file.write(text.encode("utf-8"))


def put_if_absent(path: Path, text: str) -> None:
    """Create `path`; `FileExistsError` when another writer was first."""
    make_folder(path.parent)
    with whole(path, absent=True) as file:
        file.write(text.encode("utf-8"))


def final_name(name: str) -> str | None:
    """The name under which a file of `whole` appears once it is written; None for other files.

    >>> final_name(".a.parquet.4711.0a1b2c3d.tmp"), final_name(".notes.tmp")
    ('a.parquet', None)
    """
    found = _TEMPORARY.fullmatch(name)
    return None if found is None else found[1]


def sweep(folder: Path) -> None:
    """Remove what killed processes began to write below a folder.

    What a process of that number writes stays, if one runs on this machine.
    """
    for path in folder.rglob(".*.tmp"):
        found = _TEMPORARY.fullmatch(path.name)
        if found and not _runs(int(found[2])):
            path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it belongs to somebody else
        return True
    return True


def canonical(content: Any) -> str:
    """JSON with sorted keys: equal content gives equal bytes. NaN is refused."""
    return json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
