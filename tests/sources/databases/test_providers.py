"""The provider table: complete, consistent, and found by any reasonable spelling."""

import json
from pathlib import Path

import numpy as np
import pytest

from assay.sources.databases.filters.grammar import check_dialect
from assay.sources.databases.materials_project import PROVIDER as MP_API
from assay.sources.databases.optimade import Query
from assay.sources.databases.optimade_entries import entries_to_crystals
from assay.sources.databases.provider_table import UNITS, number_of
from assay.sources.databases.providers import ALIASES, COMMERCIAL, PROVIDERS, Provider, is_local, resolve


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda provider: provider.id)
def test_every_provider_is_usable(provider: Provider) -> None:
    assert provider.base_url.startswith("https://")
    assert not provider.local
    assert 1 <= provider.page_limit <= 500
    assert provider.min_interval_s > 0
    assert provider.licence
    columns = [known.column for known in provider.properties]
    assert len(set(columns)) == len(columns)
    for known in provider.properties:
        (column,) = [name for name in UNITS if known.column == name or known.column.startswith(f"{name}_")]
        assert known.unit == UNITS[column]
        assert known.functional
        assert all(path[0].startswith("_") for path in known.paths)
    assert len({known.functional for known in provider.properties if known.column in UNITS}) <= 1
    assert provider.host == provider.base_url.split("/")[2]
    assert provider.max_window is None or provider.max_window > provider.page_limit
    assert resolve(provider.id) is provider
    assert resolve(provider.base_url + "/v1/") is provider


def test_the_named_databases_are_there() -> None:
    assert set(PROVIDERS) >= {
        *("mp", "oqmd", "aflow", "alexandria-pbe", "alexandria-pbesol", "jarvis", "cod", "tcod", "nmd", "odbx"),
        *("mc3d-pbe-v1", "mc3d-pbesol-v2", "mc2d", "2dtopo", "odbx-misc", "odbx-gnome"),
    }
    assert resolve("Materials-Project").id == "mp"
    assert resolve("mcloud:mc2d").id == "mc2d"
    assert resolve("http://oqmd.org/optimade").base_url == "https://oqmd.org/optimade"
    assert {PROVIDERS[id].id for id in ALIASES.values()} == set(ALIASES.values())
    assert not set(ALIASES) & set(PROVIDERS)


def test_databases_of_one_host_share_it() -> None:
    assert PROVIDERS["cod"].host == PROVIDERS["tcod"].host == "www.crystallography.net"
    assert PROVIDERS["mc2d"].host == PROVIDERS["2dtopo"].host
    assert resolve("http://127.0.0.1:5000").host == "127.0.0.1:5000"
    assert resolve("https://Optimade.Example.org:443/main").host == "optimade.example.org"


def test_nomad_hands_out_a_window_only() -> None:
    assert resolve("nomad").max_window == 10_000
    assert PROVIDERS["mp"].max_window is None


@pytest.mark.parametrize("name", [*COMMERCIAL, "MPDS", "https://api.mpds.io", "http://api.mpds.io/v1/"])
def test_commercial_databases_are_never_asked(name: str) -> None:
    with pytest.raises(ValueError, match="commercial"):
        resolve(name)


def test_this_machine_is_known_by_its_names() -> None:
    assert all(is_local(host) for host in ("localhost", "127.0.0.1", "127.3.2.1", "::1"))
    assert not any(is_local(host) for host in ("", "127.0.0.1.evil.example", "10.0.0.1", "localhost.example"))


def test_any_other_url_is_a_provider() -> None:
    local = resolve("http://127.0.0.1:5000/")
    assert (local.id, local.local, local.base_url) == ("local", True, "http://127.0.0.1:5000")
    remote = resolve("https://optimade.example.org/main", id="mine")
    assert (remote.id, remote.local, remote.licence) == ("mine", False, "unknown")
    assert not resolve("http://127.0.0.1.evil.example").local


@pytest.mark.parametrize("name", ["oqdm", "ftp://x", "https://", "http://[::1"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="provider"):
        resolve(name)


def test_a_typing_error_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="did you mean 'oqmd'"):
        resolve("oqdm")
    with pytest.raises(ValueError, match="provider id"):
        resolve("oqmd", id="../escape")


