"""Campaigns beside a hull: columns, the bound that sets aside, comparable energies alone, nothing lost."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Element

from assay.models.ensemble.ensemble import Ensemble
from assay.screening.audit import audit, status
from assay.screening.campaign import drive, outputs, plan
from assay.screening.campaign.plan import Plan
from assay.screening.folder.results import Results
from assay.screening.settings import config
from assay.screening.settings.exits import Exit, Failure
from assay.sources import datasets, table
from assay.sources.crystals import Crystals
from tests.screening import small_campaign
from tests.screening.small_campaign import run, write_config

FUNCTIONAL = "PBE(+U), Materials Project corrections of 2018/19"
COLUMN = "formation_energy_per_atom"
MOST = 0.05
NEAR = {"energy_above_hull": {"max": MOST}}


def phases(real: Crystals) -> Crystals:
    """Crystals that are in no small campaign and hold no palladium, which its first crystal is."""
    rest = real[small_campaign.SIZE :]
    return rest.select(rest.composition()[:, 46] == 0)


@pytest.fixture(scope="module")
def ensembles(model: Path) -> list[Ensemble]:
    return plan.load_ensembles([str(model)])


@pytest.fixture(scope="module")
def place(real: Crystals, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sources of small campaigns, and the phases of a hull."""
    folder = tmp_path_factory.mktemp("stability")
    small_campaign.write_sources(folder, real)
    rest = phases(real)
    energy = rest.columns[COLUMN]
    datasets.save(folder / "hull.parquet", rest, "e_form", energy, unit="eV/atom", functional=FUNCTIONAL)
    datasets.save(folder / "unsaid.parquet", rest, "e_form", energy)
    return folder


@pytest.fixture(scope="module")
def make(place: Path, model: Path, ensembles: list[Ensemble]) -> Callable[..., Plan]:
    def made(
        output: str, hull: str | None = None, rank: dict[str, Any] | None = None, predicted: Any = None, **settings: Any
    ) -> Plan:
        section = {"hull": hull or f"{place / 'hull.parquet'}#e_form", **settings}
        keys = {"output": str(place / output), "rank": rank or {"order": "ascending"}}
        keys["filters"] = {"predicted": predicted or {}}
        return small_campaign.make(write_config(place, model, stability=section, **keys), ensembles)

    return made


@pytest.fixture(scope="module")
def bounded(make: Callable[..., Plan]) -> Plan:
    """A finished campaign with a filter on the energy above the hull."""
    planned = make("bounded", predicted=NEAR)
    run(planned)
    return planned


def test_every_crystal_has_the_energy_above_the_hull_that_pymatgen_finds(
    bounded: Plan, place: Path, real: Crystals
) -> None:
    results = Results(bounded.folder)
    assert results.summary.stability is not None
    assert results.summary.stability.unknown > 0
    names = ["id", "formula", "formation_energy_mean", "energy_above_hull_mean", "competing_phases"]
    found = pa.concat_tables([results.candidates(names), results.excluded(names)]).to_pylist()
    assert len(found) == small_campaign.SIZE - small_campaign.BAD
    rest = phases(real)
    known = {str(Element.from_Z(z)) for z in np.unique(rest.numbers)}
    entries = [
        PDEntry(Composition(formula), energy * Composition(formula).num_atoms)
        for formula, energy in zip(rest.formulas().tolist(), rest.columns[COLUMN].tolist(), strict=True)
        if np.isfinite(energy)
    ]
    for row in found:
        elements = {str(element) for element in Composition(row["formula"]).elements}
        if not elements <= known:
            assert np.isnan(row["energy_above_hull_mean"])
            assert row["competing_phases"] is None
            continue
        inside = [entry for entry in entries if {str(element) for element in entry.elements} <= elements]
        diagram = PhaseDiagram([*(PDEntry(Composition(symbol), 0.0) for symbol in elements), *inside])
        hull = diagram.get_hull_energy_per_atom(Composition(row["formula"]))
        assert row["energy_above_hull_mean"] == pytest.approx(row["formation_energy_mean"] - hull, abs=1e-6)


