"""Splits keep related rows on one side, hold out what was asked for, stay what they were, and can be written down."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject, settings, strategies as st
from numpy.typing import NDArray

from assay.models.evaluation import split
from assay.models.evaluation.split import Split, SplitSpec

Keys = dict[str, NDArray[Any]]


def digest(found: Split) -> str:
    rows = "".join(",".join(map(str, part.tolist())) + ";" for part in found.parts())
    return hashlib.sha256(rows.encode()).hexdigest()[:16]


def labels(n: int, seed: int) -> Keys:
    """Labels as a doped dataset has them: a few rows per formula, a few formulas per element set, three families."""
    rng = np.random.default_rng(seed)
    formula = rng.integers(0, max(1, n // 2), n)
    return {
        "row": np.array([f"id/{k}" for k in range(n)]),
        "formula": np.array([f"F{k}" for k in formula]),
        "element-set": np.array([f"E{k // 3}" for k in formula]),
        "family": np.array([f"family {k // 3 % 3}" for k in formula]),
    }


@st.composite
def tasks(draw: st.DrawFn) -> tuple[Keys, SplitSpec]:
    """Labels, and any way to divide them."""
    keys = labels(draw(st.integers(60, 300)), draw(st.integers(0, 99)))
    held: dict[str, Any] = draw(
        st.one_of(
            st.just({}),
            st.builds(lambda k: {"family": f"family {k}"}, st.integers(0, 2)),
            st.builds(lambda k, n: {"kfold": k % n, "kfolds": n}, st.integers(0, 9), st.integers(2, 6)),
        )
    )
    by = draw(st.sampled_from(["element-set", "formula", "row"]))
    return keys, SplitSpec(by=by, folds=draw(st.integers(2, 3)), calibration=0.2, seed=draw(st.integers(0, 9)), **held)


def divided(keys: Keys, spec: SplitSpec) -> Split:
    """The split; where hypothesis drew a group too large for a part, the draw is rejected."""
    try:
        return split.divide(keys, spec)
    except ValueError as error:
        if "has no rows" in str(error) or "groups cannot be divided" in str(error):
            reject()
        raise


@settings(max_examples=150)
@given(tasks(), st.integers(0, 99))
def test_parts_are_disjoint_cover_all_rows_and_hold_whole_groups(task: tuple[Keys, SplitSpec], shuffle: int) -> None:
    keys, spec = task
    found = divided(keys, spec)
    groups = keys[spec.by]
    assert len(found.folds) == spec.folds
    assert sorted(np.concatenate(found.parts()).tolist()) == list(range(len(groups)))
    assert all(len(part) and (np.diff(part) > 0).all() for part in found.parts())
    sets = [set(groups[part].tolist()) for part in found.parts()]
    assert sum(map(len, sets)) == len(
        set(groups.tolist())
    )  # no label in two parts; here no element set has two families
    order = np.random.default_rng(shuffle).permutation(len(groups))
    again = split.divide({name: column[order] for name, column in keys.items()}, spec)
    for part, same in zip(found.parts(), again.parts(), strict=True):
        assert sorted(order[same].tolist()) == part.tolist()


@given(tasks())
def test_a_family_is_held_out_whole_and_alone(task: tuple[Keys, SplitSpec]) -> None:
    keys, spec = task
    found = divided(keys, spec)
    if spec.family is not None:
        assert found.test.tolist() == np.flatnonzero(keys["family"] == spec.family).tolist()


@given(st.integers(100, 300), st.integers(0, 99), st.integers(2, 6), st.sampled_from(["element-set", "formula", "row"]))
def test_k_folds_test_every_row_once(n: int, seed: int, kfolds: int, by: Any) -> None:
    keys = labels(n, seed)
    folds = [divided(keys, SplitSpec(by=by, kfold=k, kfolds=kfolds, folds=2, seed=seed)) for k in range(kfolds)]
    tests = [fold.test for fold in folds]
    assert sorted(np.concatenate(tests).tolist()) == list(range(n))
    largest = np.unique(keys[by], return_counts=True)[1].max()
    assert max(map(len, tests)) - min(map(len, tests)) <= 2 * largest + 1


def test_a_group_inside_and_outside_the_family_is_cut_by_the_test_set_only() -> None:
    keys = labels(300, 0)
    keys["element-set"] = np.where(np.arange(300) < 40, "shared", keys["element-set"])
    spec = SplitSpec(family="family 1", folds=3)
    found = split.divide(keys, spec)
    held = ["shared" in keys["element-set"][part] for part in found.parts()]
    assert held[0]
    assert sum(held) == 2


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (SplitSpec(), "3d30e769c55aa4c2"),
        (SplitSpec(seed=3), "f431f471669f8cb3"),
        (SplitSpec(test=0.2, calibration=0.1, folds=4, seed=7), "dde086d8b25018d9"),
    ],
)
def test_the_splits_of_shipped_models_stay_what_they_were(spec: SplitSpec, expected: str) -> None:
    groups = np.array([f"g{(k * k * 7 + k // 3) % 97}" for k in range(1000)])
    assert digest(split.grouped(groups, spec)) == expected
    assert digest(split.divide({"element-set": groups}, spec)) == expected


@pytest.mark.parametrize(
    ("name", "expected"), [("3dsc-tc", "15102d076861408c"), ("mp-formation-energy", "5a1bef72052b09d6")]
)
def test_the_test_rows_of_shipped_models_stay_what_they_were(name: str, expected: str, data: Path) -> None:
    from assay.sources import table
    from assay.sources.dataset_table import DATASETS

    spec = DATASETS[name]
    stored = table.read(data / spec.path)
    crystals, _ = table.from_table(stored, name)
    crystals = crystals.select(np.isfinite(crystals.columns[spec.target]))
    assert digest(split.grouped(crystals.elements(), SplitSpec())) == expected


def test_parts_have_the_asked_size() -> None:
    groups = np.array([f"g{k}" for k in np.random.default_rng(0).integers(0, 2000, 10_000)])
    found = split.grouped(groups, SplitSpec(test=0.2, calibration=0.1, folds=5))
    assert len(found.test) == pytest.approx(2000, abs=60)
    assert len(found.calibration) == pytest.approx(1000, abs=60)
    assert [len(fold) for fold in found.folds] == pytest.approx([1400] * 5, abs=60)
    tenth = split.divide({"element-set": groups}, SplitSpec(kfold=3, kfolds=10, calibration=0.2))
    assert len(tenth.test) == pytest.approx(1000, abs=60)
    assert len(tenth.calibration) == pytest.approx(1800, abs=60)


def test_each_member_stops_on_its_own_fold() -> None:
    found = split.grouped(np.arange(100).astype(str), SplitSpec(folds=3))
    for k in range(3):
        assert not set(found.train(k)) & set(found.validation(k))
        assert set(found.train(k)) | set(found.validation(k)) == set(found.development())


def test_too_few_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="3 groups cannot be divided into 7 parts"):
        split.grouped(np.array(["a", "b", "c"]), SplitSpec())
    one_large = np.array(["large"] * 1000 + [f"g{k}" for k in range(9)])
    with pytest.raises(ValueError, match=r"a part of the split has no rows \(test, calibration, folds: \["):
        split.divide({"element-set": one_large}, SplitSpec())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"by": "space group"}, "split.by is 'space group', expected one of element-set, formula, row"),
        ({"kfold": 5}, r"split.kfold is 5, expected 0 to 4 \(split.kfolds - 1\)"),
        ({"kfold": -1}, "split.kfold is -1, expected 0 to 4"),
        ({"kfold": 0, "kfolds": 1}, "split.kfolds is 1, expected at least 2"),
        ({"folds": 1}, "split.folds is 1, expected at least 2"),
        ({"test": 0.5}, "split.test is 0.5, expected between 0 and 0.5"),
        ({"kfold": 0, "family": "oxides"}, r"split.family \('oxides'\) and split.kfold \(0\) both choose the test set"),
    ],
)
def test_a_split_that_makes_no_sense_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SplitSpec(**asked)


def test_unknown_labels_and_families_are_refused_with_those_there_are() -> None:
    keys = labels(200, 0)
    with pytest.raises(ValueError, match="'cuprate', expected one of 'family 0', 'family 1', 'family 2'"):
        split.divide(keys, SplitSpec(family="cuprate"))
    del keys["family"]
    with pytest.raises(ValueError, match="'oxides', but these data have no 'family' labels, only element-set, formula"):
        split.divide(keys, SplitSpec(family="oxides"))
    with pytest.raises(ValueError, match="split.by is 'row', but these data have no 'row' labels, only element-set"):
        split.divide({"element-set": keys["element-set"]}, SplitSpec(by="row"))


@given(task=tasks(), shuffle=st.integers(0, 99))
def test_a_split_is_written_alike_for_any_order_of_rows_and_read_back(
    task: tuple[Keys, SplitSpec], shuffle: int, tmp_path: Path
) -> None:
    keys, spec = task
    found = divided(keys, spec)
    text = found.to_json(keys["row"])
    assert list(json.loads(text)) == ["test", "calibration", "folds"]
    order = np.random.default_rng(shuffle).permutation(len(keys["row"]))
    again = split.divide({name: column[order] for name, column in keys.items()}, spec)
    assert again.to_json(keys["row"][order]) == text
    path = tmp_path / "split.json"
    path.write_text(text, encoding="utf-8")
    for part, same in zip(again.parts(), Split.read(path, keys["row"][order]).parts(), strict=True):
        np.testing.assert_array_equal(part, same)


def test_an_id_may_stand_for_two_rows_of_one_part_but_not_of_two(tmp_path: Path) -> None:
    found = Split(np.array([0, 1]), np.array([2]), (np.array([3]), np.array([4])))
    path = tmp_path / "split.json"
    twice = np.array(["a", "a", "b", "c", "d"])
    path.write_text(found.to_json(twice))
    assert path.read_text() == '{"test":["a"],"calibration":["b"],"folds":[["c"],["d"]]}\n'
    assert Split.read(path, twice).test.tolist() == [0, 1]
    with pytest.raises(ValueError, match="id 'a' lies in two parts"):
        found.to_json(np.array(["a", "x", "a", "c", "d"]))
    with pytest.raises(ValueError, match="4 ids for a split of 5 rows"):
        found.to_json(twice[:4])


def test_a_split_of_other_rows_or_a_broken_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text('{"test":["a"],"calibration":["b"],"folds":[["c"],["d"]]}')
    with pytest.raises(ValueError, match=r"1 of its 4 ids are not in the data \['d'\], 2 ids .* not in it \['e'\]"):
        Split.read(path, np.array(["a", "b", "c", "e", "f"]))
    for broken in ("{", "[]", '{"test":[]}', '{"test":["a"],"calibration":["b"],"folds":3}'):
        path.write_text(broken)
        with pytest.raises(ValueError, match="is no split of Assay"):
            Split.read(path, np.array(["a"]))
    with pytest.raises(FileNotFoundError):
        Split.read(tmp_path / "absent.json", np.array(["a"]))
