"""What `assay predict` takes beside plain files: standard input and patterns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pyarrow import csv
from typer.testing import CliRunner, Result

from assay.screening.commands import cli
from assay.sources import files

DATA = Path(__file__).resolve().parents[2] / "data"


def predict(zoo: Path, *arguments: str | Path, stdin: str = "") -> Result:
    return CliRunner().invoke(cli.app, ["predict", *map(str, arguments), "--model", str(zoo / "tc-fast")], input=stdin)


@pytest.mark.parametrize("text", ["", "hello\nworld\n", "1 2 3\n4 5 6\n", "[1, 2]", '{"a": 1}'])
def test_standard_input_without_crystals_is_one_clear_line(zoo: Path, text: str) -> None:
    done = predict(zoo, "-", stdin=text)
    assert isinstance(done.exception, ValueError)
    assert str(done.exception).startswith("standard input is ")


def test_files_stand_before_standard_input_and_a_bad_one_is_a_row(zoo: Path, tmp_path: Path) -> None:
    broken = (DATA / "broken.cif").read_text()
    done = predict(zoo, "-", DATA / "MgB2.cif", "--output", tmp_path / "p.csv", "--max-bad", "1", stdin=broken)
    assert done.exit_code == 0, done.output
    assert csv.read_csv(tmp_path / "p.csv")["id"].to_pylist() == ["file/MgB2.cif"]
    assert csv.read_csv(tmp_path / "p.quarantine.csv")["id"].to_pylist() == ["file/stdin"]


def test_a_pattern_names_files_and_a_bad_one_is_a_row(zoo: Path, tmp_path: Path) -> None:
    for name in ("a/one", "a/two", "b/deep/three"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "POSCAR").write_text((DATA / "Nb3Sn.vasp").read_text())
        (tmp_path / name / "INCAR").write_text("ENCUT = 520")
    (tmp_path / "a" / "two" / "POSCAR").write_text("torn\n1.0\n")
    crystals, refused = files.read(tmp_path / "a" / "*" / "POSCAR")
    assert crystals.ids.tolist() == ["file/one/POSCAR"]
    assert [row.id for row in refused] == ["file/two/POSCAR"]
    everything, _ = files.read(tmp_path / "**")
    assert everything.ids.tolist() == ["file/a/one/POSCAR", "file/b/deep/three/POSCAR"]
    done = predict(zoo, tmp_path / "*" / "**" / "POSCAR", "--max-bad", "0.5", "--output", tmp_path / "p.jsonl")
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["file/a/one/POSCAR", "file/b/deep/three/POSCAR"]
    with pytest.raises(ValueError, match=r"nothing in .* can be read; ignored: 2 INCAR"):
        files.read(tmp_path / "a" / "*" / "INC*")
    with pytest.raises(FileNotFoundError, match="no file or folder matches"):
        files.read(tmp_path / "*.cif")


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].cif").write_text((DATA / "MgB2.cif").read_text())
    assert files.read(tmp_path / "a[1].cif")[0].ids.tolist() == ["file/a[1].cif"]
