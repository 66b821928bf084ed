"""`assay status` and `assay errors`: what a folder says about its campaign, in every state and while it changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from assay.screening.audit import audit, refusals, status
from assay.screening.campaign import outputs
from assay.screening.campaign.plan import Plan
from assay.screening.folder import lock
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.results import Results
from assay.screening.settings.exits import Exit, Failure
from assay.sources.crystals import Crystals
from tests.fault_server import FaultServer
from tests.screening import small_campaign
from tests.screening.conftest import Command
from tests.screening.small_campaign import BAD, CHUNK, SHARED, SIZE, flip
from tests.servers import entries_from_crystals

RECEIVED = SIZE + SHARED
SCORED = SIZE - BAD


@pytest.fixture(scope="module")
def planned(real: Crystals, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return small_campaign.finish(tmp_path_factory.mktemp("status"), real, model)


@pytest.fixture
def folder(planned: Plan, tmp_path: Path) -> Path:
    """A copy of a finished campaign."""
    shutil.copytree(planned.folder, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def server(real: Crystals) -> Iterator[FaultServer]:
    """Announces 80 rows and has 60, one of them without coordinates."""
    faults = ["wrong-count:80", "nan:5"]
    with FaultServer(entries_from_crystals(real[:60]), page_limit=20, faults=faults) as running:
        yield running


def text(found: dict[str, Any]) -> str:
    return "\n".join(status.lines(found))


def stop_when(plan: Plan, pattern: str, count: int) -> None:
    """Run until so many files of a pattern are there."""
    with pytest.raises(Failure) as caught:
        small_campaign.run(plan, lambda: len(list(plan.folder.glob(pattern))) >= count)
    assert caught.value.code is Exit.STOPPED


def forget(folder: Path, since: str) -> None:
    """Take away the first record of a kind and all that came after it."""
    records = sorted((folder / "log").iterdir())
    first = next(n for n, path in enumerate(records) if json.loads(path.read_text())["kind"] == since)
    for path in records[first:]:
        path.unlink()


def test_a_ranked_campaign_tells_its_numbers(folder: Path) -> None:
    found = status.read(folder)
    assert (found["state"], found["phase"], found["outputs"]) == ("ranked", "ranked", "current")
    assert [source["name"] for source in found["sources"]] == ["a", "b"]
    assert sum(source["received"] for source in found["sources"]) == RECEIVED
    assert found["identity"] == {
        "fingerprints": RECEIVED - BAD,
        "compared": 1,
        "pairs": SHARED,
        "related": 0,
        "rows": RECEIVED - BAD,
        "clusters": SCORED,
    }
    assert found["chunks"]["scored"] == found["chunks"]["total"] > SCORED / CHUNK
    assert found["balance"]["ranked"] == found["chunks"]["crystals_scored"] == SCORED
    assert (found["holder"], found["suspects"], found["notes"]) == (None, {}, [])
    shown = text(found)
    assert shown.startswith("ranked ")
    assert f"{RECEIVED} received = {SIZE} unique + {SHARED} duplicate" in shown
    assert f"{SIZE} unique = {SCORED} scored + {BAD} quarantined + 0 filtered + 0 pending" in shown
    assert f"{SCORED} scored = {SCORED} ranked + 0 unrankable" in shown
    assert json.loads(json.dumps(found)) == found


def test_what_the_filters_left_out_is_told_by_filter(real: Crystals, model: Path, tmp_path: Path) -> None:
    small_campaign.write_sources(tmp_path, real)
    rule = {"elements": {"exclude": ["O"]}, "nsites": {"max": 12}}
    asked = small_campaign.make(small_campaign.write_config(tmp_path, model, filters=rule))
    assert small_campaign.run(asked).code is Exit.DONE
    half = (SIZE + SHARED) // 2
    parts = [real[:half], real[half - SHARED : SIZE - BAD]]
    oxides = [part.composition()[:, 8] > 0 for part in parts]
    large = [~left & (part.nsites > 12) for left, part in zip(oxides, parts, strict=True)]
    expected = {"filters.elements": sum(map(sum, oxides)), "filters.nsites": sum(map(sum, large))}
    found, results = status.read(asked.folder), Results(asked.folder)
    assert found["filtered"] == results.summary.filtered == expected
    assert sum(expected.values()) == found["balance"]["filtered"] > min(expected.values()) > 0
    for key, rows in found["filtered"].items():
        assert f"filtered   {rows}: {key}" in text(found)
        assert f"{rows} by <code>{key}</code>" in (asked.folder / "report.html").read_text()
        assert f"{rows} by {key}" in "\n".join(outputs.table_text(results))
    assert audit.check(asked.folder).problems == []
    ledger = Ledger(asked.folder)
    record = ledger.all("chunks")[0]
    ledger.record("chunks", record.key, record.files, record.counts, {**record.detail, "filtered": {"licences": 99}})
    assert any("rows filtered" in str(problem) for problem in audit.check(asked.folder).problems)


@pytest.mark.parametrize(
    ("since", "state", "phase", "sign"),
    [
        ("plan", "planned", "planned", "nothing was pulled yet"),
        ("shard", "stopped", "pulling", "not finished"),
        ("matches", "stopped", "scoring", f"{RECEIVED - BAD} fingerprints, 0 comparisons"),
        ("identity", "stopped", "scoring", f"{SHARED} equal pairs"),
        ("part", "stopped", "scoring", "0 of "),
        ("ranked", "stopped", "scoring", f"{SCORED} of {SCORED} crystals"),
    ],
)
def test_every_moment_of_a_campaign_has_a_state(folder: Path, since: str, state: str, phase: str, sign: str) -> None:
    forget(folder, since)
    found = status.read(folder)
    assert (found["state"], found["phase"]) == (state, phase)
    assert found["outputs"] == "none"
    assert sign in text(found)
    assert "ranked +" not in text(found)


def test_half_scored_and_half_pulled_campaigns_tell_how_far_they_are(
    real: Crystals, model: Path, tmp_path: Path, server: FaultServer
) -> None:
    small_campaign.write_sources(tmp_path, real)
    plan = small_campaign.make(small_campaign.write_config(tmp_path, model))
    stop_when(plan, "parts/*", 2)
    chunks = status.read(plan.folder)["chunks"]
    assert 0 < chunks["scored"] < chunks["total"]
    source = {"kind": "optimade", "provider": server.url, "name": "ref", "page_limit": 20}
    path = small_campaign.write_config(tmp_path, model, sources=[source], output=str(tmp_path / "pulled"))
    plan = small_campaign.make(path)
    stop_when(plan, "snapshot/ref/*-000000-*", 1)
    found = status.read(plan.folder)
    assert found["state"] == "stopped"
    (source,) = found["sources"]
    assert 0 < source["received"] < 60
    assert (source["shards_total"], source["expected"], source["complete"]) == (1, 80, None)
    assert "of 80 expected rows, not finished" in text(found)
    assert small_campaign.run(plan).code is Exit.INCOMPLETE
    found = status.read(plan.folder)
    assert found["state"] == "incomplete"
    assert "incomplete: " in text(found)
    assert "20 of 80" in found["sources"][0]["missing"]


def test_outputs_of_another_moment_are_told(folder: Path) -> None:
    flip(folder / "candidates.parquet")
    found = status.read(folder)
    assert found["outputs"] == "not what the log says: candidates.parquet"
    assert found["state"] == "stopped"
    Ledger(folder).record("page", "a/000009/000000", {}, {"received": 0, "quarantined": 0})
    assert status.read(folder)["outputs"] == "older than the last record of the log"


def test_who_runs_it_is_told_with_a_heartbeat(folder: Path) -> None:
    forget(folder, "part")
    with lock.held(folder):
        found = status.read(folder)
    assert found["state"] == "running"
    assert found["holder"]["verdict"] == "alive"
    assert "scoring, by pid " in text(found)
    assert "last heartbeat 0 s ago" in text(found)


def test_a_lock_that_was_left_over_is_no_running_campaign(folder: Path) -> None:
    forget(folder, "part")
    with lock.held(folder):
        dead = json.loads((folder / "LOCK").read_text())
    (folder / "LOCK").write_text(json.dumps(dead | {"process_start": "1"}))
    found = status.read(folder)
    assert found["state"] == "stopped"
    assert "left over from pid" in text(found)


def test_suspects_are_told(folder: Path) -> None:
    (folder / "attempts.log").write_text("begin score x\nbegin score y\nbegin score x\nbegin score y\ndone score y\n")
    found = status.read(folder)
    assert found["suspects"] == {"score x": 2}
    assert "score x: begun 2 times and never finished" in text(found)


def test_nothing_is_written(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    status.read(folder)
    refusals.read(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_config_that_cannot_be_read_is_a_note(folder: Path) -> None:
    (folder / "config.resolved.yaml").write_text("{")
    found = status.read(folder)
    assert sorted(source["name"] for source in found["sources"]) == ["a", "b"]  # in the order they were planned
    assert "config.resolved.yaml" in found["notes"][0]
    (folder / "config.resolved.yaml").unlink()
    assert "config.resolved.yaml not found" in status.read(folder)["notes"][0]


def test_a_broken_account_is_a_note(folder: Path) -> None:
    ledger = Ledger(folder)
    record = ledger.all("chunks")[0]
    ledger.record("chunks", record.key, record.files, {**record.counts, "filtered": 7}, record.detail)
    found = status.read(folder)
    assert found["balance"] is None
    assert "does not hold" in text(found)


@pytest.mark.parametrize("read", [status.read, refusals.read])
def test_a_damaged_log_is_74_and_no_campaign_is_78(
    folder: Path, tmp_path: Path, read: Callable[[Path], dict[str, Any]]
) -> None:
    flip(folder / "log" / "00000002.json", 40)
    with pytest.raises(Failure, match=r"00000002\.json") as caught:
        read(folder)
    assert caught.value.code is Exit.DISK
    for foreign in (tmp_path / "nothing", Path(__file__).parent):
        with pytest.raises(Failure) as caught:
            read(foreign)
        assert caught.value.code is Exit.CONFIG


def test_a_listing_that_misses_a_record_is_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two records are added while the log is listed, and the listing shows only the second of them."""
    whole = len(Ledger(folder))
    listed = [path for path in (folder / "log").iterdir() if path.stem != f"{whole - 2:08d}"]

    def stale(path: Path, pattern: str) -> Iterator[Path]:
        monkeypatch.undo()
        return iter(listed)

    monkeypatch.setattr(Path, "glob", stale)
    assert len(Ledger(folder)) == whole


