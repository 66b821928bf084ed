"""A table is written as the name of its file says, or not at all."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assay.screening.prediction import output
from assay.screening.settings.exits import Exit, Failure

TABLE = pa.table(
    {"id": ["file/a,b.cif", 'file/"ü".cif'], "tc_mean": [1.25, float("nan")], "ood": [True, False]},
    schema=pa.schema(
        [
            pa.field("id", pa.string()),
            pa.field("tc_mean", pa.float64(), metadata={"unit": "K"}),
            pa.field("ood", pa.bool_()),
        ]
    ),
)


def test_parquet_keeps_units(tmp_path: Path) -> None:
    output.write(TABLE, tmp_path / "deep" / "p.parquet")
    back = pq.read_table(tmp_path / "deep" / "p.parquet")
    assert back.schema.field("tc_mean").metadata[b"unit"] == b"K"
    assert back["id"].to_pylist() == TABLE["id"].to_pylist()


def test_csv_is_csv(tmp_path: Path) -> None:
    output.write(TABLE, tmp_path / "p.CSV")
    with open(tmp_path / "p.CSV", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    assert rows == [["id", "tc_mean", "ood"], ["file/a,b.cif", "1.25", "true"], ['file/"ü".cif', "nan", "false"]]


def test_json_is_json_without_nan(tmp_path: Path) -> None:
    wanted = [
        {"id": "file/a,b.cif", "tc_mean": 1.25, "ood": True},
        {"id": 'file/"ü".cif', "tc_mean": None, "ood": False},
    ]
    output.write(TABLE, tmp_path / "p.json")
    assert json.loads((tmp_path / "p.json").read_text("utf-8"), parse_constant=pytest.fail) == wanted
    output.write(TABLE, tmp_path / "p.jsonl")
    assert [json.loads(line) for line in (tmp_path / "p.jsonl").read_text("utf-8").splitlines()] == wanted
    output.write(TABLE.slice(0, 0), tmp_path / "none.json")
    assert json.loads((tmp_path / "none.json").read_text()) == []


@pytest.mark.parametrize("name", ["p.xlsx", "p", "p.csv.gz", "p.pickle"])
def test_an_unknown_ending_is_refused_with_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(Failure, match=r"known endings are \.parquet, \.csv, \.json, \.jsonl") as failure:
        output.check(tmp_path / name)
    assert failure.value.code is Exit.USAGE


def test_only_predictions_are_replaced_by_predictions(tmp_path: Path) -> None:
    others = {
        "hull": ["id", "formula", "formation_energy_mean", "energy_above_hull", "competing_phases"],
        "unrankable": ["id", "formula", "elements", "nsites", "tc_mean", "tc_std"],
    }
    own = {"crystals": ["id", "formula", "tc_mean", "tc_std"]}
    own["formulas"] = ["id", "formula", "reported_formula", "tc_mean", "tc_std"]
    for ending in output.FORMATS:
        for name, columns in (others | own).items():
            content = pa.table({column: ["x"] for column in columns})
            output.write(content, tmp_path / f"{name}{ending}")
        for name in own:
            output.check(tmp_path / f"{name}{ending}")
        for name in others:
            with pytest.raises(Failure, match="something else than a table of assay predict") as failure:
                output.check(tmp_path / f"{name}{ending}")
            assert failure.value.code is Exit.CONFIG


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(Failure, match="is a folder"):
        output.check(tmp_path / "a.csv")
    output.check(tmp_path / "b.csv")
