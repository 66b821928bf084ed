"""How commands end: by signals, without a reader, with texts of others, without a home."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from assay.screening.settings.exits import Exit
from assay.screening.settings.printable import UNSEEN, escaped
from assay.sources import table
from assay.sources.crystals import Crystals
from tests.screening.conftest import ROOT, Command, last_line

FORGED = [
    "a\r   1  Unobtainium   300 ± 1  [299, 301]",
    "b\x1b[2K\x1b[31mred\x1b[0m",
    "c\u202egnp.exe\u202c",
    "d\n   1  Unobtainium",
    "e\u2028f\x9bm\x7f",
]


def test_the_table_of_exit_codes_is_that_of_the_program() -> None:
    rows = re.findall(r"^\| (\d+) \| ", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert rows == [str(int(code)) for code in sorted(Exit)]


def heeding() -> None:
    """Undo the deafness to Ctrl-C that a shell gives to jobs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def listening(child: subprocess.Popen[str]) -> bool:
    """Whether a process has its own handler of SIGTERM by now."""
    status = Path(f"/proc/{child.pid}/status").read_text()
    caught = int(re.findall(r"SigCgt:\s*([0-9a-f]+)", status)[0], 16)
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def wait_for(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 240
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    "words", [["predict", "{file}"], ["train", "train-tc", "-o", "t"], ["evaluate", "tc-fast", "-o", "e"]]
)
def test_a_signal_ends_every_command_with_85(
    assay: Command, real_file: Path, words: list[str], number: signal.Signals
) -> None:
    child = assay.start(*(word.format(file=real_file) for word in words), preexec_fn=heeding)
    wait_for(lambda: child.poll() is not None or listening(child))
    child.send_signal(number)
    _, errors = child.communicate(timeout=240)
    assert child.returncode == 85, errors
    assert last_line(errors) == "assay: stopped; what was committed is kept, run again to go on"
    assert "Traceback" not in errors


def test_sigterm_ends_the_processes_of_a_training_too(assay: Command, data: Path) -> None:
    words = ["train", "train-tc", "-o", "t", "--workers", "2"]
    assay.environment["ASSAY_DATA"] = str(data)
    child = assay.start(*words)

    def learners() -> list[int]:
        found = Path(f"/proc/{child.pid}/task/{child.pid}/children")
        return [int(pid) for pid in found.read_text().split()] if found.exists() else []

    wait_for(lambda: child.poll() is not None or len(learners()) >= 2)
    before = learners()
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=240)
    assert child.returncode == 85, errors
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in before))


