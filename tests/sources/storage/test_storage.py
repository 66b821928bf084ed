"""Names of files, streams within bounds, folders and archives."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import socket
import tarfile
import zipfile
from pathlib import Path

import pytest

from assay.sources.checks.limits import Exceeded
from assay.sources.storage import archives, folders, opening
from assay.sources.storage.kinds import Kind, counted_as, kind_of
from tests.sources.conftest import Lower


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.CIF", Kind.CIF),
        ("a.mcif", Kind.CIF),
        ("deep/a.cif.gz", Kind.CIF),
        ("POSCAR", Kind.POSCAR),
        ("POSCAR.gz", Kind.POSCAR),
        ("CONTCAR_12.bz2", Kind.POSCAR),
        ("a.vasp.xz", Kind.POSCAR),
        ("a.extxyz.gz", Kind.XYZ),
        ("a.traj", Kind.TRAJECTORY),
        ("POSCAR.json", Kind.JSON),
        ("mp.optimade.jsonl.gz", Kind.OPTIMADE),
        ("a.parquet", Kind.PARQUET),
        ("POSCARs.tar.gz", Kind.ARCHIVE),
        ("a.tgz", Kind.ARCHIVE),
        ("a.cif.gz.gz", None),
        ("a.parquet.gz", None),
        ("a.gz", None),
        ("OUTCAR", None),
        ("poscar", Kind.POSCAR),
    ],
)
def test_the_name_says_the_kind(name: str, kind: Kind | None) -> None:
    assert kind_of(name) is kind


def test_what_is_not_read_is_counted_by_its_ending_or_its_name() -> None:
    names = ["a.TXT", "XDATCAR", "OUTCAR.gz", "b.db", "c.xml.gz", "deep/.git/config"]
    assert [counted_as(name) for name in names] == [".txt", "XDATCAR", "OUTCAR.gz", ".db", ".xml.gz", "hidden"]


@pytest.mark.parametrize(("ending", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_packed_files_are_unpacked_and_damage_is_told_in_plain_words(tmp_path: Path, ending: str, pack: object) -> None:
    packed = pack(b"data\n" * 20_000)  # type: ignore[operator]
    path = tmp_path / f"a.cif{ending}"
    path.write_bytes(packed)
    with opening.unpacked(path) as stream:
        assert opening.read_text(stream) == "data\n" * 20_000
    for damaged in (packed[:-12], b"no " + packed, b"x"):
        path.write_bytes(damaged)
        with opening.unpacked(path) as stream, pytest.raises(ValueError, match="the packed content is torn or damaged"):
            stream.read()


def test_a_text_is_bounded_after_unpacking(tmp_path: Path, lower: Lower) -> None:
    path = tmp_path / "a.cif.gz"
    path.write_bytes(gzip.compress(b"x" * 1001))
    lower("text", 1001)
    with opening.unpacked(path) as stream:
        assert len(opening.read_text(stream)) == 1001
    lower("text", 1000)
    with opening.unpacked(path) as stream, pytest.raises(Exceeded, match="more than 1,000 bytes of a CIF or POSCAR"):
        opening.read_text(stream)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_byte_order_marks_and_ends_of_lines(encoding: str) -> None:
    start = "\ufeff" if encoding == "utf-16-le" else ""
    content = (start + "é = 1\r\nb\rc\n").encode(encoding)
    assert opening.read_text(io.BytesIO(content)) == "é = 1\nb\nc\n"


def test_only_regular_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "p.cif")
    with socket.socket(socket.AF_UNIX) as held:
        monkeypatch.chdir(tmp_path)
        held.bind("s.cif")
        odd = {"p.cif": "a FIFO", "s.cif": "a socket", "/dev/zero": "a device", str(tmp_path): "a folder"}
        for path, said in odd.items():
            with pytest.raises(ValueError, match=f"is {said}.*expected a regular file"):
                opening.regular(Path(path))


def test_a_pipe_put_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = tmp_path / "a.cif", os.open

    def swapped(name: Path, flags: int) -> int:
        path.unlink()
        os.mkfifo(path)
        return real(name, flags)

    path.write_text("x")
    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises(ValueError, match="is a FIFO"):
        opening.regular(path)


def test_a_folder_is_listed_whole_and_once(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.cif").touch()
    (tmp_path / "a.cif").touch()
    (tmp_path / "aa").symlink_to("b")  # sorts before what it points to, which keeps its own name
    (tmp_path / "b" / "up").symlink_to("..")
    (tmp_path / "far").symlink_to("nowhere")
    (tmp_path / "self.cif").symlink_to("self.cif")
    os.mkfifo(tmp_path / "p.cif")
    os.mkfifo(tmp_path / "events")
    for name in ("n.txt", "m.TXT", "XDATCAR", ".hidden.cif"):
        (tmp_path / name).touch()
    listing = folders.walk(tmp_path)
    assert [label for _, label in listing.files] == ["a.cif", "b/x.cif"]
    assert [(label, why.partition(":")[0]) for _, label, why in listing.lost] == [
        ("far", "a broken link to nowhere"),
        ("p.cif", "a FIFO (named pipe), expected a regular file"),
        ("self.cif", "a broken link to self.cif"),
    ]
    assert folders.summary(listing.ignored) == (
        "2 .txt, 2 links to folders that are read already, 1 FIFO, 1 XDATCAR, 1 hidden"
    )


def test_a_link_to_a_folder_elsewhere_is_followed(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "x.cif").touch()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "more").symlink_to(tmp_path / "scratch")
    assert [label for _, label in folders.walk(tmp_path / "in").files] == ["more/x.cif"]


def test_a_folder_that_may_not_be_listed_is_lost_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def guarded(path: Path) -> object:
        if path.name == "closed":  # root may list everything, and the tests may run as root
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    (tmp_path / "closed").mkdir()
    monkeypatch.setattr(os, "scandir", guarded)
    assert [(label, why) for _, label, why in folders.walk(tmp_path).lost] == [
        ("closed", "cannot be listed: Permission denied")
    ]


def _zip(**members: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("folder")
        for name, text in members.items():
            archive.writestr(name, text)
    return content.getvalue()


def _tar(mode: str, **members: bytes) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:  # type: ignore[call-overload]
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        for name, text in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    return content.getvalue()


def read(content: bytes, name: str) -> dict[str, bytes]:
    found = {}
    for member in archives.members(io.BytesIO(content), name, len(content)):
        with member.open() as stream:
            found[member.name] = stream.read()
    return found


MANY = {f"m{n}": bytes([n]) * 3000 for n in range(50)}


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("a.zip", ""),
        ("a.tar", "w"),
        ("a.tgz", "w:gz"),
        ("a.tar.gz", "w:gz"),
        ("a.tar.bz2", "w:bz2"),
        ("A.TAR.XZ", "w:xz"),
    ],
)
def test_every_member_of_an_archive_comes_whole_and_links_do_not(name: str, mode: str) -> None:
    assert read(_tar(mode, **MANY) if mode else _zip(**MANY), name) == MANY


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_torn_archive_is_told_and_its_first_members_are_kept(name: str) -> None:
    whole = _zip(**MANY) if name == "a.zip" else _tar("w:gz", **{k: os.urandom(3000) for k in MANY})
    seen: dict[str, bytes] = {}
    half = whole[: len(whole) // 2]
    with pytest.raises(ValueError, match="torn or damaged"):
        seen.update((m.name, m.open().read()) for m in archives.members(io.BytesIO(half), name, len(half)))
    assert len(seen) < len(MANY)
    assert bool(seen) == (name != "a.zip")  # the table of contents of a zip stands at its end


def test_members_and_bytes_are_bounded(lower: Lower) -> None:
    lower("members", 49)
    with pytest.raises(Exceeded, match="50 files of an archive, at most 49 accepted"):
        read(_zip(**MANY), "a.zip")
    lower("members", 50)
    lower("archive", 100_000)
    for content, name in ((_zip(**MANY), "a.zip"), (_tar("w:gz", **MANY), "a.tgz"), (_tar("w", **MANY), "a.tar")):
        with pytest.raises(Exceeded, match="bytes of an archive, unpacked, at most 100,000 accepted"):
            read(content, name)
    lower("archive", 10_000_000)
    lower("members", 10_000)
    lower("contents", 200_000)
    with pytest.raises(Exceeded, match="at once.*at most 200,000 accepted"):
        read(_zip(**{"x" * 200 + str(n): b"" for n in range(2000)}), "a.zip")


def test_an_encrypted_member_is_a_clear_error() -> None:
    content = bytearray(_zip(a=b"text"))
    for mark in (b"PK\x03\x04", b"PK\x01\x02"):
        at = content.index(mark, content.index(b"folder")) + (6 if mark == b"PK\x03\x04" else 8)
        at = content.rindex(mark) + (6 if mark == b"PK\x03\x04" else 8)
        content[at] |= 1
    with pytest.raises(ValueError, match="cannot be unpacked .*encrypted"):
        read(bytes(content), "a.zip")
