"""SIGKILL and SIGTERM at random instants of a campaign, each followed by running it again.

Enters: a scenario, its reference, a seed. Leaves: `Trial`s, one per campaign folder, with every
kill and with what was wrong in the end. A kill counts only when some but not all of the work was
committed at that instant; one that came too early or too late is reported and repeated. The same
seed draws the same plan; the instant itself is the machine's.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.campaigns import Log, Reference, Scenario, committed, faults, litter, verified
from tests.chaos.preloaded import Forked, Preloaded
from tests.chaos.processes import Tree

CHAIN = 6
"""Kills that one folder suffers at most before it may end in peace."""
EXIT_STOPPED = 85


@dataclass(frozen=True)
class Blow:
    """One signal and what it met."""

    aim: str
    """The plan: after which commit, or how long after the start, and the pause before the
    signal."""
    committed: int
    total: int
    processes: int
    """How many were killed; 0: the command ended before."""

    @property
    def counts(self) -> bool:
        """Whether some but not all of the work was committed."""
        return self.processes > 0 and 0 < self.committed < self.total


@dataclass
class Trial:
    """One campaign folder from its first start to its end."""

    scenario: str
    folder: str
    blows: list[Blow] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    litter: int = 0
    seconds: float = 0.0

    @property
    def counted(self) -> int:
        """Signals that met a campaign with some but not all of its work committed."""
        return sum(blow.counts for blow in self.blows)


def kill(
    scenario: Scenario, reference: Reference, place: Path, seed: str, kills: int, preloaded: Preloaded
) -> list[Trial]:
    """Campaign after campaign, until `kills` SIGKILLs have met one that was under way."""
    trials: list[Trial] = []
    while (left := kills - counted(trials)) > 0 and sum(len(trial.blows) or 1 for trial in trials) < 4 * kills + 10:
        folder = place / f"{scenario.name}-{seed}-{len(trials)}"
        trials.append(chain(scenario, reference, folder, preloaded, min(left, CHAIN)))
    if left > 0:
        trials[-1].faults.append(f"only {kills - left} of {kills} kills met a campaign under way")
    return trials


def chain(scenario: Scenario, reference: Reference, folder: Path, preloaded: Preloaded, kills: int = CHAIN) -> Trial:
    """Start, kill, start again, kill again, ..., then run to the end and compare; the folder's name is the seed."""
    trial, began, rng = Trial(scenario.name, folder.name), time.monotonic(), random.Random(folder.name)
    while trial.counted < kills and len(trial.blows) < 3 * kills and committed(folder) < reference.total - 1:
        tree = scenario.start(folder)
        aim = _wait_for_instant(tree, folder, reference, rng)
        processes = tree.kill(rng) if tree.running() else 0
        trial.blows.append(Blow(aim, committed(folder), reference.total, processes))
        if processes == 0 and tree.finish() != reference.code:
            break  # it failed by itself: running it again below says how
    return _end(trial, scenario, reference, folder, preloaded, began)


def kill_ranking(scenario: Scenario, reference: Reference, folder: Path, preloaded: Preloaded) -> Trial:
    """Kill the campaign twice when all is scored and nothing is ranked, run it to the end, compare.

    The first kill comes when the last part is committed, the second when there are candidates.
    """
    trial, began = Trial(scenario.name, folder.name), time.monotonic()
    for sign in ("log", "candidates.parquet"):
        tree, log = scenario.start(folder), Log(folder)
        while (log.read() < reference.total or not (folder / sign).exists()) and tree.running():
            time.sleep(0.0005)
        processes = tree.kill(random.Random(folder.name)) if tree.running() else 0
        trial.blows.append(Blow(sign, committed(folder), reference.total, processes))
        if (folder / "summary.json").exists() or processes == 0:
            trial.faults.append(f"the kill at {sign} came too late")
    return _end(trial, scenario, reference, folder, preloaded, began)


def terminate(
    scenario: Scenario, reference: Reference, place: Path, seed: str, times: int, preloaded: Preloaded
) -> list[Trial]:
    """Campaign after campaign, until `times` SIGTERMs have met one that was under way: exit 85, nothing left over."""
    trials: list[Trial] = []
    while counted(trials) < times and len(trials) < 3 * times + 3:
        folder = place / f"{scenario.name}-term-{seed}-{len(trials)}"
        trials.append(stop(scenario, reference, folder, preloaded))
    if counted(trials) < times:
        trials[-1].faults.append(f"only {counted(trials)} of {times} SIGTERMs met a campaign under way")
    return trials


def stop(scenario: Scenario, reference: Reference, folder: Path, preloaded: Preloaded) -> Trial:
    """Start, SIGTERM, then run to the end and compare; the folder's name is the seed."""
    trial, began, rng = Trial(scenario.name, folder.name), time.monotonic(), random.Random(folder.name)
    tree = scenario.start(folder)
    aim = _after_commit(tree, folder, reference, rng)
    tree.terminate()
    code = tree.finish()
    trial.blows.append(Blow(aim, committed(folder), reference.total, int(code == EXIT_STOPPED)))
    if code not in (EXIT_STOPPED, reference.code):
        trial.faults.append(f"SIGTERM ended it with exit code {code}, not {EXIT_STOPPED}: {tree.last_words()}")
    if code == EXIT_STOPPED and litter(folder):
        trial.faults.append("temporary files were left: a commit was cut short")
    if (folder / "LOCK").exists():
        trial.faults.append("the LOCK was left")
    if left := tree.survivors():
        trial.faults.append(f"processes were left: {left}")
    return _end(trial, scenario, reference, folder, preloaded, began)


def counted(trials: Iterable[Trial]) -> int:
    """Signals of all these trials that count."""
    return sum(trial.counted for trial in trials)


def _end(
    trial: Trial, scenario: Scenario, reference: Reference, folder: Path, preloaded: Preloaded, began: float
) -> Trial:
    """Run to the end, undisturbed, and compare."""
    code, words = scenario.finish(folder, preloaded)
    trial.faults += faults(folder, reference, code, words) or verified(folder, preloaded)
    trial.litter = litter(folder)
    trial.seconds = round(time.monotonic() - began, 2)
    return trial


def _wait_for_instant(tree: Tree | Forked, folder: Path, reference: Reference, rng: random.Random) -> str:
    """Wait for a random commit, or, in a folder that holds work already, for a random time after the start."""
    if committed(folder) > 0 and rng.random() < 0.25:
        pause = rng.uniform(0.5, 1.3) * reference.start_s
        _pause(tree, pause)
        return f"{pause:.3f} s after the start"
    return _after_commit(tree, folder, reference, rng)


def _after_commit(tree: Tree | Forked, folder: Path, reference: Reference, rng: random.Random) -> str:
    log = Log(folder)
    done = log.read()
    most = min(reference.total - 1, done + max(1, reference.total // 2))
    target = rng.randint(min(done + 1, most), most)
    pause = rng.uniform(0.0, reference.gaps_s[target - 1])
    while log.read() < target and tree.running():
        time.sleep(0.0005)
    _pause(tree, pause)
    return f"{1000 * pause:.1f} ms after commit {target}"


def _pause(tree: Tree | Forked, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and tree.running():
        time.sleep(min(0.01, max(0.0, end - time.monotonic())))
