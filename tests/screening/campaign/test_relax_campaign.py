"""Campaigns that relax: every crystal is relaxed once, or stands in quarantine, and the relaxed cells are scored."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from assay.models.ensemble.ensemble import Ensemble
from assay.models.potentials import potential as potentials
from assay.models.potentials.columns import MEASURED
from assay.models.potentials.potential import GPA
from assay.models.potentials.relax import Settings
from assay.screening.audit import audit, refusals, status
from assay.screening.campaign import drive, plan, preview
from assay.screening.campaign.plan import Plan
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.results import Results
from assay.screening.runners import worker
from assay.screening.runners.cluster import ClusterRunner
from assay.screening.runners.relax import Relax
from assay.screening.runners.rescue import answer, rescued
from assay.screening.runners.worker import Worker
from assay.screening.settings import config
from assay.screening.settings.config import Ray
from assay.screening.settings.exits import Exit, Failure
from assay.sources import table
from assay.sources.crystals import Crystals, concat
from assay.sources.quarantine import Reason, Stage
from tests.metals import EMT, disordered, metals, unknown
from tests.screening import small_campaign
from tests.screening.small_campaign import OUTPUTS, digests, some_members, write_config

HOW = {"model": EMT, "fmax": 0.02, "steps": 60}
REFUSED = {"metal/lost": "exploded", "mixed/a": "unsupported", "mixed/b": "unsupported", "w/1": "prediction_failed"}


@pytest.fixture(scope="module")
def delivered() -> Crystals:
    """24 metals that relax, one so dense that it explodes, two disordered ones, one that EMT refuses."""
    good = metals(24)
    close = replace(good[1:2], ids=np.array(["metal/lost"]), lattice=0.62 * good.lattice[1:2])
    every = concat([good, close, disordered("mixed/a", "mixed/b"), unknown("w/1")])
    return every.with_columns(steps=np.arange(float(len(every))), note=np.array([f"n{k}" for k in range(len(every))]))


@pytest.fixture(scope="module")
def ensembles(zoo: Path) -> list[Ensemble]:
    return plan.load_ensembles([str(zoo / "tc-fast")])


@pytest.fixture(scope="module")
def place(delivered: Crystals, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("relaxing")
    table.write(table.to_table(delivered), folder / "metals.parquet")
    return folder


def planned(place: Path, ensembles: list[Ensemble], name: str, **keys: Any) -> Plan:
    """A campaign over the metals; its folder is `name`."""
    source = {"kind": "files", "paths": [str(place / "metals.parquet")], "name": "m"}
    content = {"sources": [source], "output": str(place / name), "chunk_size": 8, "max_bad": 1.0, "relax": HOW} | keys
    return small_campaign.make(write_config(place, Path(str(ensembles[0].folder)), **content), ensembles)


@pytest.fixture(scope="module")
def done(place: Path, ensembles: list[Ensemble]) -> Plan:
    asked = planned(place, ensembles, "done")
    assert small_campaign.run(asked).code is Exit.DONE
    return asked


def test_rows_are_conserved_and_each_refused_crystal_has_one_reason(done: Plan) -> None:
    results = Results(done.folder)
    counted = results.summary.balance
    assert (counted.received, counted.unique, counted.scored, counted.quarantined) == (28, 28, 24, 4)
    refused = results.quarantine().to_pylist()
    assert {row["id"]: row["reason"] for row in refused} == REFUSED
    assert len(refused) == len(REFUSED)
    assert {row["stage"] for row in refused} == {"relax"}
    assert audit.check(done.folder).problems == []
    groups = refusals.read(done.folder, "source")["groups"]
    assert [(group["source"], group["count"]) for group in groups] == [("m", 4)]


def test_the_relaxed_cells_are_scored_and_the_delivered_ones_stay(
    done: Plan, delivered: Crystals, ensembles: list[Ensemble]
) -> None:
    results = Results(done.folder)
    rows = results.candidates()
    crystals = results.crystals(rows["id"])
    assert (np.linalg.det(crystals.lattice) > 0).all()
    again = potentials.load(EMT).evaluate(crystals)
    assert again.energy / crystals.nsites == pytest.approx(rows["energy_per_atom"].to_numpy(), abs=1e-9)
    assert abs(again.stress).max(axis=(1, 2)) * GPA == pytest.approx(rows["max_stress"].to_numpy(), abs=1e-9)
    assert max(rows["max_force"].to_pylist()) <= HOW["fmax"]
    predicted, _ = ensembles[0].predict(crystals)
    assert predicted.values["tc"].mean == pytest.approx(rows["tc_mean"].to_numpy(), abs=1e-4)
    before = dict(zip(delivered.ids.tolist(), delivered.volume.tolist(), strict=True))
    change = crystals.volume / [before[name] for name in crystals.ids.tolist()] - 1
    assert change == pytest.approx(rows["volume_change"].to_numpy(), abs=1e-9)
    assert abs(change).max() > 0.02
    chunks = [table.read(path) for path in (done.folder / "snapshot" / "chunks").glob("*.parquet")]
    kept, _ = table.from_table(pa.concat_tables(chunks).sort_by("id"), "chunks")
    assert kept.without_columns() == delivered.without_columns()


def test_columns_say_unit_and_scale_and_those_of_the_input_stay_beside_them(done: Plan, delivered: Crystals) -> None:
    rows = Results(done.folder).candidates()
    for name, (unit, _) in MEASURED.items():
        assert rows.schema.field(name).metadata[b"unit"].decode() == unit
    assert b"EMT, that of the calculator" in rows.schema.field("energy_per_atom").metadata[b"meaning"]
    given = dict(zip(delivered.ids.tolist(), delivered.columns["steps"].tolist(), strict=True))
    assert rows["reported_steps"].to_pylist() == [given[name] for name in rows["id"].to_pylist()]
    assert min(rows["steps"].to_pylist()) > 1
    assert rows["note"][0].as_py().startswith("n")


def test_it_goes_on_from_every_prefix_of_its_log(done: Plan, tmp_path: Path) -> None:
    logs = sorted((done.folder / "log").glob("*.json"))
    kinds = [json.loads(path.read_text())["kind"] for path in logs]
    assert kinds.count("relaxed") == kinds.count("part") == 4
    for kept in range(kinds.index("chunks"), len(kinds), 2):
        folder = tmp_path / "broken"
        shutil.copytree(done.folder, folder)
        for path in [*sorted((folder / "log").glob("*.json"))[kept:], *(folder / name for name in OUTPUTS)]:
            path.unlink()
        (folder / "attempts.log").write_text("")
        before, scored, found = kinds[:kept].count("relaxed"), kinds[:kept].count("part"), status.read(folder)
        if "chunks" in kinds[:kept]:
            assert f"relaxation {before} of 4 chunks" in "\n".join(status.lines(found))
            pulled = all(source["complete"] for source in found["sources"])
            assert found["phase"] == ("pulling" if not pulled else "relaxing" if before < 4 else "scoring")
            assert found["chunks"]["scored"] == scored
            assert (found["balance"]["pending"] > 0) == (scored < 4 and found["balance"]["scored"] < 24)
        assert small_campaign.run(replace(done, folder=folder)).code is Exit.DONE
        assert digests(folder) == digests(done.folder), f"after {kept} of {len(kinds)} records"
        assert (folder / "attempts.log").read_text().count("begin relax") == 4 - before
        shutil.rmtree(folder)


def test_two_workers_on_ray_make_the_same_bytes(
    ray_cluster: Any, place: Path, ensembles: list[Ensemble], done: Plan
) -> None:
    asked = planned(place, ensembles, "ray")
    runner = ClusterRunner(partial(worker.loaded, asked.models, [], asked.campaign), Ray(workers=2))
    assert drive.run(asked, runner, lambda: False).code is Exit.DONE
    assert digests(asked.folder) == digests(done.folder)


def test_a_cascade_sees_relaxed_cells_in_every_tier(place: Path, model: Path, done: Plan) -> None:
    fast = some_members(place / "fast", model, (0, 1))
    chain = {"tiers": [{"model": str(fast), "keep": 0.25}], "audit": 4}
    asked = planned(place, plan.load_ensembles([str(model)]), "cascade", cascade=chain)
    outcome = small_campaign.run(asked)
    assert outcome.code is Exit.DONE
    assert outcome.summary is not None
    assert outcome.summary.cascade is not None
    assert outcome.summary.cascade.tiers[0].entered == 24  # what did not relax enters no tier
    assert outcome.balance.scored == 24
    rows, whole = Results(asked.folder).candidates(), Results(done.folder).candidates()
    energies = dict(zip(whole["id"].to_pylist(), whole["energy_per_atom"].to_pylist(), strict=True))
    assert rows["energy_per_atom"].to_pylist() == [energies[name] for name in rows["id"].to_pylist()]
    assert rows.schema.field("energy_per_atom").metadata[b"unit"] == b"eV/atom"
    path = next((asked.folder / "snapshot" / "tier-1").glob("*.parquet"))
    last, _ = table.from_table(table.read(path), "tier")
    assert (last.lattice == Results(done.folder).crystals(last.ids).lattice).all()
    assert audit.check(asked.folder).problems == []


def test_a_crystal_that_kills_workers_is_quarantined_and_the_others_keep_their_bytes(delivered: Crystals) -> None:
    work = Relax(Settings(fmax=0.02))
    do = Worker(list, potential=potentials.load(EMT))
    chunk = table.to_table(delivered[:8])

    def attempt(content: pa.Table) -> Any:
        return None if "metal/003" in content["id"].to_pylist() else do(work, content)

    found = answer(rescued(work, chunk), attempt)
    (row,) = found.quarantined
    assert (row.id, row.stage, row.reason) == ("metal/003", Stage.RELAX, Reason.WORKER_DIED)
    assert found.table.equals(do(work, table.to_table(delivered.select([0, 1, 2, 4, 5, 6, 7]))).table)
    assert work.entry("k", 8, found).counts == {"relaxed": 7, "quarantined": 1}
    with pytest.raises(Failure, match="9 crystals became 7 relaxed and 1 quarantined") as lost:
        work.entry("k", 9, found)
    assert lost.value.code is Exit.BALANCE_BROKEN


def test_the_audit_finds_a_crystal_that_is_not_that_of_its_chunk(done: Plan, tmp_path: Path) -> None:
    shutil.copytree(done.folder, tmp_path / "out")
    ledger = Ledger(tmp_path / "out")
    record = ledger.all("relaxed")[0]
    (path,) = [name for name in record.files if not name.endswith(".quarantine.parquet")]
    content = ledger.read(record, path)
    others = content.set_column(0, "id", content["id"].take(pa.array(range(len(content))[::-1])))
    ledger.commit("relaxed", record.key, {path: others}, record.counts, record.detail)
    found = [str(problem) for problem in audit.check(tmp_path / "out").problems]
    assert any("holds other atoms than its chunk" in line for line in found), found
    assert any("was committed twice" in line for line in found), found


def test_people_are_told(place: Path, ensembles: list[Ensemble], done: Plan) -> None:
    page = (done.folder / "report.html").read_text()
    assert "<h2>Relaxation</h2>" in page
    assert f"24 crystals were relaxed with {EMT} (ase " in page
    assert "2 unsupported" in page
    assert "change of the volume (%); tallest bar" in page
    assert "were not relaxed" not in page
    (line,) = [line for line in preview.lines(planned(place, ensembles, "new")) if line.startswith("relax ")]
    assert "at most 0.02 eV/Å and 0.1 GPa left, 60 steps at most; before anything is scored" in line
    plain = preview.lines(planned(place, ensembles, "plain", relax=None))
    assert not any(line.startswith("relax") for line in plain)


def test_too_many_that_do_not_relax_end_with_65(place: Path, ensembles: list[Ensemble]) -> None:
    outcome = small_campaign.run(planned(place, ensembles, "bad", max_bad=0.1))
    assert outcome.code is Exit.TOO_MANY_BAD
    assert "4 of 28 crystals were quarantined" in outcome.note


def test_other_settings_are_another_campaign(place: Path, ensembles: list[Ensemble], done: Plan) -> None:
    assert done.fingerprint["relax.potential"].startswith(f"{EMT}: ase ")
    with pytest.raises(Failure, match=r"relax\.smax: was 0\.1, now 0\.2") as other:
        small_campaign.run(planned(place, ensembles, "done", relax=HOW | {"smax": 0.2}))
    assert other.value.code is Exit.CONFIG
    plain = planned(place, ensembles, "plain", relax=None)
    assert not [name for name in plain.fingerprint if name.startswith("relax")]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"model": "nothing"}, "relax.model: potential 'nothing' is not known"),
        ({"model": "chgnet"}, "pip install 'assay\\[potentials\\]'"),
        ({"fmax": 0.0}, "relax: fmax is 0.0, expected above 0"),
        ({"method": "bfgs"}, "relax.method"),
        ({"fmaxx": 0.1}, "did you mean 'relax.fmax'|did you mean 'fmax'"),
    ],
)
def test_a_wrong_section_is_refused_before_the_work(
    place: Path, zoo: Path, how: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "chgnet", None)  # as if the extra were not installed
    source = {"kind": "prototypes", "n": 4}
    path = write_config(place, zoo / "tc-fast", sources=[source], output=str(place / "wrong"), relax=how)
    with pytest.raises(Failure, match=said) as wrong:
        plan.make(config.load(path))
    assert wrong.value.code is Exit.CONFIG
    assert "\n" not in str(wrong.value)
    assert not (place / "wrong").exists()


def test_the_section_means_what_the_settings_of_a_relaxation_mean(place: Path, zoo: Path) -> None:
    assert config.Relax().settings() == Settings()
    path = place / "default.yaml"
    path.write_text("name: d\nsources: [{kind: prototypes, n: 4}]\nmodels: [tc-fast]\nrelax: {}\n")
    assert config.load(path).chunk_size == 64
    assert config.load(path, ["chunk_size=512"]).chunk_size == 512
    assert config.load(path, ["relax=null"]).chunk_size == 512
