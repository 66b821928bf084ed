"""Cascades: cheap tiers choose what the last one scores; nothing is lost or doubled, in any order of arrival."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from assay.models.ensemble.ensemble import Ensemble
from assay.models.ensemble.summary import EnsemblePrediction
from assay.screening.audit import audit as verify, refusals, status
from assay.screening.campaign import drive, outputs, plan, preview, tiers as tiers_of
from assay.screening.campaign.plan import Plan
from assay.screening.folder import balance
from assay.screening.folder.ledger import Ledger, Record
from assay.screening.folder.results import Results
from assay.screening.folder.summary import Cascade, Summary
from assay.screening.ranking import cascade
from assay.screening.ranking.recall import Sample, estimate
from assay.screening.runners import worker
from assay.screening.runners.local import LocalRunner
from assay.screening.runners.score import Score
from assay.screening.settings import config
from assay.screening.settings.exits import Exit, Failure, explain
from assay.sources import table
from assay.sources.crystals import Crystals
from assay.sources.quarantine import Quarantined, Reason, Stage
from tests.screening import small_campaign
from tests.screening.small_campaign import digests, some_members, write_config

PROPERTY = "formation_energy"
WISH = {"order": "ascending", "top": 5}


@pytest.fixture(scope="module")
def folders(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three ensembles of the same zoo: `full` for the last tier, `fast` and `middle` before it."""
    place = tmp_path_factory.mktemp("ensembles")
    members = {"full": (0, 1, 2), "fast": (3, 2), "middle": (0, 3)}
    return {name: some_members(place / name, model, chosen) for name, chosen in members.items()}


@pytest.fixture(scope="module")
def place(real: Crystals, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cascade")
    small_campaign.write_sources(folder, real)
    return folder


def tiers(folders: dict[str, Path], **keys: Any) -> dict[str, Any]:
    """Two tiers: half goes on, then 8; 10 of the others are audited."""
    chain = [{"model": str(folders["fast"]), "keep": 0.5}, {"model": str(folders["middle"]), "keep": 8}]
    return {"tiers": chain, "audit": 10, "seed": 3} | keys


def planned(place: Path, folders: dict[str, Path], output: Path, **keys: Any) -> Plan:
    content = {"cascade": tiers(folders), "rank": WISH, "output": str(output)} | keys
    return small_campaign.make(write_config(place, folders["full"], **content))


@pytest.fixture(scope="module")
def done(place: Path, folders: dict[str, Path]) -> Plan:
    """A finished campaign with two cheap tiers."""
    asked = planned(place, folders, place / "done")
    assert small_campaign.run(asked).code is Exit.DONE
    return asked


def candidates(folder: Path) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in table.read(folder / "candidates.parquet").to_pylist()}


def summary(folder: Path) -> Summary:
    return Results(folder).summary


def cascade_of(folder: Path) -> Cascade:
    found = summary(folder).cascade
    assert found is not None
    return found


def test_the_best_of_each_tier_go_on_and_everybody_is_listed_once(done: Plan, place: Path, folders: dict) -> None:
    rows = candidates(done.folder)
    found = cascade_of(done.folder)
    assert len(rows) == summary(done.folder).balance.ranked == 59
    by_fast = sorted(rows.values(), key=lambda row: row["tier_0_score"])
    half = {row["id"] for row in by_fast[:30]}
    assert {name for name, row in rows.items() if row["tier_1_score"] is not None} == half
    by_middle = sorted((rows[name] for name in half), key=lambda row: row["tier_1_score"])
    survivors = {row["id"] for row in by_middle[:8]}
    audit = {name for name, row in rows.items() if row["audit"]}
    assert {name for name, row in rows.items() if row["tier"] == 2} == survivors | audit
    assert audit.isdisjoint(survivors)
    assert len(audit) == found.audit == 10
    assert found.aside == 59 - 8
    assert {rows[name]["tier_1_score"] is None for name in audit} == {True, False}  # drawn from both tiers
    order = [(-row["tier"], row["score"]) for row in rows.values()]
    assert order == sorted(order)


