"""AFLOW over AFLUX: what is asked for, what becomes a crystal, and where a walk through its pages ends."""

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.sources.crystals import Crystals, concat
from assay.sources.databases import aflux
from assay.sources.databases.aflux import REQUIRED, AfluxQuery, announced, connect, rows_to_crystals
from assay.sources.databases.client import SourceDown, SourceRefused, UnsafeReply
from assay.sources.databases.paging import CursorExpired, End, Page, Resume, ids_of
from assay.sources.quarantine import Reason
from tests.aflux_server import AfluxServer, Row, as_text, rows_of
from tests.loopback import Answer, Loopback
from tests.servers import materials_project

N = 200
QUICK: dict[str, Any] = {"min_interval_s": 0.0, "backoff_s": 0.01, "timeout_s": 20.0, "deadline_s": 30.0}
ALL = AfluxQuery("nspecies(1*)", page_limit=32)


@pytest.fixture(scope="module")
def crystals(data: Path) -> Crystals:
    return materials_project(data, N)


@pytest.fixture(scope="module")
def rows(crystals: Crystals) -> list[Row]:
    return rows_of(crystals)


def pull(server: Loopback, query: AfluxQuery, resume: Resume | None = None, **limits: Any) -> list[Page]:
    provider = replace(aflux.PROVIDER, base_url=f"{server.url}/API/aflux", local=True)
    with connect(provider, **{**QUICK, **limits}) as client:
        return list(aflux.pages(client, query, resume))


def ids(found: list[Page]) -> list[str]:
    return [name for page in found for name in page.crystals.ids.tolist()]


def distances(crystals: Crystals, row: int) -> Any:
    """Sorted shortest distances between all sites, Å: the same for every setting of the axes."""
    sites = slice(*crystals.site_ptr[row : row + 2])
    gap = crystals.frac[sites][:, None] - crystals.frac[sites][None]
    shifts = np.array(np.meshgrid(*[[-1, 0, 1]] * 3)).reshape(3, -1).T
    lengths = np.linalg.norm((gap[:, :, None] + shifts) @ crystals.lattice[row], axis=-1)
    return np.sort(lengths.min(axis=-1).ravel())


# What is asked for


def test_only_what_makes_a_crystal_is_added_to_the_matchbook(rows: list[Row]) -> None:
    with AfluxServer(rows) as server:
        pull(server, AfluxQuery("species(O),Egap(1*)", page_limit=20))
    probe, first, *_ = [path for path, _ in server.requests]
    assert probe == "/API/aflux/?species(O),Egap(1*),$paging(1,1),format(json)"
    geometry = ",".join(name for name in REQUIRED if name != "species")  # named by the matchbook already
    assert first == f"/API/aflux/?species(O),Egap(1*),{geometry},$paging(1,20),format(json)"


@pytest.mark.parametrize(
    "matchbook",
    [
        "",
        "  ",
        "species(Nb),$paging(0)",
        "species(Nb),paging(1,10)",
        "species(Nb),format (csv)",
        "species(Nb)&x=1",
        "species(Nb)#",
        "species(Nb)\n",
        "species(Nü)",
        "species(Nb",
        "species(Nb))(",
        "species(Nb):species(Ti)",
        "species(Nb),",
        ",species(Nb)",
        "species(" + "Nb," * 1000 + "Ti)",
    ],
)
def test_a_matchbook_that_is_none_is_refused(matchbook: str) -> None:
    with pytest.raises(ValueError, match="matchbook"):
        AfluxQuery(matchbook)


@pytest.mark.parametrize("matchbook", ["species(Nb:Ti),nspecies(2)", "(species(Nb):species(Ti)),Egap", "title('a$&b')"])
def test_the_language_itself_is_left_alone(matchbook: str) -> None:
    assert AfluxQuery(matchbook).matchbook == matchbook


@pytest.mark.parametrize("limits", [{"page_limit": 0}, {"page_limit": 1001}, {"max_entries": 0}, {"max_sites": 0}])
def test_limits_are_checked(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="accepted"):
        AfluxQuery("species(Nb)", **limits)


# What becomes a crystal


