"""A file that takes too long, or that ends its reader, costs itself and no other file."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from assay.screening.pulling import reading
from assay.sources import files, table
from assay.sources.quarantine import Reason
from tests.chaos.processes import ROOT

FRAME = """1
Lattice="3.6 0 0 0 3.6 0 0 0 3.6" Properties=species:S:1:pos:R:3 energy={energy}
Cu 0 0 0
"""
HARM = """
import os, signal
from assay.sources import files
from assay.sources.checks import limits
limits.LIMITS["time"] = limits.Limit(1, "s", "of a test")
usual = files.FORMATS[files.Kind.XYZ]
def read(assembler, stream, label, origin):
    while "endless" in label:
        pass
    if "deadly" in label:
        os.kill(os.getpid(), signal.SIGKILL)
    return usual(assembler, stream, label, origin)
files.FORMATS[files.Kind.XYZ] = read
"""
"""Two names that stand for files on which a reader never ends, or dies."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "deadly", "endless", "z"):
        (tmp_path / f"{name}.xyz").write_text(FRAME.format(energy=1) * 3)
    return tmp_path


@pytest.mark.parametrize("size", [2, 100])
def test_it_gives_what_the_readers_give(folder: Path, size: int) -> None:
    crystals, _ = files.read(ROOT / "tests/data")
    table.write(table.to_table(crystals), folder / "t.parquet")
    for path in (folder, ROOT / "tests/data", folder / "t.parquet"):
        wanted, records = files.read(path)
        given = [block for block, _ in reading.blocks([str(path)], size)]
        assert max(len(some) for some, _ in given) <= size
        assert [name for some, _ in given for name in some.ids.tolist()] == wanted.ids.tolist()
        assert [record for _, some in given for record in some] == records


def test_files_that_do_not_end_or_that_end_their_reader_cost_themselves(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "START", reading.START.replace("reading.serve", f"{HARM}\nreading.serve"))
    monkeypatch.setattr(reading, "_idle", [])
    given = list(reading.blocks([str(folder / "z.xyz"), str(folder)], 2))
    assert [name for (some, _), _ in given for name in some.ids.tolist()] == [
        *("file/z.xyz", "file/z.xyz#2", "file/z.xyz#3"),
        *(f"file/{name}.xyz{number}" for name in ("a", "z") for number in ("", "#2", "#3")),
    ]
    records = [record for (_, some), _ in given for record in some]
    assert [(record.id, record.reason) for record in records] == [
        ("file/deadly.xyz", Reason.TOO_LARGE),
        ("file/endless.xyz", Reason.TOO_LARGE),
    ]
    assert "ended 2 times: SIGKILL" in records[0].message
    assert "more than 1 s of processor time" in records[1].message


def test_readers_that_ended_while_they_waited_cost_no_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_idle", [])
    waiting = [reading._Reader() for _ in range(3)]
    for reader in waiting:
        reader._process.kill()
        reader._process.wait()
    reading._idle[:] = waiting
    monkeypatch.setattr(reading._Reader, "alive", True)  # asked before the kernel has ended them
    (((crystals, refused), _),) = reading.blocks([str(folder / "a.xyz")], 9)
    assert (crystals.ids.tolist(), refused) == (["file/a.xyz", "file/a.xyz#2", "file/a.xyz#3"], [])


DEATH = """
import os, signal
from assay.sources.formats import parquet
usual = parquet.blocks
def blocks(path, *rest):
    for number, block in enumerate(usual(path, *rest)):
        if number == {number} and path.name == "deadly.parquet":
            os.kill(os.getpid(), signal.{signal})
        yield block
parquet.blocks = blocks
"""
"""A table whose reader ends before one of its blocks."""


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("signal_name", ["SIGKILL", "SIGXCPU"])
def test_a_table_that_ends_its_reader_half_way_is_told_and_costs_no_other_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, signal_name: str
) -> None:
    crystals, _ = files.read(folder)
    table.write(table.to_table(crystals), folder / "deadly.parquet")
    harm = DEATH.format(number=number, signal=signal_name)
    monkeypatch.setattr(reading, "START", reading.START.replace("reading.serve", f"{harm}\nreading.serve"))
    monkeypatch.setattr(reading, "_idle", [])
    paths = [str(folder / "a.xyz"), str(folder / "deadly.parquet"), str(folder / "z.xyz")]
    given = [block for block, _ in reading.blocks(paths, 4)]
    names = [name for some, _ in given for name in some.ids.tolist()]
    first = [f"file/a.xyz{n}" for n in ("", "#2", "#3")]
    assert names[:3] == first
    assert names[-3:] == [name.replace("a.xyz", "z.xyz") for name in first]
    assert names[3:-3] == crystals.ids.tolist()[: 4 * number]
    (record,) = [record for _, some in given for record in some]
    assert (record.origin, record.reason) == (str(folder / "deadly.parquet"), Reason.TOO_LARGE)


def test_an_error_is_raised_where_the_files_were_asked_for(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        list(reading.blocks([str(folder / "a.xyz"), str(folder / "absent.xyz")], 10))
    (folder / "b.xyz").write_text(FRAME.format(energy="low"))
    *_, (_, contradiction) = reading.blocks([str(folder / "a.xyz"), str(folder / "b.xyz")], 10)
    assert "column 'energy' holds a number in" in contradiction


def test_the_process_ends_with_the_one_that_started_it(folder: Path) -> None:
    program = (
        "import os, sys, time; from assay.screening.pulling import reading\n"
        "blocks = reading.blocks(sys.argv[1:], 2)\n"
        "next(blocks)\n"
        "print(*open(f'/proc/self/task/{os.getpid()}/children').read().split(), flush=True)\n"
        "time.sleep(60)"
    )
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        reader = int(parent.stdout.readline())
        os.kill(reader, signal.SIGTERM)  # as a scheduler tells a whole job to stop: the campaign decides
        os.kill(reader, signal.SIGINT)
        time.sleep(0.2)
        assert Path(f"/proc/{reader}").exists()
        parent.kill()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{reader}/exe").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
