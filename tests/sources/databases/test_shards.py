"""Queries cut into shards: disjoint, complete, small; against the reference server and against servers that lie."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assay.sources.databases.client import Client, SourceDown
from assay.sources.databases.filters.checker import Checker
from assay.sources.databases.filters.grammar import validate_filter
from assay.sources.databases.optimade import Query, announced, pages
from assay.sources.databases.paging import Shard
from assay.sources.databases.providers import PROVIDERS, Provider, resolve
from assay.sources.databases.shards import split
from tests.servers import Entry, FaultServer, entries_from_crystals, materials_project, reference_server

N = 1000


@pytest.fixture(scope="module")
def entries(data: Path) -> list[Entry]:
    return entries_from_crystals(materials_project(data, N))


@pytest.fixture(scope="module")
def reference(entries: list[Entry], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with reference_server(entries, tmp_path_factory.mktemp("shards")) as url:
        yield url


def cut(url: str, text: str, most: int, like: str = "", **options: Any) -> list[Shard]:
    """Shards of a query; `like` borrows the dialect of a known provider."""
    provider: Provider = resolve(url)
    if like:
        known = PROVIDERS[like]
        provider = replace(provider, refused=known.refused, filter_required=known.filter_required)
    with Client(url, local=True, backoff_s=0.002) as client:
        return split(client, Query(text, **options), provider, most)


def ids_of(url: str, text: str) -> list[str]:
    with Client(url, local=True) as client:
        found = list(pages(client, Query(text, page_limit=500)))
    assert found[-1].complete
    assert not any(page.quarantined for page in found)
    return [name for page in found for name in page.crystals.ids.tolist()]


def matching(entries: list[Entry], text: str) -> set[str]:
    check = Checker(validate_filter(text))
    return {f"local/{entry['id']}" for entry in entries if check(entry["attributes"])}


@pytest.mark.parametrize("text", ["", 'elements HAS "O" OR nelements=2', "nsites<=20 AND nsites>4", "nelements=3"])
def test_shards_of_the_reference_server_are_disjoint_complete_and_small(
    text: str, reference: str, entries: list[Entry]
) -> None:
    shards = cut(reference, text, 100)
    pulled = [ids_of(reference, shard.filter) for shard in shards]
    assert [len(ids) for ids in pulled] == [shard.expected for shard in shards]
    assert max(map(len, pulled)) <= 100
    assert min(map(len, pulled)) > 0
    once = Counter(name for ids in pulled for name in ids)
    assert set(once.values()) == {1}
    assert once.keys() == (matching(entries, text) if text else {f"local/{entry['id']}" for entry in entries})


def test_shards_come_in_the_same_order_with_bounded_probes(entries: list[Entry]) -> None:
    with FaultServer(entries) as server:
        shards = cut(server.url, "", 100)
        print(f"{len(shards)} shards, {len(server.requests)} probes")
        assert len(server.requests) <= 80
        assert all("page_limit=1" in path for path, _ in server.requests)
        assert cut(server.url, "", 100) == shards
    assert sum(shard.expected or 0 for shard in shards) == N
    assert 10 <= len(shards) <= 30


def test_tiny_shards_are_cut_by_elements_until_nothing_tells_them_apart(entries: list[Entry]) -> None:
    with FaultServer(entries[:300]) as server:
        shards = cut(server.url, "nelements<=3", 15)
        print(f"{len(shards)} shards, {len(server.requests)} probes")
        n_probes = len(server.requests)
        pulled = [ids_of(server.url, shard.filter) for shard in shards]
    assert n_probes <= 200
    assert any("NOT elements HAS" in shard.filter for shard in shards)
    once = Counter(name for ids in pulled for name in ids)
    assert set(once.values()) == {1}
    assert once.keys() == matching(entries[:300], "nelements<=3")


def test_probes_run_out_and_nothing_is_lost(entries: list[Entry], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assay.sources.databases.shards.MAX_PROBES", 40)
    with FaultServer(entries) as server:
        shards = cut(server.url, "", 1)
        assert len(server.requests) == 40
    assert sum(shard.expected or 0 for shard in shards) == N
    assert max(shard.expected or 0 for shard in shards) < 150  # the largest were cut first


@pytest.mark.parametrize("like", ["", "oqmd"], ids=["any", "oqmd"])
def test_rows_with_unknown_counts_are_not_lost(like: str, entries: list[Entry]) -> None:
    with FaultServer(entries[:300], faults=["unknown:3,77,78"]) as server:
        shards = cut(server.url, "", 60, like)
        pulled = [ids_of(server.url, shard.filter) for shard in shards]
    assert sorted(name for ids in pulled for name in ids) == sorted(f"local/{entry['id']}" for entry in entries[:300])
    # OQMD answers 501 to IS UNKNOWN, so there the whole cannot be cut without losing the three
    assert len(shards) == (1 if like else len([1 for shard in shards if shard.expected]))
    assert any("nelements IS UNKNOWN" in shard.filter for shard in shards) is not bool(like)


def test_a_provider_without_parentheses_gets_none(entries: list[Entry]) -> None:
    with FaultServer(entries[:300]) as server:
        plain = cut(server.url, "nelements>=2 AND nsites<30", 40, "jarvis")
        asked = len(server.requests)
        either = cut(server.url, "nelements=2 OR nelements=3", 40, "jarvis")
        assert len(server.requests) == asked + 1  # every way to cut it would need some
    assert len(plain) > 3
    assert not any("(" in shard.filter for shard in plain)
    assert [shard.filter for shard in either] == ["nelements=2 OR nelements=3"]


@pytest.mark.parametrize(
    ("faults", "options", "expected"),
    [
        (["no-count"], {}, None),
        ([], {"max_entries": 70}, 70),
        ([], {"max_entries": 5000}, 300),
        (["ignore-filter"], {}, 300),
        (["wrong-count:1000"], {}, 1000),
    ],
    ids=str,
)
def test_what_cannot_be_cut_stays_whole(
    faults: list[str], options: dict[str, Any], expected: int | None, entries: list[Entry]
) -> None:
    with FaultServer(entries[:300], faults=faults) as server:
        assert cut(server.url, "nsites>=1", 50, **options) == [Shard("nsites>=1", expected)]
        assert len(server.requests) <= 2


def test_what_is_small_stays_whole(entries: list[Entry]) -> None:
    with FaultServer(entries[:50]) as server:
        assert cut(server.url, "", 50) == [Shard("", 50)]
        assert len(server.requests) == 1
        with pytest.raises(ValueError, match="at least 1"):
            cut(server.url, "", 0)


@pytest.mark.parametrize("status", ["400", "501", "500"])
def test_a_server_that_refuses_one_way_is_cut_in_another(status: str, entries: list[Entry]) -> None:
    def refuses_nelements(path: str) -> bool:
        return "filter=" in path and "nelements" in path.partition("filter=")[2].partition("&")[0]

    with FaultServer(entries[:300]) as server:
        honest = server.note
        server.note = lambda path, headers: status if refuses_nelements(path) else honest(path, headers)  # type: ignore[method-assign]
        shards = cut(server.url, "", 60)
    assert sum(shard.expected or 0 for shard in shards) == 300
    assert len(shards) > 3
    assert all("nsites" in shard.filter for shard in shards)


def test_a_server_that_dies_while_it_counts_is_down(entries: list[Entry]) -> None:
    with FaultServer(entries[:300], script=["ok", "ok", "ok", "close"]) as server:
        with pytest.raises(SourceDown):
            cut(server.url, "", 60)
        assert len(server.requests) == 3 + 5 + 2  # twice more behind the first entry, which may be the torn one


def test_every_shard_can_be_counted_again(reference: str) -> None:
    shards = cut(reference, 'NOT elements HAS "O"', 150)
    with Client(reference, local=True) as client:
        assert [announced(client, Query(shard.filter)) for shard in shards] == [shard.expected for shard in shards]