@pytest.mark.parametrize("text", [False, True])
def test_rows_become_the_crystals_they_describe(text: bool, rows: list[Row], crystals: Crystals) -> None:
    written = [as_text(row) for row in rows] if text else rows
    got, quarantined, names = rows_to_crystals(written, "here")
    assert quarantined == []
    assert names == got.ids.tolist()
    assert got.formulas().tolist() == crystals.formulas().tolist()
    volumes = [np.abs(np.linalg.det(batch.lattice)) for batch in (got, crystals)]
    np.testing.assert_allclose(*volumes, rtol=1e-9)
    for row in range(0, N, 10):
        np.testing.assert_allclose(distances(got, row), distances(crystals, row), atol=1e-6)
    np.testing.assert_allclose(
        got.columns["formation_energy_per_atom"], crystals.columns["formation_energy_per_atom"], rtol=1e-12
    )
    has_gap = np.arange(N) % 3 > 0
    np.testing.assert_array_equal(np.isfinite(got.columns["band_gap"]), has_gap)
    assert set(got.columns["band_gap_functional"][has_gap]) == {"PAW_PBE, element references"}
    assert set(got.columns["band_gap_functional"][~has_gap]) == {""}
    assert set(got.columns["licence"]) == {"unknown"}
    assert set(got.columns["provider"]) == {"aflow"}
    assert got.columns["immutable_id"][0].startswith("aflowlib.duke.edu:AFLOWDATA")


def test_without_a_dft_type_the_functional_is_not_claimed(rows: list[Row]) -> None:
    bare = [{name: value for name, value in row.items() if name != "dft_type"} for row in rows[:3]]
    got, _, _ = rows_to_crystals(bare, "here")
    assert set(got.columns["formation_energy_per_atom_functional"]) == {
        "as in dft_type (PBE as a rule), element references"
    }


def test_shares_will_do_where_the_composition_is_missing(rows: list[Row]) -> None:
    row = copy.deepcopy(rows[0])
    counts = row.pop("composition")
    row["stoichiometry"] = [count / sum(counts) for count in counts]
    got, _, _ = rows_to_crystals([row, rows[0]], "here")
    np.testing.assert_array_equal(*[got.numbers[slice(*got.site_ptr[i : i + 2])] for i in (0, 1)])


@pytest.mark.parametrize(
    ("change", "reason", "expected"),
    [
        ({"geometry": None}, Reason.MALFORMED, "lattice_vectors is missing"),
        ({"geometry": "1,2,3"}, Reason.MALFORMED, "alpha, beta, gamma"),
        ({"geometry": [4, 4, 4, 90, 90, 181]}, Reason.MALFORMED, "spans no cell"),
        ({"geometry": [4, 4, 4, 30, 30, 90]}, Reason.MALFORMED, "spans no cell"),
        ({"geometry": [-4, 4, 4, 90, 90, 90]}, Reason.MALFORMED, "spans no cell"),
        ({"geometry": ["x"] * 6}, Reason.MALFORMED, "could not convert"),
        ({"geometry": {"a": 1}}, Reason.MALFORMED, "is no list"),
        ({"geometry": [0.1, 0.1, 0.1, 90, 90, 90]}, Reason.BAD_LATTICE, "per atom"),
        ({"species": ["Xx", "O"]}, Reason.UNKNOWN_SPECIES, "no chemical element"),
        ({"species": None}, Reason.MALFORMED, "do not add up"),
        ({"composition": [1]}, Reason.MALFORMED, "do not add up"),
        ({"composition": [1.5, 0.5]}, Reason.MALFORMED, "do not add up"),
        ({"composition": [-1, 3]}, Reason.MALFORMED, ""),
        ({"positions_fractional": None}, Reason.MALFORMED, "missing"),
        ({"positions_fractional": "0,0,0;0.5,0.5"}, Reason.MALFORMED, ""),
        ({"positions_fractional": [[0, 0, 0], ["nan", 0, 0]]}, Reason.NON_FINITE, "must be finite"),
        ({"positions_fractional": 3}, Reason.MALFORMED, ""),
        ({"auid": None}, Reason.MALFORMED, "auid None"),
        ({"auid": "a\nb"}, Reason.MALFORMED, "printable"),
    ],
)
def test_a_broken_row_is_a_record_and_harms_no_other(change: Row, reason: Reason, expected: str) -> None:
    sound = {
        "auid": "aflow:1",
        "geometry": "4,4,4,90,90,90",
        "species": "Mg,O",
        "composition": "1,1",
        "positions_fractional": "0,0,0;0.5,0.5,0.5",
    }
    got, quarantined, names = rows_to_crystals([sound, {**sound, "auid": "aflow:2", **change}, "text"], "here")
    assert got.ids.tolist() == ["aflow/aflow:1"]
    assert len(set(names)) == 3
    (record,) = [row for row in quarantined if row.id == names[1]]
    assert record.reason is reason
    assert expected in record.message
    assert {row.id for row in quarantined} == set(names[1:])


