"""Folders, packed files and archives: everything readable is read, everything else is counted and named."""

from __future__ import annotations

import gzip
import io
import logging
import lzma
import os
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import assay
from assay.screening.prediction import output
from assay.sources import files, table
from assay.sources.checks import limits
from assay.sources.formats import convert
from assay.sources.quarantine import Quarantined, Reason, Stage
from assay.sources.storage import own
from assay.sources.storage.kinds import ENDINGS, WHOLE_ENDINGS, Kind
from tests.sources.conftest import Lower

HERE = Path(__file__).parents[1] / "data"
MGB2, NB3SN, FRAMES = HERE / "MgB2.cif", HERE / "Nb3Sn.vasp", HERE / "two_frames.extxyz"


def structure_json() -> str:
    text: str = convert.to_pymatgen(files.read(MGB2)[0])[0].to_json()
    return text


@pytest.mark.parametrize(
    ("plain", "name"),
    [
        (MGB2, "a.cif.gz"),
        (MGB2, "a.mcif"),
        (NB3SN, "a.vasp.gz"),
        (NB3SN, "POSCAR.gz"),
        (NB3SN, "CONTCAR.gz"),
        (NB3SN, "CONTCAR.xz"),
        (FRAMES, "a.extxyz.gz"),
        (FRAMES, "a.xyz.gz"),
    ],
)
def test_a_packed_file_is_the_file_that_it_holds(tmp_path: Path, plain: Path, name: str) -> None:
    pack = {".gz": gzip.compress, ".xz": lzma.compress}.get(Path(name).suffix, bytes)
    (tmp_path / name).write_bytes(pack(plain.read_bytes()))
    found, refused = files.read(tmp_path / name)
    wanted, _ = files.read(plain)
    assert not refused
    assert found.ids.tolist() == [id.replace(plain.name, name) for id in wanted.ids.tolist()]
    assert found.formulas().tolist() == wanted.formulas().tolist()
    np.testing.assert_array_equal(found.frac, wanted.frac)


def test_a_packed_text_is_bounded_by_what_comes_out(tmp_path: Path) -> None:
    (tmp_path / "a.cif.gz").write_bytes(gzip.compress(b" " * (limits.most("text") + 1)))
    _, refused = files.read(tmp_path)
    assert [row.reason for row in refused] == [Reason.TOO_LARGE]
    assert "more than 10,485,760 bytes of a CIF or POSCAR" in refused[0].message


def test_what_is_ignored_is_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.cif").write_bytes(MGB2.read_bytes())
    (tmp_path / "s.json").write_text(structure_json())
    for name in ("settings.json", "run.json", "n.txt", "XDATCAR", "old.db", ".hidden"):
        (tmp_path / name).write_text('{"encut": 520}')
    crystals, refused = files.read(tmp_path)
    assert crystals.ids.tolist() == ["file/a.cif", "file/s.json"]
    assert not refused
    [record] = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert record.getMessage() == (
        f"{tmp_path}: 2 files read; ignored: 2 .json without structures, 1 .db, 1 .txt, 1 XDATCAR, 1 hidden"
    )


