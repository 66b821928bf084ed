"""`assay verify`: everything that is wrong, one line each; what was never written as it should be is found too."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from assay.models.ensemble import stored
from assay.screening.audit import audit
from assay.screening.audit.audit import Findings
from assay.screening.audit.outputs import Ids, Rows
from assay.screening.campaign import identify
from assay.screening.campaign.plan import Plan
from assay.screening.folder import lock, stamp
from assay.screening.folder.ledger import Ledger, Record
from assay.screening.settings.exits import Exit, Failure
from assay.sources import durable, table
from assay.sources.crystals import Crystals
from tests.screening import small_campaign
from tests.screening.small_campaign import flip


@pytest.fixture(scope="module")
def planned(real: Crystals, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return small_campaign.finish(tmp_path_factory.mktemp("verify"), real, model)


@pytest.fixture
def folder(planned: Plan, tmp_path: Path) -> Path:
    """A copy of a finished campaign, to be damaged."""
    shutil.copytree(planned.folder, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def check(folder: Path, planned: Plan) -> Callable[[], Findings]:
    return lambda: audit.check(folder, lambda _: planned.ensembles)


def text(findings: Findings) -> str:
    return "\n".join(audit.lines(findings))


def only(record: Record) -> str:
    (name,) = record.files
    return name


def test_an_untouched_campaign_is_intact(check: Callable[[], Findings]) -> None:
    findings = check()
    assert findings.code is Exit.DONE
    assert (findings.problems, findings.notes, findings.litter) == ([], [], [])
    assert findings.crystals == small_campaign.SIZE - small_campaign.BAD
    assert text(findings).startswith("intact: ")


def test_a_quick_look_compares_digests_and_counts(folder: Path, check: Callable[[], Findings]) -> None:
    whole, found = check(), audit.quick(folder)
    assert (found.code, found.problems, found.litter) == (Exit.DONE, [], [])
    assert (found.records, found.files, found.crystals) == (whole.records, whole.files, whole.crystals)
    fingerprints = min((folder / "identity" / "fingerprint").rglob("*.parquet"))
    bad = [min((folder / "parts").iterdir()), fingerprints, folder / "candidates.parquet"]
    for path in bad:
        flip(path)
    lost = max((folder / "snapshot" / "chunks").iterdir())
    lost.unlink()
    found = audit.quick(folder)
    assert found.code is Exit.DISK
    assert sorted(str(problem).split(" ")[0] for problem in found.problems) == sorted(map(str, [*bad, lost]))


def test_a_quick_look_finds_a_balance_that_does_not_add_up(folder: Path) -> None:
    ledger = Ledger(folder)
    (record, *_) = ledger.all("part")
    tables = {name: ledger.read(record, name) for name in record.files}
    ledger.commit("part", record.key, tables, {**record.counts, "scored": record.counts["scored"] + 1})
    assert Exit.BALANCE_BROKEN in {problem.code for problem in audit.quick(folder).problems}


def test_every_problem_is_told_with_its_path_and_what_to_do(folder: Path, check: Callable[[], Findings]) -> None:
    part = min((folder / "parts").iterdir())
    chunk = max((folder / "snapshot" / "chunks").iterdir())
    flip(part)
    chunk.unlink()
    flip(folder / "report.html")
    (folder / "snapshot" / "chunks" / "0123456789abcdef.parquet").write_bytes(b"half a page")
    for foreign in (
        "notes.txt",
        ".notes.tmp",
        "mine.parquet",
        "snapshot/notes.txt",
        "snapshot/stray.parquet",
        "log/notes.txt",
        "figures/a.parquet",
    ):
        (folder / foreign).parent.mkdir(exist_ok=True)
        (folder / foreign).touch()
    findings = check()
    assert findings.code is Exit.DISK
    assert len(findings.problems) == 3
    for path, remedy in ((part, "backup"), (chunk, "backup"), (folder / "report.html", "assay report")):
        (line,) = [line for line in text(findings).splitlines() if str(path) in line]
        assert remedy in line
    assert findings.litter == ["snapshot/chunks/0123456789abcdef.parquet"]
    others = [".notes.tmp", "figures/", "log/notes.txt", "mine.parquet", "notes.txt", "snapshot/notes.txt"]
    assert sorted(findings.foreign) == [*others, "snapshot/stray.parquet"]
    (told,) = [line for line in text(findings).splitlines() if "mine.parquet" in line]
    assert told == "foreign: mine.parquet is no file of this campaign; Assay neither reads nor deletes it"
    assert text(findings).splitlines()[-1].startswith("3 problems in ")


def test_a_damaged_log_does_not_hide_damaged_files(folder: Path, check: Callable[[], Findings]) -> None:
    log = sorted((folder / "log").iterdir())
    flip(log[3])
    log[7].unlink()
    flip(min((folder / "parts").iterdir()))
    findings = check()
    assert findings.code is Exit.DISK
    for word in ("00000003.json does not", "00000008.json stands at position 7", "has sha256"):
        assert word in text(findings)
    assert "which files it does not name cannot be said" in text(findings)
    assert findings.litter == []  # a file that the lost record names is none


def test_exchanged_records_are_told_at_both_places(folder: Path, check: Callable[[], Findings]) -> None:
    one, other = folder / "log" / "00000004.json", folder / "log" / "00000005.json"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    assert "00000004.json holds record 5" in text(check())
    assert "00000005.json holds record 4" in text(check())


@pytest.mark.parametrize("name", ["fingerprint.json", "config.resolved.yaml"])
def test_what_the_campaign_was_made_with_must_be_there(folder: Path, check: Callable[[], Findings], name: str) -> None:
    (folder / name).unlink()
    findings = check()
    assert findings.code is Exit.DISK
    assert name in text(findings)


def test_a_campaign_that_lost_its_fingerprint_does_not_take_another_one(folder: Path) -> None:
    (folder / "fingerprint.json").unlink()
    with pytest.raises(Failure, match="fingerprint.json is gone") as caught:
        stamp.check_fingerprint(folder, {"any": "thing"})
    assert caught.value.code is Exit.DISK


def test_other_settings_are_told_old_and_new(folder: Path, check: Callable[[], Findings]) -> None:
    path = folder / "config.resolved.yaml"
    path.write_text(path.read_text().replace("chunk_size: 16", "chunk_size: 17").replace("by: mean", "by: lower"))
    findings = check()
    assert findings.code is Exit.CONFIG
    assert "chunk_size: was 16, now 17" in text(findings)
    assert "says rank.by: lower, the outputs were made with mean" in text(findings)


def test_facts_of_the_model_belong_to_the_fingerprint(folder: Path, model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    path = folder / "config.resolved.yaml"
    path.write_text(path.read_text().replace(str(model), str(copy)))
    assert audit.check(folder).code is Exit.DONE
    described = json.loads((copy / "ensemble.json").read_text())
    described["note"] = "another story"
    (copy / "ensemble.json").write_text(json.dumps(described))
    stored.seal(copy)
    findings = audit.check(folder)
    assert findings.code is Exit.CONFIG
    assert [".files: was" in str(problem) for problem in findings.problems] == [True]


def test_a_bundled_model_is_found_by_its_name(folder: Path, model: Path, zoo: Path) -> None:
    path = folder / "config.resolved.yaml"
    path.write_text(path.read_text().replace(str(model), "formation-energy"))
    assert model == zoo / "formation-energy"
    findings = audit.check(folder)
    assert (findings.problems, findings.notes) == ([], [])


def test_a_model_that_is_elsewhere_is_no_problem(folder: Path, model: Path) -> None:
    path = folder / "config.resolved.yaml"
    path.write_text(path.read_text().replace(str(model), "not/here"))
    findings = audit.check(folder)
    assert findings.code is Exit.DONE
    assert "model folder not/here is not on this machine" in text(findings)


def test_a_damaged_model_is_told(folder: Path, model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    path = folder / "config.resolved.yaml"
    path.write_text(path.read_text().replace(str(model), str(copy)))
    flip(copy / "member-1" / "weights.safetensors")
    findings = audit.check(folder)
    assert findings.code is Exit.CONFIG
    assert str(copy / "member-1" / "weights.safetensors") in text(findings)


def test_a_running_campaign_is_read_as_far_as_it_is(folder: Path, check: Callable[[], Findings]) -> None:
    flip(folder / "report.html")
    with lock.held(folder):
        findings = check()
    assert findings.code is Exit.DONE
    assert "a campaign is running here" in text(findings)


@pytest.mark.parametrize(("name", "why"), [("nothing", "does not exist"), ("empty", "no campaign folder")])
def test_other_folders_are_refused(tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "empty" / "log").mkdir(parents=True)
    with pytest.raises(Failure, match=why) as caught:
        audit.check(tmp_path / name)
    assert caught.value.code is Exit.CONFIG


def test_a_folder_of_another_version_is_refused(folder: Path) -> None:
    before = stamp.read_fingerprint(folder)
    durable.write(folder / "fingerprint.json", durable.canonical({**before, "format": "1"}))
    with pytest.raises(Failure, match="layout 1") as caught:
        audit.check(folder)
    assert caught.value.code is Exit.CONFIG


# What a defect of the program would leave: every file is as it was written, and still it is wrong.


def again(ledger: Ledger, record: Record, name: str, content: pa.Table, **counts: int) -> None:
    """Commit a record again with one of its tables replaced."""
    files = {**record.files, name: table.write(content, ledger.folder / name)}
    ledger.record(record.kind, record.key, files, {**record.counts, **counts}, record.detail)


def committed(ledger: Ledger, kind: str, which: int = 0) -> Record:
    return ledger.all(kind)[which]


def scored_twice(ledger: Ledger) -> None:
    record = committed(ledger, "part")
    ledger.record("part", record.key, record.files, record.counts, record.detail)


def a_part_of_no_chunk(ledger: Ledger) -> None:
    record = committed(ledger, "part")
    ledger.record("part", "0" * 16, record.files, record.counts)


def a_row_too_few(ledger: Ledger) -> None:
    record = committed(ledger, "part")
    again(ledger, record, only(record), ledger.read(record, only(record)).slice(1))


def a_row_lost_and_counted_as_lost(ledger: Ledger) -> None:
    record = committed(ledger, "part")
    again(ledger, record, only(record), ledger.read(record, only(record)).slice(1), scored=record.counts["scored"] - 1)


def the_part_of_another_chunk(ledger: Ledger) -> None:
    one, other = committed(ledger, "part", 0), committed(ledger, "part", 1)
    again(ledger, one, only(one), ledger.read(other, only(other)))


def a_number_in_another_type(ledger: Ledger) -> None:
    record = committed(ledger, "part")
    content = ledger.read(record, only(record))
    place = content.column_names.index("nsites")
    again(ledger, record, only(record), content.set_column(place, "nsites", content["nsites"].cast(pa.int64())))


def a_page_that_delivered_more(ledger: Ledger) -> None:
    record = committed(ledger, "page")
    ledger.record("page", record.key, record.files, {**record.counts, "received": 99}, record.detail)


def a_shard_that_delivered_less(ledger: Ledger) -> None:
    record = committed(ledger, "shard")
    ledger.record("shard", record.key, {}, {**record.counts, "received": 1}, record.detail)


def a_source_with_more_shards(ledger: Ledger) -> None:
    record = committed(ledger, "source")
    ledger.record("source", record.key, {}, {**record.counts, "shards": 9}, record.detail)


def a_chunk_with_other_content(ledger: Ledger) -> None:
    record = committed(ledger, "chunks")
    name = record.detail["chunks"][0]["path"]
    content = ledger.read(record, name)
    ids = [f"x{row:03d}" for row in range(content.num_rows)]
    again(ledger, record, name, content.set_column(0, "id", pa.array(ids)))


def a_crystal_in_two_chunks(ledger: Ledger) -> None:
    first, second = committed(ledger, "chunks", 0), committed(ledger, "chunks", 1)
    one, other = first.detail["chunks"][0], second.detail["chunks"][0]
    again(ledger, second, other["path"], ledger.read(first, one["path"]))


def a_filter_that_took_nothing(ledger: Ledger) -> None:
    record = committed(ledger, "chunks")
    ledger.record("chunks", record.key, record.files, {**record.counts, "filtered": 4}, record.detail)


def two_representatives(ledger: Ledger) -> None:
    _identity(ledger, "representative", lambda values: [True] * len(values))


def a_cluster_torn_apart(ledger: Ledger) -> None:
    content = ledger.read(committed(ledger, "identity"), identify.PATH)
    ids = content["id"].to_pylist()
    _identity(ledger, "cluster_id", lambda _: ids)


def two_clusters_in_one(ledger: Ledger) -> None:
    _identity(ledger, "cluster_id", lambda values: [values[0] if name == values[1] else name for name in values])


def _identity(ledger: Ledger, column: str, change: Callable[[list], list]) -> None:
    record = committed(ledger, "identity")
    content = ledger.read(record, identify.PATH)
    changed = pa.array(change(content[column].to_pylist()), content[column].type)
    again(ledger, record, identify.PATH, content.set_column(content.column_names.index(column), column, changed))


def a_fingerprint_too_many(ledger: Ledger) -> None:
    record = committed(ledger, "fingerprints")
    ledger.record("fingerprints", record.key, record.files, {"rows": record.counts["rows"] + 1})


@pytest.mark.parametrize(
    ("defect", "sign"),
    [
        (scored_twice, "was committed twice"),
        (a_part_of_no_chunk, "belongs to no chunk"),
        (a_row_too_few, "says 16 rows scored, there are 15"),
        (a_row_lost_and_counted_as_lost, "says 16 crystals of chunk"),
        (the_part_of_another_chunk, "holds other crystals than its chunk"),
        (a_number_in_another_type, "is int64, not int32"),
        (a_page_that_delivered_more, "says 99 rows received"),
        (a_shard_that_delivered_less, "says 1 rows received"),
        (a_source_with_more_shards, "says 9 shards"),
        (a_chunk_with_other_content, "is not named for its content"),
        (a_crystal_in_two_chunks, "ids that stand in two chunks"),
        (a_filter_that_took_nothing, "unique = scored + quarantined + filtered + pending"),
        (two_representatives, "has not exactly one representative"),
        (a_cluster_torn_apart, "clusters are not those of the pairs"),
        (two_clusters_in_one, "clusters are not those of the pairs"),
        (a_fingerprint_too_many, "says 37 rows"),
    ],
)
def test_rows_that_were_lost_or_doubled_are_found(
    folder: Path, check: Callable[[], Findings], defect: Callable[[Ledger], None], sign: str
) -> None:
    ledger = Ledger(folder)
    ranked = committed(ledger, "ranked")
    defect(ledger)
    ledger.record("ranked", "all", ranked.files, ranked.counts)  # the outputs still are the newest there is
    findings = check()
    assert findings.code is Exit.BALANCE_BROKEN, text(findings)
    assert sign in text(findings)


def exchanged(content: pa.Table) -> pa.Table:
    rows = np.arange(content.num_rows)
    rows[[3, 4]] = rows[[4, 3]]
    mixed = content.take(rows)
    return mixed.set_column(0, "rank", content["rank"])


def lost(content: pa.Table) -> pa.Table:
    return content.slice(0, content.num_rows - 1)


def doubled(content: pa.Table) -> pa.Table:
    rows = np.arange(content.num_rows)
    rows[-1] = rows[-2]
    return content.take(rows).set_column(0, "rank", content["rank"])


def not_a_number(content: pa.Table) -> pa.Table:
    return _changed(content, "score", float("nan"))


def another_number(content: pa.Table) -> pa.Table:
    name = next(name for name in content.column_names if name.endswith("_hi"))
    return _changed(content, name, 77.0)


def another_chance(content: pa.Table) -> pa.Table:
    chances = content["p_top_k"].to_numpy().copy()
    chances[3] += 0.001
    return content.set_column(content.schema.get_field_index("p_top_k"), "p_top_k", pa.array(chances))


def another_score(content: pa.Table) -> pa.Table:
    return _changed(content, "score", -1e6)


def _changed(content: pa.Table, column: str, value: float) -> pa.Table:
    values = content[column].to_numpy().copy()
    values[-1] = value
    return content.set_column(content.column_names.index(column), column, pa.array(values))


def renumbered(content: pa.Table) -> pa.Table:
    return content.set_column(0, "rank", pa.array(np.arange(content.num_rows, dtype=np.int64)))


@pytest.mark.parametrize(
    ("defect", "sign"),
    [
        (exchanged, "is not in the order of score, "),
        (lost, "do not hold every scored crystal once"),
        (doubled, "do not hold every scored crystal once"),
        (not_a_number, "ranks a number that is not finite"),
        (another_number, "do not hold every scored crystal once, as it was scored"),
        (another_chance, "has a column p_top_k that does not follow"),
        (another_score, "do not follow from its predictions"),
        (renumbered, "does not count its rows from 1"),
    ],
)
def test_a_wrong_ranking_is_found(
    folder: Path, check: Callable[[], Findings], defect: Callable[[pa.Table], pa.Table], sign: str
) -> None:
    ledger = Ledger(folder)
    record = committed(ledger, "ranked")
    name = "candidates.parquet"
    digest = table.write(defect(table.read(folder / name)), folder / name)
    ledger.record("ranked", "all", {**record.files, name: digest}, record.counts)
    findings = check()
    assert findings.code is Exit.BALANCE_BROKEN
    assert sign in text(findings)


def test_rows_are_compared_whatever_their_order() -> None:
    one, other = Rows(), Rows()
    one.add(["a", "b", "b"])
    other.add(["b", "a"])
    assert not one.same(other)
    other.add(["b"])
    assert one.same(other)
    other.add(["c"])
    assert not one.same(other)
    with_values, again = Rows(), Rows()
    with_values.add(["a", "b", "b"], np.array([[1.0], [2.0], [3.0]]))
    assert not with_values.same(one)
    again.add(["b", "b", "a"], np.array([[3.0], [2.0], [1.0]]))
    assert with_values.same(again)


def test_repeated_ids_are_counted() -> None:
    ids = Ids()
    assert ids.doubled() == 0
    ids.add(["a", "b", "b"])
    assert ids.doubled() == 1
    ids.add(["c", "a"])
    assert ids.doubled() == 2
