"""Every known way of a server to misbehave: the walk ends, within bounds, and says rightly what came."""

import random
import re
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from assay.sources.crystals import empty
from assay.sources.databases.client import Client, SourceDown, SourceRefused, UnsafeReply
from assay.sources.databases.optimade import FilterIgnored, Page, Query, pages
from assay.sources.databases.paging import Walk, ids_of
from assay.sources.databases.trust import SourceError
from tests.servers import Entry, FaultServer, entries_from_crystals, materials_project

N, SIZE = 45, 10
FILTER = "nelements<=4"
SECRET = {"x-api-key": "s3cr3t-value"}
PASSING = ["503", "500", "429", "429-after:0", "408", "html", "truncated", "short-gzip", "close", "reset", "503"]


@pytest.fixture(scope="module")
def entries(data: Path) -> list[Entry]:
    found = entries_from_crystals(materials_project(data, 120))
    return [entry for entry in found if entry["attributes"]["nelements"] <= 4][:N]


def pull(server: FaultServer, **limits: Any) -> tuple[list[Page], Exception | None]:
    """Pages that came, and what ended the walk early."""
    patience: dict[str, Any] = {"local": True, "backoff_s": 0.002, "timeout_s": 20.0, "deadline_s": 60.0}
    found: list[Page] = []
    with Client(server.url, headers=SECRET, **{**patience, **limits}) as client:
        try:
            for page in pages(client, Query(FILTER, page_limit=SIZE)):
                found.append(page)  # noqa: PERF402 - the pages before an error count
        except SourceError as error:
            return found, error
    return found, None


def rows(found: list[Page]) -> list[str]:
    return [name for page in found for name in page.crystals.ids.tolist()]


def bad(found: list[Page]) -> dict[str, str]:
    return {row.id: row.reason.value for page in found for row in page.quarantined}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("style", ["href-next", "relative-next", "cursor-next", "forget-fields", "more-lies"])
def test_passing_faults_dealt_by_a_seed_change_nothing(style: str, seed: int, entries: list[Entry]) -> None:
    with FaultServer(entries, faults=[style, *PASSING], seed=seed, gzipped=bool(seed % 2)) as server:
        found, error = pull(server)
        assert error is None
        assert len(server.requests) <= 3 * 5
    assert rows(found) == [f"local/{entry['id']}" for entry in entries]
    assert found[-1].complete


def test_a_seed_deals_the_same_faults_again_and_another_seed_others(entries: list[Entry]) -> None:
    def met(seed: int) -> list[str]:
        with FaultServer(entries, faults=PASSING, seed=seed) as server:
            pull(server)
            return [path.partition("page_offset=")[2] for path, _ in server.requests]

    assert met(1) == met(1)
    assert len({tuple(met(seed)) for seed in range(5)}) > 2


COMPLETE = ["no-available", "more-lies", "href-next", "relative-next", "cursor-next", "forget-fields", "int-ids"]
COMPLETE += [
    "no-count",
    "refuse-limit:16",
    "ignore-limit:7",
    "old-version",
    "loop-next",
    "wrong-count:9",
    "delay:0.001",
]
COMPLETE += ["page-count", "forget:page_limit", "forget:page_limit,filter", "forget:filter,response_fields"]
COMPLETE += ["500@20*4", "503@10*3", "reset@30*2", "429-after:0@20*4"]


@pytest.mark.parametrize("fault", COMPLETE)
def test_quirks_that_cost_nothing(fault: str, entries: list[Entry]) -> None:
    with FaultServer(entries, faults=[fault]) as server:
        found, error = pull(server)
        assert error is None
        assert len(server.requests) <= 13
    assert len(set(rows(found))) == N
    assert found[-1].complete


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("nan:{}", "non_finite"),
        ("no-species:{}", "malformed"),
        ("500#{}", "server_error"),
        ("503#{}", "server_error"),
        ("fat:{}", "server_error"),
        ("bomb#{}", "server_error"),
        ("truncated#{}", "server_error"),
        ("short-gzip#{}", "server_error"),
        ("close#{}", "server_error"),
        ("html#{}", "server_error"),
        ("deep#{}", "server_error"),
        ("junk:400000#{}", "server_error"),
        ("bad-byte:{}", "malformed"),
        ("digits:{}", "malformed"),
        ("nested:{}", "malformed"),
    ],
)
def test_one_bad_entry_is_named_and_the_others_arrive(fault: str, reason: str, seed: int, entries: list[Entry]) -> None:
    place = random.Random(seed).randrange(N)
    with FaultServer(entries, faults=[fault.format(place)]) as server:
        found, error = pull(server, max_bytes=2**20)
        assert error is None
        assert len(server.requests) <= 50
    assert rows(found) == [f"local/{entry['id']}" for entry in entries if entry is not entries[place]]
    assert list(bad(found).values()) == [reason]
    assert len(ids_of(found)) == N
    assert found[-1].complete


