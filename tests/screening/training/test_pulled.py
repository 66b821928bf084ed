"""Learning what a campaign pulled: the values of one functional, each crystal once, and no others."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from assay.models.training import prepare
from assay.models.training.distil import sample
from assay.models.training.distil.recipe import Distillation, Drawn, StudentSpec
from assay.models.training.recipe import Recipe
from assay.screening.folder import snapshot
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.results import Results
from assay.screening.settings.exits import Exit, Failure
from assay.screening.training import pulled, recipes, search, study, trials
from assay.sources import datasets, table
from assay.sources.crystals import Crystals
from tests.screening import small_campaign
from tests.screening.conftest import Command, last_line

ENERGY, GAP = "formation_energy_per_atom", "band_gap"
PBE, OWN = "PBE(+U), MP2020", "PBE(+U), OQMD fitted references"
ROWS, SHARED, SILENT = 150, 30, 7
"""Crystals of the first source, those of them that the second one has too, rows without a gap."""


def reported(crystals: Crystals, functional: str, provider: str, **more: Any) -> Crystals:
    """Rows as a database reports them: each energy with its functional; the gap has none."""
    named = np.full(len(crystals), functional)
    ids = np.array([f"{provider}/{row}" for row in range(len(crystals))])
    columns = {
        **crystals.columns,
        f"{ENERGY}_functional": named,
        "licence": np.full(len(crystals), "CC-BY-4.0"),
        **more,
    }
    return replace(crystals, ids=ids, columns=columns)


@pytest.fixture(scope="module")
def campaign(real: Crystals, zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two databases of two functionals."""
    folder = tmp_path_factory.mktemp("pulled")
    gap = np.where(np.arange(ROWS) < SILENT, np.nan, real.columns[GAP][:ROWS])
    table.write(table.to_table(reported(real[:ROWS], PBE, "mp", band_gap=gap)), folder / "a.parquet")
    second = real[ROWS - SHARED : ROWS + 60]
    table.write(table.to_table(reported(second, OWN, "oqmd")), folder / "b.parquet")
    planned = small_campaign.make(small_campaign.write_config(folder, zoo / "tc", chunk_size=64))
    small_campaign.run(planned)
    return planned.folder


def recipe(*tasks: dict[str, Any]) -> dict[str, Any]:
    members = [{"network": "trees", "seed": seed, "sizes": {"trees": 8}} for seed in range(2)]
    split = {"by": "formula", "test": 0.15, "calibration": 0.2, "folds": 2}
    return {"name": "own", "tasks": list(tasks), "split": split, "members": members}


def energy(campaign: Path, functional: str = PBE, name: str = "energy", unit: str = "eV/atom") -> dict[str, Any]:
    said = {"functional": functional} if functional else {}
    return {"dataset": f"{campaign}#{ENERGY}", "property": {"name": name, "unit": unit}, **said}


def checked(*tasks: dict[str, Any]) -> Recipe:
    return recipes.check(recipe(*tasks), "here")


def test_the_snapshot_has_each_crystal_once_with_what_was_reported(campaign: Path, real: Crystals) -> None:
    found = Results(campaign).reported(ENERGY)
    assert len(found) == len(set(found.ids.tolist())) == ROWS + 60
    kept = found.select(np.flatnonzero(found.columns["source"] == "a"))
    order = np.array([int(name.partition("/")[2]) for name in kept.ids.tolist()])
    np.testing.assert_array_equal(kept.columns[ENERGY], real.columns[ENERGY][order])
    np.testing.assert_array_equal(kept.lattice, real.lattice[order])


