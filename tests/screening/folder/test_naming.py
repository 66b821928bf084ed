"""A row is a duplicate only if it is the same crystal: no crystal is lost to an id that another one has."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from assay.models.ensemble.ensemble import Ensemble
from assay.screening.campaign import plan
from assay.screening.folder import balance, naming, snapshot
from assay.screening.folder.ledger import Ledger
from assay.screening.folder.naming import Taken
from assay.screening.settings.exits import Exit, Failure, explain
from assay.sources import table
from assay.sources.crystals import Crystals
from assay.sources.quarantine import Quarantined, Reason, Stage
from tests.screening import small_campaign
from tests.screening.small_campaign import OUTPUTS, digests

SAME: dict[str, dict[str, Any]] = {"off": {"identity": False}, "merge": {"identity": True}}


@pytest.fixture(scope="module")
def loaded(model: Path) -> list[Ensemble]:
    return plan.load_ensembles([str(model)])


def numbered(crystals: Crystals) -> pa.Table:
    """Crystals whose ids are the numbers of their rows, as pandas writes them."""
    names = pa.array([str(row) for row in range(len(crystals))], pa.string())
    return table.to_table(crystals).set_column(0, "id", names)


def campaign(folder: Path, model: Path, groups: list[list[Path]], **keys: Any) -> Path:
    sources = [{"kind": "files", "paths": [*map(str, group)], "name": f"s{n}"} for n, group in enumerate(groups)]
    return small_campaign.write_config(folder, model, sources=sources, chunk_size=8, max_bad=1.0, **keys)


@pytest.mark.parametrize("way", ["paths", "sources"])
@pytest.mark.parametrize("same", ["off", "merge"])
def test_crystals_with_one_id_are_all_scored(
    way: str, same: str, tmp_path: Path, model: Path, real: Crystals, loaded: list[Ensemble]
) -> None:
    files = [tmp_path / f"{name}.parquet" for name in "abc"]
    for file, part in zip(files, (real[:20], real[20:40], real[20:40]), strict=True):  # c is a copy of b
        table.write(numbered(part), file)
    groups = [files] if way == "paths" else [[file] for file in files]
    planned = small_campaign.make(campaign(tmp_path, model, groups, **SAME[same]), loaded)
    assert small_campaign.run(planned).code == Exit.DONE
    counted = balance.take(Ledger(planned.folder))
    assert (counted.received, counted.duplicate, counted.scored) == (60, 20, 40)
    rows = table.read(planned.folder / "candidates.parquet").to_pydict()
    assert sorted(rows["id"]) == sorted([*map(str, range(20)), *(f"{row}~2" for row in range(20))])
    formulas = dict(zip(rows["id"], rows["formula"], strict=True))
    assert [formulas[f"{row}~2"] for row in range(20)] == real[20:40].formulas().tolist()
    said = dict(zip(rows["id"], rows["warnings"], strict=True))
    assert said["7"] == ""
    assert said["7~2"] == "another crystal is called '7', too"


def _used_up(left: list[bool]) -> bool:
    return not (left and left.pop())


def test_stopped_and_run_again_gives_the_same_names(
    tmp_path: Path, model: Path, real: Crystals, loaded: list[Ensemble]
) -> None:
    files = [tmp_path / f"{name}.parquet" for name in "ab"]
    for file, part in zip(files, (real[:20], real[20:40]), strict=True):
        table.write(numbered(part), file)
    whole = small_campaign.make(campaign(tmp_path, model, [files]), loaded)
    small_campaign.run(whole)
    again = small_campaign.make(campaign(tmp_path, model, [files], output=str(tmp_path / "again")), loaded)
    stops = 0
    for steps in count(2, 3):
        left = [True] * steps
        try:
            small_campaign.run(again, partial(_used_up, left))
            break
        except Failure as failure:
            if failure.code is not Exit.STOPPED:
                raise
            stops += 1
    assert stops > 1
    first, second = digests(whole.folder), digests(again.folder)
    assert [first[name] for name in OUTPUTS[:3]] == [second[name] for name in OUTPUTS[:3]]


def test_reported_columns_do_not_make_another_crystal(real: Crystals) -> None:
    content = table.to_table(real[:3])
    first = content.append_column("gap", pa.array([1.0, 2.0, 3.0]))
    taken = Taken()
    assert naming.named(first, taken).num_rows == 3
    assert naming.named(content.append_column("gap", pa.array([1.0, 2.0, 4.0])), taken).num_rows == 0


def test_an_id_that_is_taken_by_a_new_name_gets_another_one(real: Crystals) -> None:
    taken = Taken()
    names = []
    for row, name in enumerate(["a", "a", "a~2", "a"]):
        content = table.to_table(real[row : row + 1]).set_column(0, "id", pa.array([name], pa.string()))
        names += naming.named(content, taken)["id"].to_pylist()
    assert names == ["a", "a~2", "a~2~2", "a~3"]


def test_a_moved_atom_is_another_crystal(real: Crystals) -> None:
    moved = Crystals(
        real.ids[:3], real.lattice[:3], real[:3].site_ptr, np.nextafter(real[:3].frac, 0.5), real[:3].species_ptr,
        real[:3].numbers, real[:3].occupancy,
    )  # fmt: skip
    assert naming.digests(table.to_table(real[:3])) == naming.digests(table.to_table(real[:3]).slice(0))
    assert not set(naming.digests(table.to_table(real[:3]))) & set(naming.digests(table.to_table(moved)))


def test_every_refused_row_is_quarantined_once() -> None:
    def bad(origin: str) -> Quarantined:
        return Quarantined("file/POSCAR", origin, Stage.PULL, Reason.MALFORMED, "no")

    taken = Taken()
    assert len(taken.refuse([bad("one/POSCAR"), bad("one/POSCAR")])) == 2
    assert len(taken.refuse([bad("two/POSCAR")])) == 1
    assert len(taken.refuse([bad("one/POSCAR"), bad("one/POSCAR")])) == 0
    assert len(taken.refuse([bad("https://x/?page=1")])) == 1
    assert len(taken.refuse([bad("https://x/?page=2")])) == 0


def test_refused_files_whose_names_are_cut_or_squeezed_are_all_quarantined(
    tmp_path: Path, model: Path, real: Crystals, loaded: list[Ensemble]
) -> None:
    table.write(table.to_table(real[:2]), tmp_path / "good.parquet")
    deep = tmp_path.joinpath(*["x" * 200] * 3)
    deep.mkdir(parents=True)
    bad = [deep / f"{number}.cif" for number in range(3)] + [tmp_path / "b  c.cif", tmp_path / "b c.cif"]
    for file in bad:
        file.write_text("data_x\n")
    groups = [[tmp_path / "good.parquet", tmp_path / ("x" * 200), *bad[3:]]]
    planned = small_campaign.make(campaign(tmp_path, model, groups), loaded)
    small_campaign.run(planned)
    counted = balance.take(Ledger(planned.folder))
    assert (counted.received, counted.duplicate, counted.quarantined) == (7, 0, 5)
    assert len({row.id for row in snapshot.quarantined(Ledger(planned.folder))}) == 5


GROWTH = """
import resource
from assay.screening.folder import naming
naming.CACHED, peaks = 1024, []
known = naming.Digests()
for block in range(100):
    known.add({naming.digest(f"{block}/{row}"): row for row in range(2048)})
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[-1] - peaks[29])
"""


def test_memory_does_not_grow_with_the_ids_that_came_before() -> None:
    ended = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(ended.stdout) * unit < 2**20  # 143,360 ids more, 4.8 MB of them


def test_a_full_folder_for_temporary_files_is_a_full_disk() -> None:
    known = naming.Digests()
    known._file.execute("PRAGMA max_page_count = 8")
    with pytest.raises(OSError, match="disk is full, in the folder for temporary files.*TMPDIR names it") as raised:
        known.add({naming.digest(str(k)): k for k in range(5000)})
    failure = explain(raised.value)
    assert failure is not None
    assert failure.code == Exit.DISK


def test_digests_are_found_with_their_numbers_and_counted_once() -> None:
    known, numbers = naming.Digests(), {naming.digest(str(k)): k * 2**40 - 2**62 for k in range(5000)}
    assert known.add(numbers) == 5000
    assert known.add({**dict.fromkeys(list(numbers)[:3], 7), naming.digest("new"): 8}) == 1
    asked = [*list(numbers)[::7], naming.digest("none")]
    assert known.find(asked) == {one: numbers[one] for one in asked[:-1]}
    assert known.find([naming.digest("new")]) == {naming.digest("new"): 8}


def test_crystals_of_one_id_are_named_without_a_search_from_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, find = [], naming.Digests.find
    monkeypatch.setattr(naming.Digests, "find", lambda self, wanted: asked.append(1) or find(self, wanted))
    taken, names = Taken(), []
    for shard in range(4):
        names += taken.names(["POSCAR"] * 50, range(50 * shard, 50 * shard + 50))
    assert names == ["POSCAR", *(f"POSCAR~{number}" for number in range(2, 201))]
    assert len(asked) < 300
    assert taken.names(["POSCAR~201", "POSCAR"], [1000, 1001]) == ["POSCAR~201", "POSCAR~202"]