def test_predictions_are_those_of_the_tier_that_a_crystal_reached(done: Plan, place: Path, folders: dict) -> None:
    whole = planned(place, folders, place / "whole", cascade=None)
    small_campaign.run(whole)
    full = candidates(whole.folder)
    for name, row in candidates(done.folder).items():
        members = [row[f"{PROPERTY}_member_{k}"] for k in range(3)]
        if row["tier"] == 2:
            assert row[f"{PROPERTY}_mean"] == pytest.approx(full[name][f"{PROPERTY}_mean"], abs=1e-5)
            assert None not in members
        else:
            assert row[f"{PROPERTY}_mean"] == row["score"] == row[f"tier_{row['tier']}_score"]
            assert row[f"{PROPERTY}_lo"] <= row["score"] <= row[f"{PROPERTY}_hi"]
            assert members == [None] * 3
        for column in ("formula", "source", "band_gap", "ids", "nsites", "ood"):
            assert row[column] == full[name][column]
    extra = set(next(iter(candidates(done.folder).values()))) - set(next(iter(full.values())))
    assert extra == {"tier", "audit", "tier_0_score", "tier_1_score"}


def test_rows_are_conserved_at_every_commit(done: Plan, tmp_path: Path) -> None:
    shutil.copytree(done.folder, tmp_path / "out")
    pending = []
    for path in sorted((tmp_path / "out" / "log").iterdir(), reverse=True):
        pending.append(balance.take(Ledger(tmp_path / "out")).pending)  # raises where the counts do not add up
        status.read(tmp_path / "out")
        path.unlink()
    assert pending[0] == 0
    assert 18 in pending  # the last tier is chosen and not scored


def test_a_cascade_goes_on_from_every_prefix_of_its_log(done: Plan, tmp_path: Path) -> None:
    records = len(Ledger(done.folder))
    for kept in range(records - 1, 3, -2):
        folder = tmp_path / str(kept)
        shutil.copytree(done.folder, folder)
        for path in sorted((folder / "log").iterdir())[kept:]:
            path.unlink()
        small_campaign.run(replace(done, folder=folder))
        assert digests(folder) == digests(done.folder), f"after {kept} of {records} records"
        assert verify.check(folder).code is Exit.DONE


@pytest.mark.parametrize(("kind", "which"), [("selection", 0), ("part", 6), ("selection", 1), ("part", 7)])
def test_what_is_half_done_is_ranked_once_all_tiers_are_chosen(
    done: Plan, tmp_path: Path, kind: str, which: int
) -> None:
    asked = replace(done, folder=tmp_path / "out")
    shutil.copytree(done.folder, asked.folder)
    for path in sorted((asked.folder / "log").iterdir())[Ledger(asked.folder).all(kind)[which].sequence + 1 :]:
        path.unlink()
    if len(Ledger(asked.folder).all("selection")) < 2:
        with pytest.raises(Failure, match="no scored campaign yet"):
            drive.rerank(asked)
    else:
        counted = drive.rerank(asked).balance
        assert counted.pending > 0
        assert counted.ranked + counted.pending == 59
        assert cascade_of(asked.folder).recall is None
        assert verify.check(asked.folder).code is Exit.DONE
    small_campaign.run(asked)
    assert digests(asked.folder) == digests(done.folder)


def test_a_crystal_that_kills_a_cheap_tier_is_quarantined(real: Crystals) -> None:
    part = worker.Part(pa.table({"id": ["x"]}), [])
    for work in (Score(), Score(tier=0)):
        blamed = work.blame(table.to_table(real[:3]), part, [1])
        assert [(row.id, row.reason) for row in blamed.quarantined] == [(str(real.ids[1]), Reason.WORKER_DIED)]
        assert work.merge([blamed, part]).table.num_rows == 2


class Backwards(LocalRunner):
    """Does the newest task first."""

    def work(self, jobs: Any, tasks: Any, stopped: Any) -> Any:
        class Reversed:
            popleft = staticmethod(tasks.pop)
            __bool__ = staticmethod(lambda: bool(tasks))

        return super().work(jobs, Reversed(), stopped)  # type: ignore[arg-type]


def test_the_order_of_arrival_does_not_matter(done: Plan, tmp_path: Path) -> None:
    drive.run(replace(done, folder=tmp_path), Backwards(done.worker()), lambda: False)
    assert digests(tmp_path) == digests(done.folder)


