"""What follows from what: shards are scored while others are pulled, twins are found, any prefix of the log goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from assay.models.ensemble.ensemble import Ensemble
from assay.screening.campaign import drive, fingerprint, flow, plan
from assay.screening.campaign.plan import Plan
from assay.screening.campaign.stages.stage import Stage, commit
from assay.screening.folder.attempts import Attempts
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.results import Results
from assay.screening.folder.summary import Merged
from assay.screening.runners.local import LocalRunner
from assay.screening.runners.runner import Done, Unit
from assay.screening.runners.work import Entry, Models, Work
from assay.screening.runners.worker import Worker
from assay.screening.settings import config, yamlfile
from assay.screening.settings.exits import Exit, Failure
from assay.screening.settings.progress import Board
from assay.sources import table
from assay.sources.crystals import Crystals, concat
from tests.screening.small_campaign import some_members
from tests.servers import FaultServer, entries_from_crystals


@pytest.fixture(scope="module")
def ensembles(model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Ensemble]:
    two = some_members(tmp_path_factory.mktemp("models") / "two", model, (0, 1))
    return plan.load_ensembles([str(two)])


@pytest.fixture(scope="module")
def server(real: Crystals) -> Iterator[FaultServer]:
    with FaultServer(entries_from_crystals(real[:60]), page_limit=10, faults=["nan:5"]) as running:
        yield running


def planned(folder: Path, ensembles: list[Ensemble], sources: list[dict[str, Any]], **keys: Any) -> Plan:
    content = {
        "name": "t",
        "sources": sources,
        "models": [str(ensembles[0].folder)],
        "output": str(folder),
        "chunk_size": 8,
        "max_bad": 1.0,
        **keys,
    }
    chosen = yamlfile.validate(config.Campaign, content, "here")
    target = plan.find_target(ensembles, chosen.rank)
    return Plan(chosen, folder, ensembles, target, fingerprint.take(chosen, ensembles))


def optimade(url: str, **keys: Any) -> dict[str, Any]:
    return {"kind": "optimade", "provider": url, "name": "s", "page_limit": 10, "shard_size": 25, **keys}


def run(asked: Plan) -> drive.Outcome:
    return drive.run(asked, LocalRunner(Worker(lambda: asked.ensembles)), lambda: False)


def outputs(folder: Path) -> list[Path]:
    return [*sorted(folder.glob("*.parquet")), folder / "summary.json", folder / "report.html"]


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in outputs(folder)}


def kinds(folder: Path) -> list[str]:
    return [json.loads(path.read_text())["kind"] for path in sorted((folder / "log").glob("*.json"))]


def test_chunks_are_scored_while_other_shards_are_pulled(
    tmp_path: Path, ensembles: list[Ensemble], real: Crystals
) -> None:
    with FaultServer(entries_from_crystals(real[:90]), page_limit=10, faults=["delay:0.2"]) as slow:
        assert run(planned(tmp_path, ensembles, [optimade(slow.url)])).code is Exit.DONE
    order = kinds(tmp_path)
    assert order.index("part") < len(order) - 1 - order[::-1].index("page")


def test_a_quick_source_does_not_keep_the_first_chunk_waiting(tmp_path: Path, ensembles: list[Ensemble]) -> None:
    source = {"kind": "prototypes", "n": 4_200}  # two blocks, there at once
    assert run(planned(tmp_path, ensembles, [source], filters={"nsites": {"max": 2}})).code is Exit.DONE
    order = kinds(tmp_path)
    assert order.count("page") == 2
    assert order.index("part") < len(order) - 1 - order[::-1].index("page")


def test_a_campaign_goes_on_from_every_prefix_of_its_log(
    tmp_path: Path, ensembles: list[Ensemble], server: FaultServer
) -> None:
    filters = {"predicted": {"formation_energy": {"max": -0.5, "confidence": 0.9}}}
    whole = planned(tmp_path / "whole", ensembles, [optimade(server.url)], filters=filters)
    assert run(whole).code is Exit.DONE
    assert 0 < Results(whole.folder).excluded().num_rows < Results(whole.folder).summary.balance.scored
    expected, records = digest(whole.folder), len(kinds(whole.folder))
    assert records > 18
    for kept in range(records):
        folder = tmp_path / "broken"
        shutil.copytree(whole.folder, folder)
        for path in sorted((folder / "log").glob("*.json"))[kept:]:
            path.unlink()
        for path in outputs(folder):
            path.unlink()
        before = len(server.requests)
        assert run(replace(whole, folder=folder)).code is Exit.DONE
        assert digest(folder) == expected, f"after {kept} of {records} records"
        if "source" in kinds(whole.folder)[:kept]:
            assert len(server.requests) == before, "a finished source is not asked again"
        shutil.rmtree(folder)


def test_pages_that_are_kept_are_not_asked_for_again(
    tmp_path: Path, ensembles: list[Ensemble], server: FaultServer
) -> None:
    asked = planned(tmp_path / "out", ensembles, [optimade(server.url)])
    assert run(asked).code is Exit.DONE
    pages = kinds(asked.folder).count("page")
    logs = sorted((asked.folder / "log").glob("*.json"))
    kept = [json.loads(path.read_text())["kind"] for path in logs].index("shard")  # all but the end of shard 0
    for path in logs[kept:]:
        path.unlink()
    before = len(server.requests)
    assert run(asked).code is Exit.DONE
    assert len(server.requests) - before == pages - kept + 1  # the plan is kept too


WIDE = 30
"""The crystal that the second database of `twins` holds at another volume."""


@pytest.fixture(scope="module")
def twins(real: Crystals, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Two databases: the second has 20 crystals of the first, in other cells, with values of another functional.

    Its last one is a crystal of the first at 9 % more volume.
    """
    folder = tmp_path_factory.mktemp("twins")
    ordered = real[:40]
    shifted = ordered[:20]
    moved = replace(
        shifted,
        ids=np.array([f"b/{k}" for k in range(20)]),
        lattice=shifted.lattice * 1.01,
        frac=(shifted.frac + 0.25) % 1.0,
    )
    wide = replace(real[WIDE : WIDE + 1], ids=np.array(["b/wide"]), lattice=real.lattice[WIDE : WIDE + 1] * 1.03)
    sources = []
    for name, crystals, functional in (("a", ordered, "PBE"), ("b", concat([moved, real[40:50], wide]), "PBEsol")):
        labelled = crystals.with_columns(
            band_gap=np.arange(float(len(crystals))) + (0.5 if name == "b" else 0.0),
            band_gap_functional=np.array([functional] * len(crystals)),
        )
        path = folder / f"{name}.parquet"
        table.write(table.to_table(labelled), path)
        sources.append({"kind": "files", "paths": [str(path)], "name": name})
    return sources


