"""What a file announces is held against its size, and whatever yields no crystal is a record.

The inputs are small and harmless to any program: a limit is lowered, or a number is a little beyond.
"""

from __future__ import annotations

import binascii
import gzip
import io
import json
import lzma
import re
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import ase.io
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase.build import bulk

from assay.sources import files
from assay.sources.checks import limits
from assay.sources.quarantine import Quarantined, Reason
from tests.sources.conftest import Lower

ROOT = Path(__file__).resolve().parents[2]
XYZ = '1\nLattice="3 0 0 0 3 0 0 0 3"{more}\nH 0 0 0\n'
CELL = "data_a\n" + "".join(f"_cell_length_{axis} 5\n" for axis in "abc")
SITES = "loop_\n_atom_site_label\n" + "".join(f"_atom_site_fract_{axis}\n" for axis in "xyz")
CIF = f"{CELL}{SITES}Na 0 0 0\n"
SHARED = SITES + "_atom_site_occupancy\n"
OPERATIONS = "loop_\n_space_group_symop_operation_xyz\n"
POSCAR = "x\n1.0\n5 0 0\n0 5 0\n0 0 5\n{symbols}\n{counts}\nDirect\n0 0 0\n"
ANNOUNCED = {"__ndarray__": [[10**9], "int64", [1]]}
STRUCTURE = {
    "lattice": {"matrix": [[3, 0, 0], [0, 3, 0], [0, 0, 3]]},
    "sites": [{"species": [{"element": "Fe", "occu": 1}], "abc": [0, 0, 0]}],
}


def one_record(path: Path) -> Quarantined:
    """The record of a file without crystals, read beside another one."""
    (path.parent / "good.cif").write_text(CIF)
    crystals, refused = files.read(path.parent)
    assert crystals.ids.tolist() == ["file/good.cif"]
    (record,) = refused
    return record


@pytest.mark.parametrize(
    ("name", "content", "limit", "most"),
    [
        ("a.extxyz", XYZ.format(more=" " * 200), "line", 100),
        ("a.cif", "#" + " " * 2000 + CIF, "text", 2000),
        ("a.cif", CIF.replace("loop_", "_b 1\nloop_\n_c\n_d\n1 2\nloop_"), "items", 7),
        ("a.cif", CELL + f"_{'n' * 40} 1\n" + CIF, "name", 30),
        ("a.cif", CELL + SITES + "Na 0 0 0\n" * 3, "rows", 2),
        ("a.cif", CELL + OPERATIONS + "x,y,z\n-x,-y,-z\n" + SITES + "Na 0 0 0\n", "operations", 1),
        ("a.cif", CELL + OPERATIONS + "x,y,z\n-x,-y,-z\n" + SITES + "Na .1 0 0\nNa .2 0 0\n", "images", 3),
        ("a.cif", CELL + OPERATIONS + "x,y,z\n-x,-y,-z\n" + SITES + "Na .1 0 0\nNa .2 0 0\n", "sites", 3),
        ("a.cif", CELL + SHARED + "Na .1 0 0 .1\n" * 4, "shares", 2),
        ("POSCAR", POSCAR.format(symbols="Na K Na", counts="1 0 0"), "kinds", 2),
        ("POSCAR", POSCAR.format(symbols="Na", counts="1 0 0"), "kinds", 2),
        ("a.json", json.dumps(STRUCTURE), "json", 50),
        ("a.json", json.dumps(STRUCTURE), "values", 8),
        ("a.jsonl", '{"type": "structures", "id": "1"}\n', "entry", 20),
        ("a.jsonl", '{"type": "structures", "id": [1, 2, 3]}\n', "entry values", 4),
    ],
)
def test_each_limit_costs_the_file_one_record_that_names_it(
    tmp_path: Path, lower: Lower, name: str, content: str, limit: str, most: int
) -> None:
    (tmp_path / name).write_text(content)
    lower(limit, most)
    record = one_record(tmp_path / name)
    assert record.reason is Reason.TOO_LARGE
    assert f"{most:,}" in record.message


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.extxyz", XYZ.replace("1", "1" * 17, 1).format(more=""), "1 of 11111111111111111 atoms"),
        ("POSCAR", POSCAR.format(symbols="Na", counts=10**9), "1000000000 positions are counted"),
        (
            "a.json",
            json.dumps({"numbers": ANNOUNCED, "positions": 0, "cell": 0}),
            "values",
        ),
        ("a.cif", CELL + OPERATIONS + "x, " * 500 + "\n" + SITES + "Na 0 0 0\n", "symmetry operation"),
    ],
)
def test_an_announced_number_is_held_against_what_follows(tmp_path: Path, name: str, content: str, told: str) -> None:
    (tmp_path / name).write_text(content)
    record = one_record(tmp_path / name)
    assert told in record.message


