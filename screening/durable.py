"""Small files that are either whole or absent, even after a crash.

Enters: a path and text. Leaves: the file, durable on disk (`sources.durable` says how).
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from sources.durable import sync_folder, whole


def write(path: Path, text: str) -> None:
    """Replace `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as file:
        file.write(text.encode("utf-8"))


def put_if_absent(path: Path, text: str) -> None:
    """Create `path`; FileExistsError when somebody else was first."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    write(temporary, text)
    try:
        os.link(temporary, path)
    finally:
        temporary.unlink()
    sync_folder(path.parent)


def canonical(content: Any) -> str:
    """JSON with sorted keys: equal content gives equal bytes. NaN is refused."""
    return json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