def test_values_of_two_functionals_are_two_tasks_and_the_card_names_both(
    campaign: Path, tmp_path: Path, assay: Command
) -> None:
    tasks = energy(campaign), energy(campaign, OWN, "own_energy")
    (tmp_path / "recipe.yaml").write_text(recipes.dump(recipe(*tasks)))
    ended = assay("train", "recipe.yaml", "--output", "made")
    assert ended.returncode == 0, ended.stderr
    assert f"energy: {ENERGY} of {ROWS} crystals of the campaign out, reported by a (60 values by other" in ended.stderr
    card = (tmp_path / "made" / "README.md").read_text()
    assert f"`energy` in eV/atom ({PBE})" in card
    assert f"`own_energy` in eV/atom ({OWN})" in card
    facts = json.loads((tmp_path / "made" / "ensemble.json").read_text())
    for number, (name, rows) in enumerate({"energy": ROWS, "own_energy": 60}.items()):
        (file,) = (tmp_path / "made" / pulled.FOLDER).glob(f"task-{number}-*.parquet")
        data = facts["tasks"][name]["data"]
        assert data["sha256"][:16] in file.name
        assert data["licence"] == "CC-BY-4.0"
        assert sum(facts["tasks"][name]["rows"].values()) == rows
    assert assay("train", "recipe.yaml", "--output", "made", "--resume").returncode == 0
    shutil.move(tmp_path / "made" / pulled.FOLDER / file.name, tmp_path / "made" / pulled.FOLDER / "task-1-0.parquet")
    again = assay("train", "recipe.yaml", "--output", "made", "--resume")
    assert again.returncode == 78
    assert "data holds other values: task-1-0.parquet when this training began" in last_line(again.stderr)
    evaluated = assay("evaluate", "made", "--output", "seen", "--dataset", facts["recipe"]["tasks"][0]["dataset"])
    assert evaluated.returncode == 0, evaluated.stderr


def test_a_study_and_a_search_learn_from_one_file_of_each_number(campaign: Path, tmp_path: Path) -> None:
    place = tmp_path / "configs"
    place.mkdir()
    (place / "recipe.yaml").write_text(recipes.dump(recipe(energy(campaign))))
    planned = {
        "name": "two", "title": "Two databases", "recipe": "recipe.yaml", "seeds": [0, 1],
        "member": {"network": "trees", "sizes": {"trees": 8}},
        "columns": {"mp": {}, "oqmd": {"tasks": [energy(campaign, OWN)]}},
        "rows": {"few": {}, "more": {"set": {"members.sizes.trees": 12}}},
    }  # fmt: skip
    (place / "study.yaml").write_text(yaml.safe_dump(planned))
    study.run(place / "study.yaml", tmp_path / "made")
    found = json.loads((tmp_path / "made" / "results.json").read_text())
    assert found["mp"]["train"] + found["mp"]["test"] < ROWS > 60 > found["oqmd"]["train"]
    assert len([*(tmp_path / "made" / pulled.FOLDER).iterdir()]) == 2
    ranges = {"members.sizes.trees": {"integers": [4, 16]}}
    asked = search.SearchConfig.model_validate({"recipe": str(place / "recipe.yaml"), "space": ranges, "trials": 2})
    wanted = asked.load()
    wanted.claim(tmp_path / "search")
    wanted = wanted.learned(tmp_path / "search")
    told: list[dict[str, float]] = []
    trials.learn(wanted, tmp_path / "search", 1, told.append)
    assert trials.trial(wanted, tmp_path / "search", 1).ended == "finished"
    assert told[-1]["validation_mae"] < 1.0
    asked.load().claim(tmp_path / "search")  # it is found again by what its file says


