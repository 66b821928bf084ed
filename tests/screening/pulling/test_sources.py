"""Every kind of source, from its config through a whole pull, against servers on loopback."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from assay.screening.campaign import drive, plan
from assay.screening.campaign.plan import Plan
from assay.screening.folder.ledger import Ledger
from assay.screening.pulling import pull
from assay.screening.pulling.source import Job, named
from assay.screening.runners.local import LocalRunner
from assay.screening.runners.worker import Worker
from assay.screening.settings import config, yamlfile
from assay.screening.settings.exits import Exit, Failure
from assay.sources import table
from assay.sources.crystals import Crystals
from tests.aflux_server import AfluxServer, rows_of
from tests.mp_api_server import KEY, MpApiServer, documents


def planned(folder: Path, model: Path, sources: list[dict[str, Any]], **keys: Any) -> Plan:
    content = {"name": "t", "sources": sources, "models": [str(model)], "output": str(folder), "max_bad": 1.0, **keys}
    return plan.make(yamlfile.validate(config.Campaign, content, "here"))


def run(asked: Plan, **keys: Any) -> drive.Outcome:
    return drive.run(asked, LocalRunner(Worker(lambda: asked.ensembles)), lambda: False, **keys)


@pytest.fixture(scope="module")
def few(real: Crystals) -> Crystals:
    return real[:60]


def test_aflow_over_aflux(tmp_path: Path, model: Path, few: Crystals) -> None:
    with AfluxServer(rows_of(few)) as server:
        source = {"kind": "aflux", "matchbook": "nspecies(1*)", "endpoint": f"{server.url}/API/aflux", "page_limit": 25}
        outcome = run(planned(tmp_path, model, [source]))
    assert outcome.code is Exit.DONE
    assert outcome.balance.scored == len(few)
    assert outcome.summary is not None
    assert outcome.summary.sources[0].title == "AFLOW, over AFLUX"
    assert Ledger(tmp_path).find("plan", "aflow") is not None


def test_a_kind_with_a_language_of_its_own_does_not_describe_the_optimade_server(few: Crystals, tmp_path: Path) -> None:
    """Caveats of --dry-run, and functionals in the report, are those of the rows that arrive."""
    pytest.importorskip("mp_api.client.routes.materials.summary")
    path = tmp_path / "key"
    path.write_text(KEY + "\n")
    path.chmod(0o600)
    with AfluxServer(rows_of(few)) as aflow, MpApiServer(documents(few)) as mp:
        asked = {"kind": "materials-project", "endpoint": mp.url, "key": {"file": str(path)}}
        content = {
            "name": "t",
            "models": ["m"],
            "sources": [
                {"kind": "aflux", "matchbook": "nspecies(1*)", "endpoint": f"{aflow.url}/API/aflux"},
                {**asked, "criteria": {"elements": ["O"]}},
                {**asked, "criteria": {"elements": ["O"], "thermo_type": "R2SCAN"}},
            ],
        }
        sources = [*named(yamlfile.validate(config.Campaign, content, "here")).values()]
        caveats = [source.describe()[1:] for source in sources]
    assert caveats == [["note that rows that lack a property the matchbook names are not sent"], [], []]
    gap = "PBE(+U) or r2SCAN, the API does not say which"
    assert [source.provenance().functional for source in sources] == [
        "as in dft_type (PBE as a rule), element references",
        f"PBE(+U) and r2SCAN mixed, MP corrections; {gap}",
        f"{gap}; r2SCAN",
    ]


@pytest.mark.parametrize("reference", ["env", "file"])
def test_the_materials_project_with_a_key_by_reference(
    tmp_path: Path, model: Path, few: Crystals, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    pytest.importorskip("mp_api.client.routes.materials.summary")
    path = tmp_path / "key"
    path.write_text(KEY + "\n")
    path.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MY_KEY", KEY)
    with MpApiServer(documents(few)) as server:
        source = {
            "kind": "materials-project",
            "criteria": {"elements": ["O"]},
            "endpoint": server.url,
            "page_limit": 10,
            "key": {"env": "MY_KEY"} if reference == "env" else {"file": str(path)},
        }
        outcome = run(planned(tmp_path / "out", model, [source]))
        assert all(headers.get("x-api-key") == KEY for _, headers in server.requests)
    with_oxygen = sum("O" in text.split("-") for text in few.elements().tolist())
    assert outcome.code is Exit.DONE
    assert outcome.balance.scored == with_oxygen > 5
    gaps = table.read(tmp_path / "out" / "candidates.parquet")["band_gap"].to_pylist()
    assert all(gap is not None for gap in gaps)
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert not [path for path in written if KEY.encode() in path.read_bytes()]
    assert reference == "file" or "MY_KEY" in (tmp_path / "out" / "config.resolved.yaml").read_text()


def test_a_missing_key_is_one_line_before_anything_is_asked(
    tmp_path: Path, model: Path, few: Crystals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with MpApiServer(documents(few)) as server:
        source = {
            "kind": "materials-project",
            "criteria": {"elements": ["O"]},
            "endpoint": server.url,
            "key": {"env": "MY_KEY"},
        }
        with pytest.raises(Failure, match="MY_KEY") as caught:
            run(planned(tmp_path, model, [source]))
        assert server.requests == []
    assert caught.value.code is Exit.CONFIG


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"kind": "materials-project", "criteria": {"bandgap": [0, 1]}}, "band_gap"),
        ({"kind": "materials-project", "criteria": {}}, "criteria"),
        ({"kind": "aflux", "matchbook": "species(Nb),$paging(0)"}, r"\$"),
        ({"kind": "aflux", "matchbook": "species(Nb)"}, "licence 'unknown'"),
        ({"kind": "optimade", "provider": "aflow", "filter": "nsites<9"}, "licence 'unknown'"),
        ({"kind": "optimade", "provider": "mpds", "filter": "nsites<9"}, "commercial"),
        ({"kind": "optimade", "provider": "jarvis", "filter": "(nsites<9)"}, "parentheses"),
        ({"kind": "optimade", "provider": "mp", "headers": {"X-API-KEY": "sk-123456"}}, "env: NAME"),
    ],
)
def test_what_can_be_refused_is_refused_before_the_first_request(
    tmp_path: Path, model: Path, source: dict[str, Any], message: str
) -> None:
    with pytest.raises(Failure, match=message) as caught:
        planned(tmp_path, model, [source])
    assert caught.value.code is Exit.CONFIG
    assert "sk-123456" not in str(caught.value)


def test_two_databases_of_one_host_are_pulled_one_after_the_other() -> None:
    sources = {name: {"kind": "optimade", "provider": name} for name in ("alexandria-pbe", "alexandria-pbesol", "mp")}
    content = {"name": "t", "sources": list(sources.values()), "models": ["m"]}
    chosen = yamlfile.validate(config.Campaign, content, "here")
    jobs = [Job(name, source, source.host(name)) for name, source in named(chosen).items()]
    assert [[job.name for job in group] for group in pull.hosts(jobs)] == [
        ["alexandria-pbe", "alexandria-pbesol"],
        ["mp"],
    ]


def test_merging_needs_its_libraries_and_says_so(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = metadata.version

    def version(name: str) -> str:
        if name == "moyopy":
            raise metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setitem(sys.modules, "moyopy", None)
    source = {"kind": "prototypes", "n": 5}
    with pytest.raises((Failure, ValueError), match="needs moyopy: pip install moyopy"):
        planned(tmp_path, model, [source, {**source, "seed": 1}])
