"""The Materials Project's own API: criteria, pages, licences, and a key that goes nowhere else."""

import copy
import logging
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.sources.crystals import Crystals, concat
from assay.sources.databases.client import SourceDown, SourceRefused, UnsafeReply
from assay.sources.databases.materials_project import FIELDS, MPQuery, count, pages, rows_to_crystals
from assay.sources.databases.mp_query import GNOME, THERMO_TYPES
from assay.sources.databases.paging import CursorExpired, End, Page, Resume, ids_of
from assay.sources.quarantine import Reason
from tests.loopback import Answer, Loopback
from tests.mp_api_server import KEY, Doc, MpApiServer, documents
from tests.servers import materials_project

pytest.importorskip(
    "mp_api.client.routes.materials.summary"
)  # before the home folder is moved: it warms up caches there
N = 300
QUICK: dict[str, Any] = {"min_interval_s": 0.0, "backoff_s": 0.01, "timeout_s": 20.0, "deadline_s": 30.0}
OXIDES = MPQuery({"elements": ["O"]}, page_limit=32)


@pytest.fixture(scope="module")
def crystals(data: Path) -> Crystals:
    return materials_project(data, N)


@pytest.fixture(scope="module")
def docs(crystals: Crystals) -> list[Doc]:
    return documents(crystals)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty home folder, variables that mp-api would listen to, and nothing in the home folder afterwards."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MP_API_ENDPOINT", "http://127.0.0.1:9/")
    monkeypatch.setenv("MP_API_KEY", "z" * 32)
    (tmp_path / "home").mkdir()
    yield
    assert [path for path in (tmp_path / "home").rglob("*") if "matplotlib" not in str(path) and path.is_file()] == []


def pull(server: Loopback, query: MPQuery, resume: Resume | None = None, **limits: Any) -> list[Page]:
    return list(pages(query, KEY, server.url, resume, **{**QUICK, **limits}))


def summary_requests(server: Loopback) -> list[str]:
    return [path for path, _ in server.requests if path.startswith("/materials/summary")]


def test_every_page_arrives_once_and_unchanged(docs: list[Doc], crystals: Crystals) -> None:
    with MpApiServer(docs) as server:
        found = pull(server, OXIDES)
        assert count(OXIDES, KEY, server.url, **QUICK) == sum(page.n_entries for page in found)
    last = found[-1]
    assert (last.end, last.missing, last.complete, last.cursor) == (End.NO_NEXT, 0, True, None)
    assert [page.n_entries for page in found[:-1]] == [32] * (len(found) - 1)
    got = concat([page.crystals for page in found])
    oxides = crystals.composition()[:, 8] > 0
    assert got.ids.tolist() == crystals.ids[oxides].tolist()
    np.testing.assert_array_equal(got.lattice, crystals.select(oxides).lattice)
    gap = got.frac - crystals.select(oxides).frac
    assert np.abs(gap - np.round(gap)).max() < 1e-12
    np.testing.assert_array_equal(got.columns["band_gap"], crystals.select(oxides).columns["band_gap"])
    assert got.columns["is_stable"].dtype == np.float64
    assert set(got.columns["licence"]) == {"CC-BY-4.0"}
    assert set(got.columns["energy_above_hull_functional"]) == {"PBE(+U) and r2SCAN mixed, MP corrections"}
    assert set(got.columns["last_modified"]) == {"2025-09-25T00:00:00"}
    assert got.columns["origin"][0].startswith(server.url + "/materials/summary/")