def test_recorded_entries_agree_with_their_own_cartesian_positions(data: Path) -> None:
    paths = sorted((data / "optimade" / "aflow_recorded").glob("*_example.json"))
    entries = [json.loads(path.read_text(encoding="utf-8", errors="replace")) for path in paths]
    got, quarantined, _ = rows_to_crystals(entries, "recorded")
    assert quarantined == []
    assert len(got) == len(entries) >= 5
    for row, entry in enumerate(entries):
        assert got.nsites[row] == entry["natoms"]
        np.testing.assert_allclose(abs(np.linalg.det(got.lattice[row])), entry["volume_cell"], rtol=1e-4)
        places, cartesian = (np.array(entry[f"positions_{kind}"]) for kind in ("fractional", "cartesian"))
        ours = np.linalg.norm((places[:, None] - places[None]) @ got.lattice[row], axis=-1)
        theirs = np.linalg.norm(cartesian[:, None] - cartesian[None], axis=-1)
        np.testing.assert_allclose(ours, theirs, atol=2e-4)
        stored = got.frac[slice(*got.site_ptr[row : row + 2])] - places
        assert np.abs(stored - np.round(stored)).max() < 1e-9
        np.testing.assert_equal(
            got.columns["formation_energy_per_atom"][row], entry.get("enthalpy_formation_atom", np.nan)
        )


def test_recorded_text_entries_are_the_same_crystals(data: Path) -> None:
    folder = data / "optimade" / "aflow_recorded"
    seen = 0
    for path in sorted(folder.glob("*_example.out")):
        text = path.read_text(encoding="utf-8", errors="replace")
        row = dict(part.strip().partition("=")[::2] for part in text.split(" | "))
        got, quarantined, _ = rows_to_crystals([row], path.name)
        assert quarantined == []
        assert got.nsites[0] == int(row["natoms"])
        np.testing.assert_allclose(abs(np.linalg.det(got.lattice[0])), float(row["volume_cell"]), rtol=1e-4)
        seen += 1
    assert seen >= 5


# Pages


@pytest.mark.parametrize("style", ["object", "restarting", "list"])
@pytest.mark.parametrize("largest", [10_000, 17])
def test_every_row_arrives_once(style: str, largest: int, rows: list[Row]) -> None:
    with AfluxServer(rows, style=style, largest=largest) as server:
        found = pull(server, ALL)
    assert ids(found) == [f"aflow/{row['auid']}" for row in rows]
    last = found[-1]
    assert (last.end, last.missing, last.complete, last.cursor) == (End.NO_NEXT, 0, True, None)
    assert last.data_returned == (None if style == "list" else N)


