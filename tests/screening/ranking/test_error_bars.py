"""What a campaign tells of calibrated deviations and of distances from the training set."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from assay.featurize import graphs
from assay.models.ensemble import novelty, stored
from assay.models.ensemble.ensemble import Ensemble
from assay.models.networks.inputs import GraphInputs
from assay.models.networks.layers import Network
from assay.screening import python
from assay.screening.audit import audit
from assay.screening.campaign import outputs
from assay.screening.campaign.plan import Plan
from assay.screening.folder.results import Results
from assay.screening.prediction import describe
from assay.screening.runners import worker
from assay.screening.settings import digits
from assay.screening.settings.exits import Exit
from assay.sources import table
from assay.sources.crystals import Crystals
from tests.screening import small_campaign

RANK = {"by": "probability", "threshold": -1.0, "order": "ascending"}


@pytest.fixture(scope="module")
def measuring(model: Path, real: Crystals, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model with a scale in its calibration, and 30 crystals as its training set."""
    folder = tmp_path_factory.mktemp("model") / "model"
    shutil.copytree(model, folder)
    loaded = Ensemble.load(folder)
    network = loaded.members[0].network
    assert isinstance(network, Network)
    rows = np.arange(30)
    reference = novelty.fit(network, GraphInputs(graphs.build(real[:60], loaded.spec)), rows, rows + 30, 0)
    fitted = {name: replace(one, scale=1.7) for name, one in loaded.calibration.items()}
    names = json.loads((folder / "ensemble.json").read_text())["members"]
    stored.write(folder, loaded.name, names, fitted, loaded.facts, reference=reference)
    return folder


@pytest.fixture(scope="module")
def planned(measuring: Path, real: Crystals, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("campaign")
    small_campaign.write_sources(folder, real)
    made = small_campaign.make(small_campaign.write_config(folder, measuring, rank=RANK))
    made = replace(made, target=replace(made.target, calibrated=True))
    small_campaign.run(made)
    return made


def test_probability_follows_from_the_calibrated_deviation(planned: Plan) -> None:
    from statistics import NormalDist

    rows = table.read(planned.folder / "candidates.parquet").to_pylist()
    name = planned.target.name
    members = [key for key in rows[0] if key.startswith(f"{name}_member_")]
    fitted = planned.ensembles[0].calibration[name]
    for row in rows:
        spread = np.std([row[key] for key in members], ddof=1)
        assert row[f"{name}_std"] == pytest.approx(1.7 * (spread + fitted.floor))
        wanted = NormalDist(row[f"{name}_mean"], row[f"{name}_std"]).cdf(-1.0)
        assert row["score"] == pytest.approx(wanted, rel=1e-9, abs=1e-15)


def test_the_campaign_verifies_and_its_report_says_what_the_numbers_are(planned: Plan) -> None:
    found = audit.check(planned.folder, lambda _: planned.ensembles)
    assert (found.code, found.problems) == (Exit.DONE, [])
    summary = Results(planned.folder).summary
    assert summary.target.calibrated is True
    assert summary.models[0].reference == 30
    page = (planned.folder / "report.html").read_text()
    assert "mean ± calibrated standard deviation of" in page
    assert "scaled to the errors on held-out crystals" in page
    assert "errors that all members share do not show in it" not in page
    shown = _distances(planned)[: planned.campaign.rank.top]
    assert page.count("unlike training</span>") == sum(row > 1 for row in shown)


def test_the_terminal_marks_what_is_far(planned: Plan) -> None:
    distances = _distances(planned)
    lines = outputs.table_text(Results(planned.folder), most=10_000)[1 : 1 + len(distances)]  # below: ties
    marked = ["(unlike training)" in line for line in lines]
    assert marked == [row > 1 for row in distances]
    assert any(marked)


def test_a_replaced_reference_is_found_before_anything_is_scored(measuring: Path, tmp_path: Path) -> None:
    shutil.copytree(measuring, tmp_path / "copy")
    small_campaign.flip(tmp_path / "copy" / novelty.FILE)
    with pytest.raises(ValueError, match="damaged or replaced"):
        worker.load([tmp_path / "copy"], 1)


def test_another_reference_is_another_fingerprint(
    measuring: Path, real: Crystals, planned: Plan, tmp_path: Path
) -> None:
    shutil.copytree(measuring, tmp_path / "copy")
    loaded = Ensemble.load(tmp_path / "copy")
    names = [f"member-{k}" for k in range(len(loaded.members))]
    assert loaded.reference is not None
    other = replace(loaded.reference, points=loaded.reference.points[1:])
    stored.write(tmp_path / "copy", loaded.name, names, loaded.calibration, loaded.facts, reference=other)
    small_campaign.write_sources(tmp_path, real)
    made = small_campaign.make(small_campaign.write_config(tmp_path, tmp_path / "copy", rank=RANK))
    changed = {key for key in made.fingerprint if made.fingerprint[key] != planned.fingerprint[key]}
    assert {key for key in changed if key.startswith("models.")} == {f"models.{loaded.name}.files"}


def test_predict_says_how_far_a_crystal_lies(measuring: Path, real_file: Path) -> None:
    loaded = Ensemble.load(measuring)
    done = python.predict([real_file], loaded)
    assert done.table.column_names[-2:] == ["ood", "ood_distance"]
    lines = list(describe.lines(done, [loaded]))
    far = [row > 1 for row in done.table["ood_distance"].to_pylist()]
    assert [
        f"ood_distance {digits.alone(row)}" in line for row, line in zip(done.table["ood_distance"].to_pylist(), lines)
    ] == far
    assert any(far)
    assert not all(far)


def _distances(planned: Plan) -> list[float]:
    return table.read(planned.folder / "candidates.parquet", ["ood_distance"])["ood_distance"].to_pylist()