def test_ray_gives_the_same_bytes(done: Plan, tmp_path: Path, ray_cluster: Any) -> None:
    from functools import partial

    from assay.screening.runners.cluster import ClusterRunner
    from assay.screening.settings.config import Ray

    folders = [str(tier.folder) for tier in done.tiers]
    make = partial(worker.loaded, done.models, folders, done.campaign)
    drive.run(replace(done, folder=tmp_path), ClusterRunner(make, Ray(workers=2)), lambda: False)
    assert digests(tmp_path) == digests(done.folder)


class Poor:
    """An ensemble that cannot judge some crystals and refuses others."""

    def __init__(self, ensemble: Ensemble, blind: set[str], refuses: set[str]) -> None:
        self._ensemble, self._blind, self._refuses = ensemble, blind, refuses

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ensemble, name)

    def predict(self, crystals: Crystals, store: object = None) -> tuple[EnsemblePrediction, list[Quarantined]]:
        predicted, refused = self._ensemble.predict(crystals)
        ids = crystals.ids[predicted.index]
        blind = np.isin(ids, [*self._blind])
        for part in ("mean", "std"):
            getattr(predicted.values[PROPERTY], part)[blind] = np.nan
        stays = ~np.isin(ids, [*self._refuses])
        value = predicted.values[PROPERTY]
        fields = {name: None if array is None else array[stays] for name, array in vars(value).items()}
        refused += [Quarantined(str(name), "", Stage.PREDICT, Reason.PREDICTION_FAILED, "no") for name in ids[~stays]]
        values = {PROPERTY: type(value)(**fields)}
        return EnsemblePrediction(predicted.index[stays], values, predicted.ood[stays]), refused


def ids_of(done: Plan, chosen: Callable[[dict[str, Any]], bool]) -> list[str]:
    return sorted(name for name, row in candidates(done.folder).items() if chosen(row))


def test_what_a_cheap_tier_cannot_judge_goes_on_and_what_a_tier_refuses_is_quarantined_once(
    done: Plan, tmp_path: Path
) -> None:
    blind = {*ids_of(done, lambda row: row["tier"] == 0)[:2]}
    lost = ids_of(done, lambda row: row["tier"] == 0)[-1]
    halfway = ids_of(done, lambda row: row["tier"] == 1)[0]
    late = ids_of(done, lambda row: row["tier"] == 2 and not row["audit"])[0]
    drawn = ids_of(done, lambda row: row["audit"])[0]
    poor = [Poor(done.tiers[0], blind, {lost}), Poor(done.tiers[1], blind, {halfway})]
    full = [Poor(done.ensembles[0], set(), {late, drawn})]
    asked = replace(done, folder=tmp_path, tiers=poor, ensembles=full)
    counted = small_campaign.run(asked).balance
    assert (counted.ranked, counted.quarantined, counted.pending) == (55, 5, 0)
    rows = candidates(tmp_path)
    assert {rows[name]["tier"] for name in blind} == {2}
    assert {rows[name]["audit"] for name in blind} == {False}
    refused = table.read(tmp_path / "quarantine.parquet")["id"].to_pylist()
    assert {lost, halfway, late, drawn} < set(refused)
    assert len(refused) == len(set(refused)) == 5
    found = cascade_of(tmp_path)
    assert [tier.unjudged for tier in found.tiers] == [2, 2]
    assert found.recall is not None
    assert found.recall.audited == 10
    sources = {group["source"]: group["count"] for group in refusals.read(tmp_path, "source")["groups"]}
    assert sum(sources.values()) == 5
    assert verify.check(tmp_path).problems == []


def test_reported_columns_do_not_pass_for_predictions(folders: dict[str, Path], real: Crystals, tmp_path: Path) -> None:
    n = 20
    named = {"tier": np.full(n, 9), "audit": np.full(n, 9.0), f"{PROPERTY}_member_2": np.full(n, 9.0)}
    table.write(table.to_table(real[:n].with_columns(**named)), tmp_path / "a.parquet")
    source = {"kind": "files", "paths": [str(tmp_path / "a.parquet")]}
    asked = planned(tmp_path, folders, tmp_path / "out", sources=[source])
    small_campaign.run(asked)
    for row in candidates(tmp_path / "out").values():
        assert [row[f"reported_{name}"] for name in named] == [9, 9.0, 9.0]
        assert row["tier"] in (0, 1, 2)
        assert row[f"{PROPERTY}_member_2"] != 9.0


