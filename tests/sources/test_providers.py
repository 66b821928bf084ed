"""The provider table: complete, consistent, and found by any reasonable spelling."""

import pytest

from sources.optimade import Query, check_dialect
from sources.providers import PROVIDERS, Provider, resolve


@pytest.mark.parametrize("provider", PROVIDERS.values(), ids=lambda provider: provider.id)
def test_every_provider_is_usable(provider: Provider) -> None:
    assert provider.base_url.startswith("https://")
    assert not provider.local
    assert 1 <= provider.page_limit <= 500
    assert provider.min_interval_s > 0
    assert provider.licence
    assert {known.column for known in provider.properties} <= {
        "formation_energy_per_atom",
        "energy_above_hull",
        "band_gap",
    }
    assert all(known.unit in ("eV", "eV/atom") and known.functional for known in provider.properties)
    assert resolve(provider.id) is provider
    assert resolve(provider.base_url + "/v1/") is provider


def test_the_named_databases_are_there() -> None:
    assert set(PROVIDERS) >= {"mp", "oqmd", "aflow", "alexandria-pbe", "alexandria-pbesol", "jarvis", "cod"}
    assert resolve("Materials-Project").id == "mp"
    assert resolve("http://oqmd.org/optimade").base_url == "https://oqmd.org/optimade"


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


@pytest.mark.parametrize(
    ("name", "filter_"),
    [
        ("jarvis", 'elements HAS "Nb" AND (nelements=2 OR nelements=3)'),
        ("jarvis", ""),
        ("oqmd", "nelements IS KNOWN"),
        ("oqmd", 'elements HAS ONLY "Nb","Ti"'),
        ("oqmd", "elements LENGTH > 3"),
        ("aflow", 'elements HAS ALL "Nb","Ti"'),
    ],
)
def test_filters_that_a_provider_answers_wrongly_are_not_sent(name: str, filter_: str) -> None:
    Query(filter_)  # valid OPTIMADE
    with pytest.raises(ValueError, match=name):
        check_dialect(PROVIDERS[name], filter_)


def test_quoted_text_is_no_dialect() -> None:
    check_dialect(PROVIDERS["jarvis"], 'chemical_formula_descriptive="Nb(3)Sn"')
    check_dialect(PROVIDERS["oqmd"], 'elements HAS ALL "Nb","Sn" AND nelements=2')
