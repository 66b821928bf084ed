"""Candidates as OPTIMADE: the reference validator and client, filters against a plain reading, and a campaign."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from assay.screening.folder.results import Results
from tests.screening import small_campaign
from tests.screening.serving.conftest import HOSTILE, Running

Entry = dict[str, Any]


def entries(server: Running, query: str = "") -> list[Entry]:
    """Every entry that a query finds, page after page."""
    path, found = f"/optimade/v1/structures?page_limit=25{query}", []
    while path:
        reply = server.ask(path)
        assert reply.status == 200, reply.text
        found += [{"id": entry["id"], **entry["attributes"]} for entry in reply.json["data"]]
        path = (reply.json["links"]["next"] or "").removeprefix(server.url)
    return found


@pytest.fixture(scope="module")
def every(server: Running) -> list[Entry]:
    return entries(server)


def test_entries_are_the_candidates_with_their_crystals(every: list[Entry], campaign: Path) -> None:
    results = Results(campaign)
    rows = results.candidates().to_pylist()
    assert [entry["id"] for entry in every] == [f"doped/{row['id']}" for row in rows]
    for name in ("rank", "tc_mean", "tc_lo", "ood", "in_training", "source"):
        assert [entry[f"_assay_{name}"] for entry in every] == [row[name] for row in rows]
    crystals = results.crystals([row["id"] for row in rows])
    assert [entry["nsites"] for entry in every] == crystals.nsites.tolist()
    assert [entry["lattice_vectors"] for entry in every] == crystals.lattice.tolist()
    doped = next(entry for entry in every if "disorder" in entry["structure_features"])
    shares = [species["concentration"] for species in doped["species"]]
    assert any(len(parts) > 1 and sum(parts) == pytest.approx(1) for parts in shares)


def test_own_properties_are_described_with_units(server: Running) -> None:
    told = server.ask("/optimade/v1/info/structures").json["data"]["properties"]
    assert told["_assay_tc_mean"]["unit"] == "K"
    assert told["_assay_tc_mean"]["type"] == "float"
    assert told["_assay_ood"]["type"] == "boolean"
    assert server.ask("/optimade/v1/links").json["data"][0]["attributes"]["link_type"] == "root"


FILTERS: dict[str, Callable[[Entry], bool]] = {
    'elements HAS "Cu"': lambda e: "Cu" in e["elements"],
    'elements HAS ALL "Cu","O"': lambda e: {"Cu", "O"} <= {*e["elements"]},
    'elements HAS ANY "Cu","Fe"': lambda e: bool({"Cu", "Fe"} & {*e["elements"]}),
    'elements HAS ONLY "Nb","Sn","Ti","V"': lambda e: {*e["elements"]} <= {"Nb", "Sn", "Ti", "V"},
    'NOT elements HAS "O"': lambda e: "O" not in e["elements"],
    'elements HAS > "T"': lambda e: any(symbol > "T" for symbol in e["elements"]),
    'elements:elements_ratios HAS "Cu":>0.15': lambda e: (
        dict(zip(e["elements"], e["elements_ratios"], strict=True)).get("Cu", 0) > 0.15
    ),
    "elements LENGTH >= 4": lambda e: len(e["elements"]) >= 4,
    "elements LENGTH < 3": lambda e: len(e["elements"]) < 3,
    "species_at_sites LENGTH > 10": lambda e: len(e["species_at_sites"]) > 10,
    "nelements < nsites AND nsites <= 12": lambda e: e["nelements"] < e["nsites"] <= 12,
    "4 <= nelements": lambda e: e["nelements"] >= 4,
    "_assay_tc_mean > 10 OR _assay_tc_mean < 1": lambda e: e["_assay_tc_mean"] > 10 or e["_assay_tc_mean"] < 1,
    "NOT (_assay_tc_mean > 10 OR nelements = 3)": lambda e: not (e["_assay_tc_mean"] > 10 or e["nelements"] == 3),
    "_assay_in_training = TRUE": lambda e: e["_assay_in_training"],
    "_assay_in_training != TRUE AND _assay_ood = FALSE": lambda e: not e["_assay_in_training"] and not e["_assay_ood"],
    "_assay_mp_gap_pbe_2018 IS KNOWN": lambda e: e["_assay_mp_gap_pbe_2018"] is not None,
    "_assay_mp_gap_pbe_2018 IS UNKNOWN": lambda e: e["_assay_mp_gap_pbe_2018"] is None,
    "NOT _assay_mp_gap_pbe_2018 > 0": lambda e: e["_assay_mp_gap_pbe_2018"] == 0,
    'chemical_formula_reduced CONTAINS "Cu"': lambda e: "Cu" in e["chemical_formula_reduced"],
    'chemical_formula_descriptive STARTS WITH "La"': lambda e: e["chemical_formula_descriptive"].startswith("La"),
    'chemical_formula_reduced ENDS "4"': lambda e: e["chemical_formula_reduced"].endswith("4"),
    'chemical_formula_anonymous CONTAINS "."': lambda _: False,
    'structure_features HAS "disorder"': lambda e: e["structure_features"] == ["disorder"],
    "structure_features LENGTH 0": lambda e: e["structure_features"] == [],
    "dimension_types HAS ALL 1 AND nperiodic_dimensions = 3": lambda _: True,
    'last_modified > "2020-01-01T00:00:00Z"': lambda _: True,
    'last_modified <= "2020-01-01T00:00:00Z"': lambda _: False,
    "last_modified IS KNOWN": lambda _: True,
    "immutable_id IS KNOWN": lambda _: False,
    'id = "doped/sc/05" OR id CONTAINS "sc/1"': lambda e: e["id"] == "doped/sc/05" or "sc/1" in e["id"],
    "_other_thing = 3 OR nelements = 2": lambda e: e["nelements"] == 2,
    'type = "structures"': lambda _: True,
    'id = "doped/<img src=x onerror=alert(1)>\\"&"': lambda e: e["id"] == f"doped/{HOSTILE}",
}


@pytest.mark.parametrize("text", FILTERS)
def test_a_filter_finds_what_a_plain_reading_finds(server: Running, every: list[Entry], text: str) -> None:
    found = [entry["id"] for entry in entries(server, f"&response_fields=nsites&filter={quote(text)}")]
    assert found == [entry["id"] for entry in every if FILTERS[text](entry)]


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("tc_mean > 1", 400),
        ("nelements > ", 400),
        ('nelements = "two"', 400),
        ('elements = "Cu"', 400),
        ('nsites HAS "Cu"', 400),
        ('last_modified > "yesterday"', 400),
        ("(" * 60 + "nsites=1" + ")" * 60, 400),
        (" OR ".join(["nsites=1"] * 1000), 400),
        ('species_at_sites HAS "Cu"', 501),
        ('references.id HAS "x"', 501),
    ],
)
def test_a_filter_that_cannot_be_answered_says_so(server: Running, text: str, status: int) -> None:
    answer = server.ask(f"/optimade/v1/structures?filter={quote(text)}")
    assert answer.status == status
    assert answer.json["errors"][0]["detail"]


def test_pages_follow_the_order_that_was_asked_for(server: Running, every: list[Entry]) -> None:
    def key(entry: Entry) -> tuple[bool, float, int]:
        gap = entry["_assay_mp_gap_pbe_2018"]
        return gap is None, -(gap or 0), entry["_assay_rank"]

    found = [entry["id"] for entry in entries(server, "&sort=-_assay_mp_gap_pbe_2018")]
    assert found == [entry["id"] for entry in sorted(every, key=key)]
    second = server.ask("/optimade/v1/structures?page_limit=7&page_number=2").json
    assert [entry["id"] for entry in second["data"]] == [entry["id"] for entry in every[7:14]]
    third = server.ask(second["links"]["next"].removeprefix(server.url)).json
    assert [entry["id"] for entry in third["data"]] == [entry["id"] for entry in every[14:21]]


def test_one_entry_is_found_by_its_id_whatever_that_holds(server: Running, every: list[Entry]) -> None:
    for entry in (every[0], next(entry for entry in every if entry["id"].endswith(HOSTILE))):
        single = server.ask(f"/optimade/v1/structures/{quote(entry['id'])}").json["data"]
        assert single["id"] == entry["id"]
        assert single["attributes"]["cartesian_site_positions"] == entry["cartesian_site_positions"]


def test_the_validator_of_the_reference_passes(server: Running) -> None:
    program = Path(sys.executable).parent / "optimade-validator"
    told = subprocess.run([program, f"{server.url}/optimade", "--json"], capture_output=True, text=True)
    found = json.loads(told.stdout[told.stdout.index("{") :])
    assert (told.returncode, found["failure_count"], found["internal_failure_count"]) == (0, 0, 0), told.stdout
    assert found["success_count"] > 40
    # no candidate cites anything
    assert [name for name, _ in found["optional_failure_messages"] if "_test_if_data_empty" not in name] == []


def test_the_client_of_the_reference_fetches_them(server: Running, every: list[Entry]) -> None:
    from optimade.client import OptimadeClient

    client = OptimadeClient(base_urls=[f"{server.url}/optimade"], max_results_per_provider=1000, silent=True)
    found = client.get('elements HAS "Cu"')
    (replies,) = found["structures"]['elements HAS "Cu"'].values()
    assert not replies["errors"]
    assert [entry["id"] for entry in replies["data"]] == [entry["id"] for entry in every if "Cu" in entry["elements"]]


def test_a_campaign_over_the_server_predicts_the_same(
    server: Running, campaign: Path, quick: Path, tmp_path: Path
) -> None:
    source = {"kind": "optimade", "provider": f"{server.url}/optimade", "name": "served"}
    content = {"name": "again", "sources": [source], "models": [str(quick)], "output": str(tmp_path / "out")}
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(content))
    small_campaign.run(small_campaign.make(tmp_path / "again.yaml"))
    first = {f"doped/{row['id']}": row for row in Results(campaign).candidates().to_pylist()}
    second = {row["id"].partition("/")[2]: row for row in Results(tmp_path / "out").candidates().to_pylist()}
    assert second.keys() == first.keys()
    for name, row in second.items():
        for part in ("tc_mean", "tc_std", "tc_lo", "tc_hi"):
            assert row[part] == pytest.approx(first[name][part], rel=1e-5, abs=1e-6)