@pytest.mark.parametrize("fault", ["disorder", "vacancy"])
def test_partial_occupancy_is_no_fault(fault: str, entries: list[Entry]) -> None:
    with FaultServer(entries, faults=[f"{fault}:3,30"]) as server:
        found, error = pull(server)
    assert error is None
    assert len(rows(found)) == N
    mixed = [name for page in found for name in page.crystals.ids[~page.crystals.is_ordered].tolist()]
    assert mixed == [f"local/{entries[place]['id']}" for place in (3, 30)]


@pytest.mark.parametrize(
    ("fault", "came", "missing"),
    [
        ("shrink:3", N, 0),
        ("lost:2", N - 2, 2),
        ("doubled:2", N, 0),
        ("wrong-count:60", N, 15),
        ("self-next", SIZE, N - SIZE),
    ],
)
def test_what_is_missing_is_counted(fault: str, came: int, missing: int, entries: list[Entry]) -> None:
    with FaultServer(entries, faults=[fault]) as server:
        found, error = pull(server)
        assert error is None
        assert len(server.requests) <= 6
    print(fault, len(set(rows(found))), found[-1].missing, found[-1].end)
    assert len(set(rows(found))) == came
    assert (found[-1].missing, found[-1].complete) == (missing, missing == 0)


LASTING: dict[str, type[Exception]] = dict.fromkeys(["429", "429-after:500", "reset"], SourceDown)
LASTING |= dict.fromkeys(["400", "404", "501"], SourceRefused)
LASTING |= dict.fromkeys(["redirect:http://192.0.2.1/"], UnsafeReply)


def assert_the_end_comes_at(page: int, fault: str, error: type[Exception], entries: list[Entry], **limits: Any) -> None:
    with FaultServer(entries, faults=[f"{fault}@{page * SIZE}"]) as server:
        found, ended = pull(server, **limits)
        assert isinstance(ended, error)
        assert page + 1 <= len(server.requests) <= page + 5
    assert rows(found) == [f"local/{entry['id']}" for entry in entries[: page * SIZE]]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fault", LASTING)
def test_lasting_faults_keep_what_came_before_and_end(fault: str, seed: int, entries: list[Entry]) -> None:
    page = random.Random(f"{fault}{seed}").randrange(1, 5)
    assert_the_end_comes_at(page, fault, LASTING[fault], entries)


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_silence_keeps_what_came_before_and_ends(fault: str, entries: list[Entry]) -> None:
    assert_the_end_comes_at(3, fault, SourceDown, entries, deadline_s=1.0)


@pytest.mark.parametrize("fault", ["foreign-next:{}", "redirect:{}/steal@20"])
def test_no_credential_goes_elsewhere(fault: str, entries: list[Entry]) -> None:
    with FaultServer(entries) as elsewhere:
        with FaultServer(entries, faults=[fault.format(elsewhere.url)]) as server:
            found, error = pull(server)
            assert all(headers["x-api-key"] == SECRET["x-api-key"] for _, headers in server.requests)
        assert elsewhere.requests == []
    assert isinstance(error, UnsafeReply)
    assert rows(found) == [f"local/{entry['id']}" for entry in entries[: SIZE if "next" in fault else 2 * SIZE]]
    assert SECRET["x-api-key"] not in str(error)


def test_an_ignored_filter_is_noticed_at_once(data: Path) -> None:
    others = entries_from_crystals(materials_project(data, 400))
    others.sort(key=lambda entry: -int(entry["attributes"]["nelements"]))
    assert others[0]["attributes"]["nelements"] > 4
    with FaultServer(others, faults=["ignore-filter"]) as server:
        found, error = pull(server)
        assert len(server.requests) == 1
    assert found == []
    assert isinstance(error, FilterIgnored)


