"""Walks that are broken off after any page go on as if nothing had happened."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.sources.crystals import empty
from assay.sources.databases.client import Client, SourceDown, SourceRefused, UnsafeReply
from assay.sources.databases.optimade import Query, pages
from assay.sources.databases.paging import CursorExpired, End, Page, Resume, Walk, ids_of
from assay.sources.databases.providers import resolve
from tests.servers import Entry, FaultServer, entries_from_crystals, materials_project, reference_server


@pytest.fixture(scope="module")
def entries(data: Path) -> list[Entry]:
    return entries_from_crystals(materials_project(data, 120))


def pull(url: str, query: Query, kept: list[Page] | None = None) -> list[Page]:
    """All pages, or those behind the pages kept, with nothing but plain JSON carried over."""
    resume = None
    if kept:
        cursors = json.loads(json.dumps([page.cursor for page in kept]))
        resume = Resume.after(cursors, ids_of(kept))
    with Client(url, local=True, backoff_s=0.005, timeout_s=20.0, deadline_s=30.0) as client:
        return list(pages(client, query, resolve(url), resume))


def facts(page: Page, *, dated: bool = False) -> tuple[Any, ...]:
    """Everything about a page, fit for ==; `dated` bodies carry the time, and with it another digest every time."""
    columns = {name: column.tolist() for name, column in page.crystals.columns.items()}
    for name, column in page.crystals.columns.items():
        columns[name] = np.nan_to_num(column, nan=-1e9).tolist() if column.dtype.kind == "f" else columns[name]
    arrays = (page.crystals.ids, page.crystals.lattice, page.crystals.frac, page.crystals.numbers)
    others = [value for name, value in vars(page).items() if name != "crystals" and not (dated and name == "sha256")]
    return columns, [array.tolist() for array in arrays], others


def assert_every_break_heals(url: str, query: Query, *, dated: bool = False) -> list[Page]:
    whole = pull(url, query)
    assert [page.cursor is None for page in whole] == [False] * (len(whole) - 1) + [True]
    for kept in range(1, len(whole)):
        rest = pull(url, query, whole[:kept])
        assert [facts(page, dated=dated) for page in rest] == [facts(page, dated=dated) for page in whole[kept:]]
    return whole


@pytest.mark.parametrize(
    "faults",
    [
        ["more-lies"],
        ["href-next", "forget-fields"],
        ["relative-next"],
        ["cursor-next"],
        ["no-count"],
        ["old-version"],
        ["loop-next"],
        ["refuse-limit:13"],
        ["shrink:3"],
        ["lost:2"],
        ["doubled:2"],
        ["wrong-count:60"],
        ["ignore-limit:7", "nan:3,30", "no-species:8", "int-ids"],
        ["500#0", "500#20", "500#21"],
        ["fat:17"],
        ["forget:page_limit"],
        ["page-count"],
    ],
    ids="+".join,
)
def test_a_walk_resumed_after_any_page_gives_the_rest_of_the_unbroken_walk(
    faults: list[str], entries: list[Entry]
) -> None:
    with FaultServer(entries[:45], faults=faults) as server:
        found = assert_every_break_heals(server.url, Query("nelements>=1", page_limit=16))
    assert len(found) > 2


def test_a_walk_ended_by_its_limit_resumes_too(entries: list[Entry]) -> None:
    with FaultServer(entries) as server:
        whole = assert_every_break_heals(server.url, Query(page_limit=10, max_entries=35))
    assert [page.n_entries for page in whole] == [10, 10, 10, 5]
    assert whole[-1].end is End.ASKED


def test_a_walk_over_the_reference_server_resumes(entries: list[Entry], tmp_path: Path) -> None:
    with reference_server(entries, tmp_path) as url:
        whole = assert_every_break_heals(url, Query('elements HAS "O" OR nelements=2', page_limit=20), dated=True)
    assert whole[-1].complete
    assert len(whole) > 2


def test_a_walk_that_returns_to_a_page_kept_before_the_break_ends(entries: list[Entry]) -> None:
    with FaultServer(entries[:30], faults=["no-count"]) as server:
        whole = pull(server.url, Query(page_limit=10))
        server.faults["self-next"] = ""
        (page,) = pull(server.url, Query(page_limit=10), whole[:1])
    assert (page.end, page.complete) == (End.VISITED, False)


def test_an_expired_cursor_is_told_from_a_refusal(entries: list[Entry]) -> None:
    with FaultServer(entries[:30], faults=["cursor-next"]) as server:
        whole = pull(server.url, Query(page_limit=10))
        server.forget_cursors()
        before = len(server.requests)
        with pytest.raises(CursorExpired, match="expired") as caught:
            pull(server.url, Query(page_limit=10), whole[:2])
        assert caught.value.status == 400
        assert len(server.requests) == before + 1
        assert len(pull(server.url, Query(page_limit=10))) == 3  # from the first page all is well


def test_a_refusal_in_the_middle_of_a_resumed_walk_is_no_expired_cursor(entries: list[Entry]) -> None:
    with FaultServer(entries[:40], faults=["404@30"]) as server:
        with Client(server.url, local=True) as client:
            stream = pages(client, Query(page_limit=10))
            kept = [next(stream)]
        with pytest.raises(SourceRefused, match="404") as caught:
            pull(server.url, Query(page_limit=10), kept)
    assert not isinstance(caught.value, CursorExpired)


@pytest.mark.parametrize("status", [401, 402])
def test_a_key_that_is_refused_does_not_spoil_the_way(entries: list[Entry], status: int) -> None:
    with FaultServer(entries[:40], faults=[f"{status}@20"]) as server:
        with Client(server.url, local=True) as client:
            stream = pages(client, Query(page_limit=10))
            kept = [next(stream), next(stream)]
        with pytest.raises(SourceRefused, match=str(status)) as caught:
            pull(server.url, Query(page_limit=10), kept)
    assert not isinstance(caught.value, CursorExpired)


@pytest.mark.parametrize("cursor", [{}, {"next": "x", "pages": "many", "taken": 0, "spare": 0, "announced": None}])
def test_a_cursor_that_cannot_be_read_is_expired(cursor: dict[str, Any]) -> None:
    with pytest.raises(CursorExpired, match="cannot be read"):
        Walk("somewhere", resume=Resume(cursor, ()))
    with pytest.raises(ValueError, match="no page was kept"):
        Resume.after([], ())


def step(walk: Walk, names: list[str], following: str | None, announced: int | None = None) -> Page:
    return walk.page(empty(), [], names, url="u", sha256="0", following=following, announced=announced)


def test_the_largest_count_ever_announced_is_the_one_to_reach() -> None:
    walk = Walk("somewhere")
    assert step(walk, ["a", "b"], "http://x/2", 4).data_returned == 4
    assert step(walk, ["c"], "http://x/3", 3).data_returned == 4
    last = step(walk, [], None, 2)
    assert (last.missing, last.complete) == (1, False)


def test_rows_that_came_again_are_told_beside_the_missing_ones() -> None:
    """5 rows received of 5 announced, and 2 missing: the sum adds up with the two that came again."""
    walk = Walk("somewhere")
    step(walk, ["a", "b", "b"], "http://x/2", 5)
    last = step(walk, ["b", "c"], None, 5)
    assert last.shortfall == "2 of 5 announced rows are missing, and 2 came again (no next page)"


def test_an_endless_server_is_left_after_a_few_pages_too_many() -> None:
    walk = Walk("somewhere")
    for n in range(100):
        page = step(walk, [f"{n}a", f"{n}b"], f"http://x/{n}", 10)
        if page.end:
            break
    assert (page.end, walk.n_pages, page.complete) == (End.TOO_MANY, 5 + 5, False)


def test_smaller_pages_than_the_first_may_be_more() -> None:
    walk = Walk("somewhere")
    step(walk, [f"a{n}" for n in range(10)], "http://x/0", 40)
    for n in range(29):
        assert step(walk, [f"b{n}"], f"http://x/{n + 1}").end is None
    assert step(walk, ["c"], None).complete


def test_an_uncounted_walk_is_told_at_once_and_stops_at_a_bound(
    caplog: pytest.LogCaptureFixture,
) -> None:
    walk = Walk("somewhere")
    page = step(walk, ["0"], "http://x/0")
    assert "somewhere does not say how many entries match; 1000 pages at most are pulled" in caplog.text
    while page.end is None:
        page = step(walk, [str(walk.n_pages)], f"http://x/{walk.n_pages}")
    assert (page.end, walk.n_pages, page.complete) == (End.UNCOUNTED, 1000, False)
    assert "max_entries sets another bound" in page.shortfall


def test_an_uncounted_walk_with_a_limit_of_its_own_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    walk = Walk("somewhere", max_entries=1200)
    page = step(walk, ["0"], "http://x/0")
    assert "1200 entries at most are pulled" in caplog.text
    while page.end is None:
        page = step(walk, [str(walk.n_pages)], f"http://x/{walk.n_pages}")
    assert (page.end, walk.n_pages, page.complete) == (End.ASKED, 1200, True)


def test_a_page_that_led_to_another_host_is_asked_again_where_the_next_one_is(entries: list[Entry]) -> None:
    query = Query(page_limit=10)
    with FaultServer() as elsewhere, FaultServer(entries[:30], faults=[f"foreign-next:{elsewhere.url}"]) as server:
        with Client(server.url, local=True) as client:
            kept = [next(pages(client, query))]
        before = len(server.requests)
        with pytest.raises(UnsafeReply, match="leaves the origin"):
            pull(server.url, query, kept)
        assert (len(server.requests), elsewhere.requests) == (before + 1, [])
        del server.faults["foreign-next"]
        whole = pull(server.url, query)
        rest = pull(server.url, query, kept)
        assert rest[0].cursor is not None
        assert rest[0].cursor["asked"] == [whole[0].next_url]  # the cursor of the first page has the other host
        uncursored = [facts(replace(page, cursor=None)) for page in rest]
        assert uncursored == [facts(replace(page, cursor=None)) for page in whole[1:]]


def test_a_page_that_led_to_another_host_and_has_changed_since_starts_the_walk_again(entries: list[Entry]) -> None:
    with FaultServer(entries[:30], faults=["foreign-next:http://127.0.0.1:9"]) as server:
        with Client(server.url, local=True) as client:
            kept = [next(pages(client, Query(page_limit=10)))]
        server.entries.pop(0)
        with pytest.raises(CursorExpired, match="the walk starts again"):
            pull(server.url, Query(page_limit=10), kept)
        bare = replace(kept[0], cursor={k: v for k, v in (kept[0].cursor or {}).items() if k != "led_away"})
        before = len(server.requests)
        with pytest.raises(CursorExpired, match="the kept link leads to another host"):
            pull(server.url, Query(page_limit=10), [bare])
        assert len(server.requests) == before


def test_what_a_broken_reply_is_called_does_not_depend_on_how_far_it_came(entries: list[Entry]) -> None:
    quick: dict[str, Any] = {"backoff_s": 0.001, "deadline_s": 1.0, "retries": 1}
    down = pytest.raises(SourceDown, match=r"body incomplete after 1 s")
    server = FaultServer(entries[:30], faults=["trickle"])
    with server, Client(server.url, local=True, **quick) as client, down as caught:
        client.get_json(server.url + "/v1/structures")
    assert "received" not in str(caught.value)
    assert not caught.value.answered  # a slow server is down; no entry of its page is to blame
