"""How large chunks are, unless the config says so: by what the ensembles take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from assay.models.ensemble.ensemble import Ensemble
from assay.screening.campaign import plan
from assay.screening.settings import config
from assay.screening.settings.exits import Exit, Failure
from tests.screening import small_campaign


def sized(folder: Path, models: list[str], **keys: Any) -> int:
    """The size of chunks in the plan of a campaign."""
    content = {
        "name": "c",
        "sources": [{"kind": "prototypes", "n": 40}],
        "models": models,
        "output": str(folder / "out"),
    }
    path = folder / "c.yaml"
    path.write_text(yaml.safe_dump(content | keys))
    return plan.make(config.load(path)).campaign.chunk_size


def test_light_ensembles_are_compositions_and_small_networks_of_bonds(zoo: Path) -> None:
    light = {
        path.name: Ensemble.load(path).light for path in sorted(zoo.iterdir()) if (path / "ensemble.json").exists()
    }
    assert {name for name, is_light in light.items() if is_light} == {"tc", "tc-fast"}
    assert {"band-gap", "formation-energy", "tc-graphs"} <= light.keys()


@pytest.mark.parametrize(
    ("models", "keys", "size"),
    [
        (["tc-fast"], {}, 2048),
        (["formation-energy"], {}, 512),
        (["tc-fast", "band-gap"], {}, 512),
        (["tc-fast"], {"chunk_size": 512}, 512),
        (["tc-fast"], {"relax": {}}, 64),
        (["tc"], {"cascade": {"tiers": [{"model": "tc-fast", "keep": 9}]}}, 2048),
        (["tc-graphs"], {"cascade": {"tiers": [{"model": "tc-fast", "keep": 9}]}}, 512),
    ],
)
def test_chunks_are_larger_where_a_crystal_takes_little(
    models: list[str], keys: dict[str, Any], size: int, tmp_path: Path
) -> None:
    assert sized(tmp_path, models, **keys) == size


def test_a_folder_of_an_earlier_build_goes_on_with_its_chunks(tmp_path: Path) -> None:
    for keys in ({"chunk_size": 512}, {}):
        assert sized(tmp_path, ["tc-fast"], **keys) == 512
        assert small_campaign.run(plan.make(config.load(tmp_path / "c.yaml"))).code is Exit.DONE


def test_a_size_that_is_no_longer_in_the_config_is_refused(tmp_path: Path) -> None:
    assert sized(tmp_path, ["tc-fast"], chunk_size=16) == 16
    small_campaign.run(plan.make(config.load(tmp_path / "c.yaml")))
    assert sized(tmp_path, ["tc-fast"]) == 2048
    with pytest.raises(Failure, match="chunk_size: was 16, now 2048"):
        small_campaign.run(plan.make(config.load(tmp_path / "c.yaml")))