def test_a_campaign_can_be_watched_from_outside(
    assay: Command, real_file: Path, write_config: Callable[..., Path]
) -> None:
    config = write_config({"kind": "files", "paths": [str(real_file)]}, chunk_size=6)
    child, out = assay.start("run", config, "--output", "out"), assay.folder / "out"
    seen: list[dict[str, Any]] = []
    while child.poll() is None:
        if (out / "fingerprint.json").exists():
            seen.append(status.read(out))
            refusals.read(out)
    assert child.returncode == 0, child.communicate()
    seen.append(status.read(out))
    assert seen[-1]["state"] == "ranked"
    records = [found["records"] for found in seen]
    assert records == sorted(records)
    running = [found for found in seen if found["state"] == "running"]
    assert {found["holder"]["pid"] for found in running} == {child.pid}
    assert any(0 < found["chunks"]["scored"] < found["chunks"]["total"] for found in running)
    child.communicate()


# Errors.


def test_refused_crystals_are_counted_with_an_example_and_a_remedy(folder: Path) -> None:
    found = refusals.read(folder)
    assert (found["by"], found["total"]) == ("reason", BAD)
    (group,) = found["groups"]
    assert (group["reason"], group["count"], group["remedy"]) == (
        "malformed",
        BAD,
        "complete the missing or contradicting field",
    )
    assert group["example"]["id"] == f"other/{SIZE - (SIZE + SHARED) // 2 + SHARED - 1:03d}"
    shown = "\n".join(refusals.lines(found))
    for sign in (f"{BAD}  malformed", group["example"]["id"], "b.parquet", group["remedy"]):
        assert sign in shown