def test_what_assay_wrote_is_no_input(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.cif").write_bytes(MGB2.read_bytes())
    predicted = {"id": ["file/a.cif"], "formula": ["MgB2"], "tc_mean": [18.0], "tc_std": [12.0]}
    refused = table.quarantine_table([Quarantined("file/b.cif", "b.cif", Stage.PULL, Reason.UNREADABLE, "torn")])
    ranked = {"rank": [1], "id": ["file/a.cif"], "formula": ["MgB2"]}
    batch = {"pick": [1], "id": ["file/a.cif"], "formula": ["MgB2"], "utility": [0.5]}
    for ending in own.ENDINGS:
        for name, content in {"p": predicted, "k": ranked, "b": batch}.items():
            output.write(pa.table(content), tmp_path / f"{name}{ending}")
        output.write(refused, tmp_path / f"p.quarantine{ending}")
    crystals, lost = files.read(tmp_path)
    assert crystals.ids.tolist() == ["file/a.cif"]
    assert not lost
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    output.write(pa.table({"id": ["x"], "formula": ["MgB2"], "tc": [39.0]}), tmp_path / "theirs.csv")
    files.read(tmp_path)
    assert "ignored: 16 written by Assay, 1 .csv" in caplog.text


def test_a_campaign_below_a_folder_is_no_input(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.cif").write_bytes(MGB2.read_bytes())
    config = {"name": "x", "sources": [{"kind": "files", "paths": [str(tmp_path)]}], "models": ["tc"]}
    config |= {"rank": {"by": "mean"}, "output": str(tmp_path / "runs" / "x")}
    assert [len(assay.screen(config).candidates()) for _ in range(2)] == [1, 1]
    crystals, lost = files.read(tmp_path)
    assert (crystals.ids.tolist(), lost) == (["file/a.cif"], [])
    assert "1 folder of a campaign" in caplog.text
    inside, _ = files.read(tmp_path / "runs" / "x" / "snapshot")
    assert "file/a.cif" in inside.ids.tolist()


def test_a_clean_folder_warns_of_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.cif").write_bytes(MGB2.read_bytes())
    (tmp_path / ".cache").mkdir()
    files.read(tmp_path)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_an_empty_folder_beside_others_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(files.read_many([tmp_path, MGB2])[0]) == 1
    assert caplog.messages == [f"{tmp_path} holds no file of a known kind"]


def test_a_path_with_nothing_readable_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"nothing in {tmp_path} can be read; ignored: nothing; known are \.cif"):
        files.read(tmp_path)
    (tmp_path / "XDATCAR").touch()
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "more").mkdir()
    with pytest.raises(ValueError, match=r"ignored: 1 \.json without structures, 1 XDATCAR; known are"):
        files.read_many([tmp_path, tmp_path / "more"])
    with pytest.raises(ValueError, match=r"a\.json holds no structures"):
        files.read(tmp_path / "a.json")
    (tmp_path / "more" / "b.cif").write_text("data_empty")
    crystals, refused = files.read_many([tmp_path, tmp_path / "more"])
    assert (len(crystals), len(refused)) == (0, 1)  # a file that fails is a record, not nothing
    assert len(files.read_many([])[0]) == 0


def test_what_is_no_file_is_refused_and_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.cif")
    (tmp_path / "zero.cif").symlink_to("/dev/zero")
    for name, sort in (("p.cif", "a FIFO"), ("zero.cif", "a device")):
        with pytest.raises(ValueError, match=f"is {sort}.*expected a regular file or a folder"):
            files.read(tmp_path / name)
    (tmp_path / "gone.cif").symlink_to("nowhere.cif")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "table.parquet").symlink_to("p.cif")
    crystals, refused = files.read(tmp_path)
    assert len(crystals) == 0
    assert [(row.id, row.reason) for row in refused] == [
        ("file/gone.cif", Reason.UNREADABLE),
        ("file/p.cif", Reason.UNREADABLE),
        ("file/zero.cif", Reason.UNREADABLE),
    ]  # table.parquet is p.cif by another name


def test_a_file_that_may_not_be_read_is_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.cif", "b.cif"):
        (tmp_path / name).write_bytes(MGB2.read_bytes())
    real = os.open

    def guarded(path: Path, flags: int) -> int:
        if Path(path).name == "a.cif":  # root may read everything, and the tests may run as root
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, flags)

    monkeypatch.setattr(os, "open", guarded)
    crystals, refused = files.read(tmp_path)
    assert crystals.ids.tolist() == ["file/b.cif"]
    assert "Permission denied" in refused[0].message


@pytest.mark.parametrize("name", ["POSCAR", "a.cif", "a.xyz", "a.json"])
def test_binary_data_are_not_quoted(tmp_path: Path, name: str) -> None:
    program = Path(sys.executable).resolve().read_bytes()[:4000]
    (tmp_path / name).write_bytes(program)
    (tmp_path / f"b{name}").write_bytes(gzip.compress(MGB2.read_bytes()))
    told = {record.origin: record.message for record in files.read(tmp_path)[1]}
    assert told[str(tmp_path / name)] == "a text expected, found binary data"
    if name.startswith("a"):
        packed = "a text expected, found packed data: let the name of the file end in .gz"
        assert told[str(tmp_path / f"b{name}")] == packed


def test_a_database_of_ase_is_not_read_and_the_way_out_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.db").touch()
    with pytest.raises(ValueError, match=r"export it first: ase convert .*a\.db a\.json"):
        files.read(tmp_path / "a.db")