def test_rows_without_the_value_are_left_out_and_counted(campaign: Path, tmp_path: Path) -> None:
    gap = {"dataset": f"{campaign}#{GAP}", "property": {"name": "gap", "unit": "eV"}, "functional": "PBE"}
    made, (line,) = pulled.stored(checked(gap), tmp_path)
    dataset = datasets.load(made.tasks[0].dataset)
    assert dataset.dropped == {"no value": SILENT}
    assert (len(dataset.target), dataset.spec.functional, dataset.spec.unit) == (ROWS + 60 - SILENT, "PBE", "eV")
    assert f"gap: {GAP} of {ROWS + 60 - SILENT} crystals of the campaign out, reported by a and b -> " in line
    assert pulled.stored(checked(gap), tmp_path)[0] == made
    assert pulled.stored(made, tmp_path) == (made, [])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"functional": ""}, rf"several functionals \(150 by {PBE}, 60 by ".replace("(+U)", r"\(\+U\)")),
        ({"functional": "HSE06"}, "has no value by 'HSE06'"),
        ({"property": {"name": "e", "unit": "meV/atom"}}, "is in eV/atom, property.unit says 'meV/atom'"),
        ({"dataset": f"#{GAP}", "property": {"name": "gap", "unit": "eV"}, "functional": ""}, "by which functional"),
        ({"dataset": "#band_gp"}, "reports numbers in a column 'band_gp'; did you mean 'band_gap'"),
    ],
)
def test_what_cannot_be_learned_is_refused(campaign: Path, tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    task = energy(campaign) | changes
    task["dataset"] = f"{campaign}#{task['dataset'].rpartition('#')[2]}"
    with pytest.raises(Failure, match=told):
        pulled.stored(checked(task), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_distillation_draws_the_crystals_of_a_campaign(campaign: Path, tmp_path: Path) -> None:
    places = Drawn(str(campaign), 40, 400), Drawn("prototypes", 10)
    recipe = Distillation("metals", "ase:ase.calculators.emt:EMT", places, (StudentSpec(0), StudentSpec(1)))
    made = pulled.drawn(recipe, tmp_path)
    assert pulled.drawn(recipe, tmp_path) == made
    assert made.crystals[1] == places[1]
    delivered = Results(campaign).delivered()
    some = sample.draw(made.crystals[0], frozenset(range(1, 100)), 0)
    assert len(some) == 40
    rows = [delivered.ids.tolist().index(name.partition("#row/")[2]) for name in some.ids.tolist()]
    assert replace(some, ids=delivered.ids[rows]) == delivered.select(rows)
    assert len(delivered) == ROWS + 60


def test_a_snapshot_that_is_not_finished_is_refused(campaign: Path, tmp_path: Path, assay: Command) -> None:
    folder = Path(shutil.copytree(campaign, tmp_path / "begun"))
    last = Ledger(folder).all("chunks")[-1]
    for path in (folder / "log").glob("*.json"):
        if int(path.stem) >= last.sequence:
            path.unlink()
    assert snapshot.unsealed(Ledger(folder), ["a", "b"]) == ["b"]
    with pytest.raises(Failure, match="lacks rows of b; go on with: assay run"):
        pulled.stored(checked(energy(folder)), tmp_path / "made")
    few = f"name: few\nteacher: chgnet\ncrystals: [{{dataset: {folder}, count: 9}}]\n"
    (tmp_path / "few.yaml").write_text(f"{few}students: [{{seed: 0}}, {{seed: 1}}]\n")
    done = assay("distil", "few.yaml", "--output", "few")
    assert done.returncode == Exit.CONFIG
    assert "lacks rows of b; go on with: assay run" in done.stderr


def test_a_task_names_the_functional_of_a_file_that_does_not(real: Crystals, tmp_path: Path) -> None:
    silent = datasets.save(tmp_path / "a.parquet", real[:ROWS], "e", real.columns[ENERGY][:ROWS], unit="eV/atom")
    loud = datasets.save(tmp_path / "b.parquet", real[:ROWS], "e", real.columns[ENERGY][:ROWS], functional="SCAN")
    task = energy(Path(), PBE)
    assert prepare.prepare(checked(task | {"dataset": silent})).datasets[0].spec.functional == PBE
    with pytest.raises(ValueError, match="holds values by 'SCAN', its task says functional: 'PBE"):
        prepare.prepare(checked(task | {"dataset": loud}))
