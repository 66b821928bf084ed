"""`assay predict` with several models, and the files that it writes."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from assay.models.ensemble import stored
from assay.models.ensemble.ensemble import Ensemble
from assay.screening.commands.cli import app
from assay.screening.prediction import describe, inputs, predict
from assay.screening.settings.exits import Exit, Failure
from assay.sources import files

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT / "tests" / "data"
PATHS = [DATA / "MgB2.cif", DATA / "La1.85Sr0.15CuO4.cif"]


@pytest.fixture(scope="module")
def fast() -> Ensemble:
    return inputs.load("tc-fast")


@pytest.fixture(scope="module")
def energy() -> Ensemble:
    return inputs.load("formation-energy")


def assay(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, words)])


def test_columns_of_several_models_stand_side_by_side(fast: Ensemble, energy: Ensemble) -> None:
    crystals, _ = files.read_many(PATHS)
    both = predict.predict(crystals, [fast, energy])
    alone = [predict.predict(crystals, [one]) for one in (fast, energy)]
    for one in alone:
        for name in set(one.table.column_names) - {"in_training", "ood", "ood_distance"}:
            assert both.table[name].equals(one.table[name]), name
    flags = [np.array(one.table["ood"].to_pylist()) for one in alone]
    assert both.table["ood"].to_pylist() == (flags[0] | flags[1]).tolist()
    assert [item.name for item in both.properties] == ["tc", "formation_energy"]
    assert both.table.column_names[-2:] == ["ood", "ood_distance"]


def test_two_models_of_one_property_are_told_apart(fast: Ensemble, tmp_path: Path) -> None:
    shutil.copytree(fast.folder, tmp_path / "mine")
    description = json.loads((tmp_path / "mine" / "ensemble.json").read_text())
    (tmp_path / "mine" / "ensemble.json").write_text(json.dumps(description | {"name": "my own"}))
    stored.seal(tmp_path / "mine")
    crystals, _ = files.read_many(PATHS)
    both = predict.predict(crystals, [fast, inputs.load(tmp_path / "mine")])
    assert [item.name for item in both.properties] == ["tc_fast_tc", "my_own_tc"]
    assert both.table["tc_fast_tc_mean"].equals(both.table["my_own_tc_mean"])
    assert "tc_mean" not in both.table.column_names
    assert [item.name for item in fast.properties] == ["tc"]


def test_models_that_cannot_be_told_apart_are_refused(fast: Ensemble, tmp_path: Path) -> None:
    crystals, _ = files.read_many(PATHS)
    with pytest.raises(Failure, match="is given twice; keep one") as failure:
        predict.predict(crystals, [fast, fast])
    assert failure.value.code is Exit.USAGE
    shutil.copytree(fast.folder, tmp_path / "copy")
    with pytest.raises(Failure, match="would both fill tc_fast_tc_mean"):
        predict.predict(crystals, [fast, inputs.load(tmp_path / "copy")])


def test_a_crystal_that_one_model_refuses_is_refused_once(fast: Ensemble, energy: Ensemble) -> None:
    crystals, _ = files.read_many(PATHS)
    frac = crystals.frac.copy()
    frac[:2] = 0.25  # two atoms at one place
    both = predict.predict(replace(crystals, frac=frac), [fast, energy])
    assert both.table["id"].to_pylist() == ["file/La1.85Sr0.15CuO4.cif"]
    assert [row.id for row in both.refused] == ["file/MgB2.cif"]
    assert both.crystals.ids.tolist() == ["file/La1.85Sr0.15CuO4.cif"]


def test_a_file_has_formulas_units_and_meanings(fast: Ensemble) -> None:
    written = predict.predict(files.read_many(PATHS)[0], [fast]).with_formulas()
    assert written.column_names[:3] == ["id", "formula", "tc_mean"]
    assert written["formula"].to_pylist() == ["MgB2", "Sr0.15La1.85CuO4"]
    told = {field.name: field.metadata for field in written.schema}
    assert {told[f"tc_{part}"][b"unit"] for part in ("mean", "std", "lo", "hi", "member_0")} == {b"K"}
    assert told["tc_std"][b"meaning"] == b"calibrated standard deviation"
    assert told["tc_member_1"][b"meaning"] == b"predicted by member 1 alone"
    assert told["tc_lo"][b"functional"] == b"measured"
    assert told["formula"][b"unit"] == b""
    assert all(metadata[b"meaning"] for metadata in told.values())


def test_the_command_uses_every_model_and_names_both_files(tmp_path: Path) -> None:
    words = [*PATHS, DATA / "broken.cif", "-m", "tc-fast", "-m", "formation-energy", "--max-bad", "0.5"]
    done = assay(*words, "-o", tmp_path / "p.csv")
    assert done.exit_code == 0, done.output
    with open(tmp_path / "p.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["formula"] for row in rows] == ["MgB2", "Sr0.15La1.85CuO4"]
    assert {"tc_mean", "formation_energy_mean"} <= rows[0].keys()
    assert f"2 predictions in {tmp_path}/p.csv" in done.output
    assert f"1 refused crystals, with the reasons, in {tmp_path}/p.quarantine.csv" in done.output
    assert (tmp_path / "p.quarantine.csv").read_text().splitlines()[0].startswith('"id","origin","stage","reason"')
    assert " tc " in done.stdout
    assert " formation_energy " in done.stdout


def test_a_second_run_leaves_no_quarantine_of_the_first(tmp_path: Path) -> None:
    words = ["-m", "tc-fast", "-o", tmp_path / "p.parquet", "--max-bad", "1"]
    assert assay(PATHS[0], DATA / "broken.cif", *words).exit_code == 0
    assert (tmp_path / "p.quarantine.parquet").exists()
    assert assay(PATHS[0], *words).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.parquet"]
    assert pq.read_table(tmp_path / "p.parquet").num_rows == 1


def test_an_unknown_ending_is_refused_before_any_work(tmp_path: Path) -> None:
    done = assay(tmp_path / "gone.cif", "-m", "no/such", "-o", tmp_path / "p.xlsx")
    assert isinstance(done.exception, Failure)
    assert done.exception.code is Exit.USAGE
    assert not list(tmp_path.iterdir())


def test_explain_takes_one_model_and_says_so() -> None:
    done = CliRunner().invoke(app, ["explain", "gone.cif", "-m", "tc-graphs", "-m", "tc-fast"])
    assert isinstance(done.exception, Failure)
    assert done.exception.code is Exit.USAGE
    assert "--model is given 2 times" in str(done.exception)


def test_a_note_of_several_models_does_not_speak_of_one(fast: Ensemble, energy: Ensemble) -> None:
    crystals, _ = files.read_many(PATHS[:1])
    (alone,) = describe.lines(predict.predict(crystals, [energy]), [energy])
    (both,) = describe.lines(predict.predict(crystals, [fast, energy]), [fast, energy])
    assert "composition in training" in alone
    assert "of one model at least" not in alone
    assert "composition in training (of one model at least)" in both
