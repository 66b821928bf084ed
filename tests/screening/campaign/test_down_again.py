"""A source that was down and skipped is asked again by the next run, which ends as if it never had been down."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from assay.models.ensemble.ensemble import Ensemble
from assay.screening.audit import audit as verify
from assay.screening.campaign import drive, preview
from assay.screening.campaign.plan import Plan
from assay.screening.folder.ledger import Ledger
from assay.screening.runners import worker
from assay.screening.runners.cluster import ClusterRunner
from assay.screening.settings.config import Ray
from assay.screening.settings.exits import Exit, Failure
from assay.sources import table
from assay.sources.crystals import Crystals
from tests.fault_server import Placed
from tests.metals import EMT
from tests.screening import small_campaign
from tests.screening.small_campaign import digests, some_members, write_config
from tests.servers import FaultServer, entries_from_crystals

UP: list[Placed] = []
DOWN = [Placed.parse("403")]
BREAKS = [Placed.parse("403@20")]
"""The third page of ten and all after it are refused."""


@pytest.fixture(scope="module")
def ensembles(model: Path) -> list[Ensemble]:
    return [Ensemble.load(model)]


@pytest.fixture
def server(real: Crystals) -> Iterator[FaultServer]:
    with FaultServer(entries_from_crystals(real[:40]), page_limit=10) as running:
        yield running


def planned(folder: Path, server: FaultServer, real: Crystals, ensembles: list[Ensemble], **keys: Any) -> Plan:
    """The server, and a file that shares some crystals with it, some of them under the same ids."""
    ids = [f"ref/{entry['id']}" for entry in entries_from_crystals(real[:60])]
    names = pa.array([name if row % 2 else f"own/{row}" for row, name in enumerate(ids)])
    table.write(table.to_table(real[:60]).set_column(0, "id", names).slice(15), folder / "own.parquet")
    asked = {"kind": "optimade", "provider": server.url, "name": "ref", "page_limit": 10, "when_down": "skip"}
    asked["patience_s"] = 0.0
    own = {"kind": "files", "paths": [str(folder / "own.parquet")], "name": "own"}
    sources = [own, asked] if keys.pop("last", False) else [asked, own]
    content = {"sources": sources, "output": str(folder / "out"), "chunk_size": 8} | keys
    return small_campaign.make(write_config(folder, Path(str(ensembles[0].folder)), **content), ensembles)


@pytest.mark.parametrize("first", [DOWN, BREAKS])
@pytest.mark.parametrize("what", ["ids", "identity", "last", "cascade", "relax"])
def test_the_next_run_asks_it_again(
    server: FaultServer,
    real: Crystals,
    ensembles: list[Ensemble],
    model: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    first: list[Placed],
    what: str,
) -> None:
    keys: dict[str, Any] = {"identity": what == "identity", "last": what == "last"}
    if what == "cascade":
        tiers = [{"model": str(some_members(tmp_path / "fast", model, (0, 1))), "keep": 0.5}]
        keys |= {"cascade": {"tiers": tiers, "audit": 5}, "identity": True}
    if what == "relax":  # EMT knows few of these crystals; the others are refused, and counted
        keys |= {"relax": {"model": EMT}, "max_bad": 1.0}
    never, down = tmp_path / "never", tmp_path / "down"
    for folder in (never, down):
        folder.mkdir()
    small_campaign.run(planned(never, server, real, ensembles, **keys))
    asked = planned(down, server, real, ensembles, **keys)
    server.placed = first
    assert small_campaign.run(asked).code is Exit.INCOMPLETE
    sequence = len(Ledger(asked.folder))
    parts = {record.key: record.sequence for record in Ledger(asked.folder).all("part")}
    server.placed = DOWN
    assert small_campaign.run(asked).code is Exit.INCOMPLETE
    assert "source ref is still down, and is skipped again" in caplog.text
    assert len(Ledger(asked.folder)) == sequence  # nothing is done twice for a source that is silent
    assert any("was down" in line for line in preview.lines(asked))
    server.placed = UP
    requests = len(server.requests)
    assert small_campaign.run(asked).code is Exit.DONE
    assert len(server.requests) > requests
    assert "source ref was down and answers now" in caplog.text
    assert digests(asked.folder) == digests(never / "out")
    assert verify.check(asked.folder).problems == []
    if what == "ids":  # the predictions of chunks that stay as they are stay
        kept = {record.key: record.sequence for record in Ledger(asked.folder).all("part")}
        assert first is DOWN or any(kept.get(name) == place for name, place in parts.items())
    assert small_campaign.run(asked).code is Exit.DONE


def test_a_run_that_is_stopped_while_it_asks_again_goes_on(
    server: FaultServer, real: Crystals, ensembles: list[Ensemble], tmp_path: Path
) -> None:
    never, down = tmp_path / "never", tmp_path / "down"
    for folder in (never, down):
        folder.mkdir()
    small_campaign.run(planned(never, server, real, ensembles))
    asked = planned(down, server, real, ensembles)
    server.placed = BREAKS
    small_campaign.run(asked)
    server.placed = UP
    for calls in (1, 4):
        count = iter(range(calls))
        with pytest.raises(Failure, match="run again") as stopped:
            small_campaign.run(asked, lambda left=count: next(left, None) is None)
        assert stopped.value.code is Exit.STOPPED
        assert verify.check(asked.folder).problems == []
    assert small_campaign.run(asked).code is Exit.DONE
    assert digests(asked.folder) == digests(never / "out")


def test_it_may_break_off_again(server: FaultServer, real: Crystals, ensembles: list[Ensemble], tmp_path: Path) -> None:
    never, down = tmp_path / "never", tmp_path / "down"
    for folder in (never, down):
        folder.mkdir()
    small_campaign.run(planned(never, server, real, ensembles))
    asked = planned(down, server, real, ensembles)
    for faults in (DOWN, [Placed.parse("403@10")], [Placed.parse("403@30")]):
        server.placed = faults
        assert small_campaign.run(asked).code is Exit.INCOMPLETE
    server.placed = UP
    assert small_campaign.run(asked).code is Exit.DONE
    assert digests(asked.folder) == digests(never / "out")


def test_all_sources_down_is_69(server: FaultServer, real: Crystals, ensembles: list[Ensemble], tmp_path: Path) -> None:
    asked = {"kind": "optimade", "provider": server.url, "page_limit": 10, "when_down": "skip", "patience_s": 0.0}
    sources = [{**asked, "name": "a"}, {**asked, "name": "b"}]
    down = planned(tmp_path, server, real, ensembles, sources=sources)
    server.placed = DOWN
    assert sum("down, and skipped" in line for line in preview.lines(down)) == 2
    for _ in range(2):
        with pytest.raises(Failure, match="all sources are down") as failure:
            small_campaign.run(down)
        assert failure.value.code is Exit.SOURCE_DOWN
        assert not (down.folder / "candidates.parquet").exists()
    server.placed = UP
    assert small_campaign.run(down).code is Exit.DONE


def test_on_ray_too(
    ray_cluster: Any, server: FaultServer, real: Crystals, ensembles: list[Ensemble], tmp_path: Path
) -> None:
    never, down = tmp_path / "never", tmp_path / "down"
    for folder in (never, down):
        folder.mkdir()
    small_campaign.run(planned(never, server, real, ensembles))
    asked = planned(down, server, real, ensembles)
    for faults, code in ((BREAKS, Exit.INCOMPLETE), (UP, Exit.DONE)):
        server.placed = faults
        make = partial(worker.loaded, asked.models, [], asked.campaign)
        assert drive.run(asked, ClusterRunner(make, Ray(workers=1)), lambda: False).code is code
    assert digests(asked.folder) == digests(never / "out")
