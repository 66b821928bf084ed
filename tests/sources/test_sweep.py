"""Only temporary files of our own are removed, and only in the folders of the campaign itself."""

from __future__ import annotations

import os
from pathlib import Path

from assay.sources import durable


def temporary(place: Path, name: str = "a.parquet") -> Path:
    """A file as a killed writer leaves it."""
    place.mkdir(parents=True, exist_ok=True)
    pid = os.fork()
    if pid == 0:
        with durable.whole(place / name):
            os._exit(9)
    os.waitpid(pid, 0)
    (left,) = place.glob(f".{name}.*.tmp")
    return left


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    left = [temporary(tmp_path), temporary(tmp_path / "log", "0.json"), temporary(tmp_path / "snapshot" / "a")]
    durable.sweep(tmp_path, ["log", "snapshot", "parts"])
    assert not [path for path in left if path.exists()]


def test_files_of_others_stay(tmp_path: Path) -> None:
    foreign = [
        tmp_path / name for name in (".notes.tmp", ".a.12.tmp", ".a.1.xyz.tmp", "log/.notes.tmp", "a.1.0a0b0c0d.tmp")
    ]
    (tmp_path / "log").mkdir()
    for path in foreign:
        path.write_text("mine")
    elsewhere = temporary(tmp_path / "elsewhere")
    (tmp_path / "snapshot").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "log" / "link").symlink_to(tmp_path / "elsewhere")
    kept = [*foreign, elsewhere, temporary(tmp_path / "child" / "log"), temporary(tmp_path, "LOCK")]
    durable.sweep(tmp_path, ["log", "snapshot"])
    assert [path for path in kept if not path.exists()] == []
