"""A composition with more rows than a unit holds: compared in rounds of bounded units, each of them committed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assay.models.ensemble.ensemble import Ensemble
from assay.screening.campaign import plan
from assay.screening.campaign.plan import Plan
from assay.screening.campaign.stages import rounds
from assay.screening.folder.ledger import Ledger
from assay.sources import table
from assay.sources.crystals import concat
from tests.crystal_copies import copies
from tests.featurize.identity.test_identity import ROCKSALT, frames, named
from tests.screening.campaign.test_flow import digest, kinds, planned, run
from tests.screening.small_campaign import some_members

FRAMES, SALTS, PAIRS = 24, 40, 50


@pytest.fixture(scope="module")
def ensembles(model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Ensemble]:
    two = some_members(tmp_path_factory.mktemp("models") / "two", model, (0, 1))
    return plan.load_ensembles([str(two)])


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Snapshots of one cell in two databases, and one salt so often that a second round is needed."""
    folder = tmp_path_factory.mktemp("snapshots")
    one = frames(FRAMES)
    salts = concat([named(ROCKSALT, f"a/salt{k:02d}") for k in range(SALTS)])
    found = []
    for name, crystals in (("a", concat([one, salts])), ("b", copies(one, 1))):
        table.write(table.to_table(crystals), folder / f"{name}.parquet")
        found.append({"kind": "files", "paths": [str(folder / f"{name}.parquet")], "name": name})
    return found


@pytest.fixture(scope="module")
def whole(ensembles: list[Ensemble], sources: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """The campaign in units of the usual size."""
    asked = planned(tmp_path_factory.mktemp("whole"), ensembles, sources, chunk_size=64)
    run(asked)
    return asked


def test_every_snapshot_finds_its_twin_and_all_salts_are_one(whole: Plan) -> None:
    rows = table.read(whole.folder / "candidates.parquet").to_pylist()
    assert len(rows) == FRAMES + 1
    assert sorted(len(row["ids"]) for row in rows) == [2] * FRAMES + [SALTS]
    assert {record.key[:2] for record in Ledger(whole.folder).all("matches")} == {"00", "01"}


def test_space_groups_are_those_of_the_first_candidates(
    whole: Plan, ensembles: list[Ensemble], sources: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert set(table.read(whole.folder / "candidates.parquet")["spacegroup"].to_pylist()) == {1, 225}
    run(planned(tmp_path, ensembles, sources, chunk_size=64, rank={"top": 3}))
    found = table.read(tmp_path / "candidates.parquet")["spacegroup"].to_pylist()
    assert None not in found[:3]
    assert set(found[3:]) == {None}


def test_small_units_give_the_same_bytes_from_every_prefix_of_the_log(
    whole: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "COMPARED", PAIRS)
    small = replace(whole, folder=tmp_path / "small")
    run(small)
    assert digest(small.folder) == digest(whole.folder)
    order = kinds(small.folder)
    assert order.count("matches") > 10 * kinds(whole.folder).count("matches") / 2
    first, last = order.index("matches"), order.index("identity")
    for kept in (first, first + 1, (first + last) // 2, last):
        shutil.copytree(small.folder, tmp_path / "broken")
        for path in sorted((tmp_path / "broken" / "log").glob("*.json"))[kept:]:
            path.unlink()
        run(replace(whole, folder=tmp_path / "broken"))
        assert digest(tmp_path / "broken") == digest(whole.folder), f"after {order[:kept]}"
        shutil.rmtree(tmp_path / "broken")


def test_a_unit_holds_a_bounded_number_of_crystals(whole: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "COMPARED", PAIRS)
    units = rounds.Rounds(Ledger(whole.folder), whole.campaign).units()
    assert len(units) > 5
    for unit in units:
        content = unit.read()
        assert content.num_rows == unit.rows <= 2 * PAIRS
        assert sum(map(len, content["partners"].to_pylist())) <= PAIRS
