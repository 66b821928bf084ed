"""A campaign with a store of outputs: the same bytes as from scratch, and only what is new is computed."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from assay.models.ensemble import novelty
from assay.models.ensemble.kept.store import Store
from assay.screening.campaign import drive
from assay.screening.campaign.drive import Outcome
from assay.screening.campaign.plan import Plan
from assay.screening.folder import snapshot
from assay.screening.folder.ledger import Ledger
from assay.screening.runners import worker
from assay.screening.runners.cluster import ClusterRunner
from assay.screening.settings import config
from assay.screening.settings.config import Ray
from assay.screening.settings.exits import Exit, Failure
from assay.sources.crystals import Crystals
from tests.screening import small_campaign
from tests.screening.small_campaign import digests, some_members, write_config, write_sources

KEEPING = {"identity": False, "chunk_size": 16}


def planned(place: Path, model: Path, name: str, sources: str, **keys: Any) -> Plan:
    """A campaign over the files `a`, or `a` and `b`, in the folder of that name."""
    listed = [{"kind": "files", "paths": [str(place / f"{one}.parquet")], "name": one} for one in sources]
    content = {"sources": listed, "output": str(place / "runs" / name), **KEEPING, **keys}
    return small_campaign.make(write_config(place, model, **content))


def inodes(place: Path) -> dict[str, int]:
    """What the store beside the campaigns keeps; a file that is written again is another one."""
    return {file.key: file.path.stat().st_ino for file in Store(place / "runs" / ".store").files()}


def chunks(asked: Plan) -> int:
    return len(snapshot.chunks(Ledger(asked.folder)))


@pytest.fixture(scope="module")
def place(real: Crystals, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    write_sources(folder, real)
    return folder


@pytest.fixture(scope="module")
def three(place: Path, model: Path) -> Path:
    """An ensemble without its last member, with its reference."""
    folder = some_members(place / "three", model, (0, 1, 2))
    shutil.copy(model / novelty.FILE, folder)
    described = json.loads((folder / "ensemble.json").read_text())
    described["novelty"] = json.loads((model / "ensemble.json").read_text())["novelty"]
    (folder / "ensemble.json").write_text(json.dumps(described))
    return folder


@pytest.fixture(scope="module")
def scratch(place: Path, three: Path) -> Plan:
    """Both sources, without a store."""
    asked = planned(place, three, "scratch", "ab")
    assert small_campaign.run(asked).code is Exit.DONE
    assert not (place / "runs" / ".store").exists()
    return asked


def test_a_new_source_and_a_new_member_cost_what_is_new(place: Path, model: Path, three: Path, scratch: Plan) -> None:
    first = planned(place, three, "first", "a", store="auto")
    small_campaign.run(first)
    before = inodes(place)
    assert len(before) == 5 * chunks(first), "three members, the distances, and whole chunks"
    more = planned(place, three, "more", "ab", store="auto")
    small_campaign.run(more)
    after = inodes(place)
    assert len(after) == 5 * chunks(more) > len(before)
    assert before.items() <= after.items(), "nothing that was kept was computed again"
    assert digests(more.folder) == digests(scratch.folder)
    assert more.fingerprint == scratch.fingerprint, "a store changes no number"
    four = planned(place, model, "four", "ab", store="auto")
    small_campaign.run(four)
    assert after.items() <= inodes(place).items()
    assert len(inodes(place)) == 7 * chunks(four)
    plain = planned(place, model, "plain", "ab")
    small_campaign.run(plain)
    assert digests(four.folder) == digests(plain.folder)


def on_ray(asked: Plan) -> Outcome:
    make = partial(worker.loaded, asked.models, [], asked.campaign, worker.opened(asked.campaign))
    return drive.run(asked, ClusterRunner(make, Ray(workers=2)), lambda: False)


@pytest.mark.usefixtures("ray_cluster")
def test_ray_workers_share_it(place: Path, three: Path, scratch: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)  # workers stand elsewhere
    asked = planned(place, three, "ray", "ab", store="shared")
    assert on_ray(asked).code is Exit.DONE
    assert digests(asked.folder) == digests(scratch.folder)
    kept = {file.key: file.path.stat().st_ino for file in Store(place / "shared").files()}
    assert len(kept) == 5 * chunks(asked)
    here = planned(place, three, "here", "ab", store="shared")
    small_campaign.run(here)
    assert digests(here.folder) == digests(scratch.folder)
    assert {file.key: file.path.stat().st_ino for file in Store(place / "shared").files()} == kept


def test_where_the_store_lies(tmp_path: Path, model: Path) -> None:
    def folder(text: str) -> Path | None:
        path = write_config(tmp_path, model, output=str(tmp_path / "runs" / "x"))
        path.write_text(path.read_text() + text)
        return config.load(path).store_folder()

    assert folder("") is None
    assert folder("store: off") is None, "YAML reads it as false"
    assert folder("store: auto") == tmp_path / "runs" / ".store"
    assert folder(f"store: {tmp_path / 'mine'}") == tmp_path / "mine"
    with pytest.raises(Failure, match="lies in the campaign folder"):
        folder(f"store: {tmp_path / 'runs' / 'x' / 'kept'}")
    with pytest.raises(Failure, match="store"):
        folder("store: true")
    resolved = config.dump(config.load(write_config(tmp_path, model)))
    assert yaml.safe_load(resolved)["store"] == "off"