def test_the_filter_excludes_counts_by_reason_and_loses_nothing(bounded: Plan) -> None:
    results = Results(bounded.folder)
    balance, aside = results.summary.balance, results.excluded()
    above = results.candidates(["energy_above_hull_mean"])["energy_above_hull_mean"].to_numpy()
    far = aside["energy_above_hull_mean"].to_numpy()
    assert (above <= MOST).all()
    assert not (far <= MOST).any()
    assert (far > MOST).any()
    assert balance.excluded == len(aside) > 0
    assert aside["id"].to_pylist() == sorted(aside["id"].to_pylist())
    assert aside.column_names == ["reason", *results.unrankable().column_names]
    far_away, unknown = f"energy_above_hull above {MOST} eV/atom", "has no energy_above_hull"
    assert aside["reason"].to_pylist() == [unknown if np.isnan(value) else far_away for value in far]
    counted = {far_away: int((far > MOST).sum()), unknown: int(np.isnan(far).sum())}
    assert min(counted.values()) > 0
    assert results.summary.excluded is not None
    assert results.summary.excluded.reasons == status.read(bounded.folder)["excluded"] == counted
    shown = "\n".join(status.lines(status.read(bounded.folder)))
    assert f" ranked + 0 unrankable + {len(aside)} excluded\n" in shown
    assert f"excluded   {counted[far_away]}: {far_away}\n" in shown
    (line,) = [text for text in outputs.table_text(results) if text.startswith("filters.predicted")]
    by_first = f"{far_away} ({counted[far_away]}); {unknown} ({counted[unknown]})."
    assert f"By the first filter that each of them fails: {by_first}" in line
    assert line in html.unescape((bounded.folder / "report.html").read_text())
    assert balance.ranked == len(above) > 0
    assert balance.scored == balance.ranked + balance.unrankable + balance.excluded
    assert balance.bad_fraction() < 0.05
    assert results.candidates(["rank"])["rank"].to_pylist() == list(range(1, balance.ranked + 1))
    assert not audit.check(bounded.folder).problems
    assert not audit.check(bounded.folder).litter


def test_summary_and_report_say_what_was_compared(bounded: Plan, real: Crystals) -> None:
    summary = Results(bounded.folder).summary
    found = summary.stability
    assert found is not None
    assert (found.functional, found.phases, found.judged) == (FUNCTIONAL, len(phases(real)), summary.balance.scored)
    assert found.near == summary.balance.ranked  # the bound is the threshold, and no id ranks twice
    page = (bounded.folder / "report.html").read_text()
    assert "<h2>Stability</h2>" in page
    assert "competing phases" in page