@pytest.mark.parametrize("n", [0, 1])
def test_next_to_nothing_is_a_cascade_too(folders: dict[str, Path], real: Crystals, tmp_path: Path, n: int) -> None:
    table.write(table.to_table(real[:n]), tmp_path / "a.parquet")
    source = {"kind": "files", "paths": [str(tmp_path / "a.parquet")]}
    asked = planned(tmp_path, folders, tmp_path / "out", sources=[source])
    assert small_campaign.run(asked).balance.ranked == n
    assert verify.check(tmp_path / "out").code is Exit.DONE
    if n:
        assert candidates(tmp_path / "out")[str(real.ids[0])]["tier"] == 2


def test_what_people_read_tells_tiers_and_recall(done: Plan) -> None:
    text = "\n".join(outputs.table_text(Results(done.folder), most=20))
    page = (done.folder / "report.html").read_text()
    for sentence in ("fast scored 59 and let 30 through; middle scored 30 and let 8 through", "By counting alone"):
        assert sentence in text
        assert sentence in page
    assert "(tier 1 only)" in text
    recall = cascade_of(done.folder).recall
    assert recall is not None
    assert 0 <= recall.at_least <= recall.expected <= 1
    lines = "\n".join(preview.lines(done))
    assert "tier 0: score with fast, the best 50 % go on\ntier 1: score with middle, the best 8 crystals go on" in lines
    shown = "\n".join(status.lines(status.read(done.folder)))
    assert "tier 2     2 of 2 chunks scored, 18 of 18 crystals" in shown


