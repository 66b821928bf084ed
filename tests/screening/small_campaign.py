"""A campaign small enough to be run hundreds of times in this process: 60 crystals, two sources, a few in both."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import yaml

from assay.screening.campaign import drive, fingerprint, plan
from assay.screening.campaign.drive import Outcome
from assay.screening.campaign.plan import Plan
from assay.screening.runners import local
from assay.screening.settings import config
from assay.sources import table
from assay.sources.crystals import Crystals

if TYPE_CHECKING:
    from assay.models.ensemble.ensemble import Ensemble

SIZE, SHARED, BAD, CHUNK = 60, 12, 1, 16
"""Different crystals; those of them that the second source has too; refused rows; crystals per
chunk."""
OUTPUTS = ("candidates.parquet", "unrankable.parquet", "quarantine.parquet", "report.html", "summary.json")


def write_sources(folder: Path, crystals: Crystals) -> None:
    """Two files: `a` and `b`, which has the last crystals of `a` under other ids, and one row that is no crystal."""
    half = (SIZE + SHARED) // 2
    table.write(table.to_table(crystals[:half]), folder / "a.parquet")
    rest = crystals[half - SHARED : SIZE]
    names = [f"other/{row:03d}" for row in range(len(rest))]
    content = table.to_table(rest).set_column(0, "id", pa.array(names, pa.string()))
    sites = content["nsites"].to_pylist()
    sites[-1] = 99
    table.write(content.set_column(1, "nsites", pa.array(sites, pa.int32())), folder / "b.parquet")


def write_config(folder: Path, model: Path, **keys: Any) -> Path:
    """Config of a campaign over these files; its folder is `out`, and the config is named for it."""
    sources = [{"kind": "files", "paths": [str(folder / f"{name}.parquet")], "name": name} for name in "ab"]
    content = {"name": "small", "sources": sources, "models": [str(model)], "chunk_size": CHUNK}
    content |= {"output": str(folder / "out")} | keys
    path = folder / f"{Path(content['output']).name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def make(path: Path, ensembles: list[Ensemble] | None = None) -> Plan:
    """The plan of a config; with ensembles that are loaded already it takes a few milliseconds."""
    settings = config.load(path)
    if ensembles is None:
        return plan.make(settings)
    potential = plan.load_potential(settings)
    hull = plan.find_reference(ensembles, settings, potential)
    judged = plan.find_objectives(ensembles, settings, hull)
    target = plan.find_target(ensembles, settings.rank, hull, judged)
    tiers = [plan.load_ensembles([tier.model])[0] for tier in settings.tiers()]
    stamp = fingerprint.take(settings, ensembles, tiers, potential)
    return Plan(settings, settings.folder(), ensembles, target, stamp, tiers, potential, hull, judged)


def some_members(folder: Path, model: Path, members: Sequence[int]) -> Path:
    """A cheaper ensemble: some members of another one, where they are."""
    described = json.loads((model / "ensemble.json").read_text())
    described = {key: described[key] for key in ("members", "calibration")} | {"name": folder.name}
    folder.mkdir(parents=True)
    described["members"] = [os.path.relpath(model / described["members"][k], folder) for k in members]
    (folder / "ensemble.json").write_text(json.dumps(described))
    return folder


def run(planned: Plan, stopped: Callable[[], bool] = lambda: False) -> Outcome:
    """Run it here."""
    return drive.run(planned, local.LocalRunner(planned.worker()), stopped)


def finish(folder: Path, crystals: Crystals, model: Path) -> Plan:
    """A whole campaign from nothing; its folder is `out`."""
    write_sources(folder, crystals)
    planned = make(write_config(folder, model))
    run(planned)
    return planned


def digests(folder: Path) -> dict[str, str]:
    """sha256 of everything that a campaign leaves for people."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in OUTPUTS}


def flip(path: Path, position: int = -9, bit: int = 3) -> None:
    """Turn one bit of a file over."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)