def test_licences_differ_within_a_database() -> None:
    mp = PROVIDERS["mp"]
    assert [mp.licence_of(f"mp-{n}") for n in (149, 3_099_999)] == ["CC-BY-4.0"] * 2
    assert [mp.licence_of(f"mp-{n}") for n in (3_100_000, 9_999_999, 12_345_678)] == ["CC-BY-NC-4.0"] * 3
    assert [mp.licence_of(name) for name in ("mvc-16806", "mp-834-Ag", "149")] == ["CC-BY-4.0"] * 3
    assert [mp.licence_of(name) for name in ("mp-", "", "mp-12ab", "mp 149", "mp-" + "9" * 99)] == ["unknown"] * 5


@pytest.mark.parametrize("number", [0, 25, 26, 149, 3_099_999, 3_100_000, 3_347_529, 3_347_530, 26**5 - 1, 99_999_999])
def test_an_id_in_letters_has_the_licence_of_its_number(number: int) -> None:
    """emmet-core writes the newer ids in letters."""
    mpid = pytest.importorskip("emmet.core.mpid")
    for name in {
        *(str(mpid.AlphaID(number, padlen=pad, prefix="mp", separator=mark)) for pad in (0, 8) for mark in "-:_"),
        mpid.AlphaID(number, padlen=8, prefix="mp").string,
    }:
        assert number_of(name) == number
        assert PROVIDERS["mp"].licence_of(name) == PROVIDERS["mp"].licence_of(f"mp-{number}")
        assert MP_API.licence_of(name) == PROVIDERS["mp"].licence_of(f"mp-{number}")


def test_the_first_id_in_letters_is_under_the_licence_of_its_block() -> None:
    found = [entry() | {"id": name} for name in ("mp-aaahilze", "mp-3347530", "mp-149", "mp-ft", "mp-ÄÖ")]
    crystals, quarantined = entries_to_crystals(found, PROVIDERS["mp"], "here")
    assert quarantined == []
    expected = ["CC-BY-NC-4.0", "CC-BY-NC-4.0", "CC-BY-4.0", "CC-BY-4.0", "unknown"]
    assert crystals.columns["licence"].tolist() == expected


@pytest.mark.parametrize(
    ("name", "filter_"),
    [
        ("jarvis", 'elements HAS "Nb" AND (nelements=2 OR nelements=3)'),
        ("jarvis", ""),
        ("oqmd", "nelements IS KNOWN"),
        ("oqmd", 'elements HAS ONLY "Nb","Ti"'),
        ("oqmd", "elements LENGTH > 3"),
        ("oqmd", 'id="12"'),
        ("oqmd", 'last_modified>"2020-01-01T00:00:00Z"'),
        ("oqmd", "_oqmd_formation_energy_per_atom<0"),
        ("aflow", 'elements HAS ALL "Nb","Ti"'),
        ("mp", "species LENGTH >= 2"),
        ("odbx", "NOT (species LENGTH > 1 AND nelements=2)"),
        ("mc2d", "dimension_types LENGTH < 3"),
        ("alexandria-pbe", "nelements < nsites"),
        ("mp", "nelements != nsites OR nsites > 100"),
        ("mp", "_mp_stability.gga_gga+u.energy_above_hull < _mp_stability.r2scan.energy_above_hull"),
        ("mp", "elements HAS chemical_formula_reduced"),
        ("mp", 'chemical_formula_descriptive CONTAINS "(OH)2"'),
        ("odbx-gnome", 'chemical_formula_descriptive STARTS WITH "Nb0.5"'),
        ("mc3d-pbe-v1", 'NOT chemical_formula_descriptive ENDS "+"'),
        ("mp", 'chemical_formula_descriptive CONTAINS "a\\\\b"'),
    ],
)
def test_filters_that_a_provider_answers_wrongly_are_not_sent(name: str, filter_: str) -> None:
    Query(filter_)  # valid OPTIMADE
    with pytest.raises(ValueError, match=name):
        check_dialect(PROVIDERS[name], filter_)


