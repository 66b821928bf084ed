"""`assay export`: the best of a campaign as files that say where they come from; nothing else is touched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyarrow import csv
from pymatgen.core import Structure
from pymatgen.io.vasp.inputs import Poscar
from typer.testing import CliRunner, Result

from assay.screening.audit import audit
from assay.screening.commands import cli
from assay.screening.export import best
from assay.screening.folder.results import Results
from assay.screening.settings.exits import Exit, Failure
from assay.sources import files, table
from assay.sources.crystals import Crystals, concat
from tests.metals import EMT, metals
from tests.screening import small_campaign


@pytest.fixture(scope="module")
def make(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def run(crystals: Crystals, **keys: object) -> Path:
        """A finished campaign over these crystals."""
        folder = tmp_path_factory.mktemp("campaign")
        table.write(table.to_table(crystals), folder / "crystals.parquet")
        source = {"kind": "files", "paths": [str(folder / "crystals.parquet")], "name": "a"}
        path = small_campaign.write_config(folder, zoo / "tc-fast", sources=[source], max_bad=1.0, **keys)
        small_campaign.run(small_campaign.make(path))
        return folder / "out"

    return run


@pytest.fixture(scope="module")
def mixed(make: Callable[..., Path], disordered: Crystals, crystals: Crystals) -> Path:
    """A campaign over 40 real crystals, ordered and disordered, and a metal in a left-handed cell."""
    return make(concat([disordered[::8].without_columns(), crystals[::20].without_columns(), metals(1)]))


def export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.app, ["export", *map(str, arguments)])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".assay")


def test_each_file_says_rank_formula_and_where_it_comes_from(mixed: Path, tmp_path: Path) -> None:
    done = export(mixed, "--top", "12", "--output", tmp_path / "best")
    assert done.exit_code == 0, done.output
    rows = Results(mixed).candidates().slice(0, 12).to_pylist()
    assert names(tmp_path / "best") == [f"{row['rank']:03d}_{row['formula']}.cif" for row in rows]
    assert done.stdout.split("\n")[:-1] == [str(tmp_path / "best" / name) for name in names(tmp_path / "best")]
    for name, row in zip(names(tmp_path / "best"), rows, strict=True):
        facts = json.loads((tmp_path / "best" / name).read_text().split("\n")[0].removeprefix("# "))
        assert facts == {
            **{key: row[key] for key in ("rank", "id", "formula")},
            "property": "tc",
            "mean": row["tc_mean"],
            "std": row["tc_std"],
            "unit": "K",
            "model": "tc-fast",
            "campaign": "small",
            "cell": "as delivered",
        }


def test_the_exported_crystals_are_those_that_were_scored(mixed: Path, tmp_path: Path) -> None:
    from assay.screening.prediction import inputs

    for format in ("cif", "extxyz", "json", "optimade"):
        place = tmp_path / (f"{format}.jsonl" if format == "optimade" else format)
        assert export(mixed, "--top", "1000", "--format", format, "--output", place).exit_code == 0
        found = inputs.predict(place, inputs.load(Results(mixed).summary.models[0].name))
        known = Results(mixed).candidates()
        assert np.allclose(found.table["tc_mean"], known["tc_mean"], atol=1e-3), format
        assert found.refused == []


def test_left_handed_cells_are_turned(mixed: Path) -> None:
    results = Results(mixed)
    found = best.find(results, 1000).crystals
    delivered = results.crystals(found.ids)
    left = np.linalg.det(delivered.lattice) < 0
    assert left.sum() == 1
    assert (np.linalg.det(found.lattice) > 0).all()
    assert np.array_equal(found.lattice[left], -delivered.lattice[left])


def test_poscar_leaves_out_what_it_cannot_hold_and_says_why(mixed: Path, tmp_path: Path) -> None:
    done = export(mixed, "--format", "poscar", "--output", tmp_path / "strict")
    assert isinstance(done.exception, Failure)
    assert done.exception.code is Exit.TOO_MANY_BAD
    found = best.find(Results(mixed), 20)
    ordered = found.crystals.is_ordered
    assert 3 < ordered.sum() < 17
    lines = [line for line in done.stderr.split("\n") if "is left out" in line]
    assert len(lines) == (~ordered).sum()
    for line, row in zip(lines, np.flatnonzero(~ordered), strict=True):
        facts = found.facts[row]
        assert line.startswith(f"{facts['id']} ({facts['formula']}, rank {facts['rank']}) is left out: its sites")
    assert len(names(tmp_path / "strict")) == ordered.sum()
    lenient = export(mixed, "--format", "poscar", "--max-bad", "1", "--output", tmp_path / "lenient")
    assert lenient.exit_code == 0
    assert names(tmp_path / "lenient") == names(tmp_path / "strict")
    for row in np.flatnonzero(ordered):
        text = (tmp_path / "lenient" / f"{found.stem(row)}.vasp").read_text()
        assert json.loads(text.split("\n")[0])["id"] == found.crystals.ids[row]
        assert len(Poscar.from_str(text).structure) == found.crystals.nsites[row]


def test_inputs_are_a_folder_for_each_ordered_candidate(mixed: Path, tmp_path: Path) -> None:
    done = export(mixed, "--top", "8", "--inputs", "MPRelaxSet", "--max-bad", "1", "--output", tmp_path / "runs")
    assert done.exit_code == 0, done.output
    found = best.find(Results(mixed), 8)
    assert names(tmp_path / "runs") == [found.stem(row) for row in np.flatnonzero(found.crystals.is_ordered)]
    for folder in done.stdout.split():
        assert names(Path(folder)) == ["INCAR", "KPOINTS", "POSCAR", "POTCAR.spec"]


def test_tables_hold_every_column_and_the_unit(mixed: Path, tmp_path: Path) -> None:
    known = Results(mixed).candidates().slice(0, 5)
    for name in ("best.csv", "best.parquet"):
        assert export(mixed, "--top", "5", "--format", name[5:], "--output", tmp_path / name).exit_code == 0
    read = csv.read_csv(tmp_path / "best.csv")
    stored = pq.read_table(tmp_path / "best.parquet")
    assert read.column_names == stored.column_names
    assert set(known.column_names) < set(stored.column_names)
    for column in known.column_names:
        assert stored[column].equals(known[column]), column
    for found in (read, stored):
        assert found["assay_unit"].to_pylist() == ["K"] * 5
        assert found["assay_model"].to_pylist() == ["tc-fast"] * 5
        assert found["tc_std"].to_pylist() == known["tc_std"].to_pylist()
    assert stored.schema.field("tc_mean").metadata[b"unit"] == b"K"


def test_relaxed_cells_are_exported_where_the_campaign_relaxed(make: Callable[..., Path], tmp_path: Path) -> None:
    delivered = metals(12)
    assert (np.linalg.det(delivered.lattice) < 0).any()
    folder = make(delivered, relax={"model": EMT, "fmax": 0.02, "steps": 60})
    assert export(folder, "--format", "json", "--output", tmp_path / "json").exit_code == 0
    results = Results(folder)
    assert len(names(tmp_path / "json")) == len(results.candidates()) > 8
    before = dict(zip(delivered.ids, delivered.volume, strict=True))
    for name in names(tmp_path / "json"):
        found = Structure.from_file(tmp_path / "json" / name)
        relaxed = results.crystals([found.properties["id"]])
        assert found.properties["cell"] == f"relaxed by {EMT}"
        assert found.volume == pytest.approx(relaxed.volume[0])
        assert found.volume != pytest.approx(before[found.properties["id"]], rel=1e-3)
        assert np.linalg.det(found.lattice.matrix) > 0


def test_what_lies_at_the_output_is_not_touched(mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "other.jsonl").write_text('{"x-optimade": {"meta": {"api_version": "1.2.0"}}}\n')
    (tmp_path / "other.csv").write_text("rank,id,formula\n1,a,b\n")
    refused = [
        (tmp_path / "mine", "cif", "is not empty (notes.txt)"),
        (tmp_path / "other.jsonl", "optimade", "holds something else than an export"),
        (tmp_path / "other.csv", "csv", "holds something else than an export"),
        (mixed / "candidates.parquet", "parquet", "holds something else than an export"),
        (tmp_path / "best.txt", "csv", "ends in .csv"),
        (tmp_path, "csv", "is a folder"),
    ]
    for output, format, why in refused:
        with pytest.raises(Failure, match=why.replace("(", r"\(").replace(")", r"\)")):
            raise export(mixed, "--format", format, "--output", output).exception or AssertionError(output)
    assert export(mixed, "--format", "csv", "--output", tmp_path / "a.csv").exit_code == 0
    assert export(mixed, "--format", "csv", "--top", "1", "--output", tmp_path / "a.csv").exit_code == 0
    assert len(csv.read_csv(tmp_path / "a.csv")) == 1
    assert export(mixed, "--output", tmp_path / "cif").exit_code == 0
    again = export(mixed, "--top", "1", "--output", tmp_path / "cif")
    assert "holds an earlier export" in str(again.exception)
    assert audit.check(mixed).code is Exit.DONE


def test_a_campaign_without_candidates_says_where_its_crystals_are(make: Callable[..., Path], tmp_path: Path) -> None:
    nobody = make(metals(2), filters={"predicted": {"tc": {"min": 5000.0}}})
    said = str(export(nobody, "--output", tmp_path / "cif").exception)
    assert said.endswith(
        "no candidates: of 2 crystals 0 are refused (assay errors), 0 unrankable, 2 excluded (excluded.parquet)"
    )


def test_one_of_format_and_inputs(mixed: Path, tmp_path: Path) -> None:
    done = export(mixed, "--format", "cif", "--inputs", "MPRelaxSet", "--output", tmp_path / "x")
    assert "give one of them" in str(done.exception)


def test_names_of_files_suit_any_file_system(mixed: Path) -> None:
    found = best.find(Results(mixed), 2)
    odd = best.Best(
        found.table, found.crystals, [{"rank": 1234, "formula": "A/B:C" * 40}, {"rank": 12345, "formula": "Mg."}]
    )
    assert odd.stem(1) == "12345_Mg"
    assert odd.stem(0).startswith("01234_A_B_CA_B_C")
    assert len(odd.stem(0)) <= 66


def predict(zoo: Path, *arguments: str | Path, stdin: str = "") -> Result:
    return CliRunner().invoke(cli.app, ["predict", *map(str, arguments), "--model", str(zoo / "tc-fast")], input=stdin)


@pytest.mark.parametrize("format", ["cif", "poscar", "extxyz", "json"])
def test_an_exported_file_is_predicted_from_standard_input(mixed: Path, zoo: Path, tmp_path: Path, format: str) -> None:
    export(mixed, "--format", format, "--max-bad", "1", "--output", tmp_path / "best")
    path = tmp_path / "best" / names(tmp_path / "best")[0]
    piped, named = predict(zoo, "-", stdin=path.read_text()), predict(zoo, path)
    assert piped.exit_code == named.exit_code == 0, piped.output
    assert piped.stdout.startswith("file/stdin  ")
    assert piped.stdout.partition("  ")[2] == named.stdout.partition("  ")[2]


def test_optimade_lines_are_predicted_from_standard_input(mixed: Path, zoo: Path, tmp_path: Path) -> None:
    export(mixed, "--format", "optimade", "--top", "3", "--output", tmp_path / "best.jsonl")
    piped = predict(zoo, "-", stdin=(tmp_path / "best.jsonl").read_text())
    ids = Results(mixed).candidates(["id"]).slice(0, 3)["id"].to_pylist()
    assert [line.partition("  ")[0] for line in piped.stdout.splitlines()] == [f"stdin/{id}" for id in ids]


@pytest.mark.parametrize("format", ["cgcnn", "alignn"])
def test_lists_of_other_programs_are_shuffled_and_read_back(mixed: Path, tmp_path: Path, format: str) -> None:
    done = export(mixed, "--top", "100", "--format", format, "--max-bad", "1", "--output", tmp_path / "a")
    assert done.exit_code == 0, done.output
    found = best.find(Results(mixed), 100)
    ordered = [found.stem(row) for row in np.flatnonzero(found.crystals.is_ordered)]
    means = {found.stem(row): found.facts[row]["mean"] for row in range(len(found))}
    ending, listed = {"cgcnn": (".cif", ""), "alignn": (".vasp", ".vasp")}[format]
    assert names(tmp_path / "a") == [*(f"{stem}{ending}" for stem in ordered), "id_prop.csv"]
    lines = [line.split(",") for line in (tmp_path / "a" / "id_prop.csv").read_text().splitlines()]
    assert {name.removesuffix(ending): float(value) for name, value in lines} == {stem: means[stem] for stem in ordered}
    assert all(name.endswith(listed) for name, _ in lines)
    stems = [name.removesuffix(ending) for name, _ in lines]
    assert stems != sorted(stems)
    assert stems != sorted(stems, reverse=True)
    again, refused = files.read(tmp_path / "a" / "id_prop.csv")
    assert refused == []
    assert again.columns["id_prop_1"].tolist() == [means[stem] for stem in ordered]
    assert (
        export(mixed, "--top", "100", "--format", format, "--max-bad", "1", "--output", tmp_path / "b").exit_code == 0
    )
    assert (tmp_path / "b" / "id_prop.csv").read_bytes() == (tmp_path / "a" / "id_prop.csv").read_bytes()
