"""Small files that are either whole or absent, even after a crash.

Enters: a path and text. Leaves: the file, durable on disk. Tables are written the same way by `sources.table.write`.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def write(path: Path, text: str) -> None:
    """Replace `path`: temporary name in the same folder, fsync, rename, fsync of the folder."""
    temporary = _temporary(path, text.encode("utf-8"))
    os.replace(temporary, path)
    sync_folder(path.parent)


def put_if_absent(path: Path, text: str) -> None:
    """Create `path`; FileExistsError when somebody else was first."""
    temporary = _temporary(path, text.encode("utf-8"))
    try:
        os.link(temporary, path)
    finally:
        temporary.unlink()
    sync_folder(path.parent)


def _temporary(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def canonical(content: Any) -> str:
    """JSON with sorted keys: equal content gives equal bytes. NaN is refused."""
    return json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