def test_the_filter_can_be_lifted_and_the_hull_ranks(bounded: Plan, make: Callable[..., Plan]) -> None:
    rank = {"property": "energy_above_hull", "order": "ascending"}
    drive.rerank(make("bounded", rank=rank))
    results = Results(bounded.folder)
    above = results.candidates(["energy_above_hull_mean"])["energy_above_hull_mean"].to_numpy()
    assert (np.diff(above) >= 0).all()
    assert (results.summary.target.name, results.summary.target.unit) == ("energy_above_hull", "eV/atom")
    assert results.summary.balance.excluded == 0
    assert results.summary.balance.unrankable == results.summary.stability.unknown > 0  # type: ignore[union-attr]
    assert not (bounded.folder / "excluded.parquet").exists()
    assert status.read(bounded.folder)["excluded"] is None
    assert not audit.check(bounded.folder).problems
    with pytest.raises(Failure, match=r"filters\.predicted"):
        results.excluded()
    likely = {**rank, "by": "probability", "threshold": MOST}
    drive.rerank(make("bounded", rank=likely, threshold=MOST))
    chance = Results(bounded.folder).candidates(["score", "p_stable"])
    assert chance["score"].to_pylist() == chance["p_stable"].to_pylist()
    sure = {"energy_above_hull": {"max": MOST, "confidence": 0.8}, "formation_energy": {"min": -3.0, "max": -0.2}}
    drive.rerank(make("bounded", threshold=MOST, predicted=sure))
    results = Results(bounded.folder)
    passed, aside = results.candidates(), results.excluded()
    assert (passed["p_stable"].to_numpy() >= 0.8).all()
    assert 0 < len(passed) < (chance["p_stable"].to_numpy() >= 0.8).sum()  # the other filter takes some
    energy = aside.filter(pc.greater_equal(aside["p_stable"], 0.8))
    sides = ["formation_energy below -3 eV/atom" if low else "formation_energy above -0.2 eV/atom"
             for low in (energy["formation_energy_mean"].to_numpy() < -3.0).tolist()]  # fmt: skip
    assert energy["reason"].to_pylist() == sides
    assert len({*sides}) == 2
    text = f"energy_above_hull at most {MOST} eV/atom with a probability below 0.8"
    assert {text, "has no energy_above_hull"} == {*aside["reason"].to_pylist()} - {*energy["reason"].to_pylist()}
    assert not audit.check(bounded.folder).problems
    drive.rerank(make("bounded", predicted=NEAR))


def test_energy_and_stability_rank_together(bounded: Plan, make: Callable[..., Plan]) -> None:
    objectives = [
        {"property": "formation_energy", "order": "ascending"},
        {"property": "energy_above_hull", "order": "ascending", "by": "upper"},
        {"property": "p_stable"},
    ]
    drive.rerank(make("bounded", rank={"objectives": objectives}))
    results = Results(bounded.folder)
    found, left = results.candidates(), results.unrankable()
    assert results.summary.stability is not None
    assert left["lacks"].to_pylist() == ["energy_above_hull, p_stable"] * results.summary.stability.unknown
    assert results.summary.balance.unrankable == len(left) > 0
    assert found["front"][0].as_py() == 1
    assert results.summary.fronts is not None
    assert sum(found["p_front"].to_pylist()) == pytest.approx(results.summary.fronts.expected)
    page = (bounded.folder / "report.html").read_text()
    assert page.count('<circle class="dot" cx=') >= results.summary.fronts.first
    assert "The first front" in page
    assert "What would change the order" in page
    assert results.summary.certainty is not None
    pairs = results.summary.certainty.swaps
    assert pairs
    assert all(pair.ranks[0] <= results.summary.certainty.k < pair.ranks[1] for pair in pairs)
    assert [found["id"][pair.ranks[1] - 1].as_py() for pair in pairs] == [pair.below for pair in pairs]
    head, first = outputs.table_text(results, most=1)[:2]
    assert [name in head for name in ("formation_energy (eV/atom)", "energy_above_hull (eV/atom)", "p_stable")] == [
        True
    ] * 3
    assert first.count(" ± ") == 2, "one for each objective with an error"
    assert f"{found['p_stable'][0].as_py():.4g}" in first
    assert "reference point (formation_energy" in page
    assert not audit.check(bounded.folder).problems
    ledger, record = results.ledger, results.ledger.find("ranked", "all")
    assert record is not None
    forged = found.set_column(found.schema.get_field_index("front"), "front", pa.array([1] * len(found)))
    path, before = bounded.folder / "candidates.parquet", (bounded.folder / "candidates.parquet").read_bytes()
    ledger.record("ranked", "all", {**record.files, "candidates.parquet": table.write(forged, path)}, record.counts)
    problems = audit.check(bounded.folder).problems
    assert any("column front that does not follow" in str(problem) for problem in problems)
    path.write_bytes(before)
    ledger.record("ranked", "all", record.files, record.counts)
    drive.rerank(make("bounded", predicted=NEAR))


