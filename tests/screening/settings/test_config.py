"""Configs: wrong ones are refused with a path and the nearest key, right ones survive a round trip."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, strategies as st

from assay.models.training.recipe import Recipe
from assay.screening.campaign import plan
from assay.screening.settings import bundled, config, yamlfile
from assay.screening.settings.config import Campaign
from assay.screening.settings.exits import Exit, Failure

ROOT = Path(__file__).resolve().parents[3]
GOOD: dict[str, Any] = {
    "name": "x",
    "sources": [{"kind": "prototypes", "n": 3}, {"kind": "optimade", "provider": "mp"}],
    "models": ["models/zoo/tc"],
}


def load(tmp_path: Path, *overrides: str, text: str | None = None) -> Campaign:
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(GOOD) if text is None else text)
    return config.load(path, overrides)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("sources.0.sed=1", "unknown key 'sources.0.sed'; did you mean 'seed'?"),
        ("sources.1.fliter=a", "unknown key 'sources.1.fliter'; did you mean 'filter'?"),
        ("rank.buy=mean", "unknown key 'rank.buy'; did you mean 'by'?"),
        ("filters.reported.band_gap.mx=3", "unknown key 'filters.reported.band_gap.mx'; did you mean 'max'?"),
        ("chunksize=3", "unknown key 'chunksize'; did you mean 'chunk_size'?"),
        ("zzzzzz=1", "unknown key 'zzzzzz'; known keys: cascade, chunk_size, compile"),
        ("sources.0.n='7'", "sources.0.n: Input should be a valid integer, got '7'"),
        ("rank.threshold=.nan", "rank.threshold: Input should be a finite number, got nan"),
        (
            "filters.reported.band_gap.max=.nan",
            "filters.reported.band_gap.max: Input should be a finite number, got nan",
        ),
        ("filters.nsites={min: .inf}", "filters.nsites.min: Input should be a finite number, got inf"),
        ("filters.nsites={max: 0}", "filters: nsites.max must be at least 1, got 0"),
        ("filters.reported.warnings={min: 0}", "filters: reported.warnings: this column holds text"),
        ("filters.elements={include: [O], exclude: [O]}", "filters.elements: include 'O' contradicts exclude"),
        ("filters.elements={include: [O], only: [Cu]}", "filters.elements: include 'O' contradicts only"),
        (
            "filters.predicted={e: {max: 0, confidence: 1}}",
            "filters.predicted.e.confidence: Input should be less than 1",
        ),
        ("filters.predicted={e: {confidence: 0.9}}", "filters.predicted.e: needs min, max or both"),
        (
            "stability={hull: mp-formation-energy, max: 0.1}",
            "stability: max is a filter on predictions now: write filters.predicted: {energy_above_hull: {max: 0.1}}",
        ),
        ("ray={workers: 1, min_workers: 2}", "ray: min_workers 2 must not be above workers 1"),
        ("ray.threads=1000000000", "ray.threads: Input should be less than or equal to 1024"),
        ("models=['']", "models.0: String should have at least 1 character"),
        ("max_bad=.nan", "max_bad: Input should be a finite number, got nan"),
        (
            "cascade={tiers: [{model: tc-fast, keep: .nan}]}",
            "cascade.tiers.0.keep.int: Input should be a valid integer, got nan",
        ),
        ("sources.0.n=0", "sources.0.n: Input should be greater than or equal to 1, got 0"),
        ("filters.elements.only=[Xx]", "filters.elements: 'Xx' is not an element symbol (H to Og)"),
        ("filters.nsites={min: 9, max: 2}", "filters.nsites: min 9.0 must not be above max 2.0"),
        ("sources.0.kind=guess", "sources.0: kind 'guess' is not known; known kinds: aflux, files, materials-project"),
        ("sources.0.kind=prototype", "sources.0: kind 'prototype' is not known; did you mean 'prototypes'?"),
        ("sources.0.kind=[files]", "sources.0: kind ['files'] is not known"),
        ("sources.0={n: 3}", "sources.0: needs a kind: one of aflux, files"),
        ("sources.0=prototypes", "sources.0: Input should be a valid dictionary, got 'prototypes'"),
        ("sources.0={kind: files}", "sources.0.paths: Field required"),
        (
            "sources.1.headers={X-KEY: {envi: A}}",
            "sources.1.headers.X-KEY: a key does not belong into a config",
        ),
        (
            "sources.1.n=3",
            "unknown key 'sources.1.n'; known keys: filter, headers, kind, max_entries, name, page_limit",
        ),
        ("sources.0.filtr=a", "unknown key 'sources.0.filtr'; known keys: elements, kind, n, name, prototypes, seed"),
        ("sources.7.n=1", "--set 'sources.7.n=1' does not fit the config"),
        ("compile=true", "compile: true needs device: cuda"),
        ("symmetrise=1", "symmetrise: Input should be less than or equal to 0.1, got 1"),
        ("name=../up", "name: String should match pattern"),
    ],
)
def test_a_wrong_config_is_refused_in_one_line(tmp_path: Path, setting: str, message: str) -> None:
    with pytest.raises(Failure) as caught:
        load(tmp_path, setting)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.code is Exit.CONFIG


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b\n", "key 'name' twice"),
        ("a: &x [1]\nb: *x\n", "aliases are not accepted"),
        ("!!python/object/apply:os.system ['true']", "not readable YAML"),
        ("- 1\n", "must be a mapping"),
        ("a: [\n", "not readable YAML"),
        ("a: " + "[" * 3000 + "]" * 3000, "nested more than 50 deep"),
        ("a: " + "{b: " * 3000 + "1" + "}" * 3000, "nested more than 50 deep"),
        ("a: 2026-13-45\n", "not readable YAML"),
    ],
)
def test_unsafe_or_broken_yaml_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(Failure, match=message):
        load(tmp_path, text=text)


def test_deep_overrides_cost_one_line(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="nested more than 50 deep"):
        load(tmp_path, "rank.top=" + "[" * 3000 + "]" * 3000)


def test_a_pipe_is_no_config(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    for read in (config.load, bundled.campaign, bundled.recipe):
        with pytest.raises(Failure, match=r"pipe\.yaml is no regular file") as caught:
            read(pipe)
        assert caught.value.code is Exit.CONFIG


def test_settings_override_in_order_and_make_missing_sections(tmp_path: Path) -> None:
    campaign = load(tmp_path, "rank.top=5", "rank.top=7", "sources.0.n=9", "filters.reported.e.max=1e-3")
    assert campaign.rank.top == 7
    assert campaign.sources[0].model_dump()["n"] == 9
    assert campaign.filters.reported["e"].max == 1e-3


def test_sources_of_the_same_name_get_numbers(tmp_path: Path) -> None:
    campaign = load(tmp_path, "sources=[{kind: prototypes, n: 1}, {kind: prototypes, n: 2}]")
    assert list(campaign.named_sources()) == ["prototypes", "prototypes-2"]


@given(
    n=st.integers(1, 10**9),
    formulas=st.lists(st.text(min_size=1, max_size=8)),
    top=st.integers(1, 99),
    low=st.none() | st.floats(-5, 5),
    by=st.sampled_from(["mean", "lower", "upper"]),
)
def test_a_resolved_config_loads_as_itself(n: int, formulas: list[str], top: int, low: float | None, by: str) -> None:
    content = {
        **GOOD,
        "sources": [{"kind": "prototypes", "n": n}],
        "filters": {"formula": formulas, "reported": {"x": {"min": low, "max": 9.0}}},
        "rank": {"by": by, "top": top},
    }
    campaign = yamlfile.validate(Campaign, content, "here")
    assert yamlfile.validate(Campaign, yaml.safe_load(config.dump(campaign)), "there") == campaign


OTHERS = ("train", "study", "tune", "distil")  # those that tests/test_configs.py loads
SHIPPED = sorted(path for path in (ROOT / "configs").glob("*.yaml") if path.stem.partition("-")[0] not in OTHERS)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_config_loads(path: Path) -> None:
    campaign = config.load(path)
    plan.check_sources(campaign)


def test_the_documented_cascade_loads() -> None:
    text = (ROOT / "docs" / "cascade.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    campaign = yamlfile.validate(Campaign, yaml.safe_load(text), "docs/cascade.md")
    assert campaign.cascade is not None
    assert campaign.cascade.tiers[0].keep == 0.05


def test_a_training_recipe_is_as_strict(tmp_path: Path) -> None:
    content = {
        "name": "x",
        "dataset": "mp-formation-energy",
        "property": {"name": "e", "unit": "eV"},
        "members": [{"network": "cgcnn", "seed": 1}, {"network": "cgcnn", "sed": 2}],
    }
    with pytest.raises(Failure, match=r"unknown key 'members\.1\.sed'; did you mean 'seed'\?"):
        yamlfile.validate(Recipe, content, "recipe.yaml")
