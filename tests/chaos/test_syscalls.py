"""A campaign that is killed on entering any system call of its commits, and run again, leaves the same bytes.

A sample here; `python -m tests.chaos --only syscalls` strikes every call.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.chaos import sabotages, syscalls
from tests.chaos.campaigns import Peace, Scenario
from tests.chaos.preloaded import Preloaded
from tests.chaos.syscalls import Hit, Striker

SEED = 1


@pytest.fixture(scope="module")
def room(place: Path) -> Path:
    """A folder where system calls can be struck."""
    if reason := syscalls.reason_to_skip(place):
        pytest.skip(reason)
    folder = place / "syscalls"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def striker(stage: dict[str, Scenario], peace: Peace, room: Path, preloaded: Preloaded) -> Striker:
    return Striker(stage["small"], peace("small"), preloaded, room)


def wrong(hits: list[Hit]) -> list[Hit]:
    return [hit for hit in hits if hit.faults or hit.struck != hit.point]


def test_killed_at_system_calls_of_a_fresh_campaign(striker: Striker) -> None:
    striker.base = None
    points = striker.points()
    calls = {point.call for point in points}
    assert {"openat", "write", "fsync", "close"} <= calls
    assert any(call.startswith(("rename", "link")) for call in calls)
    assert wrong([striker.strike(point) for point in syscalls.sample(points, 12, random.Random(SEED))]) == []


def test_killed_at_system_calls_of_a_campaign_that_goes_on(striker: Striker) -> None:
    striker.base = None
    striker.halfway(striker.points())
    hits = [striker.strike(point) for point in syscalls.sample(striker.points(), 8, random.Random(SEED))]
    assert wrong(hits) == []
    assert all(hit.committed > 0 for hit in hits)


def test_a_call_that_is_struck_has_not_happened(striker: Striker) -> None:
    striker.base = None
    last = [point for point in striker.points() if point.call.startswith("rename") and "summary.json" in point.path][-1]
    folder = striker.halfway([last])
    assert not (folder / "summary.json").exists()
    assert (folder / "report.html").exists()
    assert [path.name for path in folder.glob(".summary.json*")] != []  # about to be renamed


def test_everything_is_flushed_before_it_is_named(striker: Striker) -> None:
    striker.base = None
    assert striker.unsynced() == []
    assert "before its content is flushed" in striker.unsynced(left_out="fsync")[0]


def test_a_commit_protocol_that_is_not_atomic_is_found_out(
    stage: dict[str, Scenario], peace: Peace, room: Path, tmp_path: Path
) -> None:
    with sabotages.hooked(sabotages.NOT_ATOMIC, stage["small"], tmp_path) as preloaded:
        striker = Striker(stage["small"], peace("small"), preloaded, tmp_path)
        points = [point for point in striker.points() if point.call == "write" and point.path.startswith("log/0")]
        hits = [striker.strike(point) for point in points[1::6]]  # the second half of some records
    assert len(hits) >= 2
    assert all(hit.struck and hit.faults for hit in hits)
