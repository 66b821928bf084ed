"""How large chunks are, unless the config says so: by what the ensembles take, and as a folder was begun."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from assay.models.ensemble.ensemble import Ensemble
from assay.screening.campaign import plan
from assay.screening.settings import config
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


def test_a_folder_goes_on_with_the_chunks_that_it_was_begun_with(tmp_path: Path) -> None:
    for keys in ({"chunk_size": 16}, {}):
        assert sized(tmp_path, ["tc-fast"], **keys) == 16
        small_campaign.run(plan.make(config.load(tmp_path / "c.yaml")))
    assert len(list((tmp_path / "out" / "snapshot" / "chunks").iterdir())) == 3
