"""Columns of several files: joined as Arrow joins them, or refused by name before anything is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from assay.models.ensemble.ensemble import Ensemble
from assay.screening.campaign import plan
from assay.screening.settings import config as settings
from assay.screening.settings.exits import Exit, Failure
from assay.sources import table
from assay.sources.crystals import Crystals
from tests.screening import small_campaign

FLAGS, TEXTS, NULLS = pa.array([True, False]), pa.array(["a", "b"]), pa.nulls(2)
TOGETHER = {
    "a flag and a flag with a null": (FLAGS, pa.array([None, True]), pa.bool_(), [True, False, None, True]),
    "a flag and nulls": (FLAGS, NULLS, pa.bool_(), [True, False, None, None]),
    "nulls and a flag": (NULLS, FLAGS, pa.bool_(), [None, None, True, False]),
    "a text and nulls": (TEXTS, NULLS, pa.string(), ["a", "b", None, None]),
    "a text and numbers without a value": (TEXTS, pa.nulls(2, pa.float64()), pa.string(), ["a", "b", None, None]),
    "integers and floats": (pa.array([1, 2]), pa.array([0.5, 1.5]), pa.float64(), [1.0, 2.0, 0.5, 1.5]),
    "a narrow integer and a float": (
        pa.array([1, 2], pa.int8()),
        pa.array([0.5, 1.5], pa.float32()),
        pa.float32(),
        [1.0, 2.0, 0.5, 1.5],
    ),
}
APART = {
    "a number and a text": (pa.array([1.0, 2.0]), TEXTS),
    "a flag and a number": (FLAGS, pa.array([1, 2])),
    "lists of two lengths": (
        pa.array([[1.0, 2.0]] * 2, pa.list_(pa.float64(), 2)),
        pa.array([[1.0, 2.0, 3.0]] * 2, pa.list_(pa.float64(), 3)),
    ),
}


def config(folder: Path, model: Path, crystals: Crystals, columns: tuple[Any, ...], way: str) -> Path:
    """A campaign over two files of two crystals each, which have a column called `stable`."""
    (folder / "in").mkdir()
    files = [folder / "in" / f"{name}.parquet" for name in "ab"]
    for number, (file, column) in enumerate(zip(files, columns, strict=True)):
        part = table.to_table(crystals[2 * number : 2 * number + 2])
        table.write(part.append_column("stable", column), file)
    names = [str(file) for file in files]
    groups = {"paths": [names], "sources": [[name] for name in names], "folder": [[str(folder / "in")]]}[way]
    sources = [{"kind": "files", "paths": group, "name": f"s{n}"} for n, group in enumerate(groups)]
    return small_campaign.write_config(folder, model, sources=sources)


@pytest.fixture(scope="module")
def loaded(model: Path) -> list[Ensemble]:
    return plan.load_ensembles([str(model)])


@pytest.mark.parametrize("way", ["paths", "sources", "folder"])
@pytest.mark.parametrize("case", TOGETHER)
def test_columns_are_joined_as_arrow_does(
    case: str, way: str, tmp_path: Path, model: Path, real: Crystals, loaded: list[Ensemble]
) -> None:
    *columns, kind, values = TOGETHER[case]
    planned = small_campaign.make(config(tmp_path, model, real, tuple(columns), way), loaded)
    plan.check_sources(planned.campaign)
    assert small_campaign.run(planned).code == Exit.DONE
    candidates = table.read(planned.folder / "candidates.parquet")
    found = dict(zip(candidates["id"].to_pylist(), candidates["stable"].to_pylist(), strict=True))
    assert candidates["stable"].type == kind or (kind == pa.float32() and candidates["stable"].type == pa.float64())
    assert [found[name] or None for name in real[:4].ids.tolist()] == [value or None for value in values]


@pytest.mark.parametrize("way", ["paths", "sources", "folder"])
@pytest.mark.parametrize("case", APART)
def test_columns_that_differ_are_refused_with_both_files(
    case: str, way: str, tmp_path: Path, model: Path, real: Crystals
) -> None:
    path = config(tmp_path, model, real, APART[case], way)
    with pytest.raises(Failure, match=r"'stable' .*a\.parquet.*b\.parquet") as caught:
        plan.check_sources(settings.load(path))
    assert caught.value.code == Exit.CONFIG
    assert not (tmp_path / "out").exists()


def test_a_flag_with_a_null_stays_a_flag(real: Crystals) -> None:
    content = table.to_table(real[:3]).append_column("stable", pa.array([True, None, False]))
    crystals, _ = table.from_table(content, "memory")
    assert table.to_table(crystals)["stable"].to_pylist() == [True, None, False]