def test_k_and_top_are_no_part_of_the_fingerprint_but_the_rule_is(
    done: Plan, place: Path, folders: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(done.folder, tmp_path / "out")
    again = planned(place, folders, tmp_path / "out", cascade=tiers(folders, k=3), rank=WISH | {"top": 9})
    outcome = drive.rerank(again)
    assert outcome.summary is not None
    assert outcome.summary.cascade is not None
    assert outcome.summary.cascade.recall is not None
    assert outcome.summary.cascade.recall.k == 3
    for keys, reason in (
        ({"rank": WISH | {"by": "lower"}}, "cascade.by: was mean, now lower"),
        ({"cascade": tiers(folders, audit=9)}, "cascade.audit: was 10, now 9"),
        ({"cascade": tiers({**folders, "fast": folders["middle"], "middle": folders["fast"]})}, "cascade.0.fast"),
        ({"cascade": None}, ", now absent"),
    ):
        with pytest.raises(Failure) as caught:
            drive.rerank(planned(place, folders, tmp_path / "out", **keys))
        assert caught.value.code is Exit.CONFIG
        assert reason in str(caught.value)


@pytest.mark.parametrize("keep", [0, 0.0, 1.0, 1.5, -3, True, "half"])
def test_a_wrong_keep_is_refused(place: Path, folders: dict[str, Path], keep: Any) -> None:
    chain = {"tiers": [{"model": str(folders["fast"]), "keep": keep}]}
    path = write_config(place, folders["full"], cascade=chain, output=str(place / "wrong"))
    with pytest.raises(Failure, match=r"cascade\.tiers\.0\.keep"):
        config.load(path)


def test_a_tier_must_predict_what_ranks_and_be_another_ensemble(
    place: Path, folders: dict[str, Path], zoo: Path
) -> None:
    reasons = {
        zoo / "tc-graphs": "predicts tc (K); a tier must predict what ranks",
        folders["full"]: "has the weights of",
        place / "nowhere": "not found",
    }
    for tier, reason in reasons.items():
        chain = {"tiers": [{"model": str(tier), "keep": 9}]}
        path = write_config(place, folders["full"], cascade=chain, output=str(place / "wrong"))
        with pytest.raises((Failure, FileNotFoundError)) as caught:
            plan.make(config.load(path))
        assert reason in str(caught.value)
        failure = explain(caught.value)
        assert failure is not None
        assert failure.code is Exit.CONFIG


def test_a_cascade_of_fewer_survivors_than_are_looked_for_says_so() -> None:
    sample = Sample(np.arange(3.0), np.array([0.0]), np.array([0.5]), np.zeros(100))
    found = Cascade([], 3, 4, 1, 101, estimate(sample, 50), [])
    text = " ".join(tiers_of.lines(found, "full"))
    assert "Only 3 crystals survived, fewer than the best 50 that are looked for" in text
    assert "crystals missed" not in text
    assert "audited crystals reach" not in text


def test_a_cascade_takes_no_objectives_and_says_what_to_do_instead(place: Path, folders: dict[str, Path]) -> None:
    rank = {"objectives": [{"property": "formation_energy", "order": "ascending"}, {"property": "nsites"}]}
    path = write_config(place, folders["full"], cascade=tiers(folders), rank=rank, output=str(place / "wrong"))
    with pytest.raises(Failure, match=r"cuts away what is good in the others; .* or .* filters\.predicted") as caught:
        plan.make(config.load(path))
    assert caught.value.code is Exit.CONFIG


# What a defect of the program would leave.


def again(ledger: Ledger, record: Record, **keys: Any) -> None:
    content = {name: getattr(record, name) for name in ("files", "counts", "detail")} | keys
    ledger.record(record.kind, record.key, content["files"], content["counts"], content["detail"])


def somebody_else_survived(ledger: Ledger) -> None:
    record = ledger.all("selection")[-1]
    chunk = record.detail["chunks"][-1]
    content = ledger.read(record, chunk["path"])
    listed = set(cascade.members(ledger, 2).tolist())
    first = ledger.all("chunks")[0]
    other = next(
        row for row in ledger.read(first, first.detail["chunks"][0]["path"]).to_pylist() if row["id"] not in listed
    )
    changed = pa.Table.from_pylist([*content.to_pylist()[:-1], {**other, "audit": False}], schema=content.schema)
    path = ledger.folder / chunk["path"]
    again(ledger, record, files={**record.files, chunk["path"]: table.write(changed, path)})


def a_survivor_too_few(ledger: Ledger) -> None:
    record = ledger.all("selection")[0]
    again(ledger, record, counts={**record.counts, "survivors": 29})


def another_draw(ledger: Ledger) -> None:
    record = ledger.all("selection")[-1]
    again(ledger, record, detail={**record.detail, "cut": {**record.detail["cut"], "seed": 4}})


def other_marks(ledger: Ledger) -> None:
    record = ledger.all("selection")[-1]
    files = dict(record.files)
    for path in files:
        content = ledger.read(record, path)
        marks = pa.array([not mark for mark in content["audit"].to_pylist()])
        content = content.set_column(content.column_names.index("audit"), "audit", marks)
        files[path] = table.write(content, ledger.folder / path)
    again(ledger, record, files=files)


@pytest.mark.parametrize(
    ("defect", "sign"),
    [
        (somebody_else_survived, "is not named for its content"),
        (a_survivor_too_few, "has other counts"),
        (another_draw, "names other crystals for tier 2"),
        (other_marks, "marks other crystals for the audit"),
    ],
)
def test_a_wrong_selection_is_found(done: Plan, tmp_path: Path, defect: Callable[[Ledger], None], sign: str) -> None:
    shutil.copytree(done.folder, tmp_path / "out")
    ledger = Ledger(tmp_path / "out")
    ranked = ledger.all("ranked")[0]
    defect(ledger)
    ledger.record("ranked", "all", ranked.files, ranked.counts)
    assert sign in "\n".join(verify.lines(verify.check(tmp_path / "out")))


def test_a_crystal_ranked_before_one_that_came_farther_is_found(done: Plan, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(done.folder, folder)
    ledger = Ledger(folder)
    record = ledger.all("ranked")[0]
    content = table.read(folder / "candidates.parquet")
    mixed = content.take([*range(30, content.num_rows), *range(30)]).set_column(0, "rank", content["rank"])
    files = {**record.files, "candidates.parquet": table.write(mixed, folder / "candidates.parquet")}
    ledger.record("ranked", "all", files, record.counts)
    lines = "\n".join(verify.lines(verify.check(folder)))
    assert "does not rank what the last tier scored before what it did not" in lines