def test_only_the_fields_and_rows_asked_for_are_requested(docs: list[Doc]) -> None:
    query = MPQuery({"band_gap": [0.5, None], "is_stable": False, "num_elements": 3}, page_limit=64)
    with MpApiServer(docs) as server:
        found = pull(server, query)
    asked = summary_requests(server)
    assert len(asked) == len(found)
    for path in asked:
        assert "_fields=" + "%2C".join(FIELDS) in path
        assert "band_gap_min=0.5" in path
        assert "band_gap_max" not in path
        assert "nelements_min=3" in path
        assert "deprecated=false" in path
        assert f"batch_id_not_eq={GNOME}" in path
        assert "_per_page=64" in path
    got = concat([page.crystals for page in found])
    assert (got.columns["band_gap"] >= 0.5).all()
    assert 0 < len(got) < N


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        ({}, "criteria are empty"),
        ({"deprecated": False, "include_gnome": True}, "criteria are empty"),
        ({"band_gap": None}, "criteria are empty"),
        ({"deprecated": True, "is_stable": True}, "deprecated"),
        ({"bandgap": [0, 1]}, "did you mean 'band_gap'"),
        ({"band_gap": [2, 1]}, "min, max"),
        ({"band_gap": [0, float("nan")]}, "min, max"),
        ({"band_gap": 1.0}, "min, max"),
        ({"num_sites": [0, 3]}, "whole numbers"),
        ({"num_sites": 2.5}, "min, max"),
        ({"is_stable": "yes"}, "true or false"),
        ({"elements": ["Nb", "Xx"]}, "element symbols"),
        ({"elements": []}, "element symbols"),
        ({"chemsys": "*-*"}, "letters"),
        ({"chemsys": "Nb&Sn"}, "letters"),
        ({"formula": []}, "texts"),
        ({"spacegroup_number": 231}, "1 to 230"),
        ({"material_ids": ["mp-149"]}, "blocked"),
        ({"is_stable": True, "thermo_type": "PBE"}, "GGA_GGA"),
        ([], "names with values"),
    ],
)
def test_criteria_that_ask_for_everything_or_nothing_are_refused(criteria: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        MPQuery(criteria)


@pytest.mark.parametrize("limits", [{"page_limit": 0}, {"page_limit": 1001}, {"max_entries": 0}, {"max_sites": 0}])
def test_limits_are_checked(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="accepted"):
        MPQuery({"is_stable": True}, **limits)


def test_criteria_may_come_as_yaml_writes_them(docs: list[Doc]) -> None:
    query = MPQuery({"band_gap": [0, 0.5], "chemsys": "O-Ti", "include_gnome": True, "thermo_type": "R2SCAN"})
    assert (query.include_gnome, query.thermo_type) == (True, "R2SCAN")
    assert query.search == {"band_gap": (0, 0.5), "chemsys": ["O-Ti"], "deprecated": False, "include_gnome": True}


# The key


@pytest.mark.parametrize("key", ["", "short", "x" * 31 + "\n", "é" * 32, None])
def test_something_that_is_no_key_is_not_sent_and_not_quoted(key: Any) -> None:
    with MpApiServer() as server, pytest.raises(ValueError, match="32 characters") as error:
        list(pages(OXIDES, key, server.url, **QUICK))
    assert server.requests == []
    assert not key or str(key) not in str(error.value)


def test_the_key_goes_to_its_endpoint_only(docs: list[Doc], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with MpApiServer() as thief, MpApiServer(docs, script=("ok", f"redirect:{thief.url}/materials/summary/")) as server:
        with pytest.raises(UnsafeReply, match="redirects") as error:
            pull(server, OXIDES)
        assert all(headers["x-api-key"] == KEY for _, headers in server.requests)
        assert thief.requests == []
    with MpApiServer(docs, script=("ok", "503", "ok")) as server:
        pull(server, OXIDES)
    assert KEY not in caplog.text + str(error.value) + repr(error.value)


def test_a_wrong_key_is_told_in_one_line(docs: list[Doc]) -> None:
    wrong = "q" * 32
    with MpApiServer(docs) as server, pytest.raises(SourceRefused, match="401") as error:
        list(pages(OXIDES, wrong, server.url, **QUICK))
    assert len(server.requests) == 2  # the heartbeat, and one question
    assert "\n" not in str(error.value)
    assert wrong not in str(error.value)


def test_a_key_does_not_travel_unencrypted() -> None:
    with pytest.raises(ValueError, match="unencrypted"):
        list(pages(OXIDES, KEY, "http://example.org"))


def test_nothing_but_the_endpoint_is_contacted(docs: list[Doc], monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[Any] = []
    connect = socket.socket.connect

    def watch(self: socket.socket, address: Any) -> None:
        reached.append(address)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", watch)
    with MpApiServer(docs) as server:
        pull(server, OXIDES)
        port = int(server.url.rpartition(":")[2])
    assert {address[:2] for address in reached} == {("127.0.0.1", port)}


def test_no_version_of_mp_api_can_download_or_ask_by_itself(docs: list[Doc]) -> None:
    from assay.sources.databases.materials_project import Api, connect

    with MpApiServer(docs) as server, connect(KEY, server.url, **QUICK) as client:
        rester = Api(client).rester(0)
        before = len(server.requests)
        with pytest.raises(SourceRefused, match="never done"):
            rester.search()  # without criteria mp-api takes the whole table from a bucket
        with pytest.raises(SourceRefused, match="of its own"):
            rester.session.get(url=server.url)
        assert rester.api_key == "0" * 32
        assert len(server.requests) == before


def test_without_mp_api_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mp_api.client.routes.materials.summary", None)
    with MpApiServer() as server, pytest.raises(ImportError, match=r"assay\[mp\]"):
        pull(server, OXIDES)


# Faults


@pytest.mark.parametrize("fault", ["429-after:0", "504", "502", "500", "truncated", "html", "close"])
def test_passing_faults_are_survived(fault: str, docs: list[Doc]) -> None:
    with MpApiServer(docs, script=("ok", "ok", fault, fault, "ok")) as server:
        found = pull(server, OXIDES)
    assert found[-1].complete
    assert len(summary_requests(server)) == len(found) + 2


def test_a_dead_server_ends_the_pull_and_keeps_what_came(docs: list[Doc]) -> None:
    with MpApiServer(docs, script=("ok", "ok", "ok", "504")) as server:
        stream = pages(OXIDES, KEY, server.url, retries=2, **QUICK)
        assert next(stream).n_entries + next(stream).n_entries == 64
        with pytest.raises(SourceDown, match="504"):
            next(stream)
    assert len(server.requests) == 3 + 3


def test_pages_too_large_are_asked_for_in_halves(docs: list[Doc]) -> None:
    with MpApiServer(docs) as server:
        whole = pull(server, OXIDES)
    limit = max(len(str(doc)) for doc in docs) * 10
    with MpApiServer(docs, script=("ok", f"big:{limit}")) as server:
        found = pull(server, OXIDES, max_bytes=limit + 2**18)
    assert concat([page.crystals for page in found]).ids.tolist() == concat([p.crystals for p in whole]).ids.tolist()
    assert found[-1].complete
    assert len(found) > len(whole)


@pytest.mark.parametrize("name", ["elements", "band_gap_min", "is_stable", "nelements_min", "chemsys"])
def test_a_server_that_ignores_a_criterion_is_given_up(name: str, docs: list[Doc]) -> None:
    criteria: dict[str, Any] = {"elements": ["Nb"]} if name == "elements" else {}
    criteria |= {"band_gap": [3, None]} if name == "band_gap_min" else {}
    criteria |= {"is_stable": True} if name == "is_stable" else {}
    criteria |= {"num_elements": [4, 9]} if name == "nelements_min" else {}
    criteria |= {"chemsys": "Nb-Sn"} if name == "chemsys" else {}
    with MpApiServer(docs, ignored=[name]) as server, pytest.raises(SourceRefused, match="mp ignores criteria"):
        pull(server, MPQuery(criteria))
    assert len(summary_requests(server)) == 1


def test_a_row_that_was_not_asked_for_goes_to_quarantine(docs: list[Doc]) -> None:
    rows = copy.deepcopy(docs[:4])
    rows[0]["deprecated"] = True
    rows[1]["builder_meta"]["batch_id"] = GNOME
    query = MPQuery({"num_sites": [1, 400]})
    crystals, quarantined, names = rows_to_crystals(rows, query, "here")
    assert [row.reason for row in quarantined] == [Reason.FILTER_MISMATCH] * 2
    assert names == [f"mp/{row['material_id']}" for row in rows]
    assert crystals.ids.tolist() == names[2:]


def test_licences_are_those_of_the_rows(docs: list[Doc]) -> None:
    rows = copy.deepcopy(docs[:5])
    for row, licence in zip(rows, ["BY-C", "BY-NC", None, "else", "BY-C"], strict=True):
        row["builder_meta"]["license"] = licence
    del rows[4]["builder_meta"]
    rows[4]["material_id"] = "mp-3200000"
    crystals, _, _ = rows_to_crystals(rows, MPQuery({"num_sites": [1, 400]}, include_gnome=True), "here")
    expected = ["CC-BY-4.0", "CC-BY-NC-4.0", "CC-BY-4.0", "unknown", "CC-BY-NC-4.0"]
    assert crystals.columns["licence"].tolist() == expected


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda row: row.pop("structure"), Reason.MALFORMED),
        (lambda row: row.update(structure=[1]), Reason.MALFORMED),
        (lambda row: row["structure"]["lattice"].update(matrix=[[1, 0, 0], [1, 0, 0], [0, 0, 1]]), Reason.BAD_LATTICE),
        (lambda row: row["structure"]["lattice"].update(pbc=[True, True, False]), Reason.NOT_PERIODIC),
        (lambda row: row["structure"]["sites"][0].update(abc=[float("nan")] * 3), Reason.NON_FINITE),
        (lambda row: row["structure"]["sites"][0].update(abc=None), Reason.MALFORMED),
        (lambda row: row["structure"]["sites"][0]["species"][0].update(element="D"), Reason.UNKNOWN_SPECIES),
        (lambda row: row["structure"]["sites"][0]["species"][0].update(element=[]), Reason.UNKNOWN_SPECIES),
        (lambda row: row["structure"]["sites"][0]["species"][0].update(occu="1"), Reason.MALFORMED),
        (lambda row: row.update(material_id=None), Reason.MALFORMED),
        (lambda row: row.clear(), Reason.MALFORMED),
    ],
)
def test_a_broken_row_is_a_record_and_harms_no_other(spoil: Any, reason: Reason, docs: list[Doc]) -> None:
    rows = copy.deepcopy(docs[:3])
    spoil(rows[1])
    crystals, quarantined, names = rows_to_crystals([*rows, "text"], MPQuery({"num_sites": [1, 400]}), "here")
    assert sorted(row.reason for row in quarantined) == sorted([reason, Reason.MALFORMED])
    assert crystals.ids.tolist() == [names[0], names[2]]
    assert len(set(names)) == 4