def test_an_endless_server_is_left(entries: list[Entry]) -> None:
    with FaultServer(entries, faults=["endless"]) as server:
        found, error = pull(server)
        assert len(server.requests) == 5 + 5
    assert error is None
    assert not found[-1].complete


UNPROVEN = [
    ["no-count", "next-key:next_page"],
    ["no-count", "next-key"],
    ["no-count", "more-lies"],
    ["wrong-count:9", "more-lies"],
    ["no-count", "loop-next"],
    ["no-count", "self-next"],
]


@pytest.mark.parametrize("faults", UNPROVEN, ids="+".join)
def test_an_end_that_nothing_proves_is_no_completeness(faults: list[str], entries: list[Entry]) -> None:
    with FaultServer(entries, faults=faults) as server:
        found, error = pull(server)
    assert error is None
    assert not found[-1].complete
    assert "the server" in found[-1].shortfall


@pytest.mark.parametrize("names", ["page_limit", "page_limit,filter", "filter"])
def test_parameters_that_a_next_link_forgets_are_sent_again(names: str, data: Path) -> None:
    others = entries_from_crystals(materials_project(data, 200))
    n_matching = sum(entry["attributes"]["nelements"] <= 4 for entry in others)
    assert n_matching < len(others)
    with FaultServer(others, faults=[f"forget:{names}"]) as server:
        found, error = pull(server)
        sizes = {re.findall(r"page_limit=(\d+)", path)[0] for path, _ in server.requests}
    assert error is None
    assert sizes == {str(SIZE)}
    assert len(set(rows(found))) == n_matching
    assert bad(found) == {}
    assert found[-1].complete


def test_pages_that_become_smaller_than_the_first_one_all_count() -> None:
    """The first page has 100 of 600 entries, the others 10: 50 more pages are no sign of an endless server."""
    walk = Walk("somewhere")
    page = walk.page(
        empty(), [], [f"a{n}" for n in range(100)], url="u", sha256="0", following="http://x/0", announced=600
    )
    while page.end is None:
        n = walk.n_pages
        names = [f"{n}-{i}" for i in range(10)]
        page = walk.page(empty(), [], names, url="u", sha256="0", following=f"http://x/{n}" if n < 50 else None)
    assert (walk.n_pages, page.complete) == (51, True)


@pytest.mark.parametrize("fault", ["bad-byte", "digits", "nested"])
@pytest.mark.parametrize("paging", ["cursor-next", "ignore-limit:10"])
def test_an_entry_that_cannot_be_parsed_is_lost_alone_however_the_server_pages(
    paging: str, fault: str, entries: list[Entry]
) -> None:
    with FaultServer(entries, faults=[f"{fault}:0,17,44", paging]) as server:
        found, error = pull(server)
        assert len(server.requests) == 5
    assert error is None
    assert rows(found) == [f"local/{entry['id']}" for n, entry in enumerate(entries) if n not in (0, 17, 44)]
    assert list(bad(found).values()) == ["malformed"] * 3
    assert found[-1].complete


def test_entries_far_beyond_those_asked_for_are_refused(entries: list[Entry]) -> None:
    with FaultServer(entries, script=["junk:200000"]) as server:
        found, error = pull(server)
        assert len(server.requests) == 1
    assert error is None
    assert sum(page.n_entries for page in found) == len(bad(found)) == 1000
    assert (found[-1].missing, found[-1].complete) == (199_000, False)


def test_a_server_of_endless_values_is_left_before_they_are_built(entries: list[Entry]) -> None:
    with FaultServer(entries, script=["junk:3300000"]) as server:
        tracemalloc.start()
        found, error = pull(server)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(server.requests) <= 15
    assert found == []
    assert isinstance(error, SourceDown)
    assert "values, 1000000 accepted" in str(error)
    assert peak < 200e6


def test_every_entry_of_a_lasting_web_page_is_not_lost_but_the_server_is_down(entries: list[Entry]) -> None:
    with FaultServer(entries, script=["ok", "html"]) as server:
        found, error = pull(server)
        assert len(server.requests) <= 15
    assert isinstance(error, SourceDown)
    assert rows(found) == [f"local/{entry['id']}" for entry in entries[:SIZE]]
    assert bad(found) == {}