def test_what_several_objectives_cannot_do_is_refused(make: Callable[..., Plan], place: Path, model: Path) -> None:
    with pytest.raises(Failure, match="none of p_stable, nsites is predicted"):
        make("refused", rank={"objectives": [{"property": "p_stable"}, {"property": "nsites"}]})
    path = write_config(place, model, rank={"objectives": [{"property": "formation_energy"}, {"property": "p_stable"}]})
    with pytest.raises(Failure, match="p_stable needs the section stability"):
        plan.make(config.load(path))


def test_a_filter_that_nothing_passes_leaves_no_candidate(bounded: Plan, make: Callable[..., Plan]) -> None:
    drive.rerank(make("bounded", predicted={"formation_energy": {"max": -99.0}}))
    results = Results(bounded.folder)
    assert (len(results.candidates()), len(results.excluded())) == (0, results.summary.balance.scored)
    assert results.summary.stability is not None
    assert results.summary.stability.judged == results.summary.balance.scored
    assert not audit.check(bounded.folder).problems
    drive.rerank(make("bounded", predicted=NEAR))


def test_a_filter_on_what_no_model_predicts_is_refused_with_the_nearest_name(
    bounded: Plan, make: Callable[..., Plan], place: Path, model: Path, ensembles: list[Ensemble]
) -> None:
    with pytest.raises(Failure, match="filters.predicted: 'formation_enery' is not.*mean 'formation_energy'") as caught:
        plan.find_bounds(ensembles, make("bounded", predicted={"formation_enery": {"max": 0.0}}).campaign)
    assert caught.value.code is Exit.CONFIG
    path = write_config(place, model, filters={"predicted": NEAR}, output=str(place / "plain"))
    with pytest.raises(Failure, match="filters.predicted: no model predicts energy_above_hull; add .* stability"):
        plan.make(config.load(path))


@pytest.mark.parametrize(
    ("name", "column", "value", "defect"),
    [
        ("candidates", "energy_above_hull_mean", 1.0, "candidates.parquet ranks a crystal that filters.predicted excl"),
        ("excluded", "energy_above_hull_mean", 0.0, "excluded.parquet holds a crystal that passes filters.predicted"),
        ("excluded", "energy_above_hull_mean", 0.2, "excluded.parquet gives a reason that does not follow from the"),
        ("excluded", "energy_above_hull_mean", 0.2, "summary.json counts {'energy_above_hull above 0.05 eV/atom': "),
        ("excluded", "reason", "too dull", "excluded.parquet gives a reason that does not follow from the predictions"),
        ("excluded", "formation_energy_mean", 0.0, "do not hold every scored crystal once, as it was scored"),
    ],
)
def test_a_forged_table_is_found(bounded: Plan, name: str, column: str, value: Any, defect: str) -> None:
    path, results = bounded.folder / f"{name}.parquet", Results(bounded.folder)
    before, content = path.read_bytes(), getattr(results, name)()
    place = content.schema.get_field_index(column)
    forged = content.set_column(place, content.schema.field(place), pa.array([value] * len(content)))
    ledger, record = results.ledger, results.ledger.find("ranked", "all")
    assert record is not None
    digest = table.write(forged, path)
    ledger.record("ranked", "all", {**record.files, path.name: digest}, record.counts, record.detail)
    problems = audit.check(bounded.folder).problems
    path.write_bytes(before)
    ledger.record("ranked", "all", record.files, record.counts, record.detail)
    assert any(defect in str(problem) for problem in problems), problems


def test_another_filter_in_the_config_than_in_the_outputs_is_found(bounded: Plan) -> None:
    path = bounded.folder / "config.resolved.yaml"
    before = path.read_text()
    path.write_text(before.replace(f"max: {MOST}", "max: 0.2"))
    (problem,) = audit.check(bounded.folder).problems
    path.write_text(before)
    assert "says filters.predicted: {'energy_above_hull': {'min': None, 'max': 0.2" in str(problem)


