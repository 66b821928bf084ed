"""`python -m tests.chaos --kills 300 --seed 1`: every kind of harm, one table, one JSON file.

Enters: how many kills, damages, faults and replies, and a seed. Leaves: the table on standard
output, everything else in the JSON; exit code 1 when anything was lost, or when a sabotage was not
found out. README.md says what the columns mean.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest import mock

from tests.chaos import campaigns, damages, kills, outages, replies, sabotages, syscalls
from tests.chaos.campaigns import Peace, Reference, Scenario
from tests.chaos.kills import Trial
from tests.chaos.preloaded import Preloaded
from tests.chaos.processes import ROOT
from tests.chaos.tally import Tally, merged, table

SHARES = {"overlapping": 0.6, "cascade": 0.3, "ray": 0.1}
"""Which part of the SIGKILLs meets which campaign of two sources."""
FORKED = ("overlapping", "cascade")
"""Campaigns whose killed processes are forked from a parent that holds the libraries; others start anew."""
TERMS = {"local": 0.5, "pulled": 0.3, "ray": 0.2}
"""Likewise for SIGTERM."""
STRUCK = {"small": 10_000, "paged": 10_000, "overlapping": 100, "cascade": 100}
"""Most system calls that are struck in each campaign."""
PARTS = (*SHARES, "sigterm", "syscalls", "damages", "faults", "replies", "sabotages")


def main() -> int:
    """Run what the command line asks for."""
    asked = _arguments()
    if asked.table:
        return _show(merged(tally for path in asked.table for tally in _read(path)), {})
    place = Path(tempfile.mkdtemp(prefix="chaos-"))
    print(f"seed {asked.seed}, folders in {place}", flush=True)
    tallies: list[Tally] = []
    found: dict[str, str] = {}
    with ExitStack() as stack:
        for tally in _again(asked, place, stack) if asked.again else _tallies(asked, place, stack, found):
            print("  ".join(tally.cells()), flush=True)
            tallies.append(tally)
            asked.output.parent.mkdir(parents=True, exist_ok=True)
            asked.output.write_text(json.dumps(_record(asked, tallies, found), indent=1) + "\n")
    code = _show(tallies, found)
    print(f"everything in {asked.output}")
    if not code:
        shutil.rmtree(place)
    return code


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=300, help="SIGKILLs at random instants that must count")
    parser.add_argument("--damages", type=int, default=4000, help="damaged files of campaigns and models")
    parser.add_argument("--faults", type=int, default=150, help="kills under the faults of a server, dealt in turn")
    parser.add_argument("--replies", type=int, default=3000, help="changed replies of a server")
    parser.add_argument("--terms", type=int, default=10, help="SIGTERMs that must count")
    parser.add_argument("--syscalls", type=int, default=0, metavar="N", help="at most so many per campaign")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--again", metavar="FOLDER", help="repeat the plan of one folder, such as cascade-1-3")
    parser.add_argument(
        "--table", nargs="+", type=Path, metavar="JSON", help="only add up runs of shares, and show them"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "chaos.json")
    return parser.parse_args()


def _tallies(asked: argparse.Namespace, place: Path, stack: ExitStack, found: dict[str, str]) -> Iterator[Tally]:
    """Every part that is asked for; what the sabotages met is put into `found`."""
    if {*SHARES, "sigterm", "syscalls", "sabotages"} & {*asked.only}:
        stage, peace, preloaded = _stage(place, stack)
        yield from _killed(asked, stage, peace, place, preloaded)
    if "damages" in asked.only:
        with damages.grounds(place / "damages") as grounds, _no_fsync():
            for name, ground in grounds.items():
                yield damages.trials(ground, asked.damages // len(grounds), asked.seed, f"damages {name}")
    if "faults" in asked.only:
        with outages.outages(place / "faults") as outage:
            yield outage.run(asked.faults, asked.seed)
    if "replies" in asked.only:
        with replies.hurried(), _no_fsync():
            yield replies.Trials(place / "replies").run(asked.replies, asked.seed)
    if "sabotages" in asked.only:
        found.update(sabotages.caught(stage, peace, place, asked.seed))


def _stage(place: Path, stack: ExitStack) -> tuple[dict[str, Scenario], Peace, Preloaded]:
    stage = stack.enter_context(campaigns.scenarios(place))
    warm_up = ["run", stage["overlapping"].config, "--output", place / "warm-up"]
    preloaded = stack.enter_context(Preloaded(warm_up, place))
    forked = {name: replace(stage[name], preloaded=preloaded) for name in FORKED}
    return stage | forked, Peace(stage | forked, place), preloaded


@contextmanager
def _no_fsync() -> Iterator[None]:
    """Nothing in these trials depends on a power cut."""
    with mock.patch.object(os, "fsync"):
        yield


def _killed(
    asked: argparse.Namespace, stage: dict[str, Scenario], peace: Peace, place: Path, preloaded: Preloaded
) -> Iterator[Tally]:
    for name, share in SHARES.items():
        if name in asked.only and (number := max(1, round(share * asked.kills))):
            yield _tally(f"kills {name}", kills.kill(stage[name], peace(name), place, asked.seed, number, preloaded))
    if "sigterm" in asked.only:
        for name, share in TERMS.items():
            number = max(1, round(share * asked.terms))
            trials = kills.terminate(stage[name], peace(name), place, asked.seed, number, preloaded)
            yield _tally(f"sigterm {name}", trials)
    if "syscalls" in asked.only:
        if reason := syscalls.reason_to_skip(place):
            print(f"no kills at system calls: {reason}")
            return
        for name, most in STRUCK.items():
            yield from _struck(stage[name], peace(name), place / f"struck-{name}", asked.seed, asked.syscalls or most)


def _again(asked: argparse.Namespace, place: Path, stack: ExitStack) -> Iterator[Tally]:
    """Repeat one folder, by the name that a failure gave."""
    stage, peace, preloaded = _stage(place, stack)
    scenario = stage[asked.again.partition("-")[0]]
    repeat: Callable[..., Trial] = kills.stop if "-term-" in asked.again else kills.chain
    yield _tally(asked.again, [repeat(scenario, peace(scenario.name), place / asked.again, preloaded)])


def _tally(part: str, trials: Sequence[Trial]) -> Tally:
    """Kills that counted, as held where the folder ended like its undisturbed twin."""
    tally = Tally(part, seconds=sum(trial.seconds for trial in trials))
    for trial in trials:
        tally.tried += trial.counted
        tally.held += 0 if trial.faults else trial.counted
        tally.lost += [f"--again {trial.folder}: {fault}" for fault in trial.faults]
    blows = [blow for trial in trials for blow in trial.blows]
    hit = [100 * blow.committed / blow.total for blow in blows if blow.counts] or [0.0]
    tally.note = f"{len(trials)} campaigns, killed at {min(hit):.0f} to {max(hit):.0f} % of the commits"
    tally.detail = [asdict(trial) for trial in trials]
    return tally


def _struck(scenario: Scenario, reference: Reference, place: Path, seed: str, most: int) -> Iterator[Tally]:
    """Kills at system calls of a fresh campaign, then of one that goes on."""
    place.mkdir()
    with Preloaded(["run", scenario.config, "--output", place / "warm-up"], place) as preloaded:
        striker = syscalls.Striker(scenario, reference, preloaded, place)
        for what in ("fresh", "resumed"):
            tally, began = Tally(f"system calls {scenario.name} {what}"), time.monotonic()
            try:
                points = striker.points()
                tally.lost += striker.unsynced()
            except RuntimeError as error:
                tally.lost.append(str(error))
                yield tally
                return
            for point in syscalls.sample(points, most, random.Random(f"{seed}/{tally.part}")):
                _count(tally, striker.strike(point))
            tally.seconds = time.monotonic() - began
            yield tally
            striker.halfway(points)


def _count(tally: Tally, hit: syscalls.Hit) -> None:
    place = f"{hit.point.call} {hit.point.ordinal} ({hit.point.path})"
    if hit.struck is None:
        tally.lose(f"{tally.part} {place}: was not struck, ended with {hit.code}")
    elif hit.faults:
        tally.lose(f"{tally.part} {place}: {'; '.join(hit.faults)}")
    else:
        tally.hold()
    tally.detail.append(asdict(hit))


def _show(tallies: Sequence[Tally], found: dict[str, str]) -> int:
    """Print the table and every loss; the exit code."""
    print("\n" + "\n".join(table(tallies)))
    lost = [what for tally in tallies for what in tally.lost]
    unseen = [f"sabotage not found out: {name}" for name, what in found.items() if not what]
    for name, what in found.items():
        print(f"sabotage, {name}: {what or 'NOT FOUND OUT'}")
    for failure in lost + unseen:
        print(f"LOST {failure}")
    return int(bool(lost or unseen))


def _read(path: Path) -> list[Tally]:
    return [Tally.restore(record) for record in json.loads(path.read_text())["tallies"]]


def _record(asked: argparse.Namespace, tallies: Sequence[Tally], found: dict[str, str]) -> dict[str, Any]:
    revision = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    return {
        "asked": {name: str(value) for name, value in vars(asked).items()},
        "revision": revision.stdout.strip(),
        "machine": {"system": platform.platform(), "python": platform.python_version(), "cpus": os.cpu_count()},
        "tallies": [tally.record() for tally in tallies],
        "sabotages": found,
    }


if __name__ == "__main__":
    sys.exit(main())
