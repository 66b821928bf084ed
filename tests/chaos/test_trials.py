"""A short share of the trials of `python -m tests.chaos`: nothing lost, and a sabotage is found out."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.chaos import damages, outages, replies, sabotages
from tests.chaos.damages import Ground
from tests.chaos.outages import Outage
from tests.chaos.preloaded import Preloaded
from tests.chaos.replies import Trials
from tests.chaos.tally import Tally, merged, table

DAMAGES, REPLIES = 10, 25
CHOSEN = ("JSON called HTML", "rows lost between pages", "401")
"""One fault of each family; `python -m tests.chaos --only faults` runs all."""


@pytest.fixture(scope="module")
def grounds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Ground]]:
    with damages.grounds(tmp_path_factory.mktemp("damages")) as found:
        yield found


@pytest.fixture(scope="module")
def changed_replies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    with replies.hurried():
        yield Trials(tmp_path_factory.mktemp("replies"))


@pytest.fixture(scope="module")
def outage(tmp_path_factory: pytest.TempPathFactory, preloaded: Preloaded) -> Iterator[Outage]:
    with outages.outages(tmp_path_factory.mktemp("outages"), preloaded=preloaded) as found:
        yield found


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # nothing here depends on a power cut


@pytest.mark.parametrize("state", ["finished", "half"])
def test_a_damaged_file_is_found_and_costs_nothing_else(grounds: dict[str, Ground], state: str) -> None:
    tally = damages.trials(grounds[state], DAMAGES, "a", f"damages {state}")
    assert tally.lost == []
    assert tally.tried == DAMAGES
    assert min(tally.held, tally.refused.total()) > 0


def test_every_kind_of_file_is_damaged(grounds: dict[str, Ground]) -> None:
    kinds = set(grounds["finished"].kinds())
    files = {"ensemble.json", "model.json", "weights.safetensors", "reference.safetensors", "README.md", "split.json"}
    assert {f"model {name}" for name in files} <= kinds
    assert {"log", "page", "page quarantine", "chunks", "parts", "fingerprint", "match", "identity"} <= kinds
    assert {"candidates.parquet", "quarantine.parquet", "summary.json", "report.html", "fingerprint.json"} <= kinds
    assert {kind for kind in kinds if kind not in grounds["finished"].spare} == set()


def test_a_changed_reply_costs_one_entry_or_is_told(changed_replies: Trials) -> None:
    tally = changed_replies.run(REPLIES, "a")
    assert tally.lost == []
    assert tally.tried == REPLIES
    assert min(tally.held, tally.refused.total()) > 0


@pytest.mark.parametrize("fault", CHOSEN)
def test_a_fault_of_a_server_and_a_kill_lose_nothing(outage: Outage, fault: str) -> None:
    tally = outage.run(1, "a", [fault])
    assert tally.lost == []
    assert tally.detail[0]["code"] == {"rows lost between pages": 3, "401": 69}.get(fault, 0)
    assert tally.detail[0]["kills"] == 1


def test_there_are_more_than_25_faults_of_a_server() -> None:
    assert len(outages.FAULTS) == len(set(outages.FAULTS.values())) >= 25


def test_digests_that_are_not_compared_are_found_out(grounds: dict[str, Ground]) -> None:
    found = sabotages.no_digests(grounds["finished"], "a")  # the first trial may hit a text that no longer parses
    assert "verify finds nothing" in found or "ended with -1" in found


def test_an_entry_that_is_dropped_is_found_out(changed_replies: Trials) -> None:
    assert "gone without a record" in sabotages.dropped_entries(changed_replies, "a")


def test_shares_of_a_run_add_up() -> None:
    first, second = Tally("kills"), Tally("kills")
    first.hold()
    first.refuse(69, "source down")
    second.lose("kills 3: differs")
    restored = [Tally.restore(tally.record()) for tally in (first, second)]
    [both] = merged(restored)
    assert both.cells() == ["kills", "3", "1", "1", "1", "0"]
    assert table([both])[-1] == "kills, 1 times exit code 69: source down"