def test_the_campaigns_own_numbers_can_be_the_hull(make: Callable[..., Plan], real: Crystals) -> None:
    planned = make("own", hull=f"campaign#{COLUMN}", functional=FUNCTIONAL)
    run(planned)
    results = Results(planned.folder)
    found = results.candidates(["energy_above_hull_mean", "formation_energy_mean", COLUMN, "competing_phases", "id"])
    reported = found[COLUMN].to_numpy()
    hull = found["formation_energy_mean"].to_numpy() - found["energy_above_hull_mean"].to_numpy()
    known = np.isfinite(reported)
    assert known.sum() > 50
    assert (hull[known] <= reported[known] + 1e-9).all()  # each is a phase of its own hull
    alone = [row for row in found.to_pylist() if row["competing_phases"].endswith(f"({row['id']})")]
    assert len(alone) > 20
    assert not audit.check(planned.folder).problems


def test_numbers_of_another_functional_are_refused(
    place: Path, real: Crystals, model: Path, ensembles: list[Ensemble]
) -> None:
    crystals = real[:4].with_columns(**{f"{COLUMN}_functional": np.array(["PBE(+U), MP2020"] * 4)})
    table.write(table.to_table(crystals), place / "said.parquet")
    source = {"kind": "files", "paths": [str(place / "said.parquet")]}
    section = {"hull": f"campaign#{COLUMN}", "functional": FUNCTIONAL}
    path = write_config(place, model, sources=[source], stability=section, output=str(place / "other"))
    with pytest.raises(Failure, match=r"PBE\(\+U\), MP2020.*2018/19") as caught:
        run(small_campaign.make(path, ensembles))
    assert caught.value.code is Exit.CONFIG


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hull": "oqmd-formation-energy"}, "2018/19', hull oqmd-formation-energy holds 'PBE.*OQMD"),
        ({"hull": "mp-band-gap"}, "holds values in 'eV', expected eV/atom"),
        ({"hull": "mp-formation-enery"}, "is not one of"),
        ({"hull": "UNSAID"}, "hull .*unsaid.parquet#e_form does not name one; say it here"),
        ({"hull": "UNSAID", "functional": "PBE(+U), MP2020"}, "2018/19', stability.functional says .*MP2020"),
        ({"property": "band_gap"}, "stability.property: 'band_gap' is not among the properties"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused_in_one_line(
    settings: dict[str, Any], message: str, make: Callable[..., Plan], place: Path, data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv(datasets.VARIABLE, str(data))
    if settings.get("hull") == "UNSAID":
        settings = {**settings, "hull": f"{place / 'unsaid.parquet'}#e_form"}
    with pytest.raises(Failure, match=message) as caught:
        make("refused", **settings)
    assert caught.value.code is Exit.CONFIG
    assert "\n" not in str(caught.value)


def test_a_functional_in_the_config_speaks_for_a_table_that_says_none(make: Callable[..., Plan], place: Path) -> None:
    planned = make("said", hull=f"{place / 'unsaid.parquet'}#e_form", functional=FUNCTIONAL)
    assert planned.stability is not None
    assert planned.stability.functional == FUNCTIONAL


def test_a_config_names_the_reported_number_and_its_functional(place: Path, model: Path) -> None:
    for section, what in (({"hull": "campaign"}, "campaign#"), ({"hull": f"campaign#{COLUMN}"}, "functional")):
        path = write_config(place, model, stability=section, output=str(place / "wrong"))
        with pytest.raises(Failure, match=what):
            config.load(path)


def test_formulas_can_be_the_phases(make: Callable[..., Plan], place: Path, real: Crystals) -> None:
    rest = phases(real)
    column = pa.array(rest.columns[COLUMN].astype(np.float64))
    pq.write_table(pa.table({"formula": rest.formulas().tolist(), "e": column}), place / "formulas.parquet")
    planned = make("formulas", hull=f"{place / 'formulas.parquet'}#e", functional=FUNCTIONAL)
    run(planned)
    mine = Results(planned.folder).candidates(["id", "energy_above_hull_mean"]).sort_by("id")
    other = make("structures")
    run(other)
    theirs = Results(other.folder).candidates(["id", "energy_above_hull_mean"]).sort_by("id")
    for a, b in zip(
        mine["energy_above_hull_mean"].to_pylist(), theirs["energy_above_hull_mean"].to_pylist(), strict=True
    ):
        assert a == pytest.approx(b, abs=1e-9, nan_ok=True)


def test_the_fingerprint_holds_the_table_of_the_hull(
    make: Callable[..., Plan], place: Path, real: Crystals, bounded: Plan
) -> None:
    changed = phases(real).columns[COLUMN] - 0.001
    rest = phases(real)
    kept = (place / "hull.parquet").read_bytes()
    datasets.save(place / "hull.parquet", rest, "e_form", changed, unit="eV/atom", functional=FUNCTIONAL)
    try:
        with pytest.raises(Failure, match=r"stability\.sha256: was"):
            drive.rerank(make("bounded", predicted=NEAR))
        (place / "hull.parquet").unlink()
        findings = audit.check(bounded.folder)
        assert not findings.problems
        assert any("the table of the hull" in note for note in findings.notes)
    finally:
        (place / "hull.parquet").write_bytes(kept)


def test_a_cascade_judges_what_its_last_tier_scored(place: Path, model: Path, tmp_path: Path, real: Crystals) -> None:
    full, fast = (small_campaign.some_members(tmp_path / f"m{k}", model, k) for k in ((0, 1), (2, 3)))
    section = {"hull": f"{place / 'hull.parquet'}#e_form", "functional": FUNCTIONAL}
    cascade = {"tiers": [{"model": str(fast), "keep": 20}], "audit": 4}
    keys = {
        "stability": section,
        "filters": {"predicted": {"energy_above_hull": {"max": -1.0}}},
        "cascade": cascade,
        "rank": {"order": "ascending"},
        "output": str(place / "cascade"),
    }
    planned = small_campaign.make(write_config(place, full, **keys))
    run(planned)
    results = Results(planned.folder)
    found, balance = results.candidates(), results.summary.balance
    judged = found.filter(pa.array(found["tier"].to_numpy() == 1))
    assert (judged["energy_above_hull_mean"].to_numpy() <= -1.0).all()
    assert found.filter(pa.array(found["tier"].to_numpy() == 0))["energy_above_hull_mean"].null_count == len(
        found
    ) - len(judged)
    assert len(judged) + balance.excluded == 24
    assert balance.excluded > 0
    assert {*results.excluded(["tier"])["tier"].to_pylist()} == {1}
    assert found["rank"].to_pylist() == list(range(1, balance.ranked + 1))
    assert not audit.check(planned.folder).problems


def test_a_campaign_without_the_section_is_as_it_was(place: Path, model: Path, ensembles: list[Ensemble]) -> None:
    planned = small_campaign.make(write_config(place, model, output=str(place / "plain")), ensembles)
    run(planned)
    folder, results = planned.folder, Results(planned.folder)
    summary = json.loads((folder / "summary.json").read_text())
    assert " ".join(summary) == (
        "balance campaign cascade certainty complete fingerprint identity max_bad models quarantine rank sha256 "
        "sources target ties"
    )
    assert "excluded" not in summary["balance"]
    assert not any("stability" in name for name in planned.fingerprint)
    assert "stability" not in yaml.safe_load((folder / "config.resolved.yaml").read_text())
    assert not {"p_stable", "competing_phases", "energy_above_hull_mean"} & {*results.candidates().column_names}
    record = results.ledger.find("ranked", "all")
    assert record is not None
    assert record.counts == {"ranked": summary["balance"]["ranked"], "unrankable": 0}
    assert sorted(path.name for path in folder.glob("*.parquet")) == [
        "candidates.parquet", "quarantine.parquet", "unrankable.parquet",
    ]  # fmt: skip
    page = (folder / "report.html").read_text()
    assert "Stability" not in page
    assert "scored = ranked + unrankable.\n" in page
