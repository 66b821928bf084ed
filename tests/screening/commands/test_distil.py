"""`assay distil`: a potential from a recipe of two rounds, its card, and recipes that cannot be."""

import json

import numpy as np

from assay.screening.settings.exits import Exit
from assay.sources import table
from tests.metals import alloys

RECIPE = """
name: tiny
teacher: "ase:ase.calculators.emt:EMT"
elements: [Al, Cu, Ag, Au, Ni, Pd, Pt]
crystals: [{dataset: prototypes, count: 300, sites: 8}, {dataset: "alloys.parquet#known", count: 40, sites: 4}]
students:
  - {seed: 0, features: 8, layers: 2, radial: 4, cutoff: 3.5}
  - {seed: 1, features: 8, layers: 2, radial: 4, cutoff: 3.5}
test: 0.2
validation: 0.1
schedule: {epochs: 1, batch_size: 16}
displacement: {frames: [{path: dynamics, share: 0.3, steps: 5}]}
rounds:
  - candidates: 12
    labels: 6
    displacement: {frames: [{path: relaxation, share: 0.5, driver: students}]}
"""
ALLOYS = ', {dataset: "alloys.parquet#known", count: 40, sites: 4}'
"""The second place of the crystals in the recipe: prototypes hold too few of each metal to teach it."""


def test_a_recipe_becomes_a_potential_and_a_finished_one_is_not_made_again(assay, tmp_path):
    recipe, output = tmp_path / "tiny.yaml", tmp_path / "tiny"
    known = table.to_table(alloys(40).with_columns(known=np.zeros(40)))
    table.write(known, tmp_path / "alloys.parquet")
    recipe.write_text(RECIPE.replace("alloys.parquet", str(tmp_path / "alloys.parquet")))
    done = assay("distil", recipe, "--output", output)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(output / "README.md")]
    told = json.loads((output / "potential.json").read_text())
    assert told["command"] == f"assay distil {recipe} --output {output}"
    assert len(told["networks"]) == 2
    card = (output / "README.md").read_text()
    assert f"| student 1 | {told['alone'][1]['energy']:.1f} |" in card
    assert f"| 2 | {told['rounds'][1]['learned']} | " in card
    assert (output / "quarantine.parquet").exists()
    again = assay("distil", recipe, "--output", output)
    assert again.returncode == Exit.CONFIG
    assert "add --resume to go on with it" in again.stderr
    before = (output / "student-0.safetensors").read_bytes()
    assert assay("distil", recipe, "--output", output, "--resume").returncode == 0
    assert (output / "student-0.safetensors").read_bytes() == before


def test_recipes_that_cannot_be_end_in_one_line(assay, tmp_path):
    for wrong, said in (
        ("sites: 8", "sites: 0"),
        ("layers: 2", "layer: 2"),
        ("seed: 1", "seed: 1.5"),
        ("labels: 6", "labels: 13"),
        ("driver: students", "driver: pupils"),
        ("path: dynamics, share: 0.3", "path: dynamics, share: 0.3, driver: students"),
    ):
        recipe = tmp_path / "wrong.yaml"
        recipe.write_text(RECIPE.replace(wrong, said))
        done = assay("distil", recipe, "--output", tmp_path / "never")
        assert done.returncode == Exit.CONFIG, done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert not (tmp_path / "never").exists()
    (tmp_path / "few.yaml").write_text(RECIPE.replace("sites: 8", "sites: 1").replace(ALLOYS, ""))
    done = assay("distil", tmp_path / "few.yaml", "--output", tmp_path / "few")
    assert done.returncode == Exit.CONFIG
    assert "no ordered crystal of these elements and sizes" in done.stderr
    (tmp_path / "other.yaml").write_text(RECIPE.replace("ase:ase.calculators.emt:EMT", "nothing"))
    done = assay("distil", tmp_path / "other.yaml", "--output", tmp_path / "other")
    assert done.returncode == Exit.CONFIG
    assert "potential 'nothing' is not known" in done.stderr
