"""Pages, filters and entries: against the reference implementation, and against a server that lies."""

import copy
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.sources.crystals import Crystals, concat
from assay.sources.databases.client import Client, SourceDown, SourceRefused, UnsafeReply
from assay.sources.databases.filters.checker import Checker
from assay.sources.databases.filters.grammar import validate_filter
from assay.sources.databases.optimade import End, FilterIgnored, Page, Query, announced, connect, pages
from assay.sources.databases.pace import HostPace
from assay.sources.databases.providers import Provider, resolve
from assay.sources.quarantine import Reason
from tests.servers import Entry, FaultServer, entries_from_crystals, materials_project, reference_server

N = 1000


@pytest.fixture(scope="module")
def crystals(data: Path) -> Crystals:
    return materials_project(data, N)


@pytest.fixture(scope="module")
def entries(crystals: Crystals) -> list[Entry]:
    return entries_from_crystals(crystals)


@pytest.fixture(scope="module")
def reference(entries: list[Entry], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with reference_server(entries, tmp_path_factory.mktemp("server")) as url:
        yield url


def pull(url: str, query: Query, provider: Provider | None = None) -> list[Page]:
    provider = provider or resolve(url)
    limits: dict[str, Any] = {
        "local": True,
        "min_interval_s": 0.0,
        "backoff_s": 0.01,
        "timeout_s": 20.0,
        "deadline_s": 30.0,
    }
    with Client(url, **limits) as client:
        return list(pages(client, query, provider))


def ids(found: list[Page]) -> list[str]:
    return [name for page in found for name in page.crystals.ids.tolist()]


# The reference implementation


def test_a_whole_database_arrives_unchanged(reference: str, crystals: Crystals) -> None:
    found = pull(reference, Query(page_limit=150))
    assert [page.n_entries for page in found] == [150] * 6 + [100]
    assert all(page.quarantined == [] for page in found)
    assert all(page.end is None and page.next_url for page in found[:-1])
    last = found[-1]
    assert (last.end, last.missing, last.complete, last.data_returned) == (End.NO_NEXT, 0, True, N)
    got = concat([page.crystals for page in found])
    place = {name: row for row, name in enumerate(got.ids.tolist())}
    got = got.select([place[name.replace("mp/", "local/")] for name in crystals.ids.tolist()])
    np.testing.assert_array_equal(got.lattice, crystals.lattice)
    np.testing.assert_array_equal(got.numbers, crystals.numbers)
    gap = got.frac - crystals.frac
    assert np.abs(gap - np.round(gap)).max() < 1e-12
    for name in ("formation_energy_per_atom", "band_gap"):
        np.testing.assert_array_equal(got.columns[name], crystals.columns[name])
    assert set(got.columns["provider"]) == {"local"}
    assert set(got.columns["licence"]) == {"unknown"}
    assert got.columns["origin"][0].startswith(reference)
    assert "response_fields" not in got.columns["origin"][0]
    assert got.columns["immutable_id"][0] == f"{crystals.ids[0]}#1"


FILTERS = [
    'elements HAS "O"',
    'elements HAS ALL "O","Ti"',
    'elements HAS ANY "Nb","Ti","V" AND nelements<=3',
    'elements HAS ONLY "O","Ti","Ba","Sr"',
    'NOT elements HAS "O" AND nsites<=6',
    "(nelements=2 OR nelements=3) AND nsites>=10",
    "nelements!=3",
    "4>=nsites",
    "elements LENGTH 4",
    'chemical_formula_anonymous="A2B"',
    'chemical_formula_reduced CONTAINS "O3"',
    'chemical_formula_reduced STARTS WITH "Ba"',
    "_exmpl_band_gap>1.0 AND _exmpl_formation_energy_per_atom<-1.5",
    'chemical_formula_reduced="TiO2" OR nelements>5',
]


@pytest.mark.parametrize("text", FILTERS)
def test_our_judgement_agrees_with_the_reference_server(text: str, reference: str, entries: list[Entry]) -> None:
    query = Query(text, page_limit=500)
    with connect(resolve(reference)) as client:
        count = announced(client, query)
    found = pull(reference, query)
    assert sum(page.n_entries for page in found) == count
    assert all(page.quarantined == [] for page in found)
    checker = Checker(validate_filter(text))
    ours = {f"local/{entry['id']}" for entry in entries if checker(entry["attributes"])}
    assert set(ids(found)) == ours
    assert 0 < len(ours) < N or "TiO2" in text


MISREAD = [
    ("species LENGTH >= 2", "one by one"),
    ("species LENGTH > 1", "one by one"),
    ("nelements < nsites", "after the pull"),
    ("nelements != nsites", "after the pull"),
    ('chemical_formula_descriptive CONTAINS "(OH)2"', "regular expression"),
]


@pytest.mark.parametrize(("text", "remedy"), MISREAD)
def test_filters_that_the_reference_server_misreads_are_refused(text: str, remedy: str, reference: str) -> None:
    """The server is known by what its replies say, so that this holds for any address."""
    with pytest.raises(SourceRefused, match=remedy):
        pull(reference, Query(text))
    with connect(resolve(reference)) as client, pytest.raises(SourceRefused, match=remedy):
        announced(client, Query(text))


@pytest.mark.parametrize("name", ["elements", "elements_ratios", "species_at_sites", "cartesian_site_positions"])
@pytest.mark.parametrize("operator", [">=", ">", "<", "<="])
def test_lengths_that_the_reference_server_reads_rightly_are_asked(
    name: str, operator: str, reference: str, entries: list[Entry]
) -> None:
    query = Query(f"{name} LENGTH {operator} 4", page_limit=500)
    checker = Checker(validate_filter(query.filter))
    found = pull(reference, query)
    assert set(ids(found)) == {f"local/{entry['id']}" for entry in entries if checker(entry["attributes"])}


def test_a_layer_is_known_by_its_number_of_periodic_dimensions(entries: list[Entry]) -> None:
    flat = copy.deepcopy(entries[0])
    flat["attributes"].update(dimension_types=None, nperiodic_dimensions=2)
    with FaultServer([flat, *entries[1:3]]) as server:
        (page,) = pull(server.url, Query())
    assert [(row.id, row.reason) for row in page.quarantined] == [(f"local/{flat['id']}", Reason.NOT_PERIODIC)]
    assert len(page.crystals) == 2


def test_max_entries_and_extra_fields(reference: str) -> None:
    found = pull(reference, Query(page_limit=40, max_entries=100, response_fields=("_exmpl_band_gap",)))
    assert [page.n_entries for page in found] == [40, 40, 20]
    assert (found[-1].end, found[-1].complete, found[-1].missing) == (End.ASKED, True, 0)
    column = concat([page.crystals for page in found]).columns["_exmpl_band_gap"]
    assert column.dtype == np.float64
    assert np.isfinite(column).sum() > 50


def test_a_page_limit_above_the_maximum_is_halved(reference: str) -> None:
    found = pull(reference, Query("nelements=2", page_limit=4000))
    assert found[0].n_entries > 0
    assert found[-1].complete


def test_a_filter_the_server_does_not_know_is_quoted_back(reference: str) -> None:
    with pytest.raises(SourceRefused, match=r"400.*no_such_property"):
        pull(reference, Query("no_such_property=1"))


def test_foreign_next_of_a_misconfigured_server_is_not_followed(entries: list[Entry], tmp_path: Path) -> None:
    server = reference_server(entries[:30], tmp_path, page_limit=10, base_url="http://192.0.2.1")
    with server as url, Client(url, local=True) as client:
        stream = pages(client, Query(page_limit=10), resolve(url))
        assert next(stream).n_entries == 10
        with pytest.raises(UnsafeReply, match=r"192\.0\.2\.1"):
            next(stream)


# The filter language


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('elements HAS "Nb', "at character 14"),
        ("nelements==2", "at character 11"),
        ("elements HAS", "at its end"),
        ("nelements=2 nsites=3", "join them with AND or OR"),
        ("nelements=2\n", "printable"),
        ("nelements=" + "2" * 20_000, "10000"),
    ],
)
def test_a_broken_filter_is_refused_with_its_place(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        Query(text)


@pytest.mark.parametrize("options", [{"page_limit": 0}, {"max_entries": -1}, {"response_fields": ("a&b",)}])
def test_a_query_checks_its_values(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="accepted"):
        Query(**options)


def test_a_server_that_ignores_the_filter_is_given_up(entries: list[Entry]) -> None:
    server = FaultServer(entries, faults=["ignore-filter"])
    with server, pytest.raises(FilterIgnored, match=r"ignores the filter.*\d+ of 100 rows"):
        pull(server.url, Query('elements HAS "Nb"', page_limit=100))


def test_a_lie_on_a_later_page_goes_to_quarantine(entries: list[Entry]) -> None:
    honest = [entry for entry in entries if "O" in entry["attributes"]["elements"]][:200]
    contradictory = next(entry for entry in entries if "O" not in entry["attributes"]["elements"])
    forged = copy.deepcopy(contradictory)
    forged["attributes"]["elements"] = ["O"]  # what the entry claims does not count, its sites do
    with FaultServer([*honest, contradictory, {**forged, "id": "forged"}], faults=["ignore-filter"]) as server:
        found = pull(server.url, Query('elements HAS "O"', page_limit=100))
    assert len(ids(found)) == 200
    assert {row.id for row in found[-1].quarantined} == {f"local/{contradictory['id']}", "local/forged"}
    assert {row.reason for row in found[-1].quarantined} == {Reason.FILTER_MISMATCH}


def test_one_lie_on_a_small_first_page_does_not_condemn_the_server(entries: list[Entry]) -> None:
    honest = [entry for entry in entries if "O" in entry["attributes"]["elements"]][:12]
    contradictory = next(entry for entry in entries if "O" not in entry["attributes"]["elements"])
    with FaultServer([contradictory, *honest], faults=["ignore-filter"]) as server:
        (page,) = pull(server.url, Query('elements HAS "O"'))
    assert len(page.crystals) == 12
    assert [row.reason for row in page.quarantined] == [Reason.FILTER_MISMATCH]
    with FaultServer([contradictory], faults=["ignore-filter"]) as server, pytest.raises(FilterIgnored):
        pull(server.url, Query('elements HAS "O"'))


def test_a_broken_first_entry_does_not_hide_the_count(entries: list[Entry]) -> None:
    with (
        FaultServer(entries[:30], faults=["500#0"]) as server,
        Client(server.url, local=True, backoff_s=0.01) as client,
    ):
        assert announced(client, Query()) == 30
        assert len(server.requests) == 6


def test_what_was_not_checked_is_said_once(entries: list[Entry], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with FaultServer(entries[:50]) as server:
        pull(server.url, Query("nsites IS KNOWN", page_limit=10))
    assert [record.message for record in caplog.records] == ["not checked again on arrival: IS KNOWN"]


# Paging, counts and pages that are not what they should be


def test_response_fields_are_applied_again(entries: list[Entry]) -> None:
    with FaultServer(entries[:50], faults=["forget-fields", "href-next"]) as server:
        found = pull(server.url, Query(page_limit=20))
        assert len(ids(found)) == 50
        assert all("response_fields=" in path for path, _ in server.requests)
        assert all("gzip" in headers["accept-encoding"] for _, headers in server.requests)


@pytest.mark.parametrize("fault", ["href-next", "relative-next", "int-ids", "no-count", "ignore-limit:7"])
def test_spellings_of_a_page_are_all_understood(fault: str, entries: list[Entry]) -> None:
    with FaultServer(entries[:45], faults=[fault], gzipped=True) as server:
        found = pull(server.url, Query(page_limit=20))
    assert len(set(ids(found))) == 45
    assert found[-1].complete
    assert fault != "int-ids" or ids(found)[0] == "local/1"


@pytest.mark.parametrize(
    ("faults", "end", "complete"),
    [
        (["self-next"], End.VISITED, False),
        (["loop-next"], End.NOTHING_NEW, True),
        (["loop-next", "no-count"], End.NOTHING_NEW, False),
        (["endless"], End.TOO_MANY, False),
        (["wrong-count:60"], End.NO_NEXT, False),
        (["wrong-count:3"], End.NO_NEXT, True),
    ],
)
def test_paging_always_ends(faults: list[str], end: End, complete: bool, entries: list[Entry]) -> None:
    with FaultServer(entries[:45], faults=faults) as server:
        found = pull(server.url, Query(page_limit=10))
        assert len(server.requests) < 15
    assert (found[-1].end, found[-1].complete) == (end, complete)
    assert found[-1].missing == (15 if "wrong-count:60" in faults else 35 if "self-next" in faults else 0)
    assert [page.end for page in found[:-1]] == [None] * (len(found) - 1)


def test_a_foreign_next_keeps_what_came_before(entries: list[Entry]) -> None:
    with FaultServer() as elsewhere, FaultServer(entries[:30], faults=[f"foreign-next:{elsewhere.url}"]) as server:
        with Client(server.url, local=True) as client:
            stream = pages(client, Query(page_limit=10), resolve(server.url))
            assert next(stream).n_entries == 10
            with pytest.raises(UnsafeReply, match="leaves the origin"):
                next(stream)
        assert elsewhere.requests == []


def test_faults_between_pages_do_not_change_the_rows(entries: list[Entry]) -> None:
    script = ["ok", "503", "truncated", "ok", "html", "429", "short-gzip", "ok", "close", "ok"]
    with FaultServer(entries[:60], script=script) as server:
        found = pull(server.url, Query(page_limit=10))
    assert ids(found) == [f"local/{entry['id']}" for entry in entries[:60]]


def test_a_server_that_dies_keeps_what_came_before(entries: list[Entry]) -> None:
    received: list[int] = []
    with FaultServer(entries[:60], script=["ok", "ok", "503"]) as server:
        with Client(server.url, local=True, backoff_s=0.01) as client, pytest.raises(SourceDown):
            received.extend(page.n_entries for page in pages(client, Query(page_limit=10)))
        assert len(server.requests) == 2 + 5 + 3 * 2  # the page, then entries that would tell it from a dead server
    assert received == [10, 10]


def test_too_large_pages_are_halved(entries: list[Entry]) -> None:
    with FaultServer(entries[:64]) as server, Client(server.url, local=True, max_bytes=40_000) as client:
        found = list(pages(client, Query(page_limit=64), resolve(server.url)))
    assert found[0].n_entries < 64
    assert len(ids(found)) == 64


def test_a_refused_page_limit_is_halved(entries: list[Entry]) -> None:
    with FaultServer(entries[:64], faults=["refuse-limit:20"]) as server:
        found = pull(server.url, Query(page_limit=64))
    assert [page.n_entries for page in found] == [16] * 4


def test_a_lasting_403_is_said(entries: list[Entry]) -> None:
    with FaultServer(entries[:9], script=["403"]) as server:
        with pytest.raises(SourceRefused, match="403"):
            pull(server.url, Query(page_limit=500))
        assert len(server.requests) < 10


def test_an_error_inside_a_good_reply_is_said(entries: list[Entry]) -> None:
    with (
        FaultServer(entries[:9], faults=["errors"]) as server,
        pytest.raises(SourceRefused, match="database is asleep"),
    ):
        pull(server.url, Query())


def test_not_a_number_costs_one_row(entries: list[Entry]) -> None:
    with FaultServer(entries[:30], faults=["nan:7"]) as server:
        (page,) = pull(server.url, Query())
    assert len(page.crystals) == 29
    assert [(row.id, row.reason) for row in page.quarantined] == [(f"local/{entries[7]['id']}", Reason.NON_FINITE)]
    assert page.complete


def test_the_delay_a_server_asks_for_is_kept(entries: list[Entry]) -> None:
    with FaultServer(entries[:9], faults=["delay:2"]) as server, Client(server.url, local=True) as client:
        list(pages(client, Query(), resolve(server.url)))
        assert "interval_s=2," in repr(client.pace)


def test_clients_of_one_host_share_a_pace_that_keeps_the_longest_interval() -> None:
    pace = HostPace()
    with connect(resolve("oqmd"), pace=pace) as first, connect(resolve("oqmd"), pace=pace) as second:
        assert first.pace is second.pace is pace
    assert pace.interval_s == resolve("oqmd").min_interval_s