def test_rows_without_a_geometry_are_not_sent_and_count_as_missing(rows: list[Row]) -> None:
    poor = [row if place % 10 else {**row, "positions_fractional": None} for place, row in enumerate(rows)]
    with AfluxServer(poor) as server:
        found = pull(server, ALL)
        provider = replace(aflux.PROVIDER, base_url=f"{server.url}/API/aflux", local=True)
        with connect(provider, **QUICK) as client:
            assert announced(client, ALL) == N
    assert len(ids(found)) == N - N // 10
    assert (found[-1].missing, found[-1].complete) == (N // 10, False)


def test_a_property_in_the_matchbook_chooses_the_rows_that_have_it(rows: list[Row]) -> None:
    with AfluxServer(rows) as server:
        found = pull(server, AfluxQuery("nspecies(1*),Egap(*),dft_type", page_limit=50))
    got = concat([page.crystals for page in found])
    assert np.isfinite(got.columns["band_gap"]).all()
    assert len(got) == sum("Egap" in row for row in rows)
    assert found[-1].complete
    assert set(got.columns["band_gap_functional"]) == {"PAW_PBE, element references"}


def test_max_entries_ends_the_walk(rows: list[Row]) -> None:
    with AfluxServer(rows) as server:
        found = pull(server, AfluxQuery("nspecies(1*)", page_limit=32, max_entries=50))
    assert [page.n_entries for page in found] == [32, 18]
    assert (found[-1].end, found[-1].complete) == (End.ASKED, True)


@pytest.mark.parametrize("document", [{}, []])
def test_nothing_found_is_an_empty_page(document: Any) -> None:
    with AfluxServer([], style="list" if document == [] else "object") as server:
        (page,) = pull(server, ALL)
    assert (page.n_entries, page.end, page.complete) == (0, End.NO_NEXT, True)


class Odd(Loopback):
    """A server that answers every question with one document."""

    def __init__(self, document: Any) -> None:
        super().__init__()
        self.document = document

    def answer(self, path: str, headers: Any) -> Answer:
        return 200, self.document


@pytest.mark.parametrize("document", [None, "DB Fail", 3, {"error": "no such keyword"}, {"1 of 2": {}, "x": {}}])
def test_a_reply_that_is_none_is_refused(document: Any) -> None:
    with Odd(document) as server, pytest.raises(SourceRefused, match="not an AFLUX reply"):
        pull(server, ALL)


class Spoiled(AfluxServer):
    """A server that writes the row of one crystal wrongly, by `spoil`."""

    def __init__(self, rows: list[Row], auid: str, spoil: Callable[[bytes], bytes], style: str) -> None:
        super().__init__(rows, style=style)
        self.auid, self.spoil = auid.encode(), spoil

    def answer(self, path: str, headers: Any) -> Answer:
        status, document = super().answer(path, headers)
        members = [json.dumps({key: row})[1:-1].encode() for key, row in document.items()]
        return status, b"{" + b", ".join(self.spoil(one) if self.auid in one else one for one in members) + b"}"


@pytest.mark.parametrize("style", ["object", "restarting"])
@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda row: row.replace(b"ICSD", b"ICSD\xff"), "0xff is no UTF-8"),
        (lambda row: row.replace(b"ICSD", b"ICSD\x01"), "control character"),
        (lambda row: row.replace(b'"nspecies": ', b'"nspecies": 0'), "Expecting"),
        (lambda row: row.replace(b'"geometry": [', b'"geometry": [nan, '), "Expecting value"),
        (
            lambda row: row.replace(b'"geometry": ', b'"deep": ' + b"[" * 5000 + b"]" * 5000 + b', "geometry": '),
            "nested",
        ),
        (lambda row: row.replace(b'"geometry": [', b'"geometry": [' + b"9" * 5000 + b","), "digits"),
        (lambda row: row.replace(b" of ", b" off "), "is not the number of a row"),
    ],
)
def test_a_row_that_cannot_be_parsed_costs_that_row(
    style: str, spoil: Callable[[bytes], bytes], expected: str, rows: list[Row]
) -> None:
    auid = rows[37]["auid"]
    with Spoiled(rows, auid, spoil, style) as server:
        found = pull(server, AfluxQuery("nspecies(1*)", page_limit=32))
        assert len(server.requests) == 1 + len(found)
    assert ids(found) == [f"aflow/{row['auid']}" for row in rows if row["auid"] != auid]
    (lost,) = [record for page in found for record in page.quarantined]
    assert lost.reason is Reason.MALFORMED
    assert expected in lost.message
    assert found[-1].complete
    assert sum(page.n_entries for page in found) == len(rows)


@pytest.mark.parametrize("document", [[{"auid": "aflow:1"}], {"1 of 900": {"auid": "aflow:1"}}])
def test_a_server_that_repeats_itself_is_left(document: Any) -> None:
    with Odd(document) as server:
        found = pull(server, ALL)
    assert found[-1].end is End.NOTHING_NEW
    assert not found[-1].complete
    assert len(server.requests) == 3


