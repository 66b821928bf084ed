"""`assay hull`: tables of known energies beside reference phases, on one functional alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from assay.screening.commands import cli
from assay.screening.settings.exits import Exit, Failure
from assay.sources import table

PBE = "PBE(+U), MP2020"


def written(path: Path, functional: str | None, **columns: list[object]) -> Path:
    content = pa.table({"id": [f"r{k}" for k in range(len(columns["formula"]))], **columns})
    place = content.schema.get_field_index("e")
    field = content.schema.field("e").with_metadata(
        {"unit": "eV/atom"} | ({"functional": functional} if functional else {})
    )
    table.write(content.set_column(place, field, content["e"]), path)
    return path


@pytest.fixture
def known(tmp_path: Path) -> str:
    """MgB2 and MgB4 at their formation energies."""
    path = written(tmp_path / "known.parquet", PBE, formula=["MgB2", "MgB4", "Mg", "B"], e=[-0.15, -0.13, 0.0, 0.0])
    return f"{path}#e"


def command(*words: object) -> tuple[int, str]:
    try:
        done = CliRunner().invoke(cli.app, ["hull", *map(str, words)], catch_exceptions=False)
    except Failure as failure:
        return failure.code, str(failure)
    return done.exit_code, done.output


def test_energies_and_phases_are_written_and_bad_rows_refused(tmp_path: Path, known: str) -> None:
    rows = {"formula": ["Mg2B4", "MgB", "Mg0.5Fe0.5B2", "no", "MgB4"], "e": [-0.10, -0.2, -0.1, -0.1, float("nan")]}
    given, output = written(tmp_path / "mine.parquet", PBE, **rows), tmp_path / "above.parquet"
    code, said = command(given, "--energy", "e", "--reference", known, "--output", output, "--max-bad", 0.5)
    assert code == 0, said
    found = pq.read_table(output).to_pylist()
    assert [row["id"] for row in found] == ["r0", "r1", "r2"]
    assert [row["formula"] for row in found][:2] == ["MgB2", "MgB"]
    assert [row["energy_above_hull"] for row in found] == pytest.approx([0.05, -0.0875, np.nan], nan_ok=True)
    assert [row["competing_phases"] for row in found][1:] == ["0.75 MgB2 + 0.25 Mg (MgB2, Mg)", None]
    assert pq.read_schema(output).field("energy_above_hull").metadata[b"functional"] == PBE.encode()
    refused = table.quarantine_rows(table.read(output.with_name("above.quarantine.parquet")))
    assert {row.id for row in refused} == {"r3", "r4"}
    assert "r1  MgB  -0.0875 eV/atom above  0.75 MgB2 + 0.25 Mg" in said
    code, said = command(given, "--energy", "e", "--reference", known)
    assert code == Exit.TOO_MANY_BAD
    assert "2 of 5 formulas could not be compared" in said


def test_a_csv_table_needs_a_functional_and_no_two_may_differ(tmp_path: Path, known: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("formula,e\nMgB2,-0.1\n")
    code, said = command(path, "--energy", "e", "--reference", known)
    assert code == Exit.CONFIG
    assert f"e of {path} names no functional; --functional '{PBE}', if it is that" in said
    code, said = command(path, "--energy", "e", "--reference", known, "--functional", PBE)
    assert code == 0
    assert "mine.csv/1  MgB2  0.05 eV/atom above  1 MgB2 (MgB2)" in said
    other = written(tmp_path / "other.parquet", "r2SCAN", formula=["MgB2"], e=[-0.1])
    code, said = command(other, "--energy", "e", "--reference", known)
    assert code == Exit.CONFIG
    assert "'r2SCAN', --reference" in said
    assert "not comparable" in said


def test_a_missing_column_is_named(tmp_path: Path, known: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("formula,e\nMgB2,-0.1\n")
    assert command(path, "--energy", "f", "--reference", known) == (
        Exit.CONFIG, f"{path} has no column 'f'; it has formula, e",
    )  # fmt: skip
    assert command(path, "--energy", "formula", "--reference", known)[0] == Exit.CONFIG


def test_predictions_are_not_replaced(tmp_path: Path, known: str) -> None:
    energies = written(tmp_path / "energies.parquet", PBE, formula=["MgB2"], e=[-0.1])
    mine = tmp_path / "predictions.csv"
    mine.write_text('"id","formula","tc_mean","tc_std"\n"file/MgO","MgO",1.0,2.0\n')
    before = mine.read_text()
    arguments = [energies, "--energy", "e", "--reference", known, "--output"]
    code, said = command(*arguments, mine)
    assert code == 78
    assert "holds something else than a table of assay hull" in said
    assert mine.read_text() == before
    for _ in range(2):  # its own table is replaced
        assert command(*arguments, tmp_path / "above.csv")[0] == 0