@pytest.mark.parametrize("by", ["reason", "source", "stage"])
@pytest.mark.parametrize("since", ["ranked", "part", "identity", "matches"])
def test_errors_are_the_same_before_ranking(folder: Path, since: str, by: refusals.By) -> None:
    before = refusals.read(folder, by)
    forget(folder, since)
    after = refusals.read(folder, by)
    assert after["groups"] == before["groups"]
    assert after["groups"][0][by] == {"reason": "malformed", "source": "b", "stage": "pull"}[by]


def test_where_nothing_was_refused_this_is_said(folder: Path) -> None:
    forget(folder, "plan")
    assert list(refusals.lines(refusals.read(folder))) == ["no crystal was refused"]


def test_refused_crystals_of_a_half_pulled_shard_are_told(model: Path, tmp_path: Path, server: FaultServer) -> None:
    source = {"kind": "optimade", "provider": server.url, "name": "ref", "page_limit": 20}
    plan = small_campaign.make(small_campaign.write_config(tmp_path, model, sources=[source]))
    stop_when(plan, "snapshot/ref/*-000000-*", 2)
    for by, value in (("reason", "non_finite"), ("source", "ref")):
        (group,) = refusals.read(plan.folder, by)["groups"]
        assert (group[by], group["count"], group["example"]["reason"]) == (value, 1, "non_finite")


def test_a_hostile_message_stays_on_its_line() -> None:
    example = {"id": "x/1", "reason": "malformed", "message": "a\x1b[2Jb\nc", "origin": "u\rv"}
    found = {
        "by": "reason",
        "total": 1,
        "groups": [{"reason": "malformed", "count": 1, "example": example, "remedy": ""}],
    }
    assert list(refusals.lines(found))[1:] == [
        r"         for example x/1: malformed: a\u001b[2Jb\nc",
        r"         from u\rv",
    ]
