"""Changed input is new input: the folder of a campaign over other files is refused, with what changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from assay.models.ensemble import stored
from assay.models.ensemble.ensemble import Ensemble
from assay.screening.audit import audit
from assay.screening.campaign import drive, plan
from assay.screening.campaign.plan import Plan
from assay.screening.settings.exits import Exit, Failure
from assay.sources import table
from assay.sources.crystals import Crystals
from tests.screening import small_campaign


@pytest.fixture(scope="module")
def loaded(model: Path) -> list[Ensemble]:
    return plan.load_ensembles([str(model)])


@pytest.fixture
def finished(tmp_path: Path, model: Path, real: Crystals, loaded: list[Ensemble]) -> Plan:
    """A campaign over a table and a folder of two more; its files are in `in`."""
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for number, name in enumerate(("a", "deep/b", "deep/c")):
        table.write(table.to_table(real[3 * number : 3 * number + 3]), tmp_path / "in" / f"{name}.parquet")
    paths = [str(tmp_path / "in" / "a.parquet"), str(tmp_path / "in" / "deep")]
    sources = [{"kind": "files", "paths": paths, "name": "s"}]
    planned = small_campaign.make(small_campaign.write_config(tmp_path, model, sources=sources), loaded)
    small_campaign.run(planned)
    return planned


def append(files: Path) -> None:
    content = table.read(files / "a.parquet")
    names = pa.array([f"more/{row}" for row in range(content.num_rows)], pa.string())
    table.write(pa.concat_tables([content, content.set_column(0, "id", names)]), files / "a.parquet")


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "rows appended": (append, r"content\.s\.0\.a\.parquet: was [0-9a-f]{16}, now [0-9a-f]{16}\)"),
    "another file of the same name": (
        lambda files: shutil.copy(files / "deep" / "b.parquet", files / "a.parquet"),
        r"content\.s\.0\.a\.parquet: was [0-9a-f]{16}, now [0-9a-f]{16}\)",
    ),
    "a file deleted": (
        lambda files: (files / "a.parquet").unlink(),
        r"content\.s\.0\.a\.parquet: was [0-9a-f]{16}, now absent\)",
    ),
    "a file of a folder deleted": (
        lambda files: (files / "deep" / "c.parquet").unlink(),
        r"content\.s\.1\.deep/c\.parquet: was [0-9a-f]{16}, now absent\)",
    ),
    "a file added to a folder": (
        lambda files: shutil.copy(files / "a.parquet", files / "deep" / "d.parquet"),
        r"content\.s\.1\.deep/d\.parquet: was absent, now [0-9a-f]{16}\)",
    ),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_folder_over_other_files_is_refused(case: str, tmp_path: Path, finished: Plan) -> None:
    change, said = CHANGES[case]
    change(tmp_path / "in")
    with pytest.raises(Failure, match=rf"holds another campaign \({said}; put the old files back") as caught:
        small_campaign.run(finished)
    assert caught.value.code is Exit.CONFIG
    assert drive.rerank(finished).code is Exit.DONE  # the folder has all that a ranking needs


def test_files_that_moved_are_the_same_input(
    tmp_path: Path, finished: Plan, model: Path, loaded: list[Ensemble]
) -> None:
    shutil.move(tmp_path / "in", tmp_path / "there")
    paths = [str(tmp_path / "there" / "a.parquet"), str(tmp_path / "there" / "deep")]
    sources = [{"kind": "files", "paths": paths, "name": "s"}]
    moved = small_campaign.make(small_campaign.write_config(tmp_path, model, sources=sources), loaded)
    assert small_campaign.run(moved).code is Exit.DONE


def test_an_audit_says_which_files_changed_and_which_are_gone(tmp_path: Path, finished: Plan) -> None:
    found = audit.check(finished.folder)
    assert found.problems == []
    (tmp_path / "in" / "a.parquet").unlink()
    shutil.copy(tmp_path / "in" / "deep" / "b.parquet", tmp_path / "in" / "deep" / "c.parquet")
    found = audit.check(finished.folder)
    assert [str(problem) for problem in found.problems if "content.s.1.deep/c.parquet: was" in str(problem)]
    assert [note for note in found.notes if "1 source files are not here" in note]


@pytest.fixture
def mine(tmp_path: Path, loaded: list[Ensemble], zoo: Path) -> Path:
    """An ensemble for band gaps with the name of `model`."""
    mine = tmp_path / "mine"
    shutil.copytree(zoo / "band-gap", mine)
    described = json.loads((mine / "ensemble.json").read_text())
    (mine / "ensemble.json").write_text(json.dumps(described | {"name": loaded[0].name}))
    stored.seal(mine)
    return mine


def test_two_ensembles_of_one_name_are_both_in_the_fingerprint(tmp_path: Path, model: Path, mine: Path) -> None:
    models = [str(model), str(mine)]
    first, second = plan.load_ensembles(models)
    path = small_campaign.write_config(tmp_path, model, models=models, rank={"property": "band_gap"})
    planned = small_campaign.make(path, [first, second])
    assert planned.fingerprint["models"] == f"{first.name},{second.name}" == f"{first.name},{first.name}-2"
    for one in (first, second):
        assert planned.fingerprint[f"models.{one.name}.weights"] == ",".join(found[:16] for found in one.sha256)
    assert planned.target.model == second.name


def test_the_second_of_one_name_keeps_its_name_where_the_first_is_gone(
    tmp_path: Path, model: Path, mine: Path, real: Crystals
) -> None:
    small_campaign.write_sources(tmp_path, real)
    config = small_campaign.write_config(tmp_path, model, models=[str(mine), str(model)])
    planned = small_campaign.make(config, plan.load_ensembles([str(mine), str(model)]))
    small_campaign.run(planned)
    shutil.rmtree(mine)
    found = audit.check(planned.folder)
    assert [str(problem) for problem in found.problems] == []
    assert [note for note in found.notes if "mine is not on this machine" in note]
