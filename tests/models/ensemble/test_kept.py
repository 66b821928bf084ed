"""The output store: the same bits as without it, whatever is kept; nothing is believed that is not whole."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from assay.models.ensemble.ensemble import Ensemble
from assay.models.ensemble.kept.store import Kept, Store
from assay.models.ensemble.summary import EnsemblePrediction
from assay.screening.commands import cli
from assay.screening.settings.exits import Exit, Failure
from assay.sources.crystals import Crystals
from tests.screening.small_campaign import flip, some_members
from tests.servers import materials_project

KEYS = [digit * 64 for digit in "abcd"]


@pytest.fixture(scope="module")
def crystals(data: Path) -> Crystals:
    """30 crystals; two atoms of number 3 lie on one place, so no network can read it."""
    real = materials_project(data, 30)
    frac = real.frac.copy()
    first = real.site_ptr[3]
    frac[first + 1] = frac[first]
    return replace(real, frac=frac).with_columns(origin=np.array([f"http://here/{k}" for k in range(30)]))


@pytest.fixture(scope="module")
def ensemble(zoo: Path) -> Ensemble:
    return Ensemble.load(zoo / "formation-energy")


def bits(found: tuple[EnsemblePrediction, Any]) -> list[Any]:
    """Everything in a prediction, byte by byte, and the records."""
    predicted, refused = found
    values = [getattr(value, part.name) for value in predicted.values.values() for part in fields(value)]
    arrays = [predicted.index, predicted.ood, predicted.ood_distance, *values]
    return [*(None if array is None else array.tobytes() for array in arrays), refused]


def inodes(store: Store) -> dict[str, int]:
    """A file that is written again is another one."""
    return {file.key: file.path.stat().st_ino for file in store.files()}


@pytest.mark.parametrize("name", ["formation-energy", "tc"])
def test_what_is_kept_is_not_computed_again_and_no_bit_changes(
    zoo: Path, crystals: Crystals, tmp_path: Path, name: str
) -> None:
    loaded, store = Ensemble.load(zoo / name), Store(tmp_path)
    expected = bits(loaded.predict(crystals))
    assert len(expected[-1]) == (name != "tc"), "trees do not see where atoms lie"
    assert bits(loaded.predict(crystals, store)) == expected
    before = inodes(store)
    assert len(before) == len(loaded.members) + 1, "one per member, and the distances"
    assert bits(loaded.predict(crystals, store)) == expected
    assert inodes(store) == before
    loaded.predict(crystals[:29], store)
    assert len(inodes(store)) == 2 * len(before)


def test_one_more_member_is_the_only_one_to_run(
    zoo: Path, ensemble: Ensemble, crystals: Crystals, tmp_path: Path
) -> None:
    three = Ensemble.load(some_members(tmp_path / "three", zoo / "formation-energy", (0, 1, 3)))
    store = Store(tmp_path / "store")
    three.predict(crystals, store)
    before = inodes(store)
    assert bits(ensemble.predict(crystals, store)) == bits(ensemble.predict(crystals))
    after = inodes(store)
    assert len(after) == len(before) + 2, "member 2, and the distances, which the three do not have"
    assert sum(after[key] != inode for key, inode in before.items()) == 1, "member 0 measures the distances"


def test_another_scaler_is_another_member(ensemble: Ensemble, crystals: Crystals, tmp_path: Path) -> None:
    store = Store(tmp_path)
    ensemble.predict(crystals, store)
    first, *rest = ensemble.members
    (prop,) = first.properties
    other = replace(ensemble, members=(replace(first, properties=(replace(prop, center=prop.center + 1),)), *rest))
    assert bits(other.predict(crystals, store)) == bits(other.predict(crystals))


def test_members_that_depend_on_each_other_are_not_kept(
    ensemble: Ensemble, crystals: Crystals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    real, failing = type(ensemble.members[1].frozen).conclude, ensemble.members[1].frozen

    def conclude(self: Any, states: Any, batch: Any) -> Any:
        if self is failing and len(batch) > 4:
            raise RuntimeError("too many")
        return real(self, states, batch)

    monkeypatch.setattr(type(failing), "conclude", conclude)
    expected = bits(ensemble.predict(crystals))
    assert bits(ensemble.predict(crystals, store)) == expected
    assert not inodes(store), "every micro-batch of every member was halved for member 1"
    monkeypatch.undo()
    ensemble.predict(crystals, store)
    for file in list(store.files()):
        if file.notes().get("weights") == ensemble.members[1].sha256:
            file.path.unlink()
    monkeypatch.setattr(type(failing), "conclude", conclude)
    assert bits(ensemble.predict(crystals, store)) == expected


def test_a_damaged_file_is_removed_and_made_again(ensemble: Ensemble, crystals: Crystals, tmp_path: Path) -> None:
    store = Store(tmp_path)
    expected = bits(ensemble.predict(crystals, store))
    files = sorted(store.files(), key=lambda file: file.key)
    flip(files[0].path)
    files[1].path.write_bytes(files[2].path.read_bytes())
    files[3].path.write_bytes(b"")
    assert {file.key for file in store.damaged()} == {files[k].key for k in (0, 1, 3)}
    assert bits(ensemble.predict(crystals, store)) == expected
    assert not list(store.damaged())
    assert set(inodes(store)) == {file.key for file in files}


def test_the_longest_unused_makes_room(tmp_path: Path) -> None:
    kept = Kept({"x": np.zeros(1000)})
    store = Store(tmp_path)
    for age, key in enumerate(KEYS[:3]):
        store.put(key, kept)
        os.utime(tmp_path / key[:2] / f"{key}.safetensors", (1000 + age, 1000 + age))
    assert store.get(KEYS[0]) is not None, "now it is the last one used"
    mine = tmp_path / "aa" / "mine.txt"
    mine.write_text("not ours")
    size = next(store.files()).size
    Store(tmp_path, 3 * size).put(KEYS[3], kept)
    assert {file.key for file in store.files()} == {KEYS[0], KEYS[2], KEYS[3]}
    assert mine.exists()


def test_a_disk_that_takes_nothing_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "store").write_text("a file where the folder should be")
    store = Store(tmp_path / "store")
    for key in KEYS:
        store.put(key, Kept({"x": np.zeros(1)}))
        assert store.get(key) is None
    assert caplog.text.count("the store takes nothing more") == 1


def test_the_commands_list_check_and_shrink(ensemble: Ensemble, crystals: Crystals, tmp_path: Path) -> None:
    folder = tmp_path / ".store"
    ensemble.predict(crystals, Store(folder))
    call = CliRunner().invoke

    def said(*words: str) -> str:
        done = call(cli.app, ["store", *words], standalone_mode=False)
        if done.exception:
            raise done.exception
        return done.output

    listed = said("ls", str(folder))
    assert all(member.sha256[:12] in listed for member in ensemble.members)
    assert "5 files" in listed
    assert "all intact" in said("verify", str(folder))
    bad = next(Store(folder).files()).path
    flip(bad)
    with pytest.raises(Failure, match=r"damaged: 1 file of ") as caught:
        said("verify", str(folder))
    assert caught.value.code is Exit.DISK
    assert "removed 5 files" in said("prune", str(folder), "--most", "0kB")
    with pytest.raises(Failure, match="expected a number and a unit"):
        said("prune", str(folder), "--most", "10")
    with pytest.raises(Failure, match="is no folder"):
        said("ls", str(tmp_path / "gone"))
    assert "0 files" in said("ls", str(folder))
    (tmp_path / "campaign" / "parts").mkdir(parents=True)
    with pytest.raises(Failure, match="is no store; a campaign with `store: auto` makes the folder .store beside its"):
        said("verify", str(tmp_path / "campaign"))
