"""Replies recorded from real providers go through the adapter that live replies go through."""

import gzip
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assay.sources.databases import aflux, optimade
from assay.sources.databases.client import Client
from assay.sources.databases.optimade_entries import entries_of, entries_to_crystals
from assay.sources.databases.paging import End
from assay.sources.databases.providers import PROVIDERS
from assay.sources.databases.trust import SourceRefused, UnsafeReply
from assay.sources.quarantine import Reason
from tests.loopback import Answer, Loopback


def reply(path: Path) -> Any:
    raw = path.read_bytes()
    document = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    return document.get("response", document)


def recorded(data: Path) -> list[Path]:
    folder = data / "optimade"
    found = [*folder.glob("hea_recorded/*.json*"), *folder.glob("optimade_gateway/*.json")]
    return sorted(path for path in found if path.name != "_query.json")


def test_every_recorded_reply_is_accounted_for(data: Path) -> None:
    seen = Counter[str]()
    for path in recorded(data):
        try:
            entries = entries_of(reply(path))
        except SourceRefused:
            seen["refused"] += 1
            continue
        crystals, quarantined = entries_to_crystals(entries, "recorded", path.name)
        assert len(crystals) + len(quarantined) == len(entries), path.name
        assert all(row.message and row.origin == path.name for row in quarantined)
        seen.update(received=len(entries), crystals=len(crystals), quarantined=len(quarantined))
    assert seen["received"] >= 1050
    assert seen["crystals"] >= 16
    assert seen["refused"] == 5


def test_oqmd_without_species_goes_to_quarantine(data: Path) -> None:
    entries = entries_of(reply(data / "optimade/hea_recorded/oqmd_org_optimade.json.gz"))
    crystals, quarantined = entries_to_crystals(entries, PROVIDERS["oqmd"], "recorded")
    assert len(crystals) == 0
    assert len(quarantined) == 1000
    assert {(row.reason, row.message) for row in quarantined} == {(Reason.MALFORMED, "species_at_sites is missing")}
    assert quarantined[0].id == "oqmd/5986510"  # the server sends integers


def test_single_atoms_are_not_periodic(data: Path) -> None:
    entries = entries_of(reply(data / "optimade/optimade_gateway/mc2d.json"))
    crystals, quarantined = entries_to_crystals(entries, "mcloud", "recorded")
    assert len(crystals) == 0
    assert Counter(row.reason for row in quarantined) == {Reason.NOT_PERIODIC: 15}


def test_sample_cells_are_read(data: Path) -> None:
    entries = entries_of(reply(data / "optimade/optimade_gateway/optimade-sample.json"))
    crystals, quarantined = entries_to_crystals(entries, "mcloud", "recorded")
    assert quarantined == []
    assert len(crystals) == 15
    assert set(crystals.nsites.tolist()) <= {2, 3}
    for row, entry in enumerate(entries):
        attributes = entry["attributes"]
        sites = slice(*crystals.site_ptr[row : row + 2])
        back = crystals.frac[sites] @ crystals.lattice[row]
        shift = (back - np.array(attributes["cartesian_site_positions"])) @ np.linalg.inv(crystals.lattice[row])
        assert np.abs(shift - np.round(shift)).max() < 1e-9
        stated = attributes["chemical_formula_reduced"]  # elements by the alphabet
        assert sorted(re.findall("[A-Z][a-z]?[0-9]*", crystals.formulas()[row])) == re.findall(
            "[A-Z][a-z]?[0-9]*", stated
        )
        assert crystals.columns["immutable_id"][row] == attributes["immutable_id"]


def test_a_single_entry_is_a_list_of_one(data: Path) -> None:
    entries = entries_of(reply(data / "optimade/optimade_gateway/optimade-sample_single.json"))
    crystals, _ = entries_to_crystals(entries, "mcloud", "recorded")
    assert crystals.formulas().tolist() == ["NaCl"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hea_recorded/aflow_org_API_optimade.json", "400"),
        ("hea_recorded/api_mpds_io.json", "ANY not supported"),
        ("hea_recorded/nomad_lab_eu_prod_rae_optimade.json", "500"),
        ("hea_recorded/www_crystallography_net_cod_optimade.json", "error without text"),
        ("optimade_gateway/index.json", "404 .*Not Found"),
    ],
)
def test_error_bodies_say_what_went_wrong(data: Path, name: str, expected: str) -> None:
    with pytest.raises(SourceRefused, match=expected):
        entries_of(reply(data / "optimade" / name))


@pytest.mark.parametrize("document", [None, [], "text", {"data": "text"}, {}, {"data": None, "errors": [None, 3]}])
def test_other_documents_are_no_replies(document: Any) -> None:
    with pytest.raises(SourceRefused):
        entries_of(document)


