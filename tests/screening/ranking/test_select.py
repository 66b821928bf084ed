"""Conformal selection: the definition, the promise in simulated repeats, campaigns, and what is refused."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from assay.models.ensemble import checkpoint, stored
from assay.models.ensemble.ensemble import Ensemble
from assay.models.ensemble.stored import CalibrationRows, HeldRows
from assay.screening.audit import audit
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.results import Results
from assay.screening.folder.summary import Target
from assay.screening.ranking import select
from assay.screening.ranking.select import Shortlist
from assay.screening.settings.choice import Rank
from assay.screening.settings.exits import Exit, Failure
from assay.sources import table as tables
from assay.sources.crystals import Crystals
from tests.screening import small_campaign
from tests.screening.small_campaign import write_config

TC = Target("m", "tc", "K", calibrated=True)
LEVELS = (0.05, 0.1, 0.2)
REPEATS = 300


def world(rng: np.random.Generator, groups: int) -> pa.Table:
    """Crystals of many groups of 1 to 40: a group has a value, and an error of its own, which its crystals share."""
    sizes = np.minimum(rng.zipf(1.8, groups), 40)
    group = np.repeat(np.arange(groups), sizes)
    known = 10 * rng.normal(size=groups)[group] + rng.normal(size=len(group))
    std = rng.uniform(2, 6, groups)[group]
    mean = known + std * (1.2 * rng.normal(size=groups)[group] + 0.2 * rng.normal(size=len(group)))
    names = [f"A-{k}" for k in group]
    ood = rng.random(len(group)) < 0.1
    return pa.table({"known": known, "tc_mean": mean, "tc_std": std, "elements": names, "ood": ood})


def settings(fdr: float, threshold: float = 8.0, order: str = "descending") -> Rank:
    return Rank(select={"threshold": threshold, "fdr": fdr}, order=order)


def kept(rows: pa.Table, by: str = "element-set") -> CalibrationRows:
    parts = [rows[name].to_numpy() for name in ("known", "tc_mean", "tc_std")]
    return CalibrationRows({"tc": HeldRows(*parts, np.arange(len(rows)))}, by, out_of_fold=False)


def chosen(rank: Rank, known: CalibrationRows, rows: pa.Table, portion: int = 10**6) -> pa.Table:
    shortlist = Shortlist(rank, TC, known)
    portions = [rows.slice(start, portion) for start in range(0, len(rows), portion)]
    for each in portions:
        shortlist.learn(each)
    return pa.concat_tables(shortlist.marked(each) for each in reversed(portions)).sort_by("row")


def by_definition(rank: Rank, known: pa.Table, rows: pa.Table, *, alone: bool) -> tuple[list[float], list[bool]]:
    """The p-value of each row, counted one by one, and what Benjamini and Hochberg select."""
    assert rank.select is not None
    c, side = rank.select.threshold, 1 if rank.order == "descending" else -1
    values = []
    for row in (new := rows.to_pylist()):
        score = side * (row["tc_mean"] - c) / row["tc_std"]
        like = [r for r in known.to_pylist() if side * r["known"] <= side * c]
        worse = sum(side * (r["tc_mean"] - c) / r["tc_std"] >= score for r in like)
        mates = [r for r in new if r["elements"] == row["elements"] and not alone]
        own = 1 if alone else sum(side * (r["tc_mean"] - c) / r["tc_std"] >= score for r in mates)
        values.append(min(1.0, (worse + own) / (len(known) + 1)) if score > 0 else 1.0)
    ordered = sorted(values)
    passing = [p for k, p in enumerate(ordered, 1) if p <= rank.select.fdr * k / len(rows)]
    return values, [p <= max(passing, default=-1.0) for p in values]


@pytest.mark.parametrize("order", ["descending", "ascending"])
@pytest.mark.parametrize("by", ["element-set", "row"])
def test_it_is_the_definition_whatever_the_portions(by: str, order: str) -> None:
    rng = np.random.default_rng(4)
    known, rows = world(rng, 80), world(rng, 80)
    known, rows = (each.append_column("row", pa.array(np.arange(len(each)))) for each in (known, rows))
    rank = settings(0.2, 5.0 if order == "descending" else -5.0, order)
    values, selected = by_definition(rank, known, rows, alone=by == "row")
    assert 0 < sum(selected) < len(selected)
    for portion in (7, 10**6):
        found = chosen(rank, kept(known, by), rows, portion)
        np.testing.assert_allclose(found["conformal_p_value"].to_numpy(), values, rtol=1e-12)
        assert found["selected"].to_pylist() == selected


def shares(fdr: float, by: str) -> tuple[list[float], int]:
    """The share of false discoveries in each repeat, and how many were selected in all of them."""
    rng = np.random.default_rng(7)
    found, selected = [], 0
    for _ in range(REPEATS):
        known, rows = world(rng, 120), world(rng, 80)
        marked = chosen(settings(fdr), kept(known, by), rows.append_column("row", pa.array(np.arange(len(rows)))))
        found.append(false_share(marked, 8.0))
        selected += int(marked["selected"].to_numpy().sum())
    return found, selected


def false_share(found: pa.Table, threshold: float) -> float:
    selected, known = found["selected"].to_numpy(), found["known"].to_numpy()
    return float((known[selected] <= threshold).mean()) if selected.any() else 0.0


@pytest.mark.parametrize("fdr", LEVELS)
def test_the_share_of_false_discoveries_stays_below_the_level(fdr: float) -> None:
    found, selected = shares(fdr, "element-set")
    assert np.mean(found) <= fdr + 2 * np.std(found) / REPEATS**0.5
    assert selected > REPEATS  # an empty shortlist keeps any promise


def test_without_the_groups_the_promise_would_be_broken() -> None:
    found, _ = shares(0.05, "row")
    assert np.mean(found) > 0.05 + 3 * np.std(found) / REPEATS**0.5


@pytest.mark.parametrize("filtered_first", [True, False])
def test_a_filter_that_takes_the_hits_out_must_come_before_the_selection(filtered_first: bool) -> None:
    rng = np.random.default_rng(7)
    found = []
    for _ in range(REPEATS // 2):
        known, rows = world(rng, 120), world(rng, 80)
        passes = rows["known"].to_numpy() + 2 * rng.normal(size=len(rows)) < 10  # the hottest are the least stable
        kept_rows = rows.filter(pa.array(passes))
        shortlist = Shortlist(settings(0.1), TC, kept(known))
        shortlist.learn(kept_rows if filtered_first else rows, tests=len(rows))
        found.append(false_share(shortlist.marked(kept_rows), 8.0))
    sure = 3 * np.std(found) / len(found) ** 0.5
    assert np.mean(found) < 0.1 - sure if filtered_first else np.mean(found) > 0.1 + sure


def test_nothing_is_certain_without_calibration_rows_or_beyond_them() -> None:
    rng = np.random.default_rng(1)
    rows = world(rng, 50)
    rows = rows.append_column("row", pa.array(np.arange(len(rows))))
    nobody = chosen(settings(0.5), kept(rows.slice(0, 0)), rows)
    assert nobody["conformal_p_value"].to_numpy().min() == 1.0
    assert not nobody["selected"].to_numpy().any()
    few = Shortlist(settings(0.1), TC, kept(rows.slice(0, 5)))
    few.learn(rows)
    few.marked(rows)
    assert few.summary().selected == 0
    assert few.summary().share is None
    said = select.lines(few.summary(), settings(0.1), TC)[1]
    assert "no p-value is below 0.17" in said
    assert said.endswith(f"; here it has {math.ceil(len(rows) / 6 / 0.1):,} crystals at least.")


def test_crystals_that_are_set_aside_are_tests_and_unknown_ones_are_never_selected() -> None:
    rng = np.random.default_rng(3)
    known, rows = world(rng, 150), world(rng, 100)
    rows = rows.append_column("row", pa.array(np.arange(len(rows))))
    broken = rows["tc_mean"].to_numpy().copy()
    broken[:3] = np.nan, np.inf, 1e9
    stds = rows["tc_std"].to_numpy().copy()
    stds[2] = np.nan
    rows = rows.set_column(1, "tc_mean", pa.array(broken)).set_column(2, "tc_std", pa.array(stds))
    shortlist, more = (Shortlist(settings(0.2), TC, kept(known)) for _ in range(2))
    shortlist.learn(rows)
    more.learn(rows, tests=100 * len(rows))
    found = shortlist.marked(rows)
    assert not found["selected"].to_numpy()[:3].any()
    assert found["conformal_p_value"].null_count == 3
    assert found["selected"].to_numpy().sum() > more.marked(rows)["selected"].to_numpy().sum()


RANK = {"property": "formation_energy", "order": "ascending", "top": 20}
SELECT = {"threshold": -0.3, "fdr": 0.1}


@pytest.fixture(scope="module")
def place(real: Crystals, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shortlist")
    small_campaign.write_sources(folder, real)
    return folder


@pytest.fixture(scope="module")
def keeper(place: Path, model: Path, crystals: Crystals) -> Path:
    """The bundled ensemble, with 300 crystals of known energy as calibration rows."""
    folder = place / "keeper"
    shutil.copytree(model, folder)
    found, _ = Ensemble.load(folder).predict(crystals)
    energy = found.values["formation_energy"]
    known = crystals.columns["e_form"][found.index]
    sound = np.isfinite(known)
    rows = HeldRows(known[sound], energy.mean[sound], energy.std[sound], np.arange(sound.sum()))
    kept = CalibrationRows({"formation_energy": rows}, "element-set", out_of_fold=False).write(folder)
    described = checkpoint.read_json(folder / "ensemble.json", "an ensemble") | {"calibration_rows": kept}
    checkpoint.write_whole(folder / "ensemble.json", checkpoint.to_json(described))
    stored.seal(folder)
    return folder


def finished(place: Path, model: Path, name: str, **keys: Any) -> Path:
    planned = small_campaign.make(write_config(place, model, output=str(place / name), **keys))
    assert small_campaign.run(planned).code is Exit.DONE
    return planned.folder


@pytest.fixture(scope="module")
def done(place: Path, keeper: Path) -> Path:
    return finished(place, keeper, "done", rank=RANK | {"select": SELECT})


def test_a_campaign_marks_its_shortlist_and_says_what_it_is_worth(done: Path, place: Path, keeper: Path) -> None:
    table, summary = pl.read_parquet(done / "candidates.parquet"), Results(done).summary
    found = summary.selection
    assert found is not None
    assert 0 < found.selected == table["selected"].sum() < table.height
    assert found.tests == summary.balance.scored
    assert found.share is not None
    assert found.share <= 0.1
    picked = table.filter("selected")
    assert picked["formation_energy_mean"].max() < -0.3
    assert picked["conformal_p_value"].max() < table.filter(~pl.col("selected"))["conformal_p_value"].max()
    far = picked.filter(pl.col("ood") | (pl.col("ood_distance") > 1)).height
    assert found.far == far
    page = (done / "report.html").read_text()
    assert f"{found.selected} of {found.tests} scored crystals are selected" in page
    assert f"{far} lie far from training" in page
    assert "(exchangeable with them); new chemistry" in page
    assert audit.check(done).problems == []
    plain = finished(place, keeper, "plain", rank=RANK)
    without = table.drop("selected", "conformal_p_value")
    assert pl.read_parquet(plain / "candidates.parquet").equals(without)
    assert "selection" not in (plain / "summary.json").read_text()


@pytest.mark.parametrize(
    ("cascade", "least", "threshold", "fdr"),
    [(False, -0.7, -0.5, 0.05), (True, -0.7, -0.5, 0.05), (False, -1.0, -0.1, 0.1)],
)
def test_what_a_filter_excludes_is_a_test_that_cannot_be_selected(
    place: Path, keeper: Path, blind: Path, cascade: bool, least: float, threshold: float, fdr: float
) -> None:
    keys: dict[str, Any] = {"rank": RANK | {"select": {"threshold": threshold, "fdr": fdr}}}
    keys["filters"] = {"predicted": {"formation_energy": {"min": least}}}
    keys |= {"cascade": {"tiers": [{"model": str(blind), "keep": 0.8}], "audit": 5}} if cascade else {}
    folder = finished(place, keeper, f"filtered-{cascade}{least}", **keys)
    table, found = pl.read_parquet(folder / "candidates.parquet"), Results(folder).summary.selection
    assert pl.read_parquet(folder / "excluded.parquet").height > 5
    assert found is not None
    assert found.tests == Results(folder).summary.balance.scored
    full = table.filter(pl.col("tier") == 1) if cascade else table
    scores = -(full["formation_energy_mean"].to_numpy() - threshold) / full["formation_energy_std"].to_numpy()
    rows = Ensemble.load(keeper).calibration_rows
    assert rows is not None
    held = rows.rows["formation_energy"]
    null = (-(held.mean - threshold) / held.std)[held.known >= threshold]
    sets = full["elements"].to_numpy()
    values = np.array([((null >= s).sum() + ((scores >= s) & (sets == e)).sum()) for s, e in zip(scores, sets)])
    values = np.where(scores > 0, values / (len(held.known) + 1), 1.0)
    ordered = np.sort(values)
    passing = ordered[ordered * found.tests <= fdr * np.arange(1, len(ordered) + 1)]
    assert full["conformal_p_value"].to_numpy() == pytest.approx(values)
    assert full["selected"].to_list() == (values <= passing.max(initial=-1.0)).tolist()
    assert found.selected == full["selected"].sum()
    assert (found.selected > 0) == (fdr == 0.1)  # at 0.05 five would be, if the excluded ones came first
    assert audit.check(folder).problems == []


def test_a_cascade_tests_all_and_selects_among_what_was_scored_in_full(
    place: Path, keeper: Path, blind: Path, done: Path
) -> None:
    chain = {"tiers": [{"model": str(blind), "keep": 0.4}], "audit": 5, "seed": 3}
    folder = finished(place, keeper, "cascade", rank=RANK | {"select": SELECT}, cascade=chain)
    table, found = pl.read_parquet(folder / "candidates.parquet"), Results(folder).summary.selection
    assert found is not None
    assert found.tests == Results(done).summary.balance.scored
    assert table.filter(pl.col("tier") == 0)["conformal_p_value"].null_count() == (table["tier"] == 0).sum() > 0
    assert not table.filter(pl.col("tier") == 0)["selected"].any()
    assert table.filter(pl.col("tier") == 1)["conformal_p_value"].null_count() == 0
    assert audit.check(folder).problems == []


@pytest.mark.parametrize(
    ("name", "sign"), [("selected", "column selected"), ("conformal_p_value", "column conformal_p_value")]
)
def test_verify_makes_the_shortlist_again(done: Path, tmp_path: Path, name: str, sign: str) -> None:
    folder = Path(shutil.copytree(done, tmp_path / "forged"))
    path, ledger = folder / "candidates.parquet", Ledger(folder)
    content, record = tables.read(path), ledger.find("ranked", "all")
    assert record is not None
    forged = content[name].to_numpy(zero_copy_only=False).copy()
    forged[-1] = True if name == "selected" else 0.5 * forged[-1]
    place = content.schema.get_field_index(name)
    digest = tables.write(content.set_column(place, content.schema.field(place), pa.array(forged)), path)
    ledger.record("ranked", "all", {**record.files, path.name: digest}, record.counts)
    (problem,) = audit.check(folder).problems
    assert f"has a {sign} that does not follow from the calibration rows" in str(problem)


def test_an_ensemble_without_rows_and_a_hull_are_refused_before_anything_is_pulled(
    place: Path, model: Path, keeper: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(model, bare)
    described = (bare / "ensemble.json").read_text()
    if "calibration_rows" in described:  # as it was before they were kept
        entry = stored.checkpoint.read_json(bare / "ensemble.json", "an ensemble")
        del entry["calibration_rows"], entry["sha256"]
        stored.checkpoint.write_whole(bare / "ensemble.json", stored.checkpoint.to_json(entry))
    with pytest.raises(Failure, match="was fitted before calibration rows were kept") as refused:
        small_campaign.make(write_config(place, bare, output=str(place / "no"), rank=RANK | {"select": SELECT}))
    assert refused.value.code is Exit.CONFIG
    assert not (place / "no").exists()
    keys: dict[str, Any] = {"rank": {"property": "energy_above_hull", "order": "ascending", "select": SELECT}}
    keys["stability"] = {"hull": "mp-formation-energy"}
    with pytest.raises(Failure, match="has calibration rows of formation_energy, none of energy_above_hull"):
        small_campaign.make(write_config(place, keeper, output=str(place / "no"), **keys))


def test_rows_come_back_as_they_were_kept_and_others_are_refused(keeper: Path, tmp_path: Path) -> None:
    loaded = Ensemble.load(keeper)
    rows = loaded.calibration_rows
    assert rows is not None
    again = CalibrationRows.read(tmp_path, rows.write(tmp_path))
    for part in ("known", "mean", "std", "group"):
        np.testing.assert_array_equal(*(getattr(each.rows["formation_energy"], part) for each in (again, rows)))
    shutil.copytree(keeper, tmp_path / "damaged")
    small_campaign.flip(tmp_path / "damaged" / "calibration.safetensors")
    with pytest.raises(ValueError, match="calibration.safetensors is damaged or replaced"):
        Ensemble.load(tmp_path / "damaged")
    with pytest.raises(ValueError, match="calibration or weights of tc"):
        replace(
            loaded, calibration_rows=CalibrationRows({"tc": rows.rows["formation_energy"]}, "row", out_of_fold=False)
        )