def archive(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
            for name, content in members.items():
                made.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz") as packed:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                packed.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_an_archive_is_read_like_a_folder(tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    members = {
        "./MgB2.cif": MGB2.read_bytes(),
        "deep/POSCAR.gz": gzip.compress(NB3SN.read_bytes()),
        "deep/frames.extxyz": FRAMES.read_bytes(),
        "s.json": structure_json().encode(),
        "broken.cif": b"data_x\n",
        "notes.txt": b"no",
        "c.json": b"{}",
        "__MACOSX/._MgB2.cif": b"no",
        "inner.zip": b"PK",
        "t.parquet": b"PAR1",
    }
    path = archive(tmp_path / name, members)
    crystals, refused = files.read(path)
    assert crystals.ids.tolist() == [
        f"file/{name}/{inner}"
        for inner in ("MgB2.cif", "deep/POSCAR.gz", "deep/frames.extxyz", "deep/frames.extxyz#2", "s.json")
    ]
    assert crystals.formulas().tolist() == ["MgB2", "Nb3Sn", "NbC", "Nb", "MgB2"]
    assert [row.id for row in refused] == [f"file/{name}/{inner}" for inner in ("broken.cif", "inner.zip", "t.parquet")]
    assert refused[0].origin == f"{path}/broken.cif"
    assert "archive inside an archive is not read" in refused[1].message
    assert caplog.messages[-1].endswith("ignored: 1 .json without structures, 1 .txt, 1 hidden")
    assert sorted(tmp_path.iterdir()) == [path]  # nothing was unpacked


def test_a_name_twice_in_an_archive_is_ambiguous(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr("a.cif", MGB2.read_bytes())
        with pytest.warns(UserWarning, match="Duplicate name"):
            made.writestr("a.cif", MGB2.read_bytes())
    crystals, refused = files.read(tmp_path / "a.zip")
    assert len(crystals) == 1
    assert [row.message for row in refused] == ["the archive holds this name twice"]


def test_a_swollen_member_costs_itself(tmp_path: Path, lower: Lower) -> None:
    bomb = gzip.compress(b" " * (limits.most("text") + 1))
    path = archive(tmp_path / "a.zip", {"b.cif": b" " * 10**8, "c.cif.gz": bomb, "d.cif": MGB2.read_bytes()})
    crystals, refused = files.read(path)
    assert crystals.ids.tolist() == ["file/a.zip/d.cif"]
    assert ["at most" in row.message or "the most" in row.message for row in refused] == [True, True]
    lower("members", 1)
    crystals, refused = files.read(path)
    assert len(crystals) == 0
    assert refused[-1].id == "file/a.zip"
    assert "2 files of an archive, at most 1 accepted" in refused[-1].message


@pytest.mark.parametrize("name", ["a.zip", "a.tgz"])
def test_what_only_calls_itself_an_archive_is_a_record(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("hello")
    crystals, refused = files.read(tmp_path / name)
    assert len(crystals) == 0
    assert [(row.id, row.reason) for row in refused] == [(f"file/{name}", Reason.UNREADABLE)]
    assert "torn or damaged" in refused[0].message


def test_an_archive_without_crystals_is_an_error(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"n.txt": b"no"})
    with pytest.raises(ValueError, match=r"a\.zip holds no structures; ignored: 1 \.txt"):
        files.read(path)


def test_json_is_bounded(tmp_path: Path, lower: Lower) -> None:
    (tmp_path / "a.json").write_text(structure_json())
    lower("json", 100)
    _, refused = files.read(tmp_path / "a.json")
    assert "more than 100 bytes of a JSON" in refused[0].message


def test_every_kind_has_a_reader_and_every_ending_a_row_in_the_documents() -> None:
    assert files.FORMATS.keys() | {Kind.OPTIMADE, Kind.PARQUET, Kind.ARCHIVE, Kind.ID_PROP} == set(Kind)
    table = (HERE.parents[1] / "docs" / "sources.md").read_text().partition("## Files, format by format")[2]
    rows = table.partition("**Not read:**")[0]
    assert [ending for ending in [*ENDINGS, *WHOLE_ENDINGS] if f"`{ending}`" not in rows] == []
