"""Formulas without a structure: `assay predict --formula`, a column of a table, and the Python API."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from hypothesis import given, strategies as st
from typer.testing import CliRunner

import assay
from assay.models.ensemble.ensemble import Ensemble
from assay.screening.commands.cli import app
from assay.screening.prediction import formulas, inputs
from assay.screening.settings.exits import Exit, Failure, explain
from assay.sources.crystals import Crystals
from assay.sources.formats import formula_tables
from assay.sources.formulas import placed

WITHOUT = "predicted from the formula alone, without a structure"
CIF = Path(__file__).resolve().parents[2] / "data" / "MgB2.cif"


def predict(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, words)])


def refusal(*words: str | Path) -> tuple[int, str]:
    """Exit code and text of a command that ends with an error."""
    result = predict(*words)
    assert isinstance(result.exception, Exception)
    failure = explain(result.exception)
    assert failure is not None, result.exception
    return failure.code, f"{result.output}{failure}"


def test_a_formula_is_predicted_as_a_crystal_of_its_composition(blind: Path, crystals: Crystals) -> None:
    some = crystals[::7]
    known = assay.predict(some, blind)
    found = assay.predict_formulas(some.formulas().tolist(), blind)
    assert len(found) == len(known) == len(some)
    assert found.formulas().tolist() == known.formulas().tolist()
    for name in ("formation_energy_mean", "formation_energy_std", "formation_energy_member_1", "ood", "ood_distance"):
        np.testing.assert_allclose(
            np.array(found.table[name].to_pylist(), float), np.array(known.table[name].to_pylist(), float), atol=1e-6
        )


def test_the_output_says_that_there_is_no_structure(blind: Path, tmp_path: Path) -> None:
    result = predict(
        "--formula", "YBa2Cu3O6.9", "--formula", "CaSO4.2H2O", "--model", blind, "--output", tmp_path / "p.csv"
    )
    assert result.exit_code == 0, result.output
    assert "2 formulas predicted, all without structures" in result.output
    assert result.output.count(WITHOUT) == 2
    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["YBa2Cu3O6.9", "CaSO4.2H2O"]
    assert [row["formula"] for row in rows] == ["Ba2YCu3O6.9", "CaH4SO6"]
    assert [row["reported_formula"] for row in rows] == ["YBa2Cu3O6.9", "CaSO4.2H2O"]
    assert [row["warnings"] for row in rows] == [WITHOUT, f"{WITHOUT}; read as CaSO4\u00b72H2O"]
    assert all(float(row["formation_energy_lo"]) <= float(row["formation_energy_mean"]) for row in rows)
    assert not (tmp_path / "p.quarantine.csv").exists()


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_column_of_a_table_is_predicted_row_by_row(blind: Path, tmp_path: Path, ending: str) -> None:
    path, texts = tmp_path / f"mine{ending}", ["MgB2", "O7-d", "", "NaN", "MGB2", "MgB2", "InF", "1e5", "Og2"]
    table = pa.table({"note": list(range(len(texts))), "Formula": texts})
    if ending == ".csv":
        rows = "\n".join(f"{note},{text}" for note, text in enumerate(texts))
        path.write_text(f"note,Formula\n{rows}\n")
    else:
        pq.write_table(table, path)
    out = tmp_path / "p.parquet"
    result = predict(path, "--formulas", "Formula", "--model", blind, "--output", out, "--max-bad", "1")
    assert result.exit_code == 0, result.output
    good, bad = pq.read_table(out).to_pylist(), pq.read_table(tmp_path / "p.quarantine.parquet").to_pylist()
    assert [row["reported_formula"] for row in good] == ["MgB2", "NaN", "MgB2", "InF"]
    assert [row["id"] for row in good] == [f"mine{ending}/{row}" for row in (1, 4, 6, 7)]
    assert {row["id"]: row["reason"] for row in bad} == {
        f"mine{ending}/2": "malformed",
        f"mine{ending}/3": "malformed",
        f"mine{ending}/5": "malformed",
        f"mine{ending}/8": "malformed",
        f"mine{ending}/9": "unknown_species",
    }
    assert "'O7-d': position 3: " in bad[0]["message"]
    assert "did you mean MgB2?" in bad[2]["message"]
    assert "NaN is read as Na and N" in good[1]["warnings"]
    assert bad[0]["origin"] == str(path)
    assert len(good) + len(bad) == len(texts)
    assert good[0]["formation_energy_mean"] == good[2]["formation_energy_mean"]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_texts_of_any_kind_are_read(blind: Path, tmp_path: Path, kind: pa.DataType) -> None:
    pq.write_table(pa.table({"f": pa.array(["MgB2", None, "NbN"]).cast(kind)}), tmp_path / "t.parquet")
    found = formulas.predict(formulas.joined([], [tmp_path / "t.parquet"], "f"), [inputs.load(blind)])
    assert found.formulas().tolist() == ["MgB2", "NbN"]
    assert [row.id for row in found.refused] == ["t.parquet/2"]


def test_an_empty_line_of_one_column_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\n\r\nf\nMgB2\n\nNbN\r\n\r\n")
    found = formula_tables.read(path, "f")
    assert found.texts == ["MgB2", "", "NbN", ""]
    assert found.ids == [f"t.csv/{row}" for row in (1, 2, 3, 4)]
    path.write_text("f,n\nMgB2,1\n\nNbN,2\n")  # of several columns it is no row
    assert formula_tables.read(path, "f").texts == ["MgB2", "NbN"]


def test_a_formula_that_comes_again_is_predicted_once(blind: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ensemble, seen = inputs.load(blind), []

    def predicted(self: Ensemble, batch: Crystals) -> Any:
        seen.append(len(batch))
        return original(self, batch)

    original = Ensemble.predict
    monkeypatch.setattr(Ensemble, "predict", predicted)
    texts = ["MgB2", "O7-d", "NbN", "Og2", "CaSO4.2H2O"] * 400
    found = assay.predict_formulas(texts, ensemble)
    assert sum(seen) == 4
    assert found.table["reported_formula"].to_pylist() == ["MgB2", "NbN", "CaSO4.2H2O"] * 400
    assert found.formulas().tolist() == ["MgB2", "NbN", "CaH4SO6"] * 400
    assert found.table["id"].to_pylist()[:4] == ["MgB2", "NbN", "CaSO4.2H2O", "MgB2#2"]
    assert [row.id for row in found.refused][:3] == ["O7-d", "Og2", "O7-d#2"]
    assert len(found.refused) == 800
    assert found.atoms is not None
    assert found.atoms.shape == (1200, 119)
    monkeypatch.setattr(formulas, "DISTINCT", 2)
    assert assay.predict_formulas(texts, ensemble).table.equals(found.table)


def test_of_formulas_that_were_refused_the_text_speaks_of_formulas(blind: Path, tmp_path: Path) -> None:
    code, text = refusal("--formula", "MgB2", "--formula", "O7-d", "--model", blind, "-o", tmp_path / "p.csv")
    assert code == Exit.TOO_MANY_BAD
    assert "1 of 2 formulas could not be predicted" in text
    assert "1 refused formulas, with the reasons" in text
    assert "crystal" not in text
    assert "field" not in text


def test_a_table_without_rows_is_no_fault(blind: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("f\n")
    result = predict(tmp_path / "t.csv", "--formulas", "f", "--model", blind, "--output", tmp_path / "p.parquet")
    assert result.exit_code == 0, result.output
    assert pq.read_table(tmp_path / "p.parquet").num_rows == 0


def test_ids_of_a_table_are_kept_where_they_are_distinct(blind: Path, tmp_path: Path) -> None:
    for ids, expected in ((["a", "b"], ["a", "b"]), (["a", "a"], ["t.csv/1", "t.csv/2"])):
        (tmp_path / "t.csv").write_text(f"id,f\n{ids[0]},MgB2\n{ids[1]},NbN\n")
        found = formulas.predict(formulas.joined([], [tmp_path / "t.csv"], "f"), [inputs.load(blind)])
        assert found.table["id"].to_pylist() == expected


def test_repeated_formulas_have_ids_of_their_own(blind: Path) -> None:
    found = assay.predict_formulas(["MgB2", "MgB2#2", "MgB2", "NbN", "MgB2"], blind)
    assert found.table["id"].to_pylist() == ["MgB2", "MgB2#3", "NbN", "MgB2#4"]
    assert [row.id for row in found.refused] == ["MgB2#2"]
    assert "without a structure" in str(found)


def test_an_ensemble_that_reads_graphs_refuses_formulas_and_says_what_would_do(blind: Path) -> None:
    code, text = refusal("--formula", "MgB2", "--model", "tc-fast")
    assert code == Exit.CONFIG
    assert "\n" not in text
    assert "model tc-fast predicts no formulas: 2 of its 2 members read the structure" in text
    assert "whose members all read the composition" in text
    with pytest.raises(Failure, match="members read the structure"):
        assay.predict_formulas("MgB2", "formation-energy")
    assert refusal("--formula", "MgB2", "--model", blind, "--model", "tc-fast")[0] == Exit.CONFIG


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], Exit.USAGE, "nothing to predict"),
        (["--formulas", "f"], Exit.USAGE, "no table is given"),
        (["--formula", "MgB2", CIF], Exit.USAGE, "apart"),
        (["--formula", "MgB2", "--standardize", "primitive"], Exit.USAGE, "no cell"),
        (["t.csv", "--formulas", "g"], Exit.CONFIG, "no column 'g'; it has f, n"),
        (["t.csv", "--formulas", ""], Exit.CONFIG, "no column ''"),
        (["n.parquet", "--formulas", "n"], Exit.CONFIG, "not texts"),
        (["twice.csv", "--formulas", "f"], Exit.CONFIG, "2 columns 'f'"),
        (["twice.parquet", "--formulas", "f"], Exit.CONFIG, "2 columns 'f'"),
        (["latin.csv", "--formulas", "f"], Exit.CONFIG, "no intact CSV"),
        (["missing.csv", "--formulas", "f"], Exit.CONFIG, "not found"),
        ([CIF, "--formulas", "f"], Exit.CONFIG, "must end in .csv or .parquet"),
        (["bad.csv", "--formulas", "f"], Exit.CONFIG, "no intact CSV"),
        (["bad.parquet", "--formulas", "f"], Exit.CONFIG, "Parquet"),
        (["--formula", "O7-d"], Exit.TOO_MANY_BAD, "position 3"),
        (["--formula", ""], Exit.TOO_MANY_BAD, "an empty text"),
    ],
)
def test_a_command_line_that_cannot_be_done_costs_one_line(
    blind: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str | Path], code: Exit, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("f,n\nMgB2,1\n")
    Path("bad.csv").write_text("f,n\nMgB2,1,2,3\n")
    Path("twice.csv").write_text("f,f\nMgB2,NbN\n")
    Path("latin.csv").write_bytes(b"f\nMgB\xb2\n")
    pq.write_table(pa.Table.from_arrays([pa.array(["MgB2"])] * 2, ["f", "f"]), "twice.parquet")
    Path("bad.parquet").write_bytes(b"PAR1 no")
    pq.write_table(pa.table({"n": [1]}), "n.parquet")
    found, text = refusal(*words, "--model", blind)
    assert (found, message in text) == (code, True), text


AMOUNTS = st.lists(
    st.tuples(st.integers(1, 94), st.floats(1e-3, 300).map(lambda x: round(x, 3))),
    min_size=1,
    max_size=6,
    unique_by=lambda x: x[0],
)


@given(st.lists(AMOUNTS, min_size=1, max_size=5))
def test_the_batch_has_the_compositions_that_were_written(rows: list[list[tuple[int, float]]]) -> None:
    amounts = np.zeros((len(rows), 119))
    for row, parts in enumerate(rows):
        for number, amount in parts:
            amounts[row, number] = amount
    wanted = placed.scaled(amounts)
    ids = np.array([f"{row}" for row in range(len(rows))])
    batch = placed.place(ids, wanted, {})
    np.testing.assert_allclose(batch.composition(), wanted, atol=6e-6)
    assert (wanted.sum(axis=1) <= placed.MOST * (1 + 1e-9)).all()


def test_predictions_do_not_depend_on_the_other_formulas(blind: Path) -> None:
    texts = ["MgB2", "Nb3Sn", "La1.85Sr0.15CuO4", "Y1000000Ba2000000"]
    together = assay.predict_formulas(texts, blind).table
    for row, text in enumerate(texts):
        alone = assay.predict_formulas(text, blind).table
        assert alone["formation_energy_mean"].to_pylist() == together["formation_energy_mean"].slice(row, 1).to_pylist()


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_a_table_that_is_no_regular_file_is_refused_at_once(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"folder{ending}").mkdir()
    os.mkfifo(tmp_path / f"pipe{ending}")
    for name in (f"folder{ending}", f"pipe{ending}"):
        with pytest.raises(ValueError, match="is no regular file"):
            formula_tables.read(tmp_path / name, "formula")


def test_a_formula_that_is_no_text_is_named_by_its_place(blind: Path) -> None:
    with pytest.raises(TypeError, match="formula 2 of 2 is None, expected a text"):
        assay.predict_formulas(["MgB2", None], str(blind))  # type: ignore[list-item]


@pytest.mark.parametrize("model", [None, 3, ["tc"]])
def test_a_model_that_is_none_is_named(model: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a loaded ensemble, the name of a bundled one, or a folder"):
        assay.predict_formulas("MgB2", model)
