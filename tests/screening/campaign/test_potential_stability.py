"""Campaigns whose hull energies are those of the force field that relaxed: scale, error, refusals, kills."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ase.build import bulk
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition
from scipy import stats

from assay.models.ensemble.ensemble import Ensemble
from assay.models.potentials import formation, potential as potentials
from assay.models.potentials.columns import FORMED
from assay.models.potentials.formation import Formation
from assay.models.potentials.relax import Settings, relax
from assay.models.stability.references import formation_energies
from assay.screening.audit import audit
from assay.screening.campaign import plan
from assay.screening.campaign.plan import Plan
from assay.screening.deciding import batch
from assay.screening.deciding.batch import Wish
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.results import Results
from assay.screening.ranking.stability import Judge
from assay.screening.settings import config
from assay.screening.settings.exits import Exit, Failure
from assay.sources import datasets, table
from assay.sources.crystals import Crystals, concat
from assay.sources.formats import convert
from tests.metals import EMT, SYMBOLS, disordered, metals
from tests.screening import small_campaign
from tests.screening.small_campaign import digests, write_config

SCALE = "ase.calculators.emt:EMT, that of the calculator"
ERROR = 0.03


def phases() -> Crystals:
    """The elements, and CuAu on the lattice of caesium chloride, stretched."""
    made: list[Any] = [bulk(symbol) for symbol in SYMBOLS]
    made.append(bulk("CuAu", "cesiumchloride", a=3.2))
    return convert.from_ase(made, [*SYMBOLS, "CuAu"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The metals, the elements by EMT, and a hull of three phases, of which one is better than EMT finds."""
    folder = tmp_path_factory.mktemp("forming")
    table.write(table.to_table(concat([metals(12), disordered("mixed/a")])), folder / "metals.parquet")
    found = relax(phases(), potentials.load(EMT), Settings(fmax=0.01))
    energy = found.energy / found.crystals.nsites
    references = pa.table({"element": SYMBOLS, "energy_per_atom": energy[: len(SYMBOLS)]})
    pq.write_table(references, folder / "elements.parquet", write_page_checksum=True)
    known = found.crystals[-3:].without_columns()
    datasets.save(folder / "hull.parquet", known, "e", np.array([0.0, 0.0, -0.3]), unit="eV/atom", functional=SCALE)
    return folder


@pytest.fixture(scope="module")
def ensembles(zoo: Path) -> list[Ensemble]:
    return plan.load_ensembles([str(zoo / "tc-fast")])


@pytest.fixture(scope="module")
def planned(place: Path, ensembles: list[Ensemble]) -> Callable[..., Plan]:
    def made(
        name: str, relaxed: dict[str, Any] | None = None, rest: dict[str, Any] | None = None, **settings: Any
    ) -> Plan:
        section = {"hull": f"{place / 'hull.parquet'}#e", "energy": "potential", "error": ERROR}
        section |= {"references": str(place / "elements.parquet")} | settings
        keys = {
            "sources": [{"kind": "files", "paths": [str(place / "metals.parquet")], "name": "m"}],
            "output": str(place / name),
            "chunk_size": 4,
            "max_bad": 1.0,
            "relax": {"model": EMT, "fmax": 0.02} | (relaxed or {}),
            "stability": {key: value for key, value in section.items() if value is not None},
            "rank": {"property": "energy_above_hull", "order": "ascending"},
        } | (rest or {})
        return small_campaign.make(write_config(place, Path(str(ensembles[0].folder)), **keys), ensembles)

    return made


@pytest.fixture(scope="module")
def done(planned: Callable[..., Plan]) -> Plan:
    asked = planned("done")
    assert small_campaign.run(asked).code is Exit.DONE
    return asked


def test_the_hull_meets_the_energy_of_the_relaxed_crystal_with_the_stated_error(done: Plan, place: Path) -> None:
    results = Results(done.folder)
    rows = pa.concat_tables([results.candidates(), results.unrankable()], promote_options="default")
    assert rows.num_rows == 12
    amounts = results.crystals(rows["id"]).composition()
    elements = pq.read_table(place / "elements.parquet").to_pylist()
    references = {row["element"]: row["energy_per_atom"] for row in elements}
    formed = formation_energies(amounts, rows["energy_per_atom"].to_numpy(), references)
    assert rows["relaxed_formation_energy_mean"].to_numpy() == pytest.approx(formed, abs=1e-9)
    assert (abs(formed) < 0.02).sum() >= 6  # elements, back at rest
    entries = [PDEntry(Composition(name), 0.0) for name in ("Pd", "Pt", "Cu", "Au")] + [
        PDEntry(Composition("CuAu"), -0.6)
    ]
    diagram = PhaseDiagram(entries)
    known = [{*Composition(formula).as_dict()} <= {"Pd", "Pt", "Cu", "Au"} for formula in rows["formula"].to_pylist()]
    assert 3 < sum(known) < 12
    for row, formation_energy, here in zip(rows.to_pylist(), formed, known, strict=True):
        above = row["energy_above_hull_mean"]
        if not here:
            assert np.isnan(above)
            continue
        hull = diagram.get_hull_energy_per_atom(Composition(row["formula"]))
        assert above == pytest.approx(formation_energy - hull, abs=1e-6)
        assert row["energy_above_hull_std"] == pytest.approx(ERROR)
        assert row["energy_above_hull_hi"] - above == pytest.approx(ERROR * stats.norm.ppf(0.95))
        assert row["p_stable"] == pytest.approx(stats.norm.cdf(0.05, above, ERROR))
    metadata = rows.schema.field("relaxed_formation_energy_mean").metadata
    assert metadata[b"unit"] == b"eV/atom"
    assert SCALE.encode() in metadata[b"meaning"]


