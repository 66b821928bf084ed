"""Ranking by a probability that comes from the quantiles of a predictive distribution."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from assay.models.ensemble import stored
from assay.models.ensemble.distribution import draws
from assay.models.ensemble.distribution.decision import Decision
from assay.models.ensemble.ensemble import Ensemble
from assay.screening import python
from assay.screening.audit import audit
from assay.screening.campaign.plan import Plan
from assay.screening.folder.results import Results
from assay.screening.folder.summary import Target
from assay.screening.ranking import rank, rules
from assay.screening.settings.choice import Rank
from assay.screening.settings.exits import Exit, Failure
from assay.screening.settings.names import QUANTILES
from assay.sources import table
from assay.sources.crystals import Crystals
from tests.screening import small_campaign

NAME = "formation_energy"
RANK = {"by": "probability", "threshold": -1.0, "order": "ascending", "property": NAME}


@pytest.fixture(scope="module")
def deciding(blind: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forests whose ensemble decides by all draws."""
    folder = tmp_path_factory.mktemp("deciding") / "trees"
    shutil.copytree(blind, folder)
    plain, decisions = Ensemble.load(blind), {NAME: Decision("interquartile-mean")}
    members = [f"member-{k}" for k in range(len(plain.members))]
    parts = [{"range": "up to -1", "coverage": 0.914}, {"range": "above -1", "coverage": 0.886}]
    facts = {"tasks": {NAME: {"cross_validation": {"by_predicted": parts}}}}
    stored.write(folder, "trees", members, plain.calibration, facts, reference=plain.reference, decisions=decisions)
    return folder


@pytest.fixture(scope="module")
def place(real: Crystals, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("campaign")
    small_campaign.write_sources(folder, real)
    return folder


def finished(folder: Path, model: Path, name: str, **keys: object) -> Plan:
    made = small_campaign.make(small_campaign.write_config(folder, model, output=str(folder / name), rank=RANK, **keys))
    assert small_campaign.run(made).code is Exit.DONE
    return made


def scores(quantiles: list[float], threshold: float, order: str = "descending") -> float:
    """The score of one row with these quantiles, whose mean and deviation say nothing."""
    columns = {"mean": 7.0, "std": 0.1, "lo": 0.0, "hi": 7.1, **dict(zip(QUANTILES, quantiles, strict=True))}
    content = pa.table({"id": ["a"], **{f"tc_{part}": [value] for part, value in columns.items()}})
    target = Target("m", "tc", "K", 0.9, calibrated=True, distribution=True)
    rule = rules.make(Rank.model_validate({"by": "probability", "threshold": threshold, "order": order}), target)
    return float(rank.measure(content, rule).scores[0])


def test_the_probability_is_the_share_of_the_distribution_beyond_the_threshold() -> None:
    two_peaks = [0.0 if share < 0.65 else 90.0 for share in QUANTILES.values()]
    assert scores(two_peaks, 80.0) == pytest.approx(0.4 - 0.1 * 80 / 90)  # a normal law says 0
    assert scores(two_peaks, 80.0, "ascending") == pytest.approx(0.6 + 0.1 * 80 / 90)
    assert scores(two_peaks, 95.0) == pytest.approx(0.005)
    even = [100 * share for share in QUANTILES.values()]
    for threshold in (3.0, 10.0, 37.0, 98.0):
        assert scores(even, threshold) == pytest.approx(1 - threshold / 100)


def test_without_quantiles_the_rule_is_refused_and_not_replaced() -> None:
    rule = rules.make(Rank(by="probability", threshold=9.0), Target("m", "tc", "K", distribution=True))
    content = pa.table({"id": ["a"], **{f"tc_{part}": [1.0] for part in rules.PARTS}})
    with pytest.raises(Failure, match="reads tc_q01"):
        rank.measure(content, rule)


def test_a_campaign_ranks_by_the_distribution_and_verifies(deciding: Path, place: Path, real: Crystals) -> None:
    made = finished(place, deciding, "out")
    assert audit.check(made.folder).problems == []
    assert Results(made.folder).summary.target.distribution is True
    report = (made.folder / "report.html").read_text()
    assert "come from the values of all trees" in report
    assert "disagree" not in report
    assert "the interval held 91% of those predicted up to -1, 89% of those predicted above -1 eV/atom." in report
    rows = {row["id"]: row for row in table.read(made.folder / "candidates.parquet").to_pylist()}
    found = Ensemble.load(deciding).predict(real)[0].values[NAME].draws
    assert found is not None
    known = [(rows[name], values) for name, values in zip(real.ids.tolist(), found, strict=True) if name in rows]
    assert len(known) > 20
    for row, values in known:
        share = draws.below(values[None], draws.levels(len(values)), -1.0)[0]
        assert row["score"] == pytest.approx(share, abs=0.1)  # the step between two quantiles
        assert row[f"{NAME}_q50"] == pytest.approx(np.median(values), abs=1e-6)


@pytest.mark.parametrize("last", ["networks", "trees"])
def test_each_tier_of_a_cascade_ranks_by_what_it_predicts(
    last: str, deciding: Path, model: Path, place: Path, tmp_path: Path
) -> None:
    networks = small_campaign.some_members(tmp_path / "networks", model, (2, 3))
    cheap, dear = (deciding, networks) if last == "networks" else (networks, deciding)
    made = finished(place, dear, last, cascade={"tiers": [{"model": str(cheap), "keep": 0.5}], "audit": 0})
    assert audit.check(made.folder).problems == []
    rows = table.read(made.folder / "candidates.parquet").to_pylist()
    by_quantiles = {row["tier"] for row in rows if row[f"{NAME}_q50"] is not None}
    assert by_quantiles == {0 if last == "networks" else 1}


def test_quantiles_are_predicted_with_their_unit_and_meaning(deciding: Path, real_file: Path) -> None:
    found = python.predict([real_file], Ensemble.load(deciding)).table
    fields = [found.schema.field(f"{NAME}_{part}") for part in QUANTILES]
    assert {field.metadata[b"unit"] for field in fields} == {b"eV/atom"}
    assert fields[1].metadata[b"meaning"] == b"5 % quantile of the predictive distribution"
    for row in found.to_pylist():
        values = [row[f"{NAME}_{part}"] for part in QUANTILES]
        assert values == sorted(values)
