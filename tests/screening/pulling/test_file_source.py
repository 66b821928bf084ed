"""The kind `files`: what it refuses before a campaign begins, and when its content counts as changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from assay.screening.pulling.kinds.files import FileSource
from assay.screening.pulling.source import Job
from assay.screening.pulling.steps import Sharding
from assay.screening.settings.exits import Exit, Failure

MGB2 = Path(__file__).resolve().parents[2] / "data" / "MgB2.cif"


def source(*paths: Path) -> FileSource:
    return FileSource(kind="files", paths=[str(path) for path in paths])


def test_paths_without_crystals_are_refused_before_the_campaign(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    os.mkfifo(tmp_path / "p.cif")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    for path, said in (
        (tmp_path / "gone", "does not exist; check the path"),
        (tmp_path / "notes.txt", "is of no known kind"),
        (tmp_path / "p.cif", "is a FIFO"),
        (tmp_path / "empty", r"nothing in .*empty can be read; ignored: 1 \.txt"),
    ):
        with pytest.raises(ValueError, match=said):
            source(MGB2, path).check([], begun=False)
        source(MGB2, path).check([], begun=True)
    source(MGB2).check([], begun=False)


def test_only_files_that_are_read_count_as_content(tmp_path: Path) -> None:
    shutil.copy(MGB2, tmp_path / "a.cif")
    before = source(tmp_path).stamp()
    (tmp_path / "notes.txt").write_text("looked at on Monday")
    (tmp_path / "gone.cif").symlink_to("nowhere")
    os.mkfifo(tmp_path / "p.cif")  # opened, it would never end
    assert source(tmp_path).stamp() == before
    (tmp_path / "a.cif").write_text("data_other")
    assert source(tmp_path).stamp() != before


def test_a_machine_that_sees_other_files_under_the_same_paths_is_refused(tmp_path: Path) -> None:
    shutil.copy(MGB2, tmp_path / "a.cif")
    files = source(tmp_path)
    job = Job("s", files, "s", Sharding("s", [], files.stamp()))
    assert list(files.pull(job, None))
    (tmp_path / "a.cif").write_text("data_other")
    with pytest.raises(Failure, match="not what this campaign began with") as caught:
        list(files.pull(job, None))
    assert caught.value.code is Exit.CONFIG


def test_a_folder_is_read_with_its_archives(tmp_path: Path) -> None:
    shutil.copytree(MGB2.parent, tmp_path / "in")
    shutil.make_archive(str(tmp_path / "in" / "more"), "zip", MGB2.parent)
    [(crystals, refused)] = source(tmp_path / "in").read()
    inner = [id.partition("more.zip/")[2] for id in crystals.ids.tolist() if "more.zip/" in id]
    outer = [id.removeprefix("file/") for id in crystals.ids.tolist() if "more.zip/" not in id]
    assert sorted(inner) == outer
    assert len(refused) == 4
