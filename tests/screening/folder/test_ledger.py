"""The ledger: the files it names are whole, and tampering is seen."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from assay.screening.folder import stamp
from assay.screening.folder.ledger import Ledger
from assay.screening.settings.exits import Exit, Failure
from assay.sources import durable

TABLE = pa.table({"x": [1, 2, 3]})


def filled(folder: Path, n: int = 3) -> Ledger:
    ledger = Ledger(folder)
    for k in range(n):
        ledger.commit("part", f"{k}", {f"parts/{k}.parquet": TABLE}, {"scored": 3})
    return ledger


def test_a_second_reader_sees_what_was_committed(tmp_path: Path) -> None:
    ledger = filled(tmp_path)
    again = Ledger(tmp_path)
    assert again.all("part") == ledger.all("part")
    record = again.find("part", "1")
    assert record is not None
    assert again.read(record, "parts/1.parquet").equals(TABLE)


def test_a_later_record_replaces_the_earlier_one_of_its_key(tmp_path: Path) -> None:
    ledger = filled(tmp_path)
    ledger.commit("part", "1", {}, {"scored": 9})
    found = Ledger(tmp_path).find("part", "1")
    assert found is not None
    assert found.counts == {"scored": 9}
    assert [record.key for record in Ledger(tmp_path).all("part")] == ["0", "2", "1"]  # in the order of commits


def test_files_named_by_their_content_never_collide(tmp_path: Path) -> None:
    first, second = Ledger(tmp_path), Ledger(tmp_path)
    kept = first.commit("page", "a", {"pages/0-{sha}.parquet": TABLE}, {})
    with pytest.raises(Failure, match="another process"):
        second.commit("page", "a", {"pages/0-{sha}.parquet": pa.table({"x": [9]})}, {})
    (name,) = kept.files
    assert first.read(kept, name).equals(TABLE)
    assert first.check() == 1


def test_check_finds_what_is_changed_or_gone(tmp_path: Path) -> None:
    ledger = filled(tmp_path)
    assert ledger.check() == 3
    path = tmp_path / "parts" / "2.parquet"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(Failure, match=r"2\.parquet has sha256"):
        ledger.check()
    path.unlink()
    with pytest.raises(Failure, match="gone"):
        ledger.check()


def test_litter_of_a_crash_is_ignored(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / "log" / ".00000003.json.77.tmp").write_text("{")
    (tmp_path / "parts" / "unknown.parquet").write_text("half")
    assert len(Ledger(tmp_path).all("part")) == 3


def test_two_writers_cannot_take_the_same_place(tmp_path: Path) -> None:
    first, second = filled(tmp_path), Ledger(tmp_path)
    first.commit("part", "a", {}, {})
    with pytest.raises(Failure) as caught:
        second.commit("part", "b", {}, {})
    assert caught.value.code is Exit.LOCKED


@pytest.mark.parametrize("damage", ["edit", "space", "last", "remove", "torn", "swap"])
def test_a_changed_log_is_refused(tmp_path: Path, damage: str) -> None:
    filled(tmp_path)
    victim = tmp_path / "log" / "00000001.json"
    if damage == "edit":
        content = json.loads(victim.read_text())
        content["counts"]["scored"] = 4
        victim.write_text(durable.canonical(content))
    elif damage == "space":
        victim.write_bytes(victim.read_bytes().replace(b"\n", b" ", 1))
    elif damage == "last":  # nothing comes after it: only its own digest can tell
        victim = tmp_path / "log" / "00000002.json"
        victim.write_bytes(victim.read_bytes().replace(b'"scored": 3', b'"scored": 4'))
    elif damage == "remove":
        victim.unlink()
    elif damage == "torn":
        victim.write_bytes(victim.read_bytes()[:40])
    else:
        other = tmp_path / "log" / "00000002.json"
        first, second = victim.read_bytes(), other.read_bytes()
        victim.write_bytes(second)
        other.write_bytes(first)
    with pytest.raises(Failure) as caught:
        Ledger(tmp_path)
    assert caught.value.code is Exit.DISK


@pytest.mark.parametrize("position", [0, 30, 100, -9])
def test_a_flipped_bit_in_a_part_is_refused(tmp_path: Path, position: int) -> None:
    ledger = filled(tmp_path)
    path = tmp_path / "parts" / "1.parquet"
    content = bytearray(path.read_bytes())
    content[position] ^= 4
    path.write_bytes(content)
    record = ledger.find("part", "1")
    assert record is not None
    with pytest.raises(Failure, match="sha256") as caught:
        ledger.read(record, "parts/1.parquet")
    assert caught.value.code is Exit.DISK


def test_another_fingerprint_is_refused_with_both_sides(tmp_path: Path) -> None:
    stamp.check_fingerprint(tmp_path, {"a": "1", "b": "2"})
    stamp.check_fingerprint(tmp_path, {"b": "2", "a": "1"})
    with pytest.raises(Failure, match="a: was 1, now 3; c: was absent, now 4") as caught:
        stamp.check_fingerprint(tmp_path, {"a": "3", "b": "2", "c": "4"})
    assert caught.value.code is Exit.CONFIG


def test_of_a_long_part_the_message_shows_what_differs() -> None:
    """Both sides were cut after 60 characters, and read the same."""
    words = " AND ".join(f'elements HAS "{symbol}"' for symbol in ("Nb", "Sn", "Ge", "Al", "Ga"))
    old = {"sources.mp": json.dumps({"filter": words, "max_entries": 5000, "provider": "mp"}), "graph": "x" * 90 + "1"}
    new = {"sources.mp": json.dumps({"filter": f"{words[:-3]}In", "max_entries": 400}), "graph": "x" * 90 + "2"}
    assert stamp.changes(old, new) == [
        f"graph: was ...{20 * 'x'}1, now ...{20 * 'x'}2",
        'sources.mp.filter: was ..." AND elements HAS "Ga", now ..." AND elements HAS "In',
        "sources.mp.max_entries: was 5000, now 400",
        "sources.mp.provider: was mp, now absent",
    ]
    for now in ('{"n": true}', '{"n": 1.0}', '{"n":1}', "{}"):
        assert len(stamp.changes({"a": '{"n": 1}'}, {"a": now})) == 1  # whatever differs is told


def test_put_if_absent_never_replaces(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    durable.put_if_absent(path, "first")
    with pytest.raises(FileExistsError):
        durable.put_if_absent(path, "second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]