@pytest.mark.parametrize("fault", ["429-after:0", "503", "truncated", "html", "close"])
def test_passing_faults_are_survived(fault: str, rows: list[Row]) -> None:
    with AfluxServer(rows, script=("ok", "ok", fault, fault, "ok")) as server:
        found = pull(server, ALL)
    assert found[-1].complete
    assert len(server.requests) == 1 + len(found) + 2


def test_a_dead_server_ends_the_pull_and_redirects_are_not_followed(rows: list[Row]) -> None:
    with AfluxServer(rows, script=("ok", "500")) as server, pytest.raises(SourceDown, match="500"):
        pull(server, ALL, retries=2)
    assert len(server.requests) == 1 + 3
    with AfluxServer(rows) as other, AfluxServer(rows, script=(f"redirect:{other.url}/",)) as server:
        with pytest.raises(UnsafeReply, match="redirects"):
            pull(server, ALL)
        assert other.requests == []


def test_pages_too_large_are_asked_for_in_halves(rows: list[Row]) -> None:
    limit = max(len(str(row)) for row in rows) * 10
    with AfluxServer(rows, script=("ok", f"big:{limit}")) as server:
        found = pull(server, AfluxQuery("nspecies(1*)", page_limit=64), max_bytes=limit + 2**18)
    assert ids(found) == [f"aflow/{row['auid']}" for row in rows]
    assert found[-1].complete


def test_a_row_too_large_to_read_is_lost_alone(rows: list[Row]) -> None:
    """The row costs one row; a pull that goes on after any page comes to the same end."""
    fat = [{**row, "compound": "x" * 300_000} if place == 37 else row for place, row in enumerate(rows)]
    query = AfluxQuery("nspecies(1*)", page_limit=32)
    with AfluxServer(fat) as server:
        whole = pull(server, query, max_bytes=200_000)
        assert len(server.requests) <= 30
        for kept in range(1, len(whole)):
            resume = Resume.after([page.cursor for page in whole[:kept] if page.cursor], ids_of(whole[:kept]))
            rest = pull(server, query, resume, max_bytes=200_000)
            assert [page.url for page in rest] == [page.url for page in whole[kept:]]
    assert ids(whole) == [f"aflow/{row['auid']}" for place, row in enumerate(rows) if place != 37]
    (lost,) = [row for page in whole for row in page.quarantined]
    assert lost.reason is Reason.MALFORMED
    assert "200000 bytes" in lost.message
    assert whole[-1].complete


def test_rows_far_beyond_those_asked_for_are_refused() -> None:
    with Odd([[]] * 200_000) as server:
        (page,) = pull(server, ALL)
    assert (page.n_entries, len(page.quarantined), page.missing, page.complete) == (1000, 1000, 199_000, False)


def test_a_pull_goes_on_after_any_page(rows: list[Row]) -> None:
    with AfluxServer(rows[:-3] + [{**row, "species": None} for row in rows[-3:]]) as server:
        whole = pull(server, ALL)
        assert len(whole) > 5
        for kept in range(1, len(whole)):
            resume = Resume.after([page.cursor for page in whole[:kept] if page.cursor], ids_of(whole[:kept]))
            json.dumps(resume.cursor)
            before = len(server.requests)
            rest = pull(server, ALL, resume)
            assert [(p.url, p.sha256, p.end, p.missing, p.cursor) for p in rest] == [
                (p.url, p.sha256, p.end, p.missing, p.cursor) for p in whole[kept:]
            ]
            assert len(server.requests) - before == len(whole) - kept
    assert whole[-1].missing == 3


def test_the_cursor_of_another_query_is_refused(rows: list[Row]) -> None:
    with AfluxServer(rows) as server:
        first = pull(server, ALL)[0]
        assert first.cursor is not None
        resume = Resume.after([first.cursor], ids_of([first]))
        with pytest.raises(CursorExpired, match="another query"):
            pull(server, AfluxQuery("nspecies(2)", page_limit=32), resume)
        with pytest.raises(CursorExpired, match="cannot be read"):
            pull(server, ALL, Resume({**first.cursor, "window": None}, resume.seen))