@pytest.mark.parametrize(
    ("words", "code"), [(["--help"], 0), (["verify", "run"], 74), (["status", "run"], 0), (["status", "gone"], 78)]
)
def test_a_reader_that_goes_away_changes_no_exit_code(
    assay: Command, write_config: Callable[..., Path], words: list[str], code: int
) -> None:
    config = write_config([{"kind": "prototypes", "n": 3}], models=["tc-fast"])
    assert assay("run", config, "--output", "run").returncode == 0
    (assay.folder / "run" / "candidates.parquet").write_bytes(b"")
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "assay", *words]
    done = subprocess.run(
        command, cwd=assay.folder, env=assay.environment, stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert done.returncode == code, done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.parametrize("closed", [">&-", "<&- 2>&-"])
def test_a_stream_that_is_closed_changes_no_exit_code(assay: Command, closed: str) -> None:
    command = f"{sys.executable} -m assay status gone {closed}; code=$?; {sys.executable} -m assay --help {closed}"
    done = subprocess.run(
        ["sh", "-c", f"{command} && exit $code"],
        cwd=assay.folder,
        env=assay.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == Exit.CONFIG, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_no_file_takes_the_place_of_a_closed_stream(assay: Command) -> None:
    code = (
        "import os; from assay.screening.commands import terminal; terminal.set_up(); "
        "file = open('log', 'w'); os.write(2, b'noise'); print('done'); print(file.fileno() > 2, file=file)"
    )
    command = f'{sys.executable} -c "{code}" >&- 2>&-'
    assert subprocess.run(["sh", "-c", command], cwd=assay.folder, env=assay.environment, check=False).returncode == 0
    assert (assay.folder / "log").read_text() == "True\n"


def test_a_defect_is_1_and_keeps_its_traceback(assay: Command) -> None:
    code = "from assay.screening.commands import cli; cli.app = lambda **_: {}['a\\rb\\x1b']; cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=assay.environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == Exit.DEFECT
    assert last_line(done.stderr).startswith("KeyError: ")
    assert "Traceback" in done.stderr


@pytest.fixture
def forged(tmp_path: Path, real: Crystals) -> Path:
    """Crystals whose ids would move the cursor, or turn the direction of writing."""
    path = tmp_path / "forged.parquet"
    content = table.to_table(real[: len(FORGED)])
    table.write(content.set_column(0, "id", pa.array(FORGED)), path)
    return path


def seen_only(text: str) -> bool:
    return not any(c != "\n" and c in "".join(FORGED) and not c.isprintable() for c in text)


def test_ids_cannot_forge_a_line(assay: Command, write_config: Callable[..., Path], forged: Path) -> None:
    config = write_config({"kind": "files", "paths": [str(forged)]}, models=["tc-fast"])
    done = assay("run", config, "--output", "out")
    assert done.returncode == 0, done.stderr
    assert seen_only(done.stdout + done.stderr)
    assert len(done.stdout.splitlines()) == 1 + len(FORGED)
    report = (assay.folder / "out" / "report.html").read_text()
    assert seen_only(report)
    for name in FORGED:  # a note in brackets may follow the id
        assert any(line.partition("  (")[0].endswith(escaped(name)) for line in done.stdout.splitlines())
    assert sorted(table.read(assay.folder / "out" / "candidates.parquet")["id"].to_pylist()) == sorted(FORGED)


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl"])
def test_predictions_are_shown_and_written_without_unseen_characters(assay: Command, forged: Path, ending: str) -> None:
    done = assay("predict", forged, "--model", "tc-fast", "-o", f"p.{ending}")
    written = (assay.folder / f"p.{ending}").read_text()
    assert seen_only(done.stdout + written)
    assert len(done.stdout.splitlines()) == len(FORGED)
    if ending == "jsonl":  # the escapes are those of JSON, so that a reader gets the id as it was
        assert [json.loads(line)["id"] for line in written.splitlines()] == FORGED


def test_names_of_files_cannot_forge_a_message(assay: Command) -> None:
    done = assay("predict", f"x{FORGED[1]}.cif", "--model", "tc-fast")
    assert (done.returncode, seen_only(done.stderr)) == (78, True)
    assert "x" + escaped(FORGED[1]) in last_line(done.stderr)
    done = assay("run", "a", f"--{FORGED[1]}")
    assert (done.returncode, seen_only(done.stderr)) == (2, True)


def test_a_home_that_cannot_be_written_costs_one_line(assay: Command) -> None:
    """numba looks for its cache below the home only, as where Assay is installed for all users."""
    environment = assay.environment | {"HOME": "/proc/nowhere", "NUMBA_CACHE_LOCATOR_CLASSES": "UserWideCacheLocator"}
    environment.pop("XDG_CACHE_HOME", None)
    environment.pop("NUMBA_CACHE_DIR", None)
    command = [sys.executable, "-m", "assay", "predict", str(ROOT / "tests/data/MgB2.cif"), "--model", "tc-fast"]
    done = subprocess.run(command, cwd=assay.folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert "numba can keep compiled code neither beside Assay nor below /proc/nowhere" in line
    assert "set NUMBA_CACHE_DIR" in line


def test_every_unseen_category_is_escaped() -> None:
    assert {"Cc", "Cf"} <= UNSEEN
    assert escaped("é ₂ α·5H₂O 你好") == "é ₂ α·5H₂O 你好"
    for name in FORGED:
        assert escaped(name).isprintable()
        assert json.loads(f'"{escaped(name)}"') == name
