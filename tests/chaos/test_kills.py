"""A campaign that is killed at random instants and run again leaves the bytes of an undisturbed one.

`python -m tests.chaos` runs ten times as many; a failing test names the folder whose plan its
`--again` repeats.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import pytest

from assay.sources import table
from tests.chaos import kills
from tests.chaos.campaigns import ON_RAY, Peace, Scenario
from tests.chaos.preloaded import Preloaded
from tests.chaos.processes import Tree, alive, family

KILLS = [
    ("local", "a", 5),
    ("pulled", "a", 5),
    ("overlapping", "a", 4),
    ("cascade", "a", 4),
    ("relaxed", "a", 2),
    ("ray", "a", 2),
    ("objectives", "a", 2),
    ("objectives-ray", "a", 1),
]


@pytest.mark.parametrize(("name", "seed", "number"), KILLS)
def test_killed_at_random_instants_and_run_again(
    stage: dict[str, Scenario], peace: Peace, place: Path, preloaded: Preloaded, name: str, seed: str, number: int
) -> None:
    trials = kills.kill(stage[name], peace(name), place, seed, number, preloaded)
    assert [(trial.folder, trial.faults) for trial in trials if trial.faults] == []
    assert kills.counted(trials) == number
    blows = [blow for trial in trials for blow in trial.blows if blow.counts]
    assert all(0 < blow.committed < blow.total for blow in blows)
    assert all(blow.processes >= (5 if name in ON_RAY else 1) for blow in blows)


@pytest.mark.parametrize("name", ["objectives", "objectives-ray"])
def test_killed_while_it_ranks_and_run_again(
    stage: dict[str, Scenario], peace: Peace, place: Path, preloaded: Preloaded, name: str
) -> None:
    trial = kills.kill_ranking(stage[name], peace(name), place / f"{name}-ranking", preloaded)
    assert trial.faults == []
    assert [blow.committed for blow in trial.blows] == [peace(name).total] * 2
    front = table.read(place / f"{name}-ranking" / "candidates.parquet", ["front", "p_front", "p_top_k"])
    assert front["front"][0].as_py() == 1
    assert sum(front["p_top_k"].to_pylist()) == pytest.approx(9)


def test_continuous_integration_kills_at_least_twenty_times() -> None:
    assert sum(number for _, _, number in KILLS) >= 20


@pytest.mark.parametrize("name", ["local", "pulled"])
def test_sigterm_ends_with_85_leaves_nothing_half_done_and_the_rest_is_done_later(
    stage: dict[str, Scenario], peace: Peace, place: Path, preloaded: Preloaded, name: str
) -> None:
    trials = kills.terminate(stage[name], peace(name), place, "a", 1, preloaded)
    assert [(trial.folder, trial.faults) for trial in trials if trial.faults] == []
    assert kills.counted(trials) == 1


def test_the_campaigns_have_enough_to_lose(stage: dict[str, Scenario], peace: Peace, place: Path) -> None:
    assert peace("local").totals["part"] == 15
    assert peace("pulled").totals["page"] >= 8
    assert peace("pulled").totals["part"] == 12
    assert peace("overlapping").total > 15
    assert peace("cascade").totals["part"] == 17
    assert peace("relaxed").totals["relaxed"] == peace("relaxed").totals["part"] == 12
    counted = json.loads((place / "overlapping-undisturbed" / "summary.json").read_text())["balance"]
    assert counted["received"] == 144
    assert counted["unique"] < counted["received"]
    assert 0 < counted["excluded"] < counted["scored"]


SLEEPER = "import time; time.sleep(600)"
FAMILY = f"""
import os, subprocess, sys, time
sleep = [sys.executable, "-c", {SLEEPER!r}]
subprocess.Popen(sleep)
subprocess.Popen(sleep, start_new_session=True, env={{}})  # known by its parent alone
parent = os.fork()
if parent == 0:
    os.setsid()
    subprocess.Popen(sleep)  # an orphan in another session, known by its mark alone
    os._exit(0)
os.waitpid(parent, 0)
open("ready", "w").close()
time.sleep(600)
"""


def test_a_kill_takes_every_process_and_no_other(tmp_path: Path) -> None:
    tree = Tree([], tmp_path, program=("-c", FAMILY))
    while not (tmp_path / "ready").exists():
        assert tree.running()
    pids = [pid for pid in family(tree.root.pid, tree.mark) if alive(pid)]
    assert len(pids) == 4
    assert os.getpid() not in pids
    assert tree.kill(random.Random(0)) >= 4
    assert [pid for pid in pids if alive(pid)] == []