def test_the_same_crystal_of_two_databases_is_scored_once_with_all_its_ids(
    tmp_path: Path, ensembles: list[Ensemble], real: Crystals, twins: list[dict[str, Any]]
) -> None:
    outcome = run(planned(tmp_path, ensembles, twins))
    counted = outcome.balance
    assert (counted.received, counted.scored, counted.duplicate) == (71, 51, 20)
    assert outcome.summary is not None
    assert outcome.summary.identity == Merged(rows=71, clusters=51, related=1)
    rows = {row["id"]: row for row in table.read(tmp_path / "candidates.parquet").to_pylist()}
    for k in range(20):
        row = rows[str(real.ids[k])]
        assert row["ids"] == sorted([str(real.ids[k]), f"b/{k}"])
        assert row["band_gap_spread"] == pytest.approx(0.5)
        assert row["band_gap_functionals"] == "PBE | PBEsol"  # said, because the spread is no error bar
    alone = rows[str(real.ids[25])]
    assert alone["ids"] == [str(real.ids[25])]
    assert alone["band_gap_spread"] is None
    every = table.read(tmp_path / "identity" / "crystals.parquet")
    assert every.num_rows == 71
    assert sum(every["representative"].to_pylist()) == 51


def test_related_crystals_are_both_kept_and_name_each_other(
    tmp_path: Path, ensembles: list[Ensemble], real: Crystals, twins: list[dict[str, Any]]
) -> None:
    run(planned(tmp_path, ensembles, twins))
    rows = {row["id"]: row for row in table.read(tmp_path / "candidates.parquet").to_pylist()}
    known = str(real.ids[WIDE])
    for one, other, ratio in ((known, "b/wide", 1.03**3), ("b/wide", known, 1.03**-3)):
        assert rows[one]["ids"] == [one]
        assert rows[one]["related_to"] == [other]
        assert rows[one]["related_distance"] == pytest.approx([0], abs=1e-6)
        assert rows[one]["related_volume_ratio"] == pytest.approx([ratio])
    assert sum(len(row["related_to"]) for row in rows.values()) == 2
    first, second = sorted(rows[name]["rank"] for name in (known, "b/wide"))
    marks = {row.rank: row.marks for row in Results(tmp_path).top(len(rows))}
    assert f"related to {first}" in marks[second]
    assert not any("related" in mark for mark in marks[first])
    page = (tmp_path / "report.html").read_text()
    assert "1 pairs of them are alike and not the same" in page


