"""Only temporary files of our own are removed, and only in the folders of the campaign itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from assay.screening.folder import inventory
from assay.screening.settings.exits import Failure
from assay.sources import durable

PARQUET = "0123456789abcdef.parquet"


def temporary(place: Path, name: str) -> Path:
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
    left = [
        temporary(tmp_path, "summary.json"),
        temporary(tmp_path / "log", "00000012.json"),
        temporary(tmp_path / "snapshot" / "cod", "000000-000003-0123456789ab.quarantine.parquet"),
        temporary(tmp_path / "snapshot" / "tier-1", PARQUET),
        temporary(tmp_path / "quarantine" / "tier-2", PARQUET),
        temporary(tmp_path / "identity" / "label" / "cod" / "000000", "000001.parquet"),
    ]
    inventory.sweep(tmp_path)
    assert not [path for path in left if path.exists()]


def test_files_of_others_stay(tmp_path: Path) -> None:
    foreign = [
        tmp_path / name for name in (".notes.tmp", ".a.12.tmp", ".a.1.xyz.tmp", "log/.notes.tmp", "a.1.0a0b0c0d.tmp")
    ]
    (tmp_path / "log").mkdir()
    for path in foreign:
        path.write_text("mine")
    elsewhere = temporary(tmp_path / "elsewhere", PARQUET)
    (tmp_path / "snapshot").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "log" / "link").symlink_to(tmp_path / "elsewhere")
    kept = [*foreign, elsewhere, temporary(tmp_path / "child" / "log", "00000000.json"), temporary(tmp_path, "LOCK")]
    kept += [temporary(tmp_path, "predictions.csv"), temporary(tmp_path / "parts", "mine.parquet")]
    kept += [temporary(tmp_path / "parts" / "child" / "log", "00000000.json")]
    inventory.sweep(tmp_path)
    assert [path for path in kept if not path.exists()] == []


@pytest.mark.parametrize("begun", ["LOCK", ".LOCK.0a.claim", ".fingerprint.json.12.0a0b0c0d.tmp", "fingerprint.json"])
def test_a_folder_in_which_a_campaign_begins_is_free(tmp_path: Path, begun: str) -> None:
    inventory.expect_free(tmp_path / "absent")
    inventory.expect_free(tmp_path)
    (tmp_path / begun).touch()
    inventory.expect_free(tmp_path)


@pytest.mark.parametrize("name", [".notes.tmp", "candidates.parquet", "LOCK.old", "sub/deep/x", ".x.1.0a0b0c0d.tmp"])
def test_a_folder_with_files_of_others_is_not(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    with pytest.raises(
        Failure, match=f"is not empty .{Path(name).parts[0]}. and holds no campaign .*neither .*deletes"
    ):
        inventory.expect_free(tmp_path)


def test_a_campaign_does_not_begin_inside_the_folders_of_another(tmp_path: Path) -> None:
    (tmp_path / "fingerprint.json").touch()
    inventory.expect_free(tmp_path / "child")
    for inside in ("log", "snapshot/deep/child"):
        with pytest.raises(Failure, match="lies where the campaign in .* keeps its files"):
            inventory.expect_free(tmp_path / inside)
