"""Small files that are either whole or absent, even after a crash.

Enters: a path and text. Leaves: the file, durable on disk (`sources.durable` says how).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sources.durable import make_folder, whole


def write(path: Path, text: str) -> None:
    """Replace `path`, whole or not at all."""
    make_folder(path.parent)
    with whole(path) as file:
        file.write(text.encode("utf-8"))


def put_if_absent(path: Path, text: str) -> None:
    """Create `path`; FileExistsError when somebody else was first."""
    make_folder(path.parent)
    with whole(path, absent=True) as file:
        file.write(text.encode("utf-8"))


def sweep(folder: Path) -> None:
    """Remove what writers that were killed left half written; the caller holds the lock of the folder."""
    for path in folder.rglob(".*.tmp"):
        if not path.name.startswith(".LOCK"):  # of somebody who is trying to get the lock
            path.unlink(missing_ok=True)


def canonical(content: Any) -> str:
    """JSON with sorted keys: equal content gives equal bytes. NaN is refused."""
    return json.dumps(content, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
