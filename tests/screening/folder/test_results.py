"""Results: one reader of a campaign folder, which believes no file that the log does not vouch for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assay.screening.folder import results, summary
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.results import Results
from assay.screening.settings.exits import Exit, Failure
from assay.sources import table
from assay.sources.crystals import Crystals
from tests.screening import small_campaign
from tests.screening.small_campaign import flip


@pytest.fixture(scope="module")
def finished(real: Crystals, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    small_campaign.finish(folder, real, model)
    return folder / "out"


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(finished, tmp_path / "out"))


@pytest.fixture
def unranked(folder: Path) -> Path:
    """The same before its ranking."""
    (record,) = Ledger(folder).all("ranked")
    (folder / "log" / f"{record.sequence:08d}.json").unlink()
    return folder


def test_tables_are_those_of_the_folder(finished: Path) -> None:
    results = Results(finished)
    for name in ("candidates", "unrankable", "quarantine"):
        assert getattr(results, name)().equals(table.read(finished / f"{name}.parquet"))
    assert results.candidates(["id", "score"]).column_names == ["id", "score"]
    scored = {*results.candidates()["id"].to_pylist(), *results.unrankable()["id"].to_pylist()}
    assert sorted(results.predictions()["id"].to_pylist()) == sorted(scored)


def test_the_summary_is_what_the_file_says(finished: Path) -> None:
    found = Results(finished).summary
    stored = json.loads((finished / "summary.json").read_text())
    assert found.campaign == stored["campaign"] == "small"
    assert found.balance.counts() == stored["balance"]
    assert [source.received for source in found.sources] == [36, 36]
    assert found.identity is not None
    assert found.quarantine == {"malformed": 1}
    assert found.target.unit == stored["target"]["unit"] == "eV/atom"
    assert found.last_tier == 0
    assert found.text() == (finished / "summary.json").read_text()
    assert summary.parse(found.text().encode()) == found


def test_crystals_come_in_the_order_of_their_ids(finished: Path, real: Crystals) -> None:
    results = Results(finished)
    ids = results.candidates()["id"].slice(0, 7)
    found = results.crystals(ids)
    assert found.ids.tolist() == ids.to_pylist()
    place = {name: row for row, name in enumerate(real.ids.tolist())}
    own = [name for name in found.ids.tolist() if name in place]
    assert own
    for name in own:
        one = results.crystals([name])
        assert one.formulas().tolist() == real[place[name] : place[name] + 1].formulas().tolist()
    assert results.crystals(own[0]).ids.tolist() == own[:1]
    assert len(results.crystals([])) == 0
    with pytest.raises(ValueError, match=r"no crystal with the id 'nobody' \(1 of 2 are unknown\)"):
        results.crystals([own[0], "nobody"])


def test_the_best_are_shown(finished: Path) -> None:
    results = Results(finished)
    first = results.top(3)[0]
    row = results.candidates().slice(0, 1).to_pylist()[0]
    name = results.summary.target.name
    assert (first.rank, first.id, first.mean, first.low) == (1, row["id"], row[f"{name}_mean"], row[f"{name}_lo"])
    assert repr(results) == f"Results('{finished}'): campaign small, 59 crystals ranked"
    cells: list[str] = []
    parser = HTMLParser()
    parser.handle_data = cells.append  # type: ignore[method-assign]
    parser.feed(results._repr_html_())
    assert [row.id for row in results.top()] == [
        cell for cell in cells if cell in set(results.candidates()["id"].to_pylist())
    ]


def test_what_is_not_ranked_yet_can_be_looked_at(unranked: Path) -> None:
    results = Results(unranked)
    assert not results.ranked
    assert repr(results).endswith("not ranked yet")
    assert "not ranked yet" in results._repr_html_()
    assert results.predictions().num_rows == 59
    assert len(results.crystals(results.predictions()["id"])) == 59
    readers: list[Callable[[], object]] = [results.candidates, results.quarantine, lambda: results.summary]
    for read in readers:
        with pytest.raises(Failure, match="is not ranked yet; go on with: assay run") as caught:
            read()
        assert caught.value.code is Exit.CONFIG


def test_predictions_that_nobody_made_are_refused(finished: Path) -> None:
    with pytest.raises(Failure, match="holds no predictions of tier 1"):
        Results(finished).predictions(tier=1)


@pytest.mark.parametrize("name", ["candidates.parquet", "quarantine.parquet", "summary.json"])
def test_a_damaged_output_is_refused(folder: Path, name: str) -> None:
    results = Results(folder)
    flip(folder / name)
    readers: dict[str, Callable[[], object]] = {
        "candidates.parquet": results.candidates,
        "quarantine.parquet": results.quarantine,
        "summary.json": lambda: results.summary,
    }
    with pytest.raises(Failure, match="make the outputs again: assay report") as caught:
        readers[name]()
    assert caught.value.code is Exit.DISK
    assert list(results.wrong()) == [name]


def test_a_damaged_chunk_gives_no_crystals(folder: Path) -> None:
    results = Results(folder)
    for path in (folder / "snapshot" / "chunks").iterdir():
        flip(path)
    with pytest.raises(Failure, match="has sha256"):
        results.crystals(results.candidates()["id"])


def test_repr_does_not_raise(folder: Path) -> None:
    flip(folder / "candidates.parquet")
    assert "candidates.parquet has sha256" in Results(folder)._repr_html_()
    flip(folder / "summary.json")
    assert "summary.json has sha256" in repr(Results(folder))


def test_outputs_older_than_the_log_are_stale(folder: Path) -> None:
    assert not Results(folder).stale
    Ledger(folder).record("page", "late", {}, {"received": 0, "quarantined": 0}, {"walk": 0})
    assert Results(folder).stale
    assert list(Results(folder).wrong()) == ["summary.json"]


def test_other_folders_are_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(Failure, match="is no campaign folder") as caught:
        Results(tmp_path)
    assert caught.value.code is Exit.CONFIG
    flip(min((folder / "log").iterdir()))
    with pytest.raises(Failure) as caught:
        Results(folder)
    assert caught.value.code is Exit.DISK


def test_a_file_is_read_in_portions_in_the_memory_of_one(tmp_path: Path) -> None:
    """Unless told otherwise, pyarrow keeps the pages of every row group until the end, since 25.0."""

    def most(groups: int) -> int:
        path = tmp_path / f"{groups}.parquet"
        rng = np.random.default_rng(0)
        with pq.ParquetWriter(path, pa.schema([("x", pa.float64())]), write_page_checksum=True) as writer:
            for _ in range(groups):
                writer.write_table(pa.table({"x": rng.random(results.PORTION)}))
        before = pa.total_allocated_bytes()
        return max(pa.total_allocated_bytes() - before for _ in results.portions(path, ["x"]))

    assert most(40) < 1.2 * most(4)