@pytest.mark.parametrize("amount", ["9" * 400, "9" * 400 + "/" + "9" * 400, "1e9", "9" * 12])
def test_a_formula_of_any_length_and_amount_costs_nothing_but_itself(tmp_path: Path, amount: str) -> None:
    text = CIF.replace("loop_", f"_chemical_formula_sum 'Na{amount}'\n_cell_formula_units_Z 4\nloop_")
    (tmp_path / "a.cif").write_text(text)
    crystals, _ = files.read(tmp_path)
    assert len(crystals) == 1


# Trajectories.


def trajectory(count: int, table: int, rest: bytes = b"") -> bytes:
    return b"- of UlmASE-Trajectory  " + struct.pack("<3q", 3, count, table) + rest


def frames(*places: int, frame: dict[str, object], size: int | None = None) -> bytes:
    body = json.dumps(frame).encode()
    head = struct.pack(f"<{len(places)}q", *places)
    return trajectory(len(places), 48, head + struct.pack("<q", len(body) if size is None else size) + body)


FRAME: dict[str, object] = {"pbc": [True] * 3, "numbers": [11], "positions": [[0.0] * 3], "cell": np.eye(3).tolist()}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (trajectory(10**12, 48), "1,000,000,000,000 frames: 8,000,000,000,000 bytes at 48 are announced"),
        (trajectory(-1, 48), "announced"),
        (trajectory(1, 2**62), "announced"),
        (frames(56, frame=FRAME, size=10**12), "1,000,000,000,000 bytes"),
        (frames(64, 64, frame=FRAME), "several stand at one place"),
        (frames(56, frame={**FRAME, "positions.": {"ndarray": [[10**9, 3], "float64", 0]}}), "24,000,000,000 bytes"),
        (frames(56, frame={**FRAME, "positions.": {"ndarray": [[1, 3], "S100000000", 0]}}), "no array of numbers"),
        (frames(56, frame={**FRAME, "numbers.": {"ndarray": [[-1, -8], "int64", 0]}}), "no array of numbers"),
        (
            frames(56, frame={**FRAME, **{f"{n}.": {"ndarray": [[25], "f8", 0]} for n in ("positions", "cell")}}),
            "more bytes together than the file has",
        ),
    ],
)
def test_a_trajectory_that_announces_more_than_it_holds(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "a.traj").write_bytes(content)
    record = one_record(tmp_path / "a.traj")
    assert (record.id, record.reason) == ("file/a.traj", Reason.UNREADABLE)
    assert told in record.message


