"""Every config in the repository loads, and names models, data and networks that exist."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from assay.models.ensemble.zoo import names
from assay.models.training.distil.recipe import Distillation
from assay.screening.campaign import plan
from assay.screening.deciding import simulate
from assay.screening.settings import bundled, config, yamlfile
from assay.screening.settings.choice import Rank
from assay.screening.settings.config import Campaign
from assay.screening.training import design, recipes, search
from assay.sources.datasets import DATASETS

ROOT = Path(__file__).resolve().parents[1]
RECIPES, STUDIES, SEARCHES = (
    sorted((ROOT / "configs").glob(pattern)) for pattern in ("train-*.yaml", "studies/study-*.yaml", "tune-*.yaml")
)
SIMULATIONS = sorted((ROOT / "configs").glob("simulations/simulate-*.yaml"))
DISTILLATIONS = sorted((ROOT / "configs").glob("distil-*.yaml"))
CAMPAIGNS = sorted({*(ROOT / "configs").glob("*.yaml")} - {*RECIPES, *STUDIES, *SEARCHES, *DISTILLATIONS})


def stem(path: Path) -> str:
    return path.stem


def test_the_configs_of_the_readme_are_there() -> None:
    assert {"quickstart", "superconductors", "stable-insulators"} <= {path.stem for path in CAMPAIGNS}
    assert {"train-tc", "train-formation-energy"} <= {path.stem for path in RECIPES}


@pytest.mark.parametrize("path", CAMPAIGNS, ids=stem)
def test_a_campaign_loads_and_can_be_planned(path: Path, zoo: Path) -> None:
    campaign: Campaign = config.load(path)
    if campaign.stability and not os.environ.get("ASSAY_DATA"):
        pytest.skip("the phases of its hull are a data pack")
    for model in [*campaign.models, *(tier.model for tier in campaign.tiers())]:
        assert model in names(), "a shipped config uses a shipped model"
        assert (zoo / model).is_dir()
    planned = plan.make(campaign)
    assert planned.fingerprint
    assert planned.target


def test_the_objectives_in_a_comment_can_be_planned(zoo: Path) -> None:
    if not os.environ.get("ASSAY_DATA"):
        pytest.skip("the phases of its hull are a data pack")
    path = ROOT / "configs/superconductors-relaxed.yaml"
    lines = path.read_text().split("# rank:\n")[1].splitlines()
    rank = yaml.safe_load("\n".join(line.removeprefix("#") for line in lines if line.startswith("#  ")))
    assert rank["objectives"], "in docs/cascade.md too"
    assert "- {property: tc, by: lower}" in (ROOT / "docs/cascade.md").read_text()
    planned = plan.make(config.load(path).model_copy(update={"rank": Rank.model_validate(rank)}))
    assert planned.rule.sentence().startswith("fronts of high lower end of the calibrated 90% interval of tc, low mean")


@pytest.mark.parametrize("path", CAMPAIGNS, ids=stem)
def test_a_campaign_survives_being_written_out(path: Path, tmp_path: Path) -> None:
    campaign = config.load(path)
    resolved = tmp_path / "config.resolved.yaml"
    resolved.write_text(config.dump(campaign))
    assert config.load(resolved) == campaign


@pytest.mark.parametrize("path", DISTILLATIONS, ids=stem)
def test_a_recipe_for_a_potential_loads(path: Path) -> None:
    recipe = yamlfile.validate(Distillation, yamlfile.read(path), str(path))
    assert bundled.distillation(path.stem).samefile(path)
    assert all(drawn.dataset in {*DATASETS, "prototypes"} for drawn in recipe.crystals)


@pytest.mark.parametrize("path", RECIPES, ids=stem)
def test_a_recipe_loads_and_names_what_exists(path: Path) -> None:
    recipe = recipes.load(path)
    guide = (ROOT / "docs/training.md").read_text()
    for task in recipe.tasks:  # a pack, or a file that the guide says how to make
        assert task.dataset in DATASETS or f'"{task.dataset.partition("#")[0]}"' in guide
    assert len({(member.network, member.seed) for member in recipe.members}) == len(recipe.members)


@pytest.mark.parametrize("path", STUDIES, ids=stem)
def test_every_cell_of_a_study_is_a_recipe(path: Path, tmp_path: Path) -> None:
    wanted = design.load(path)
    content = recipes.read(design.recipe_file(wanted, path))
    cells = design.trained(wanted)
    assert cells
    for row, column in cells:
        recipe = design.cell(wanted, content, row, column, tmp_path)
        assert [member.seed for member in recipe.members] == (wanted.rows[row].seeds or wanted.seeds)


@pytest.mark.parametrize("path", SIMULATIONS, ids=stem)
def test_a_simulation_loads_by_its_name(path: Path) -> None:
    assert bundled.simulation(path.stem).samefile(path)
    assert simulate.read(path.stem).dataset in DATASETS


@pytest.mark.parametrize("path", SEARCHES, ids=stem)
def test_a_search_fits_its_recipe(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # its recipe is named, not found from here
    assert search.read(path).load().recipe.tasks
