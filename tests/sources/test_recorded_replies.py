"""Replies recorded from real providers go through the adapter that live replies go through."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sources.optimade_entries import entries_of, entries_to_crystals
from sources.providers import PROVIDERS
from sources.quarantine import Reason
from sources.trust import SourceRefused


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
        assert crystals.formulas()[row] == attributes["chemical_formula_reduced"]
        assert crystals.columns["immutable_id"][row] == attributes["immutable_id"]


def test_a_single_entry_is_a_list_of_one(data: Path) -> None:
    entries = entries_of(reply(data / "optimade/optimade_gateway/optimade-sample_single.json"))
    crystals, _ = entries_to_crystals(entries, "mcloud", "recorded")
    assert crystals.formulas().tolist() == ["ClNa"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("hea_recorded/aflow_org_API_optimade.json", "400"),
        ("hea_recorded/api_mpds_io.json", "ANY not supported"),
        ("hea_recorded/nomad_lab_eu_prod_rae_optimade.json", "500"),
        ("hea_recorded/www_crystallography_net_cod_optimade.json", "error without text"),
        ("optimade_gateway/index.json", "404 .*Not Found"),
    ],
)
def test_error_bodies_say_what_went_wrong(data: Path, name: str, told: str) -> None:
    with pytest.raises(SourceRefused, match=told):
        entries_of(reply(data / "optimade" / name))


@pytest.mark.parametrize("document", [None, [], "text", {"data": "text"}, {}, {"data": None, "errors": [None, 3]}])
def test_other_documents_are_no_replies(document: Any) -> None:
    with pytest.raises(SourceRefused):
        entries_of(document)
