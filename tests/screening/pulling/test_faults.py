"""Every way a server is known to fail, through a whole pull: bounded, accounted for, and no key sent elsewhere.

For each fault and seed: the pull ends in a bounded number of requests; the balance holds; either
every entry of the server is in the campaign (as a crystal or a refused row), or the campaign says
that it is incomplete or the source down; and the credential went to this server only and stands in
no file.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from assay.screening.audit import status
from assay.screening.campaign import drive, fingerprint, plan
from assay.screening.campaign.plan import Plan
from assay.screening.folder import balance, snapshot
from assay.screening.folder.ledger import Ledger
from assay.screening.runners.local import LocalRunner
from assay.screening.runners.worker import Worker
from assay.screening.settings import config, yamlfile
from assay.screening.settings.exits import Exit, Failure
from assay.sources.crystals import Crystals
from assay.sources.databases import optimade, pace
from tests.servers import FaultServer, entries_from_crystals

N, PAGE = 60, 15
CANARY = "canary-5d41402abc4b2a76"
MOST_REQUESTS = 400
SEEDS = (1, 2)

PASSING = [
    "429*2",
    "429:0*1",
    "429-date:0*1",
    "500*1",
    "502*2",
    "503*1",
    "504*1",
    "reset*1",
    "close*1",
    "truncated*1",
    "short-gzip*1",
    "html*1",
    "hang*1",
]
LASTING = [
    "drip",
    "429",
    "429:0",
    "500",
    "503",
    "reset",
    "close",
    "truncated",
    "short-gzip",
    "html",
    "deep",
    "400",
    "401",
    "403",
    "404",
    "501",
    "redirect:ELSEWHERE",
    "errors",
    "foreign-next:ELSEWHERE",
]
HARMLESS = [
    "href-next",
    "relative-next",
    "cursor-next",
    "forget-fields",
    "ignore-limit:7",
    "refuse-limit:10",
    "old-version",
    "no-count",
    "no-available",
    "more-lies",
    "int-ids",
    "shrink:3",
    "delay:0.01",
]
SPOILT = ["nan:3,17", "no-species:5", "disorder:2", "vacancy:4", "doubled:2"]
POISON = ["500#7", "503#0", "502#59", "bomb#9", "500#20"]
LYING = ["wrong-count:80", "lost:2", "self-next", "loop-next", "ignore-offset", "ignore-filter", "wrong-count:20"]
ENDLESS = ["endless", "bomb"]

ENDS: dict[str, set[Exit]] = {
    **{key: {Exit.DONE} for key in [*PASSING, *HARMLESS, *SPOILT, *POISON]},
    **{key: {Exit.SOURCE_DOWN} for key in LASTING},
    **{key: {Exit.DONE, Exit.INCOMPLETE, Exit.SOURCE_DOWN} for key in LYING},
    **{key: {Exit.INCOMPLETE, Exit.SOURCE_DOWN} for key in ENDLESS},
}


@pytest.fixture(scope="module")
def entries(real: Crystals) -> list[dict[str, Any]]:
    return entries_from_crystals(real[:N])


@pytest.fixture(scope="module")
def planned(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("plan")
    content = {"name": "t", "sources": [{"kind": "prototypes", "n": 1}], "models": [str(model)], "output": str(folder)}
    return plan.make(yamlfile.validate(config.Campaign, content, "here"))


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The same rules on a shorter scale: tenths of a second where they wait for minutes.

    A bomb is unpacked up to its limit, which takes seconds on a busy machine.
    """
    fault = getattr(request.node, "callspec", None) and request.node.callspec.params.get("fault", "")
    patient = {"timeout_s": 4.0, "deadline_s": 30.0}
    quick = {"backoff_s": 0.002, "timeout_s": 0.4, "deadline_s": 3.0} | (patient if "bomb" in (fault or "") else {})
    monkeypatch.setattr(optimade, "connect", partial(optimade.connect, **quick))
    monkeypatch.setattr(pace, "HostPace", partial(pace.HostPace, open_s=0.02, max_open_s=0.1))
    monkeypatch.setenv("ASSAY_CANARY", CANARY)