class Odd(Loopback):
    """A server that answers every question with one document."""

    def __init__(self, document: Any) -> None:
        super().__init__()
        self.document = document

    def answer(self, path: str, headers: Any) -> Answer:
        return 200, self.document


@pytest.mark.parametrize("document", [[], {}, {"data": {}}, {"data": None}, "text", None])
def test_a_reply_that_is_none_is_refused(document: Any) -> None:
    with Odd(document) as server, pytest.raises(SourceRefused, match="no list of data"):
        pull(server, OXIDES)


@pytest.mark.parametrize("meta", [None, {}, {"total_doc": "12"}, {"total_doc": True}, {"total_doc": -1}])
def test_without_a_count_an_empty_page_is_the_end(meta: Any) -> None:
    with Odd({"data": [], "meta": meta}) as server:
        (page,) = pull(server, OXIDES)
    assert (page.end, page.data_returned, page.complete) == (End.NO_NEXT, None, True)


# Energies on one scale


def test_energies_can_be_asked_for_on_one_scale(docs: list[Doc]) -> None:
    with MpApiServer(docs) as server:
        server.thermo = [
            {
                "material_id": doc["material_id"],
                "thermo_type": kind,
                "formation_energy_per_atom": energy,
                "energy_above_hull": 0.25,
                "is_stable": False,
            }
            for doc in docs[::2]
            for kind, energy in (("GGA_GGA+U", -1.0), ("r2SCAN", -2.0))
        ]
        for thermo_type, energy in (("GGA_GGA+U", -1.0), ("R2SCAN", -2.0)):
            query = MPQuery({"num_sites": [1, 400]}, thermo_type=thermo_type, page_limit=300)
            (page,) = pull(server, query)
            columns = page.crystals.columns
            assert columns["formation_energy_per_atom"][::2].tolist() == [energy] * (N // 2)
            assert np.isnan(columns["formation_energy_per_atom"][1::2]).all()  # missing, not from another scale
            assert np.isnan(columns["is_stable"][1::2]).all()
            assert set(columns["energy_above_hull_functional"][::2]) == {THERMO_TYPES[thermo_type]}
            assert set(columns["energy_above_hull_functional"][1::2]) == {""}
    assert sum("/materials/thermo/" in path for path, _ in server.requests) == 2 * (1 + 3)  # 414, then in parts


# Going on after a break


def test_a_pull_goes_on_after_any_page(docs: list[Doc]) -> None:
    query = MPQuery({"elements": ["O"]}, page_limit=20)
    with MpApiServer(docs) as server:
        whole = pull(server, query)
        assert len(whole) == 5
        for kept in range(1, len(whole)):
            resume = Resume.after([page.cursor for page in whole[:kept] if page.cursor], ids_of(whole[:kept]))
            before = len(summary_requests(server))
            rest = pull(server, query, resume)
            assert [(p.url, p.sha256, p.end, p.missing, p.cursor) for p in rest] == [
                (p.url, p.sha256, p.end, p.missing, p.cursor) for p in whole[kept:]
            ]
            assert len(summary_requests(server)) - before == len(whole) - kept


def test_another_release_or_query_is_another_list(docs: list[Doc]) -> None:
    with MpApiServer(docs) as server:
        first = pull(server, OXIDES)[0]
        assert first.cursor is not None
        resume = Resume.after([first.cursor], ids_of([first]))
        with pytest.raises(CursorExpired, match="another query"):
            pull(server, MPQuery({"elements": ["N"]}, page_limit=32), resume)
        with pytest.raises(CursorExpired, match="cannot be read"):
            pull(server, OXIDES, Resume({**first.cursor, "window": "x"}, resume.seen))
        server.release = "2026.01.01"
        with pytest.raises(CursorExpired, match=r"2025\.09\.25.*2026\.01\.01"):
            pull(server, OXIDES, resume)


def test_max_entries_ends_the_walk(docs: list[Doc]) -> None:
    with MpApiServer(docs) as server:
        found = pull(server, MPQuery({"elements": ["O"]}, page_limit=32, max_entries=50))
    assert [page.n_entries for page in found] == [32, 18]
    assert (found[-1].end, found[-1].complete) == (End.ASKED, True)


def test_rows_that_never_come_are_counted(docs: list[Doc]) -> None:
    class Short(MpApiServer):
        def answer(self, path: str, headers: Any) -> Answer:
            status, document = super().answer(path, headers)
            if "meta" in document:
                document["meta"]["total_doc"] += 7
            return status, document

    with Short(docs) as server:
        last = pull(server, OXIDES)[-1]
    assert (last.missing, last.complete) == (7, False)
