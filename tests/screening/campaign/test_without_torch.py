"""A campaign with the cheap tier alone imports no torch, and says what the trained networks say."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from assay.featurize import graphs
from assay.models.ensemble.ensemble import Ensemble
from assay.models.networks.batch import Batch
from assay.screening.folder.results import Results
from assay.sources.crystals import Crystals
from tests.screening import small_campaign

RUN = """import json, sys
from assay.screening.commands import run_campaign
run_campaign.run(sys.argv[1])
print(json.dumps([name for name in ("torch", "scipy.linalg", "jinja2") if name in sys.modules]), file=sys.stderr)"""


def test_the_cheap_tier_needs_no_torch(zoo: Path, real: Crystals, tmp_path: Path) -> None:
    small_campaign.write_sources(tmp_path, real)
    config: dict[str, Any] = {
        "name": "quick",
        "models": [str(zoo / "tc-fast")],
        "max_bad": 1.0,
    }
    config["rank"] = {"top": 5}  # fewer than there are: their order is drawn
    config["sources"] = [{"kind": "files", "paths": [str(path) for path in sorted(tmp_path.glob("*.parquet"))]}]
    for name in ("compiled", "run"):  # the first compiles what no other test has, for which numba imports scipy
        config["output"] = str(tmp_path / name)
        (tmp_path / "quick.yaml").write_text(yaml.safe_dump(config))
        words = [sys.executable, "-c", RUN, str(tmp_path / "quick.yaml")]
        ended = subprocess.run(words, capture_output=True, text=True, check=True)
    assert json.loads(ended.stderr.splitlines()[-1]) == ["jinja2"]  # of the report; neither torch, nor scipy for numba
    results = Results(tmp_path / "run")
    rows = results.candidates(["id", "tc_member_0", "tc_member_1"])
    crystals = results.crystals(rows["id"])
    ensemble = Ensemble.load(zoo / "tc-fast")
    batch = Batch.of(graphs.build(crystals, ensemble.spec))
    for k, member in enumerate(ensemble.members):
        with torch.inference_mode():
            plain = member.properties[0].decode(member.network(batch)["tc"].numpy())
        apart = np.abs(rows[f"tc_member_{k}"].to_numpy() - plain)
        assert len(apart) > 10
        assert apart.max() < 1e-5 * member.properties[0].scale