def test_people_are_told_and_nothing_is_lost(done: Plan) -> None:
    summary = Results(done.folder).summary
    assert summary.balance.quarantined == 1
    assert summary.stability is not None
    assert (summary.stability.model, summary.stability.functional) == (EMT, SCALE)
    assert summary.target.model == EMT
    page = (done.folder / "report.html").read_text()
    assert f"those that {EMT} gives the relaxed crystals are {SCALE}" in page
    assert "relaxed_formation_energy_mean</code> less the energy" in page
    assert "0 members" not in page
    found = audit.check(done.folder)
    assert not found.problems
    assert not found.litter


def test_a_cascade_compares_what_its_last_tier_scored(planned: Callable[..., Plan], place: Path, done: Plan) -> None:
    fast = small_campaign.some_members(place / "fast", done.ensembles[0].folder, (1, 0))
    chain = {"tiers": [{"model": str(fast), "keep": 5}], "audit": 1}
    asked = planned("cascade", rest={"cascade": chain, "rank": {"order": "descending"}})
    assert small_campaign.run(asked).code is Exit.DONE
    rows = Results(asked.folder).candidates()
    names = ["relaxed_formation_energy_mean", "energy_above_hull_mean"]
    whole = {row["id"]: row for row in Results(done.folder).predictions().to_pylist()}
    above = {row["id"]: row[names[1]] for row in Results(done.folder).candidates().to_pylist()}
    assert rows.num_rows == 12
    for row in rows.to_pylist():
        assert row[names[0]] == whole[row["id"]][names[0]]
        expected = above.get(row["id"], np.nan) if row["tier"] == 1 else None
        assert row[names[1]] == (None if expected is None else pytest.approx(expected, nan_ok=True))
    assert sum(row["tier"] == 1 for row in rows.to_pylist()) == 6
    assert not audit.check(asked.folder).problems


def killed(campaign: Plan, owner: type, method: str, call: int) -> None:
    """Run a campaign in a process that kills itself at a call of a method."""
    child = os.fork()
    if child == 0:
        whole, calls = getattr(owner, method), [0]

        def deadly(*args: Any, **keys: Any) -> Any:
            calls[0] += 1
            if calls[0] == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return whole(*args, **keys)

        setattr(owner, method, deadly)
        small_campaign.run(campaign)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("owner", "method", "call", "kinds"),
    [(Formation, "columns", 3, (2, None)), (Judge, "judged", 3, (4, 4)), (Judge, "judged", 8, (4, 4))],
)
def test_a_kill_inside_the_stability_part_ends_in_the_same_bytes(
    done: Plan, tmp_path: Path, owner: type, method: str, call: int, kinds: tuple[int, int | None]
) -> None:
    again = replace(done, folder=tmp_path / "killed")
    killed(again, owner, method, call)
    ledger = Ledger(again.folder)
    relaxed, parts = kinds
    assert len(ledger.all("relaxed")) == relaxed
    assert parts is None or len(ledger.all("part")) == parts
    assert ledger.find("ranked", "all") is None
    assert small_campaign.run(again).code is Exit.DONE
    assert digests(again.folder) == digests(done.folder)
    assert not audit.check(again.folder).problems


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"functional": "r2SCAN"}, "holds '.*EMT.*', stability.functional says 'r2SCAN'"),
        ({"hull": "mp-formation-energy"}, f"{EMT} gives '{SCALE}', the hull holds 'PBE.*2018/19': .*not comparable"),
        ({"error": None}, f"error: {EMT} does not say how far its energies err"),
        ({"references": None}, "references: name a table with the energies of the elements on the scale '.*EMT"),
        ({"references": "none.parquet"}, "references: .*none.parquet"),
    ],
)
def test_energies_that_do_not_meet_are_refused_in_one_line(
    planned: Callable[..., Plan], data: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], message: str
) -> None:
    monkeypatch.setenv(datasets.VARIABLE, str(data))
    with pytest.raises(Failure, match=message) as refused:
        planned("refused", **settings)
    assert refused.value.code is Exit.CONFIG
    assert "\n" not in str(refused.value)