def test_quoted_text_is_no_dialect() -> None:
    check_dialect(PROVIDERS["mp"], 'chemical_formula_descriptive="(OH)2" AND elements LENGTH >= 2 AND 3<=nsites')
    check_dialect(PROVIDERS["mp"], 'species LENGTH 2 OR chemical_formula_reduced CONTAINS "Ti O2"')
    check_dialect(PROVIDERS["jarvis"], 'chemical_formula_descriptive="Nb(3)Sn"')
    check_dialect(PROVIDERS["oqmd"], 'elements HAS ALL "Nb","Sn" AND nelements=2')
    check_dialect(PROVIDERS["oqmd"], '_oqmd_prototype="id" AND chemical_formula_reduced="type"')


def entry(**attributes: object) -> dict[str, object]:
    cell = {
        "lattice_vectors": [[4, 0, 0], [0, 4, 0], [0, 0, 4]],
        "cartesian_site_positions": [[0, 0, 0]],
        "species": [{"name": "Po", "chemical_symbols": ["Po"], "concentration": [1.0]}],
        "species_at_sites": ["Po"],
    }
    return {"id": "1", "type": "structures", "attributes": {**cell, **attributes}}


@pytest.mark.parametrize(
    ("name", "attributes", "expected"),
    [
        (
            "mp",
            {"_mp_stability": {"gga_gga+u": {"energy_above_hull": 0.1}, "r2scan": {"energy_above_hull": 0.2}}},
            {"energy_above_hull": 0.1, "energy_above_hull_r2scan": 0.2},
        ),
        ("mp", {"_mp_stability": {"R2SCAN": {"energy_above_hull": 0.2}}}, {"energy_above_hull_r2scan": 0.2}),
        (
            "mp",
            {"_mp_stability": {"gga_gga+u_r2scan": {"formation_energy_per_atom": -1.0}}},
            {"formation_energy_per_atom_mixed": -1.0},
        ),
        ("mp", {"_mp_stability": None}, {}),
        (
            "oqmd",
            {"_oqmd_delta_e": -1, "_oqmd_stability": 0.0},
            {"formation_energy_per_atom": -1, "energy_above_hull": 0},
        ),
        (
            "alexandria-pbesol",
            {"_alexandria_hull_distance": 0.1, "_alexandria_scan_hull_distance": 0.2, "_alexandria_scan_band_gap": 3},
            {"energy_above_hull": 0.1, "energy_above_hull_scan": 0.2, "band_gap_scan": 3},
        ),
        (
            "jarvis",
            {"_jarvis_optb88vdw_bandgap": 1.0, "_jarvis_mbj_bandgap": 2.0, "_jarvis_hse_gap": -99999},
            {"band_gap": 1.0, "band_gap_mbj": 2.0},
        ),
        ("jarvis", {"_jarvis_ehull": -999, "_jarvis_optb88vdw_bandgap": "na"}, {}),
        ("odbx", {"_odbx_thermodynamics": {"hull_distance": 0.3}}, {"energy_above_hull": 0.3}),
        ("odbx", {"_odbx_thermodynamics": [1]}, {}),
        ("odbx-gnome", {"_gnome_bandgap": 0.5}, {"band_gap": 0.5}),
        ("mc2d", {"_mcloud_band_gap": 0.5}, {"band_gap": 0.5}),
        ("aflow", {"_aflow_Egap": 2.5}, {"band_gap": 2.5}),
    ],
)
def test_numbers_are_found_where_each_provider_keeps_them(
    name: str, attributes: dict[str, object], expected: dict[str, float]
) -> None:
    provider = PROVIDERS[name]
    crystals, quarantined = entries_to_crystals([entry(**attributes)], provider, "here")
    assert quarantined == []
    for known in provider.properties:
        value, functional = (crystals.columns[known.column + end][0] for end in ("", "_functional"))
        if known.column in expected:
            assert (value, functional) == (expected[known.column], known.functional)
        else:
            assert np.isnan(value)  # never filled from another scale
            assert functional == ""


def test_oqmd_is_asked_for_what_its_recorded_server_can_filter(data: Path) -> None:
    described = json.loads((data / "optimade/oqmd_qmpy/optimade_info_structures.json").read_text())["data"][
        "properties"
    ]
    assert {path[0] for known in PROVIDERS["oqmd"].properties for path in known.paths} <= set(described)
    for name, facts in described.items():
        if facts["_oqmd_queryable"]:
            check_dialect(PROVIDERS["oqmd"], f"{name}=1")
        else:
            with pytest.raises(ValueError, match="OQMD filters by"):
                check_dialect(PROVIDERS["oqmd"], f"{name}=1")
