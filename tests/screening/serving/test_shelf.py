"""Which campaigns are served: whole ones, each under a name of its own, with every candidate in its index."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
import yaml
from starlette.testclient import TestClient

from assay.screening.campaign import drive
from assay.screening.folder.results import Results
from assay.screening.prediction import predict
from assay.screening.serving import app, shelf
from assay.screening.serving.optimade import server
from assay.screening.serving.predicting.predictor import LocalPredictor
from assay.screening.serving.store import Store
from assay.screening.settings import digits
from assay.screening.settings.exits import Exit, Failure
from tests.screening import small_campaign


def test_two_campaigns_of_one_name_are_told_apart(campaign: Path, quick: Path, tmp_path: Path) -> None:
    before = small_campaign.digests(campaign), sorted(path.name for path in campaign.iterdir())
    served = shelf.serve([campaign, campaign], tmp_path)
    assert [one.name for one in served] == ["doped", "doped-2"]
    every = pl.from_arrow(Results(campaign).candidates())
    assert isinstance(every, pl.DataFrame)
    for one in served:
        assert one.scan().select("rank", "id").collect().equals(every.select("rank", "id"))
    url = "http://127.0.0.1:9"
    database = server.make(served, f"{url}/optimade", tmp_path)
    made = app.make(served, LocalPredictor(predict.load(quick)), Store(tmp_path / "store"), app.Limits(), database)
    with TestClient(made, base_url=url) as client:
        assert {one["name"]: one["candidates"] for one in client.get("/campaigns").json()} == {
            "doped": 60,
            "doped-2": 60,
        }
        asked = '/optimade/v1/structures?filter=_assay_campaign="doped-2" AND _assay_rank<=3&sort=-_assay_rank'
        found = client.get(asked).json()
    assert [entry["id"] for entry in found["data"]] == [f"doped-2/{id}" for id in every["id"][:3].reverse()]
    assert found["meta"]["data_available"] == 120
    assert (small_campaign.digests(campaign), sorted(path.name for path in campaign.iterdir())) == before


def test_the_first_page_names_all_that_ranks(campaign: Path, quick: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(campaign, copy)
    content = yaml.safe_load((copy / "config.resolved.yaml").read_text())
    content |= {"output": str(copy), "rank": {"objectives": [{"property": "tc"}, {"property": "nsites"}]}}
    (tmp_path / "both.yaml").write_text(yaml.safe_dump(content))
    drive.rerank(small_campaign.make(tmp_path / "both.yaml"))
    url, served = "http://127.0.0.1:9", shelf.serve([campaign, copy], tmp_path)
    database = server.make(served, f"{url}/optimade", tmp_path)
    made = app.make(served, LocalPredictor(predict.load(quick)), Store(tmp_path / "store"), app.Limits(), database)
    with TestClient(made, base_url=url) as client:
        page = client.get("/").text
    assert page.count("<td>tc (K)</td>") == 1
    assert page.count("<td>tc (K), nsites</td>") == 1


@pytest.mark.parametrize("place", ["candidates.parquet", "snapshot"])
def test_a_damaged_campaign_is_not_served(campaign: Path, tmp_path: Path, place: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(campaign, copy)
    path = copy / place if place.endswith(".parquet") else next((copy / "snapshot" / "chunks").glob("*.parquet"))
    path.chmod(0o644)
    small_campaign.flip(path, 100)
    with pytest.raises(Failure) as failure:
        shelf.serve([copy], tmp_path)
    assert failure.value.code is Exit.DISK


def test_a_folder_that_is_no_campaign_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="no campaign folder"):
        shelf.serve([tmp_path], tmp_path)


def test_the_list_shows_every_objective(campaign: Path, quick: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(campaign, folder)
    content = yaml.safe_load((campaign.parent / "doped.yaml").read_text()) | {"output": str(folder)}
    judged = [{"property": "tc"}, {"property": "mp_e_form_2018", "order": "ascending"}]
    (tmp_path / "doped.yaml").write_text(yaml.safe_dump(content | {"rank": {"objectives": judged}}))
    drive.rerank(small_campaign.make(tmp_path / "doped.yaml"))
    served = shelf.serve([folder], tmp_path)
    made = app.make(served, LocalPredictor(predict.load(quick)), Store(tmp_path / "store"), app.Limits())
    with TestClient(made, base_url="http://127.0.0.1:9") as client:
        page = client.get("/campaigns/doped?limit=5&sort=front").text
    best = served[0].row(1)
    assert best is not None
    assert '<th class="n">front</th><th class="n">p_front</th>' in page
    assert "<th>tc (K)</th><th>mp_e_form_2018</th>" in page
    assert f"<td>{digits.alone(best['mp_e_form_2018'])}</td>" in page


def test_scattered_rows_are_those_of_the_whole_index(
    campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf, "GROUP", 8)
    monkeypatch.setattr(shelf, "AT_ONCE", 2)
    (served,) = shelf.serve([campaign], tmp_path)
    ranks = [57, 3, 60, 1, 4, 33, 9, 8]
    assert served.rows(ranks).equals(served.scan().collect()[[rank - 1 for rank in ranks]])
    assert served.rows([], ["id"]).shape == (0, 1)