def test_this_energy_is_an_objective_and_a_filter_as_any_predicted_one(planned: Callable[..., Plan]) -> None:
    wanted = [{"property": "tc"}, {"property": "relaxed_formation_energy", "order": "ascending"}]
    limit = {"max": 0.02, "confidence": 0.8}
    rest = {"rank": {"objectives": wanted}, "filters": {"predicted": {"relaxed_formation_energy": limit}}}
    asked = planned("objectives", rest=rest)
    assert [target.model for target in asked.objectives] == [asked.ensembles[0].name, EMT]
    assert small_campaign.run(asked).code is Exit.DONE
    ranked, excluded = (pl.read_parquet(asked.folder / f"{name}.parquet") for name in ("candidates", "excluded"))
    for rows, passes in ((ranked, True), (excluded, False)):
        assert rows.height > 1
        chances = stats.norm.cdf(0.02, rows["relaxed_formation_energy_mean"], ERROR)
        assert ((chances >= 0.8) == passes).all()
    assert audit.check(asked.folder).problems == []


def test_what_to_measure_next_is_chosen_by_it(done: Plan) -> None:
    results = Results(done.folder)
    found = batch.choose(results, Wish(3, "mean"))
    assert (
        found.rows["energy_above_hull_mean"].to_pylist()
        == results.candidates()["energy_above_hull_mean"].to_pylist()[:3]
    )
    formed = batch.choose(results, Wish(3, "ucb", "relaxed_formation_energy", "ascending"))
    assert formed.rows["utility"][0].as_py() > formed.rows["utility"][2].as_py()
    with pytest.raises(Failure, match="EMT, a force field, which knows no distance between crystals; leave it out"):
        batch.choose(results, Wish(3, apart=0.5))


def test_a_shortlist_by_it_is_refused(planned: Callable[..., Plan]) -> None:
    rule = {"property": "energy_above_hull", "order": "ascending", "select": {"threshold": 0.05}}
    asked = planned("refused", rest={"rank": rule})
    with pytest.raises(Failure, match=r"rank\.select: energy_above_hull comes from .*EMT, a force field, which keeps"):
        asked.shortlist()


def test_a_section_that_lacks_its_part_is_refused(place: Path, ensembles: list[Ensemble]) -> None:
    model = Path(str(ensembles[0].folder))
    for keys, what in (
        ({"stability": {"hull": "mp-formation-energy", "energy": "potential"}}, "needs a section relax"),
        ({"stability": {"hull": "mp-formation-energy", "error": 0.1}}, "are for energy: potential"),
    ):
        path = write_config(place, model, output=str(place / "wrong"), **keys)
        with pytest.raises(Failure, match=what):
            config.load(path)


def test_other_references_are_another_campaign(planned: Callable[..., Plan], place: Path, done: Plan) -> None:
    changed = planned("done", error=0.05)
    with pytest.raises(Failure, match=r"stability\.energy: was .*0\.03.*now .*0\.05"):
        small_campaign.run(changed)
    assert done.fingerprint["stability.references"]


def test_the_bundled_force_field_says_its_error_and_meets_the_materials_project(
    data: Path, planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Formation energies of WBM by DFT, corrected like those of the hull, lie inside the intervals as often as said."""
    monkeypatch.setenv(datasets.VARIABLE, str(data))
    section = {"hull": "mp-formation-energy", "references": None, "error": None}
    found = planned("bundled", relaxed={"model": "potential"}, **section).stability
    assert found is not None
    assert found.formation is not None
    potential = potentials.load("potential")
    assert found.formation.error == formation.on_card(potential)
    wbm, _ = table.from_table(table.read(data / "potentials" / "wbm_pbe_relaxed.parquet"), "wbm")
    wbm = wbm.select(np.flatnonzero(wbm.nsites <= 8)[:80])
    relaxed = relax(wbm, potential)
    ours = found.formation.columns(relaxed.crystals, relaxed.energy / relaxed.crystals.nsites, potential)
    dft = replace(found.formation, error=formation.stated(0.1)).columns(
        wbm, wbm.columns["energy"] / wbm.nsites, potential
    )
    assert [*ours] == [*FORMED]
    assert pickle.loads(pickle.dumps(found.formation)) == found.formation  # for workers on Ray
    mean, std, low, high = ours.values()
    known = dft["relaxed_formation_energy_mean"][relaxed.index]
    inside = (low <= known) & (known <= high)
    assert 0.8 < inside.mean() < 1.0
    assert abs(mean - known).mean() < 0.08
    assert std.min() > 0.04
    assert std.max() > 1.5 * std.min()
