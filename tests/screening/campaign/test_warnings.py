"""The column `warnings` on its way through a campaign: there when a row has one, whatever the chunks and the runner."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from assay.models.ensemble.ensemble import Ensemble
from assay.screening.audit import audit as verify
from assay.screening.campaign import drive
from assay.screening.folder.results import Results
from assay.screening.runners import worker
from assay.screening.runners.cluster import ClusterRunner
from assay.screening.runners.score import Score
from assay.screening.settings.config import Ray
from assay.sources import table
from assay.sources.crystals import Crystals
from tests.screening import small_campaign
from tests.screening.small_campaign import digests, write_config

ODD = {3: "odd & rare <b>", 40: "a b"}
"""Warnings of the source, by row of the crystals."""


@pytest.fixture(scope="module")
def ensembles(model: Path) -> list[Ensemble]:
    return [Ensemble.load(model)]


@pytest.fixture(scope="module")
def warned(real: Crystals) -> Crystals:
    """60 crystals of which two have a warning."""
    crystals = real[: small_campaign.SIZE]
    texts = np.array([ODD.get(row, "") for row in range(len(crystals))], dtype=np.str_)
    return crystals.with_columns(warnings=texts)


@pytest.fixture
def place(warned: Crystals, tmp_path: Path) -> Path:
    """Two files, one shard each: the warnings stand in `a`, row 40 in `b`."""
    table.write(table.to_table(warned[:30]), tmp_path / "a.parquet")
    table.write(table.to_table(warned[30:]), tmp_path / "b.parquet")
    return tmp_path


def campaign(place: Path, ensembles: list[Ensemble], name: str, **keys: Any) -> Path:
    settings = write_config(place, Path(str(ensembles[0].folder)), output=str(place / name), **keys)
    planned = small_campaign.make(settings, ensembles)
    small_campaign.run(planned)
    return planned.folder


def stated(folder: Path) -> dict[str, str]:
    rows = Results(folder).candidates(["id", "warnings"]).to_pylist()
    return {row["id"]: row["warnings"] for row in rows}


@pytest.mark.parametrize("chunk", [3, 7, 64])
def test_warnings_reach_the_candidates_whatever_the_chunks(
    place: Path, ensembles: list[Ensemble], warned: Crystals, chunk: int
) -> None:
    folder = campaign(place, ensembles, "out", chunk_size=chunk)
    assert stated(folder) == dict(zip(warned.ids.tolist(), warned.columns["warnings"].tolist(), strict=True))
    found = Results(folder)
    assert found.predictions().column_names[-1] == "warnings"
    assert found.candidates().column_names[-8:-3] == ["warnings", "score", "p_top_k", "ids", "spacegroup"]
    asked = found.predictions(["id", "warnings"]).to_pylist()
    assert {row["id"]: row["warnings"] for row in asked} == stated(folder)
    assert verify.check(folder).problems == []


def test_the_report_and_the_best_say_so(place: Path, ensembles: list[Ensemble], warned: Crystals) -> None:
    folder = campaign(place, ensembles, "out", rank={"top": 60})
    page = (folder / "report.html").read_text()
    assert page.count(">warnings</span>") == 2
    assert "odd &amp; rare &lt;b&gt;" in page
    marked = {row.id for row in Results(folder).top(60) if "read with warnings" in row.marks}
    assert marked == set(warned.ids[[*ODD]].tolist())


def test_without_a_warning_there_is_no_column(real: Crystals, tmp_path: Path, ensembles: list[Ensemble]) -> None:
    blank = real[:20].with_columns(warnings=np.full(20, "", dtype=np.str_))
    for name, crystals in {"a": real[:20], "b": blank}.items():
        table.write(table.to_table(crystals), tmp_path / f"{name}.parquet")
    for name in "ab":
        source = {"kind": "files", "paths": [str(tmp_path / f"{name}.parquet")]}
        folder = campaign(tmp_path, ensembles, f"out-{name}", sources=[source])
        assert "warnings" not in Results(folder).candidates().column_names
        assert "warnings</span>" not in (folder / "report.html").read_text()
        with pytest.raises(ValueError, match="no column warnings"):
            Results(folder).predictions(["id", "warnings"])
    first, second = (tmp_path / f"out-{name}" / "candidates.parquet" for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_a_number_called_warnings_is_another_reported_column(
    warned: Crystals, tmp_path: Path, ensembles: list[Ensemble]
) -> None:
    """Two sources that mean different things by one name go into one table."""
    table.write(table.to_table(warned[:30]), tmp_path / "a.parquet")
    counted = table.to_table(warned[30:]).drop_columns(["warnings"])
    table.write(counted.append_column("warnings", pa.array(range(30))), tmp_path / "b.parquet")
    rows = Results(campaign(tmp_path, ensembles, "out")).candidates().to_pylist()
    texts = {row["id"]: row["warnings"] for row in rows}
    assert {name for name, text in texts.items() if text} == {str(warned.ids[3])}
    numbers = {row["id"]: row["reported_warnings"] for row in rows}
    assert [numbers[name] for name in warned.ids[30:].tolist()] == list(range(30))


def test_the_row_that_is_scored_keeps_its_own_warnings(
    warned: Crystals, tmp_path: Path, ensembles: list[Ensemble]
) -> None:
    """Of the same crystal in two sources, that of the first source stands for both."""
    table.write(table.to_table(warned[:10]), tmp_path / "a.parquet")
    twins = table.to_table(warned[:10].with_columns(warnings=np.full(10, "of the twin")))
    names = pa.array([f"twin/{row}" for row in range(10)])
    table.write(twins.set_column(0, "id", names), tmp_path / "b.parquet")
    rows = Results(campaign(tmp_path, ensembles, "out")).candidates().to_pylist()
    texts = {row["id"]: row["warnings"] for row in rows}
    assert texts == dict(zip(warned.ids[:10].tolist(), warned.columns["warnings"][:10].tolist(), strict=True))
    assert all(len(row["ids"]) == 2 for row in rows)


def test_a_cascade_keeps_them(warned: Crystals, place: Path, ensembles: list[Ensemble], model: Path) -> None:
    fast = small_campaign.some_members(place / "fast", model, (0, 1))
    cascade = {"tiers": [{"model": str(fast), "keep": 0.5}], "audit": 5}
    folder = campaign(place, ensembles, "out", cascade=cascade, chunk_size=7)
    assert stated(folder) == dict(zip(warned.ids.tolist(), warned.columns["warnings"].tolist(), strict=True))
    assert verify.check(folder).problems == []


def test_ray_gives_the_same_bytes(place: Path, ensembles: list[Ensemble], ray_cluster: Any) -> None:
    here = campaign(place, ensembles, "here", chunk_size=7)
    settings = write_config(place, Path(str(ensembles[0].folder)), output=str(place / "there"), chunk_size=7)
    planned = small_campaign.make(settings, ensembles)
    make = partial(worker.loaded, planned.models, [], planned.campaign)
    drive.run(planned, ClusterRunner(make, Ray(workers=2)), lambda: False)
    assert digests(planned.folder) == digests(here)


def test_pieces_of_a_chunk_are_one_part_again(warned: Crystals, ensembles: list[Ensemble]) -> None:
    """A worker that dies makes its runner try the chunk in pieces; one piece may have no warnings."""
    work, models = Score(), worker.Worker(lambda: ensembles)
    dense = warned[:8]
    small = dense.lattice * np.where(np.arange(8) == 6, 0.5, 1.0)[:, None, None]
    odd = Crystals(dense.ids, small, dense.site_ptr, dense.frac, dense.species_ptr, dense.numbers, dense.occupancy)
    chunk = table.to_table(table.from_table(table.to_table(odd), "x")[0])
    assert sum(map(bool, chunk["warnings"].to_pylist())) == 1
    pieces = [work.do(models, chunk.slice(start, 4)) for start in (0, 4)]
    whole = work.do(models, chunk)
    merged = work.merge(pieces).table
    assert merged.schema == whole.table.schema
    assert merged.select(["id", "warnings"]).equals(whole.table.select(["id", "warnings"]))