def pulled(planned: Plan, folder: Path, url: str, **keys: Any) -> tuple[Exit, Ledger, config.Campaign]:
    """Pull from a server, and how that ended."""
    source = {
        "kind": "optimade",
        "provider": url,
        "name": "s",
        "page_limit": PAGE,
        "shard_size": 25,
        "headers": {"X-API-KEY": {"env": "ASSAY_CANARY"}},
        "patience_s": 0.0,
        **keys,
    }
    content = {"name": "t", "sources": [source], "models": planned.models, "output": str(folder), "max_bad": 1.0}
    chosen = yamlfile.validate(config.Campaign, content, "here")
    asked = replace(planned, campaign=chosen, folder=folder, fingerprint=fingerprint.take(chosen, planned.ensembles))
    try:
        outcome = drive.run(asked, LocalRunner(Worker(list)), lambda: False, pull_only=True)
        code = outcome.code
    except Failure as failure:
        code = failure.code
    return code, Ledger(folder), chosen


def arrived(ledger: Ledger) -> set[str]:
    """Ids of all rows in the snapshot."""
    names = [
        name
        for record in ledger.all("page")
        for path in record.files
        for name in ledger.read(record, path, ["id"])["id"].to_pylist()
    ]
    return set(names)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", sorted(ENDS))
def test_the_pull_is_bounded_and_nothing_is_lost_in_silence(
    tmp_path: Path, planned: Plan, entries: list[dict[str, Any]], fault: str, seed: int
) -> None:
    rotated = entries[seed * 7 :] + entries[: seed * 7]  # the fault meets other crystals
    with FaultServer() as elsewhere:
        there = fault.replace("ELSEWHERE", elsewhere.url)
        with FaultServer(rotated, page_limit=PAGE, faults=[there], gzipped=seed == 2) as server:
            code, ledger, chosen = pulled(planned, tmp_path / "out", server.url)
            asked = list(server.requests)
    assert code in ENDS[fault], f"{fault} ended with {code!r} after {len(asked)} requests"
    assert len(asked) <= MOST_REQUESTS
    assert elsewhere.requests == []
    counted = balance.take(ledger)  # raises when the balance is broken
    ends = ledger.find("source", "s")
    if code is Exit.DONE:
        assert ends is not None
        assert len(arrived(ledger)) >= N or ends.detail["expected"] in {20, N - 2}
        assert snapshot.sealed(ledger, chosen)
        assert counted.unique >= N or fault in {"wrong-count:20", "lost:2"}
    assert all(headers.get("x-api-key") == CANARY for _, headers in asked)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]


@pytest.mark.parametrize(("left", "shard_size"), [(40, 100), (0, 100), (40, 25)])
def test_rows_that_are_gone_once_the_query_is_cut_are_missing(
    tmp_path: Path, planned: Plan, entries: list[dict[str, Any]], left: int, shard_size: int
) -> None:
    """A database that is filled anew while it is pulled says of each page that nothing is missing."""
    with FaultServer(entries, page_limit=PAGE) as server:
        whole = server.document

        def emptied(path: str) -> tuple[int, Any]:
            if f"page_limit={PAGE}" in path and len(server.entries) == N:  # the first page, after all counts
                server.entries = server.entries[:left]
                server.matching.cache_clear()
            return whole(path)

        server.document = emptied  # type: ignore[method-assign]
        code, ledger, _ = pulled(planned, tmp_path / "out", server.url, shard_size=shard_size)
    end = ledger.find("source", "s")
    assert end is not None
    assert (code, end.detail["complete"]) == (Exit.INCOMPLETE, False)
    assert (end.detail["expected"], end.counts["received"]) == (N, left)
    assert "were announced when the query was cut, and" in end.detail["error"]


def test_a_source_that_is_skipped_half_way_says_how_much_it_had(
    tmp_path: Path, planned: Plan, entries: list[dict[str, Any]]
) -> None:
    """The shards that were not begun count as announced, too."""
    with FaultServer(entries, page_limit=PAGE) as server:
        whole, pages = server.note, 0

        def refused(path: str, headers: dict[str, str]) -> str:
            nonlocal pages
            pages += f"page_limit={PAGE}" in path
            return "401" if pages > 1 else whole(path, headers)

        server.note = refused  # type: ignore[method-assign]
        code, ledger, _ = pulled(planned, tmp_path / "half", server.url, when_down="skip")
        folder, server.note = tmp_path / "none", lambda *_: "401"  # type: ignore[method-assign]
        assert pulled(planned, folder, server.url, when_down="skip")[0] is Exit.SOURCE_DOWN
    (half,) = status.read(tmp_path / "half")["sources"]
    assert code is Exit.INCOMPLETE
    assert half["shards_total"] == ledger.find("plan", "s").counts["shards"] > half["shards"] == 1  # type: ignore[union-attr]
    assert half["expected"] == N > half["received"] > 0
    (none,) = status.read(folder)["sources"]
    assert (none["received"], none["expected"]) == (0, None)