def test_a_trajectory_without_its_first_frame_is_told_frame_by_frame(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.traj", [bulk("Na")] * 3)
    content = bytearray((tmp_path / "a.traj").read_bytes())
    content[content.index(b'{"') :][:1] = b"x"
    at = content.index(b'{"version"')
    content[at : at + 1] = b"x"
    (tmp_path / "a.traj").write_bytes(content)
    crystals, refused = files.read(tmp_path / "a.traj")
    assert len(crystals) == 0
    assert [row.id for row in refused] == ["file/a.traj", "file/a.traj#2", "file/a.traj#3"]


# Packed files and tables.


def test_an_xz_that_announces_a_large_dictionary_is_not_unpacked(tmp_path: Path) -> None:
    content = bytearray(lzma.compress(CIF.encode()))
    size = (content[12] + 1) * 4
    content[16] = 32  # a dictionary of 256 MiB, one step beyond what the limit leaves
    content[12 + size - 4 : 12 + size] = struct.pack("<I", binascii.crc32(bytes(content[12 : 12 + size - 4])))
    (tmp_path / "a.cif.xz").write_bytes(content)
    record = one_record(tmp_path / "a.cif.xz")
    assert record.reason is Reason.TOO_LARGE
    assert "bytes of memory to unpack xz" in record.message


def test_xz_streams_one_after_the_other_are_one_file(tmp_path: Path) -> None:
    parts = [lzma.compress(part.encode()) for part in (CIF, CIF.replace("data_a", "data_b"))]
    (tmp_path / "a.cif.xz").write_bytes(parts[0] + b"\0" * 4 + parts[1])
    crystals, refused = files.read(tmp_path)
    assert (len(crystals), refused) == (2, [])


def test_a_packed_file_may_not_swell_beyond_its_ratio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FREE", 10_000)
    for ending, pack in ((".xz", lzma.compress), (".gz", gzip.compress)):
        path = tmp_path / f"a.extxyz{ending}"
        path.write_bytes(pack(b"\n" * 200_000))
        record = one_record(path)
        assert record.reason is Reason.TOO_LARGE
        assert "100 times its packed size" in record.message
        path.unlink()


def test_a_way_of_packing_that_takes_what_memory_it_likes_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as made:
        made.writestr("a.cif", CIF)
    assert "compression type 14" in one_record(tmp_path / "a.zip").message


def table(rows: int, sites: int) -> pa.Table:
    columns = {"lattice": [3.0, 0, 0, 0, 3, 0, 0, 0, 3], "frac_coords": [0.0] * 3 * sites}
    columns["atomic_numbers"] = [1.0] * sites
    lists = {name: pa.array([value] * rows, pa.list_(pa.float64())) for name, value in columns.items()}
    return pa.table({"id": pa.array(["a"] * rows), **lists})


@pytest.mark.parametrize(("rows", "sites"), [(3000, 1), (2, 3000)])
def test_rows_and_lists_of_a_table_are_counted_before_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lower: Lower, rows: int, sites: int
) -> None:
    monkeypatch.setattr(limits, "FREE", 10_000)
    lower("cells", 5)
    pq.write_table(table(rows, sites), tmp_path / "a.parquet")
    monkeypatch.setattr(pq.ParquetFile, "read", lambda *_, **__: pytest.fail("it was expanded"))
    record = one_record(tmp_path / "a.parquet")
    assert record.reason is Reason.TOO_LARGE
    assert "bytes per byte of a Parquet file" in record.message


# Many structures, refusals and columns.


def test_a_file_of_many_structures_is_read_up_to_the_limit(tmp_path: Path, lower: Lower) -> None:
    (tmp_path / "a.extxyz").write_text(XYZ.format(more="") * 5)
    lower("structures", 3)
    crystals, refused = files.read(tmp_path)
    assert crystals.ids.tolist() == ["file/a.extxyz", "file/a.extxyz#2", "file/a.extxyz#3"]
    assert [(row.id, row.reason) for row in refused] == [("file/a.extxyz#4", Reason.TOO_LARGE)]
    assert "this structure and all after it are not read" in refused[0].message


@pytest.mark.parametrize(("name", "bad"), [("a.extxyz", "0\n\n"), ("a.jsonl", "1\n")])
def test_a_file_of_refused_structures_is_left(tmp_path: Path, lower: Lower, name: str, bad: str) -> None:
    (tmp_path / name).write_text(bad * 5000)
    lower("refused", 7)
    _, refused = files.read(tmp_path)
    assert len(refused) <= 1008  # entries are judged a thousand at once
    assert refused[-1].reason is Reason.TOO_LARGE
    assert len({row.id for row in refused}) == len(refused)


def test_a_refusal_after_the_reading_counts_for_no_limit(tmp_path: Path, lower: Lower) -> None:
    (tmp_path / "a.extxyz").write_text(XYZ.format(more="").replace("3 0 0 0", "900 0 0 0") * 9)
    lower("refused", 7)
    crystals, refused = files.read(tmp_path)
    assert (len(crystals), len(refused)) == (0, 9)


def test_different_columns_of_all_structures_are_bounded(tmp_path: Path, lower: Lower) -> None:
    (tmp_path / "a.extxyz").write_text("".join(XYZ.format(more=f" k{number}=1") for number in range(5)))
    lower("columns", 3)
    crystals, refused = files.read(tmp_path)
    assert (len(crystals), set(crystals.columns)) == (3, {"k0", "k1", "k2"})
    assert [row.reason for row in refused] == [Reason.TOO_LARGE] * 2


# Whatever yields no crystal.


def empty_archive() -> bytes:
    made = io.BytesIO()
    tarfile.open(fileobj=made, mode="w").close()
    return made.getvalue()