def test_twins_are_found_from_every_prefix_of_the_log(
    tmp_path: Path, ensembles: list[Ensemble], twins: list[dict[str, Any]]
) -> None:
    whole = planned(tmp_path / "whole", ensembles, twins)
    run(whole)
    expected, order = digest(whole.folder), kinds(whole.folder)
    assert {"fingerprints", "matches", "identity"} <= set(order)
    for kept in range(0, len(order), 2):
        shutil.copytree(whole.folder, tmp_path / "broken")
        for path in sorted((tmp_path / "broken" / "log").glob("*.json"))[kept:]:
            path.unlink()
        run(replace(whole, folder=tmp_path / "broken"))
        assert digest(tmp_path / "broken") == expected, f"after {order[:kept]}"
        shutil.rmtree(tmp_path / "broken")


def test_files_that_changed_since_the_pull_began_are_refused(
    tmp_path: Path, ensembles: list[Ensemble], real: Crystals
) -> None:
    path = tmp_path / "crystals.parquet"
    table.write(table.to_table(real[:20]), path)
    asked = planned(tmp_path / "out", ensembles, [{"kind": "files", "paths": [str(path)]}])
    run(asked)
    for log in sorted((asked.folder / "log").glob("*.json"))[1:]:  # only the plan is left
        log.unlink()
    table.write(table.to_table(real[:21]), path)
    with pytest.raises(Failure, match=r"content\.files\.0\.crystals\.parquet: was") as caught:
        run(asked)
    assert caught.value.code is Exit.CONFIG


def test_a_ranking_needs_no_source_files(tmp_path: Path, ensembles: list[Ensemble], real: Crystals) -> None:
    path = tmp_path / "crystals.parquet"
    table.write(table.to_table(real[:20]), path)
    asked = planned(tmp_path / "out", ensembles, [{"kind": "files", "paths": [str(path)]}])
    run(asked)
    before = digest(asked.folder)
    path.unlink()
    assert drive.rerank(asked).code is Exit.DONE
    assert digest(asked.folder) == before


@dataclass(frozen=True)
class Count(Work[int]):
    """A kind of work of our own: how many crystals there are."""

    name = "count"

    def do(self, models: Models, table: pa.Table) -> int:
        return int(table.num_rows)

    def merge(self, results: Sequence[int]) -> int:
        return sum(results)

    def blame(self, table: pa.Table, result: int, guilty: Sequence[int]) -> int:
        return result

    def entry(self, key: str, rows: int, result: int) -> Entry:
        return Entry("counted", {}, {"rows": result})


class Counting(Stage):
    """A stage of our own, before the chunks are scored."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def advance(self, *, complete: bool) -> Iterator[Unit]:
        if complete and not self.finished():
            record = self._ledger.all("chunks")[0]
            path = next(name for name in record.files if name.startswith("snapshot/chunks/"))
            yield Unit(Count(), "first", 8, partial(self._ledger.read, record, path))

    def done(self, done: Done) -> bool:
        commit(self._ledger, done)
        return True

    def finished(self) -> bool:
        return self._ledger.find("counted", "first") is not None


def test_a_stage_with_work_of_its_own_is_one_more_entry_of_the_list(tmp_path: Path, ensembles: list[Ensemble]) -> None:
    asked = planned(tmp_path, ensembles, [{"kind": "prototypes", "n": 20}])
    ledger, runner = Ledger(tmp_path), LocalRunner(Worker(lambda: asked.ensembles))
    stages = flow.scoring_stages(asked, ledger, Board())
    stages.insert(2, Counting(ledger))
    with Attempts(tmp_path / "attempts.log") as attempts:
        work = flow.Flow(stages, attempts)
        for happened in runner.work(work.jobs, work.units, lambda: False):
            work.take(happened)
    assert work.finished()
    counted = ledger.find("counted", "first")
    assert counted is not None
    assert counted.counts == {"rows": 8}
    assert sum(part.counts["scored"] + part.counts["quarantined"] for part in ledger.all("part")) == 20
    assert (tmp_path / "attempts.log").read_text().splitlines().count("begin count first") == 1
