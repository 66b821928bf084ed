"""Columns of several files: joined as Arrow joins them, or refused by name before anything is scored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from assay.models.ensemble.ensemble import Ensemble
from assay.screening.campaign import plan
from assay.screening.pulling.kinds.files import FileSource
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


def frame(value: str) -> str:
    return f'1\nLattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3 {value}\nFe 0 0 0\n'


def document(value: str) -> str:
    cell = {"matrix": [[3, 0, 0], [0, 3, 0], [0, 0, 3]]}
    atom = {"species": [{"element": "Fe", "occu": 1}], "abc": [0, 0, 0], "xyz": [0, 0, 0], "label": "Fe"}
    stated = json.loads(value.removeprefix("tc=")) if value else None
    return json.dumps([{"structure": {"@class": "Structure", "lattice": cell, "sites": [atom]}, "tc": stated}])


def read(folder: Path, way: str, ending: str, *texts: str) -> list[Any]:
    """The column `tc` of files with these contents, read as a campaign does."""
    (folder / "in").mkdir()
    names = [str(folder / "in" / f"{name}.{ending}") for name in "abc"[: len(texts)]]
    for name, text in zip(names, texts, strict=True):
        Path(name).write_text(text)
    source = FileSource(kind="files", paths=[str(folder / "in")] if way == "folder" else names)
    return [value for crystals, bad in source.read() if not bad for value in crystals.columns["tc"].tolist()]


@pytest.mark.parametrize("way", ["folder", "paths"])
@pytest.mark.parametrize(("ending", "made"), [("extxyz", frame), ("json", document)])
@pytest.mark.parametrize("values", [("tc=39.5", 'tc="high"'), ('tc="high"', "tc=39.5")])
def test_a_number_in_one_file_and_a_text_in_another_are_refused(
    tmp_path: Path, way: str, ending: str, made: Callable[[str], str], values: tuple[str, str]
) -> None:
    kinds = r"a number in .*a\.\w+ and a text in .*b\.", r"a text in .*a\.\w+ and a number in .*b\."
    told = kinds[values[0] != "tc=39.5"]
    with pytest.raises(Failure, match=f"column 'tc' holds {told}.*; give it one type") as caught:
        read(tmp_path, way, ending, *map(made, values))
    assert caught.value.code == Exit.CONFIG


def test_a_file_of_numbers_and_texts_is_one_of_texts(tmp_path: Path) -> None:
    both = frame("tc=39.5") + frame('tc="high"')
    assert read(tmp_path, "folder", "extxyz", both, frame('tc="low"')) == ["39.5", "high", "low"]
    (tmp_path / "again").mkdir()
    with pytest.raises(Failure, match="column 'tc' holds a text in .* and a number in"):
        read(tmp_path / "again", "paths", "extxyz", both, frame("tc=1.5"))


def test_a_missing_value_goes_with_everything(tmp_path: Path) -> None:
    assert read(tmp_path, "folder", "json", document(""), document('tc="high"')) == ["", "high"]
