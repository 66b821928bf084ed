"""Pages that a server cannot deliver: the guilty entries are found and named, nothing else is lost, and it ends."""

import re
from pathlib import Path
from typing import Any

import pytest

from assay.sources.databases.client import Client, SourceDown
from assay.sources.databases.optimade import Page, Query, pages
from assay.sources.quarantine import Reason, Stage
from tests.servers import Entry, FaultServer, entries_from_crystals, materials_project

N = 60


@pytest.fixture(scope="module")
def entries(data: Path) -> list[Entry]:
    return entries_from_crystals(materials_project(data, N))


def pull(server: FaultServer, query: Query, **limits: Any) -> list[Page]:
    patience: dict[str, Any] = {"local": True, "backoff_s": 0.002, "timeout_s": 20.0, "deadline_s": 60.0, **limits}
    with Client(server.url, **patience) as client:
        return list(pages(client, query))


def ids(found: list[Page]) -> list[str]:
    return [name for page in found for name in page.crystals.ids.tolist()]


def lost(found: list[Page]) -> list[int]:
    """Places of the entries that could not be had."""
    rows = [row for page in found for row in page.quarantined]
    assert all((row.stage, row.reason) == (Stage.PULL, Reason.SERVER_ERROR) for row in rows)
    places = [re.fullmatch(r"local/\?(\d+)@(http://127\.0\.0\.1.*)", row.id) for row in rows]
    assert all(place is not None and place[2] == row.origin for place, row in zip(places, rows, strict=True))
    return [int(place[1]) for place in places if place is not None]


@pytest.mark.parametrize(
    ("broken", "most"),
    [
        ([], 3),
        ([27], 50),
        ([0], 50),  # the entry that tells a broken page from a dead server is the broken one
        ([N - 1], 50),
        ([0, 19, 20, 39], 160),
        ([22, 23, 31], 110),
        (list(range(20, 30)), 150),
        (list(range(40, 60)), 260),
    ],
    ids=str,
)
def test_broken_entries_are_named_and_everything_else_arrives(
    broken: list[int], most: int, entries: list[Entry]
) -> None:
    with FaultServer(entries, faults=[f"500#{place}" for place in broken]) as server:
        found = pull(server, Query(page_limit=20))
        n_requests = len(server.requests)
    print(f"{len(broken)} of {N}: {n_requests} requests")
    assert ids(found) == [f"local/{entry['id']}" for place, entry in enumerate(entries) if place not in broken]
    assert lost(found) == broken
    assert sum(page.n_entries for page in found) == N
    assert (found[-1].complete, found[-1].missing) == (True, 0)
    assert n_requests <= most


def test_a_whole_first_page_may_be_broken(entries: list[Entry]) -> None:
    with FaultServer(entries, faults=[f"502#{place}" for place in range(10)]) as server:
        found = pull(server, Query(page_limit=10))
        assert len(server.requests) <= 150
    assert lost(found) == list(range(10))
    assert len(ids(found)) == N - 10
    assert len(found[0].crystals) == 0


def test_offsets_count_in_the_order_of_the_filter(entries: list[Entry]) -> None:
    matching = [place for place, entry in enumerate(entries) if entry["attributes"]["nelements"] == 3]
    with FaultServer(entries, faults=[f"500#{matching[11]}"]) as server:
        found = pull(server, Query("nelements=3", page_limit=8))
    assert lost(found) == [11]
    assert len(ids(found)) == len(matching) - 1


def test_pages_smaller_than_asked_for_are_searched_too(entries: list[Entry]) -> None:
    with FaultServer(entries, page_limit=7, faults=["500#3", "500#33"]) as server:
        found = pull(server, Query(page_limit=20))
        assert len(server.requests) <= 120
    assert lost(found) == [3, 33]
    assert len(ids(found)) == N - 2


def test_a_limit_on_entries_counts_the_lost_ones(entries: list[Entry]) -> None:
    with FaultServer(entries, faults=["500#13"]) as server:
        found = pull(server, Query(page_limit=10, max_entries=15))
    assert lost(found) == [13]
    assert len(ids(found)) == 14
    assert found[-1].complete


@pytest.mark.parametrize("fault", ["fat:17", "bomb#17"])
def test_an_entry_too_large_to_be_read_is_lost_alone(fault: str, entries: list[Entry]) -> None:
    with FaultServer(entries, faults=[fault]) as server:
        found = pull(server, Query(page_limit=20), max_bytes=2**20)
        assert len(server.requests) <= 30
    assert lost(found) == [17]
    assert len(ids(found)) == N - 1
    assert found[-1].n_entries > 1  # the pages behind it are not fetched one by one


def test_a_page_that_fails_only_for_a_while_loses_nothing(entries: list[Entry]) -> None:
    with FaultServer(entries, script=["ok", *["503"] * 5, "ok"]) as server:
        found = pull(server, Query(page_limit=20))
        assert len(server.requests) <= 15
    assert lost(found) == []
    assert ids(found) == [f"local/{entry['id']}" for entry in entries]


@pytest.mark.parametrize("alive", [2, 7, 8, 9, 12, 17, 20, 25])
def test_a_server_that_dies_during_the_search_is_down(alive: int, entries: list[Entry]) -> None:
    script = ["ok"] * alive + ["503"]
    with FaultServer(entries, script=script, faults=["500#27"]) as server:
        with Client(server.url, local=True, backoff_s=0.002) as client:
            stream = pages(client, Query(page_limit=20))
            received = [next(stream)]
            with pytest.raises(SourceDown, match="50[03]"):
                next(stream)
        assert len(server.requests) <= alive + 11
    assert ids(received) == [f"local/{entry['id']}" for entry in entries[:20]]
    assert lost(received) == []


def test_a_broken_server_is_given_up_after_32_lost_entries(entries: list[Entry]) -> None:
    with FaultServer(entries, faults=[f"500#{place}" for place in range(1, N)]) as server:
        with pytest.raises(SourceDown, match="more than 32 entries cannot be had"):
            pull(server, Query(page_limit=60))
        print(f"33 lost: {len(server.requests)} requests")
        assert len(server.requests) <= 450


def test_the_lost_are_counted_over_the_whole_walk(entries: list[Entry]) -> None:
    with FaultServer(entries, faults=[f"500#{place}" for place in range(3, 43)]) as server:
        with pytest.raises(SourceDown, match="more than"):
            pull(server, Query(page_limit=10))
        assert len(server.requests) <= 450


@pytest.mark.parametrize(
    "faults",
    [
        ["cursor-next", "500#27"],  # opaque links: no offset to ask for
        ["ignore-limit:20", "500#27"],  # every request brings a whole page
        ["ignore-offset", "500*5"],  # both halves of the first page are its first entries
        ["errors", "500*5"],  # good replies that report errors
    ],
    ids="+".join,
)
def test_without_windows_a_failing_page_is_the_end(faults: list[str], entries: list[Entry]) -> None:
    with FaultServer(entries, faults=faults) as server:
        with pytest.raises(SourceDown, match="status 500"):
            pull(server, Query(page_limit=20))
        print(faults, len(server.requests))
        assert len(server.requests) <= 25


@pytest.mark.parametrize("fault", ["429", "408", "reset"])
def test_other_lasting_faults_break_no_single_entry(fault: str, entries: list[Entry]) -> None:
    with FaultServer(entries, faults=[f"{fault}#27"]) as server:
        with pytest.raises(SourceDown, match="failed 5 times"):
            pull(server, Query(page_limit=20))
        assert len(server.requests) == 1 + 5