def empty_table() -> bytes:
    made = io.BytesIO()
    pq.write_table(table(1, 1).slice(0, 0), made)
    return made.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.cif", b""),
        ("a.cif", b"data_a\n_cell_length_a 5\n"),
        ("a.mcif", b"\n"),
        ("a.extxyz", b""),
        ("a.xyz", b"\n\n"),
        ("POSCAR", b""),
        ("a.json", b""),
        ("a.jsonl", b""),
        ("a.optimade.jsonl", b'{"x-optimade": {"meta": {"api_version": "1.1.0"}}}\n'),
        ("a.traj", b""),
        ("a.tar", empty_archive()),
        ("a.tgz", b""),
        ("a.zip", b"PK\x05\x06" + bytes(18)),
        ("a.parquet", empty_table()),
        ("a.parquet", b""),
        ("a.cif.gz", b""),
        ("a.cif.xz", b""),
    ],
)
def test_what_yields_no_crystal_is_one_record(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    record = one_record(tmp_path / name)
    assert record.id == f"file/{name}"
    assert record.reason is Reason.UNREADABLE
    assert record.message


def test_a_link_that_leads_nowhere_and_an_archive_of_other_files_are_records(tmp_path: Path) -> None:
    (tmp_path / "link.cif").symlink_to("nowhere")
    with zipfile.ZipFile(tmp_path / "notes.zip", "w") as made:
        made.writestr("a.txt", "text")
    (tmp_path / "good.cif").write_text(CIF)
    crystals, refused = files.read(tmp_path)
    assert len(crystals) == 1
    assert sorted(row.id for row in refused) == ["file/link.cif", "file/notes.zip"]


# Time: steps of the readers, counted.


def steps(path: Path) -> int:
    """Calls of functions, in Python and in C, that the reading of a file takes."""
    count = 0

    def tally(*_: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(tally)
    try:
        files.read(path)
    finally:
        sys.setprofile(None)
    return count


GROWING: dict[str, Callable[[int], str]] = {
    "frames.extxyz": lambda n: XYZ.format(more="") * n,
    "pairs.extxyz": lambda n: XYZ.format(more="".join(f" k{k}=1" for k in range(n))),
    "quotes.extxyz": lambda n: XYZ.format(more=" '" * n),
    "atoms.xyz": lambda n: XYZ.format(more="").replace("1", str(n), 1) + "H 0 0 0\n" * (n - 1),
    "blocks.cif": lambda n: CIF * n,
    "values.cif": lambda n: CELL + "loop_\n_a\n" + "1 " * n + "\n" + SITES + "Na 0 0 0\n",
    "open.cif": lambda n: CELL + "_a " + "'b " * n + "\n" + SITES + "Na 0 0 0\n",
    "torn-operation.cif": lambda n: CELL + OPERATIONS + "x, " * n + "\n" + SITES + "Na 0 0 0\n",
    "many.POSCAR": lambda n: POSCAR.format(symbols="Na", counts="1") * n,
    "labels.POSCAR": lambda n: POSCAR.format(symbols=" ".join(f"D_{k}" for k in range(n)), counts="1 " * n),
    "list.json": lambda n: json.dumps([STRUCTURE] * n),
    "entries.jsonl": lambda n: "1\n" * n,
}


@pytest.mark.parametrize("name", GROWING)
def test_twice_the_file_takes_twice_the_steps(tmp_path: Path, name: str) -> None:
    counts = []
    for size in (200, 200, 400):  # the first reading fills caches
        (tmp_path / name).write_text(GROWING[name](size))
        counts.append(steps(tmp_path / name))
    assert counts[2] < 2.3 * counts[1]


def test_a_quotation_mark_that_is_never_closed_is_looked_for_once(tmp_path: Path) -> None:
    """Each of the open marks scanned the rest of its line: 0.1 MB took minutes."""
    (tmp_path / "a.cif").write_text(CELL + "_a " + "'b " * 2000 + "\n" + SITES + "Na 0 0 0\n")
    searches = 0

    def tally(_: object, event: str, what: object) -> None:
        nonlocal searches
        searches += event == "c_call" and getattr(what, "__name__", "") == "search"

    sys.setprofile(tally)
    try:
        files.read(tmp_path / "a.cif")
    finally:
        sys.setprofile(None)
    assert 2000 < searches < 2200  # one for each word, not one more for each mark


# The table.


def test_each_limit_is_documented_and_used() -> None:
    documents = (ROOT / "docs" / "sources.md").read_text()
    code = "".join(path.read_text() for path in (ROOT / "sources").rglob("*.py"))
    for name, limit in limits.LIMITS.items():
        assert f"| {limit.most:,} | {limit.unit} |" in documents, name
        assert re.search(rf'"{name}"[,)]', code.replace(f'    "{name}": Limit', "")), name
