"""Learning from an `id_prop.csv`: the values of its lines, and a table of the lines that give none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.models.training.recipe import Recipe
from assay.screening.settings.exits import Failure
from assay.screening.training import listed, recipes
from assay.sources import datasets, table
from assay.sources.crystals import Crystals
from assay.sources.formats.writing.structures import FORMATS
from tests.screening.conftest import Command

ROWS = 60


@pytest.fixture(scope="module")
def folder(crystals: Crystals, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real crystals as CIF, two values for each, two bad lines, one file that is not listed."""
    place = tmp_path_factory.mktemp("cifs")
    lines = []
    for row in range(ROWS):
        (place / f"{row}.cif").write_text(FORMATS["cif"].write(crystals[row : row + 1], {}))
        lines.append(f"{row},{crystals.columns['e_form'][row]},{crystals.nsites[row]}\n")
    (place / "id_prop.csv").write_text("".join([*lines[1:], "nope,1,2\n", "0,?,1\n"]))
    return place


def recipe(dataset: object, **more: Any) -> Recipe:
    task = {"dataset": str(dataset), "property": {"name": "energy", "unit": "eV/atom"}, **more}
    members = [{"network": "trees", "seed": seed, "sizes": {"trees": 4}} for seed in range(2)]
    split = {"by": "formula", "test": 0.15, "calibration": 0.2, "folds": 2}
    return recipes.check({"name": "own", "tasks": [task], "split": split, "members": members}, "here")


def test_the_chosen_value_is_a_dataset_and_bad_lines_are_a_table(
    folder: Path, crystals: Crystals, tmp_path: Path
) -> None:
    made, (line, more) = listed.stored(recipe(f"{folder}#1", functional="PBE"), tmp_path)
    found = datasets.load(made.tasks[0].dataset)
    order = [int(Path(id).stem) for id in found.crystals.ids.tolist()]
    assert sorted(order) == list(range(1, ROWS))
    np.testing.assert_array_equal(found.target, crystals.columns["e_form"][order])
    assert (found.spec.unit, found.spec.functional, found.dropped) == ("eV/atom", "PBE", {})
    assert f"energy: {ROWS - 1} of the files that {folder / 'id_prop.csv'} lists -> " in line
    refused = table.read(tmp_path / "data" / "task-0.quarantine.parquet")
    assert refused["id"].to_pylist() == [f"file/id_prop.csv#{ROWS}", f"file/id_prop.csv#{ROWS + 1}"]
    assert more.startswith("2 files or lines gave nothing, for example file/id_prop.csv#60: line 60: no file 'nope'")
    assert found.spec.origin.endswith("(2 files or lines gave nothing, see `data/task-0.quarantine.parquet`)")
    second, _ = listed.stored(recipe(f"{folder / 'id_prop.csv'}#2"), tmp_path / "second")
    assert datasets.load(second.tasks[0].dataset).target.tolist() == crystals.nsites[order].tolist()
    assert listed.stored(made, tmp_path) == (made, [])


def test_studies_and_searches_share_one_file_of_a_list(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked = {"a": recipe(f"{folder}#1"), "b": recipe(f"{folder}#1"), "c": recipe(f"{folder}#2")}
    made = {key: one.tasks[0].dataset for key, one in listed.shared(asked, tmp_path).items()}
    assert made["a"] == made["b"] != made["c"]
    assert len(datasets.load(made["a"]).target) == len(datasets.load(made["c"]).target) == ROWS - 1
    assert caplog.text.count("2 files or lines gave nothing") == 2


@pytest.mark.parametrize(
    ("mark", "told"),
    [
        ("", "has 2 values in a line; choose one: dataset: .*#1 to #2"),
        ("#3", "there is no value 3 in its lines, which have 2"),
        ("#energy", "there is no value energy in its lines"),
    ],
)
def test_a_value_must_be_chosen(folder: Path, tmp_path: Path, mark: str, told: str) -> None:
    with pytest.raises(Failure, match=told):
        listed.stored(recipe(f"{folder}{mark}"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_list_without_a_value_says_why(tmp_path: Path) -> None:
    (tmp_path / "id_prop.csv").write_text("a,1\n")
    with pytest.raises(Failure, match=r"gives no value to any crystal: line 1: no file 'a', nor 'a\.cif'"):
        listed.stored(recipe(tmp_path), tmp_path / "made")


def test_a_training_learns_from_the_folder_and_a_changed_list_is_noticed(
    folder: Path, tmp_path: Path, assay: Command
) -> None:
    content = recipes.dump(
        {
            "name": "own",
            "tasks": [{"dataset": f"{folder}#1", "property": {"name": "energy", "unit": "eV/atom"}}],
            "split": {"by": "formula", "test": 0.15, "calibration": 0.2, "folds": 2},
            "members": [{"network": "trees", "seed": seed, "sizes": {"trees": 4}} for seed in range(2)],
        }
    )
    (tmp_path / "recipe.yaml").write_text(content)
    ended = assay("train", "recipe.yaml", "--output", "made")
    assert ended.returncode == 0, ended.stderr
    assert "2 files or lines gave nothing" in ended.stderr
    assert f"{ROWS - 1} of the files that" in (tmp_path / "made" / "README.md").read_text()
    seen = assay("predict", folder, "--model", "made")
    assert seen.returncode == 0, seen.stderr
    assert len(seen.stdout.splitlines()) == ROWS
    list_of = folder / "id_prop.csv"
    before = list_of.read_text()
    list_of.write_text(before.replace("\n1,", "\n2,", 1).replace("\n7,", "\n7,9", 1))
    again = assay("train", "recipe.yaml", "--output", "made", "--resume")
    list_of.write_text(before)
    assert again.returncode == 78
    assert "holds other values" in again.stderr
