"""Campaigns with members that read the composition alone: no structure is touched, in one process and with Ray."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import assay
from assay.featurize import graphs as crystal_graphs
from assay.models.ensemble.ensemble import Ensemble
from assay.screening.audit import audit
from assay.screening.campaign import drive
from assay.screening.folder.ledger import Ledger
from assay.screening.prediction import explain, predict
from assay.screening.runners import worker
from assay.screening.runners.cluster import ClusterRunner
from assay.screening.settings.config import Ray
from assay.screening.settings.exits import Exit, Failure
from assay.sources.crystals import Crystals
from tests.screening import small_campaign
from tests.screening.small_campaign import digests, write_config

PROPERTY = "formation_energy"
BY_FRONTS = {
    "top": 10,
    "objectives": [
        {"property": PROPERTY, "order": "ascending", "by": "upper"},
        {"property": "nsites", "order": "ascending"},
    ],
}
RANK = {"property": PROPERTY, "order": "ascending", "top": 10}


@pytest.fixture(scope="module")
def place(real: Crystals, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blind-campaign")
    small_campaign.write_sources(folder, real)
    return folder


def finished(place: Path, model: Path, name: str, **keys: Any) -> Path:
    planned = small_campaign.make(write_config(place, model, output=str(place / name), rank=RANK, **keys))
    assert small_campaign.run(planned).code is Exit.DONE
    return planned.folder


@pytest.fixture(scope="module")
def done(place: Path, blind: Path) -> Path:
    return finished(place, blind, "done", symmetrise=0.01)


def test_it_ranks_without_a_graph_or_a_search_for_symmetry(
    place: Path, blind: Path, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crystal_graphs, "build", None)  # whoever calls it fails
    monkeypatch.setattr("assay.featurize.standard.Standard.__call__", None)
    again = finished(place, blind, "again", symmetrise=0.01)
    assert (again / "candidates.parquet").read_bytes() == (done / "candidates.parquet").read_bytes()
    assert audit.check(again).problems == []


def test_the_predictions_are_those_of_the_ensemble(done: Path, blind: Path, real: Crystals) -> None:
    table = pl.read_parquet(done / "candidates.parquet")
    assert table.height > 50
    rows = {str(name): k for k, name in enumerate(real.ids)}
    known = [(row, rows[row["id"]]) for row in table.to_dicts() if row["id"] in rows]
    found, _ = Ensemble.load(blind).predict(real)
    for row, place in known:
        assert row[f"{PROPERTY}_mean"] == pytest.approx(found.values[PROPERTY].mean[place], abs=1e-6)
        assert row["ood_distance"] == pytest.approx(found.ood_distance[place], rel=1e-4)


@pytest.mark.usefixtures("ray_cluster")
def test_ray_makes_the_same_bytes(place: Path, blind: Path, done: Path) -> None:
    keys = {"output": str(place / "ray"), "rank": RANK, "symmetrise": 0.01}
    planned = small_campaign.make(write_config(place, blind, **keys))
    make = partial(worker.loaded, [str(blind)], [], planned.campaign)
    runner = ClusterRunner(make, Ray(workers=2))
    assert drive.run(planned, runner, lambda: False).code is Exit.DONE
    assert digests(planned.folder)["candidates.parquet"] == digests(done)["candidates.parquet"]
    assert again_by_fronts(place, blind, planned.folder) == again_by_fronts(place, blind, done)


def again_by_fronts(place: Path, blind: Path, folder: Path) -> dict[str, str]:
    """Rank a finished campaign by several objectives, and as before; the digests of the first."""
    keys = {"output": str(folder), "symmetrise": 0.01}
    drive.rerank(small_campaign.make(write_config(place, blind, rank=BY_FRONTS, **keys)))
    assert audit.check(folder).problems == []
    found = digests(folder)
    drive.rerank(small_campaign.make(write_config(place, blind, rank=RANK, **keys)))
    return found


def test_a_stopped_campaign_of_several_objectives_goes_on_to_the_same_bytes(
    place: Path, blind: Path, done: Path
) -> None:
    path = write_config(place, blind, output=str(place / "stopped"), rank=BY_FRONTS, symmetrise=0.01)
    folder = place / "stopped"
    with pytest.raises(Failure, match="stopped"):
        small_campaign.run(small_campaign.make(path), lambda: len(Ledger(folder).all("part")) > 1)
    assert 0 < len(Ledger(folder).all("part")) < len(Ledger(done).all("part"))
    assert small_campaign.run(small_campaign.make(path)).code is Exit.DONE
    assert digests(folder)["candidates.parquet"] == again_by_fronts(place, blind, done)["candidates.parquet"]


def test_it_is_the_first_tier_of_a_cascade(place: Path, blind: Path, model: Path) -> None:
    chain = {"tiers": [{"model": str(blind), "keep": 0.3}], "audit": 10, "seed": 3}
    folder = finished(place, model, "cascade", cascade=chain)
    table = pl.read_parquet(folder / "candidates.parquet")
    assert table["tier"].to_list()[:10] == [1] * 10
    assert audit.check(folder).problems == []


def test_explain_says_why_it_cannot(blind: Path, real: Crystals, tmp_path: Path) -> None:
    ensemble = Ensemble.load(blind)
    predictions = predict.predict(real[:2], [ensemble])
    with pytest.raises(ValueError, match="reads the composition alone: no atom of it adds anything by its place"):
        next(explain.write(predictions, ensemble, tmp_path / "out"))
    assert np.isfinite(predictions.table[f"{PROPERTY}_mean"].to_numpy()).all()


CROWDED = (
    "two sites that hold 1 and 1 atoms are 0.150 Å apart; closer than 0.5 Å to each other at most 1 atom is "
    "accepted, here 2"
)


def test_two_atoms_at_one_place_are_told_where_nobody_reads_the_structure(tmp_path: Path) -> None:
    """`tc-fast` refuses the same file; `tc` ranks it, because its composition is sound."""
    cell = "close\n1\n4 0 0\n0 4 0\n0 0 {z}\nNa Cl\n1 1\ndirect\n0 0 0\n"
    (tmp_path / "close.vasp").write_text(cell.format(z=4) + "0.0375 0 0\n")
    (tmp_path / "sound.vasp").write_text(cell.format(z=8) + "0 0 0.5\n")
    found = assay.predict(tmp_path, "tc").table
    assert dict(zip(found["id"].to_pylist(), found["warnings"].to_pylist())) == {
        "file/close.vasp": CROWDED,
        "file/sound.vasp": "",
    }
    assert [record.message for record in assay.predict(tmp_path, "tc-fast").refused] == [CROWDED]
    config = {"name": "x", "sources": [{"kind": "files", "paths": [str(tmp_path)]}], "models": ["tc"]}
    results = assay.screen(config | {"rank": {"by": "mean"}, "output": str(tmp_path / "x"), "chunk_size": 1})
    ranked = results.candidates()
    assert dict(zip(ranked["id"].to_pylist(), ranked["warnings"].to_pylist())) == {
        "file/close.vasp": CROWDED,
        "file/sound.vasp": "",
    }
    assert audit.check(results.folder).problems == []
