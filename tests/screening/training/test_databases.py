"""What a second database adds: one from a pack, one pulled from a server, each with a task of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from assay.screening.folder.results import Results
from assay.screening.settings import bundled
from assay.screening.settings.exits import Exit
from assay.screening.training import study
from assay.sources import datasets, table
from assay.sources.datasets import Dataset
from tests.screening import small_campaign
from tests.servers import FaultServer, entries_from_crystals

ENERGY = "formation_energy_per_atom"
ROWS = 240


def few(name: str) -> Dataset:
    """Spread over the file of a dataset."""
    whole = datasets.load(name)
    return whole.select(np.arange(ROWS) * (len(whole.target) // ROWS), "not drawn")


def pulled(folder: Path, model: Path, found: Dataset) -> Path:
    """A finished campaign over a server that reports the energies, and does not say their functional."""
    crystals = replace(found.crystals, columns={ENERGY: found.target})
    with FaultServer(entries_from_crystals(crystals)) as server:
        source = {"kind": "optimade", "provider": server.url, "name": "oqmd", "filter": "nelements>1"}
        planned = small_campaign.make(small_campaign.write_config(folder, model, sources=[source], identity=False))
        assert small_campaign.run(planned).code is Exit.DONE
    return planned.folder


def test_a_study_over_a_pack_and_a_server(data: Path, zoo: Path, tmp_path: Path) -> None:
    first, second = few("mp-formation-energy"), few("oqmd-formation-energy")
    pack = tmp_path / "mp.parquet"
    table.write(table.to_table(replace(first.crystals, columns={"e_form": first.target})), pack)
    campaign = pulled(tmp_path, zoo / "tc-fast", second)
    reported = Results(campaign).reported(ENERGY)
    assert len(reported) == ROWS
    wanted = yaml.safe_load(bundled.study("study-databases").read_text())
    own = {
        "mp-formation-energy": {"dataset": f"{pack}#e_form", "functional": first.spec.functional},
        "oqmd-formation-energy": {"dataset": f"{campaign}#{ENERGY}"},
    }
    for column in wanted["columns"].values():
        column["tasks"] = [task | own[task["dataset"]] for task in column["tasks"]]
        column["split"] |= {"folds": 2, "calibration": 0.1}
        column["schedule.epochs"] = 2
    wanted["member"]["sizes"] = {"hidden": 8, "layers": 1, "bins": 8}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(wanted))
    results = json.loads((study.run(tmp_path / "study.yaml", tmp_path / "made").parent / "results.json").read_text())
    for column in wanted["columns"]:
        scores = results[column]["scores"]
        alone, both = (scores[name]["mae"] for name in wanted["rows"])
        assert np.isfinite([alone, both]).all()
        assert alone != both
        assert 0.1 * ROWS < results[column]["test"] < 0.3 * ROWS, "test rows of its own database"