class Recorded(Loopback):
    """Serves recorded documents, one per request; the last one is repeated."""

    def __init__(self, *documents: Any) -> None:
        super().__init__()
        self.documents = documents

    def answer(self, path: str, headers: Any) -> Answer:
        return 200, self.documents[min(len(self.requests), len(self.documents)) - 1]


def test_no_recorded_file_is_left_unread(data: Path) -> None:
    folder = data / "optimade"
    rows = set((folder / "aflow_recorded").glob("*"))  # tests/sources/test_aflux.py
    descriptions = {folder / "oqmd_qmpy" / f"optimade_{name}.json" for name in ("info", "info_structures", "links")}
    other = {folder / "hea_recorded" / "_query.json", folder / "optimade_gateway" / "README.md"}
    assert {path for path in folder.rglob("*") if path.is_file()} == {*recorded(data), *rows, *descriptions, *other}


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("optimade_gateway/index_mcloud.json", 6),
        ("optimade_gateway/providers_optimade.json", 9),
        ("oqmd_qmpy/optimade_links.json", 2),
    ],
)
def test_links_are_no_crystals(name: str, count: int, data: Path) -> None:
    entries = entries_of(reply(data / "optimade" / name))
    crystals, quarantined = entries_to_crystals(entries, "links", "recorded")
    assert len(crystals) == 0
    assert [row.reason for row in quarantined] == [Reason.UNSUPPORTED] * len(entries)
    assert len(entries) == count


@pytest.mark.parametrize("name", ["optimade_materialsproject_org", "aiida_materialscloud_org_mc3d_optimade"])
def test_sites_without_species_are_not_guessed(name: str, data: Path) -> None:
    entries = entries_of(reply(data / f"optimade/hea_recorded/{name}.json"))
    crystals, quarantined = entries_to_crystals(entries, "mp", "recorded")
    assert len(crystals) == 0
    assert {row.reason for row in quarantined} == {Reason.MALFORMED}
    assert len(quarantined) == len(entries) > 1


def test_the_recorded_next_page_of_oqmd_is_upgraded_and_lies_in_the_middle(data: Path) -> None:
    document = reply(data / "optimade/hea_recorded/oqmd_org_optimade.json.gz")
    following = document["links"]["next"]
    assert following.startswith("http://")
    with Client(PROVIDERS["oqmd"].base_url) as client:
        assert str(client.same_origin(following)).startswith("https://oqmd.org/optimade/v1/structures?filter=")
    elsewhere = reply(data / "optimade/optimade_gateway/mc2d.json")["links"]["next"]
    with Client(PROVIDERS["mc2d"].base_url) as client, pytest.raises(UnsafeReply, match="leaves the origin"):
        client.same_origin(elsewhere)


def test_a_recorded_page_walks_like_a_live_one(data: Path) -> None:
    document = reply(data / "optimade/hea_recorded/oqmd_org_optimade.json.gz")
    document["links"]["next"] = "/v1/structures?page_offset=1000"
    asked = json.loads((data / "optimade/hea_recorded/_query.json").read_text())["filter"]
    with Recorded(document) as server:
        mirror = replace(PROVIDERS["oqmd"], base_url=server.url, local=True, min_interval_s=0.0)
        with optimade.connect(mirror, min_interval_s=0.0) as client:
            query = optimade.Query(" ".join(asked.split()))
            first, second = optimade.pages(client, query, mirror)
    assert (first.n_entries, first.data_returned, len(first.quarantined)) == (1000, 7784, 1000)
    assert (second.end, second.missing, second.complete) == (End.NOTHING_NEW, 6784, False)


def test_recorded_pages_of_aflux_are_counted_and_their_rows_kept(data: Path) -> None:
    folder = data / "optimade/aflow_recorded"
    first, second = (json.loads((folder / f"data{page}.json").read_text()) for page in (0, 1))
    with Recorded({"1 of 912": first["1 of 912"]}, first, second, {}) as server:
        mirror = replace(aflux.PROVIDER, base_url=server.url, local=True)
        with aflux.connect(mirror, min_interval_s=0.0) as client:
            found = list(aflux.pages(client, aflux.AfluxQuery("agl_thermal_conductivity_300K,Egap(6*)", page_limit=20)))
    assert [page.n_entries for page in found] == [20, 20, 0]
    refused = [row for page in found for row in page.quarantined]  # the recorded query did not ask for geometry
    assert {(row.reason, row.message) for row in refused} == {(Reason.MALFORMED, "lattice_vectors is missing")}
    assert refused[0].id == "aflow/aflow:db1f17a6f945c29b"
    last = found[-1]
    assert (last.data_returned, last.missing, last.complete) == (912, 912 - 40, False)
