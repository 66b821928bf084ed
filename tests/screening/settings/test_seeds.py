"""Seeds that no library of random numbers takes are refused when a config is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from assay.models.training.recipe import Recipe
from assay.screening.settings import yamlfile
from assay.screening.settings.config import Campaign
from assay.screening.settings.exits import Exit, Failure
from assay.screening.training.design import Study
from assay.screening.training.search import SearchConfig

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
PLACES: list[tuple[type, str, tuple[Any, ...]]] = [
    (Campaign, "quickstart.yaml", ("sources", 0, "seed")),
    (Campaign, "superconductors-cascade.yaml", ("cascade", "seed")),
    (Recipe, "train-tc.yaml", ("members", 0, "seed")),
    (Recipe, "train-tc.yaml", ("split", "seed")),
    (Recipe, "train-tc.yaml", ("view", "seed")),
    (Study, "studies/study-tc.yaml", ("seeds", 1)),
    (SearchConfig, "tune-tc.yaml", ("seed",)),
]


def load(schema: type, name: str, path: tuple[Any, ...], value: Any) -> None:
    content = node = yaml.safe_load((CONFIGS / name).read_text())
    for key in path[:-1]:
        node = node[key] if isinstance(key, int) else node.setdefault(key, {})
    node[path[-1]] = value
    yamlfile.validate(schema, content, "here")


@pytest.mark.parametrize("seed", [-1, True, 1.5, 1.0, "7", "x", 2**32, 10**400, float("nan"), [1], None])
@pytest.mark.parametrize(("schema", "name", "path"), PLACES, ids=[".".join(map(str, place[2])) for place in PLACES])
def test_a_seed_that_is_none_is_refused_with_its_path(
    schema: type, name: str, path: tuple[Any, ...], seed: Any
) -> None:
    with pytest.raises(Failure, match=r"^here: .*") as error:
        load(schema, name, path, seed)
    assert error.value.code == Exit.CONFIG
    assert ".".join(map(str, path)) in str(error.value) or f"{path[0]}: {path[-1]}" in str(error.value)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(("schema", "name", "path"), PLACES, ids=[".".join(map(str, place[2])) for place in PLACES])
@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_other_seeds_are_taken(schema: type, name: str, path: tuple[Any, ...], seed: int) -> None:
    load(schema, name, path, seed)


def test_a_property_that_is_called_seed_is_no_seed() -> None:
    content = yaml.safe_load((CONFIGS / "quickstart.yaml").read_text())
    content["filters"] = {"reported": {"seed": {"min": -1.0}}}
    assert yamlfile.validate(Campaign, content, "here").filters.reported["seed"].min == -1
