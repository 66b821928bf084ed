"""Every `--output` obeys one rule: nothing is overwritten or deleted that the same command did not make."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.screening.conftest import ROOT, Command, last_line

MGB2 = ROOT / "tests" / "data" / "MgB2.cif"
COMMANDS = {
    "run": ["run", "{config}"],
    "pull": ["pull", "{config}"],
    "dry run": ["run", "{config}", "--dry-run"],
    "train": ["train", "train-tc"],
    "resume": ["train", "train-tc", "--resume"],
    "evaluate": ["evaluate", "tc-fast"],
    "explain": ["explain", str(MGB2), "--model", "tc-fast"],
    "render": ["render", str(MGB2)],
    "study": ["study", "study-tc"],
    "tune": ["tune", "tune-tc"],
    "model import": ["model", "import", "gone.zip", "--property", "gap", "--unit", "eV"],
}


@pytest.fixture
def config(write_config: Callable[..., Path]) -> Path:
    return write_config({"kind": "files", "paths": [str(MGB2)]})


def words(command: str, config: Path) -> list[str]:
    return [text.format(config=config) for text in COMMANDS[command]]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_holds_something_else_is_refused(assay: Command, config: Path, command: str) -> None:
    mine = assay.folder / "mine" / "sub" / ".thesis.tmp"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")
    done = assay(*words(command, config), "--output", "mine")
    assert done.returncode == 78, done.stderr
    assert "mine is not empty (sub) and holds no" in last_line(done.stderr)
    assert [path for path in (assay.folder / "mine").rglob("*") if path.is_file()] == [mine]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("empty", ["", " \t"])
def test_an_empty_name_is_not_the_current_folder(assay: Command, config: Path, command: str, empty: str) -> None:
    before = set(assay.folder.rglob("*"))
    done = assay(*words(command, config), "--output", empty)
    assert done.returncode == 2
    assert "names nothing" in last_line(done.stderr)
    assert set(assay.folder.rglob("*")) == before


def test_the_current_folder_is_named_by_its_path_only(assay: Command, config: Path, tmp_path: Path) -> None:
    assay.folder = tmp_path / "empty"
    assay.folder.mkdir()
    done = assay("run", config, "--output", ".")
    assert (done.returncode, list(assay.folder.iterdir())) == (78, [])
    assert "is the current folder; name a folder of its own" in last_line(done.stderr)
    assert assay("run", config, "--output", assay.folder).returncode == 0
    assert assay("run", config, "--output", ".").returncode == 0  # it holds this campaign by now


def test_an_empty_name_in_a_config_is_refused(assay: Command, config: Path) -> None:
    done = assay("run", config, "--set", "output=' '")
    assert done.returncode == 78
    assert "output" in last_line(done.stderr)
    assert "must name a folder" in last_line(done.stderr)


def test_an_output_that_is_not_named_is_the_default(assay: Command) -> None:
    assert assay("render", MGB2).returncode == 0
    assert list((assay.folder / "runs" / "render").glob("*.png"))


def test_a_command_goes_on_in_its_own_folder_only(assay: Command) -> None:
    assert assay("render", MGB2, "--output", "pictures").returncode == 0
    assert assay("render", MGB2, "--output", "pictures").returncode == 0
    done = assay("explain", MGB2, "--model", "tc-fast", "--output", "pictures")
    assert done.returncode == 78
    assert "holds nothing that assay explain made" in last_line(done.stderr)


@pytest.mark.parametrize("ending", ["parquet", "csv", "json", "jsonl"])
def test_predictions_replace_predictions_and_nothing_else(assay: Command, ending: str) -> None:
    given = [MGB2, ROOT / "tests" / "data" / "broken.cif", "--model", "tc-fast", "--max-bad", "1"]
    beside = assay.folder / f"p.quarantine.{ending}"
    assert assay("predict", *given, "-o", f"p.{ending}").returncode == 0
    assert beside.is_file()
    assert assay("predict", MGB2, "--model", "tc-fast", "-o", f"p.{ending}").returncode == 0
    assert not beside.exists()  # nothing was refused this time
    for place in (beside, assay.folder / f"p.{ending}"):
        place.write_text("mine\n")
        done = assay("predict", MGB2, "--model", "tc-fast", "-o", f"p.{ending}")
        assert done.returncode == 78
        assert f"{place.name} is there and holds something else" in last_line(done.stderr)
        assert place.read_text() == "mine\n"
        place.unlink()


def test_predictions_do_not_replace_their_input(assay: Command, real_file: Path) -> None:
    copy = assay.folder / "crystals.parquet"
    copy.write_bytes(real_file.read_bytes())
    done = assay("predict", "crystals.parquet", "--model", "tc-fast", "-o", "./crystals.parquet")
    assert done.returncode == 78
    assert "is one of the files to read" in last_line(done.stderr)
    assert copy.read_bytes() == real_file.read_bytes()


def test_two_live_campaigns_one_below_the_other(assay: Command, write_config: Callable[..., Path]) -> None:
    """The parent begins, is stopped and goes on while a campaign in a child folder is at work."""
    config = write_config([{"kind": "prototypes", "n": 3000}], chunk_size=10, models=["tc-fast"])
    parent, child = assay.folder / "a", assay.folder / "a" / "b"
    for place in (parent, child):
        first = assay.start("run", config, "--output", place)
        _wait(lambda place=place: len(list((place / "log").glob("*.json"))) > 8)
        first.send_signal(signal.SIGTERM if place == parent else signal.SIGSTOP)
        if place == parent:
            assert first.wait(240) == 85
    writing = child / "log" / ".00000999.json.1.0a0b0c0d.tmp"
    writing.touch()
    assert assay("run", config, "--output", parent).returncode == 0
    assert writing.exists()  # the parent swept its own folders while the child was at work
    first.send_signal(signal.SIGCONT)
    assert first.wait(240) == 0
    results = [(place / "candidates.parquet").read_bytes() for place in (parent, child)]
    assert results[0] == results[1]
    for place in (parent, child):
        assert assay("verify", place).returncode == 0
    assert "foreign: b/ is no file of this campaign" in assay("verify", parent).stdout
    assert "litter" not in assay("verify", parent).stdout
    assert "litter: log/.00000999.json.1.0a0b0c0d.tmp was left" in assay("verify", child).stdout


def _wait(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 240
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)
