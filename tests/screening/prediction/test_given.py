"""Values of an `id_prop.csv` beside predictions, and as reported columns of a campaign."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from assay.screening.commands import cli
from assay.screening.folder.results import Results
from assay.screening.prediction import describe, inputs
from assay.screening.pulling.kinds.files import FileSource
from tests.screening import small_campaign

DATA = Path(__file__).resolve().parents[2] / "data"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "cifs"
    place.mkdir()
    for name in ("MgB2.cif", "La1.85Sr0.15CuO4.cif", "Nb3Sn.vasp"):
        shutil.copy(DATA / name, place / name)
    (place / "id_prop.csv").write_text("MgB2,39\nNb3Sn.vasp,18.3\nnope,1\n")
    return place


def test_given_values_stand_beside_the_predictions(folder: Path, zoo: Path, tmp_path: Path) -> None:
    output = tmp_path / "predicted.parquet"
    words = ["predict", folder, "--model", zoo / "tc-fast", "--output", output, "--max-bad", "0.5"]
    done = CliRunner().invoke(cli.app, [*map(str, words)])
    assert done.exit_code == 0, done.output
    table = pq.read_table(output)
    assert table.schema.field("id_prop_1").metadata[b"meaning"] == b"value 1 of the crystal in id_prop.csv"
    rows = {row["formula"]: row for row in table.to_pylist()}
    assert {name: row["id_prop_1"] for name, row in rows.items() if row["id_prop_1"] == row["id_prop_1"]} == {
        "MgB2": 39.0,
        "Nb3Sn": 18.3,
    }
    shown = {line.split()[1]: line for line in done.stdout.splitlines()}
    assert "given 39" in shown["MgB2"]
    assert "given" not in shown["Sr0.15La1.85CuO4"]
    errors = [rows[name]["tc_mean"] - rows[name]["id_prop_1"] for name in ("MgB2", "Nb3Sn")]
    inside = sum(rows[name]["tc_lo"] <= rows[name]["id_prop_1"] <= rows[name]["tc_hi"] for name in ("MgB2", "Nb3Sn"))
    (line,) = [line for line in done.stderr.splitlines() if "MAE" in line]
    assert line.startswith("tc beside id_prop_1 of 2 crystals: MAE ")
    mae, mean = (float(part.rpartition(" ")[2]) for part in line.split(" K, ")[:2])
    assert np.isclose([mae, mean], [np.abs(errors).mean(), np.mean(errors)], rtol=1e-3).all()
    assert f"{inside} in their intervals" in line
    assert "file/id_prop.csv#3: malformed: line 3: no file 'nope', nor 'nope.cif' beside the list" in done.stderr


def test_two_values_are_columns_and_no_errors(folder: Path, zoo: Path) -> None:
    (folder / "id_prop.csv").write_text("MgB2,39,1\nNb3Sn.vasp,18.3,2\n")
    found = inputs.predict(folder, zoo / "tc-fast")
    assert found.table["id_prop_2"].to_pylist()[1:] == [1.0, 2.0]
    assert list(describe.compared(found)) == []


def test_a_campaign_reports_the_values_and_knows_the_list_by_its_content(
    folder: Path, zoo: Path, tmp_path: Path
) -> None:
    source = {"kind": "files", "paths": [str(folder)], "name": "a"}
    path = small_campaign.write_config(tmp_path, zoo / "tc-fast", sources=[source], max_bad=0.5)
    small_campaign.run(small_campaign.make(path))
    results = Results(tmp_path / "out")
    rows = {row["formula"]: row["id_prop_1"] for row in results.candidates().to_pylist()}
    assert (rows["MgB2"], rows["Nb3Sn"]) == (39.0, 18.3)
    assert rows["Sr0.15La1.85CuO4"] is None
    assert results.quarantine()["id"].to_pylist() == ["file/id_prop.csv#3"]
    given = FileSource(kind="files", paths=[str(folder)])
    alone = FileSource(kind="files", paths=[str(folder / "id_prop.csv")])
    before = given.stamp(), alone.content()
    assert sorted(before[1]) == ["0.id_prop.csv", "0.id_prop.csv/MgB2.cif", "0.id_prop.csv/Nb3Sn.vasp"]
    (folder / "id_prop.csv").write_text("MgB2,40\nNb3Sn.vasp,18.3\n")
    assert given.stamp() != before[0]
    after = alone.content()
    assert [name for name in after if after[name] != before[1][name]] == ["0.id_prop.csv"]
