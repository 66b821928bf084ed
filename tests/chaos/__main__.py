"""`python -m tests.chaos --kills 200 --seed 1`: every kind of disturbance, one table, one JSON file.

Enters: how many kills, and a seed. Leaves: the table on standard output, everything else in the
JSON; exit code 1 when any campaign ended other than its undisturbed twin. README.md says what the
columns mean.
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
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.chaos import campaigns, kills, syscalls
from tests.chaos.campaigns import Peace, Reference, Scenario
from tests.chaos.kills import Trial
from tests.chaos.preloaded import Preloaded
from tests.chaos.processes import ROOT

SHARES = {"local": 0.45, "pulled": 0.2, "overlapping": 0.15, "cascade": 0.15, "ray": 0.05}
"""Which part of the SIGKILLs meets which campaign."""
STRUCK = {"small": 10_000, "paged": 10_000, "overlapping": 100, "cascade": 100}
"""Most system calls that are struck in each campaign."""
PARTS = (*SHARES, "sigterm", "syscalls")
COLUMNS = ("part", "sent", "counted", "committed", "campaigns", "litter", "failures", "seconds")


@dataclass
class Row:
    """One line of the table."""

    part: str
    sent: int = 0
    counted: int = 0
    committed: str = ""
    campaigns: int = 0
    litter: int = 0
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0
    detail: list[dict[str, Any]] = field(default_factory=list)

    def cells(self) -> list[str]:
        """The row as text."""
        values = (self.sent, self.counted, self.committed, self.campaigns, self.litter)
        return [self.part, *map(str, values), str(len(self.failures)), f"{self.seconds:.0f}"]


def main() -> int:
    """Run what the command line asks for."""
    asked = _arguments()
    place = Path(tempfile.mkdtemp(prefix="chaos-"))
    rows: list[Row] = []
    print(f"seed {asked.seed}, folders in {place}", flush=True)
    with campaigns.scenarios(place) as stage, _preloaded(stage, place) as preloaded:
        rows_of = partial(_again, asked.again) if asked.again else partial(_rows, asked)
        for row in rows_of(stage, place, preloaded):
            print("  ".join(row.cells()), flush=True)
            rows.append(row)
    _table(rows)
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(_record(asked, rows), indent=1) + "\n")
    print(f"everything in {asked.output}")
    failures = [failure for row in rows for failure in row.failures]
    for failure in failures:
        print(f"FAILED {failure}")
    if not failures:
        shutil.rmtree(place)
    return int(bool(failures))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="SIGKILLs at random instants that must count")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--terms", type=int, default=10, help="SIGTERMs that must count")
    parser.add_argument("--syscalls", type=int, default=0, metavar="N", help="at most so many per campaign")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--again", metavar="FOLDER", help="repeat the plan of one folder, such as local-1-3")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "chaos.json")
    return parser.parse_args()


def _preloaded(stage: dict[str, Scenario], place: Path) -> Preloaded:
    return Preloaded(["run", stage["paged"].config, "--output", place / "warm-up"], place)


def _rows(asked: argparse.Namespace, stage: dict[str, Scenario], place: Path, preloaded: Preloaded) -> Iterator[Row]:
    peace = Peace(stage, place)
    for name, share in SHARES.items():
        if name in asked.only and (number := max(1, round(share * asked.kills))):
            yield _row(name, kills.kill(stage[name], peace(name), place, asked.seed, number, preloaded))
    if "sigterm" in asked.only:
        for name, share in (("local", 0.5), ("pulled", 0.3), ("ray", 0.2)):
            number = max(1, round(share * asked.terms))
            yield _row(
                f"sigterm {name}", kills.terminate(stage[name], peace(name), place, asked.seed, number, preloaded)
            )
    if "syscalls" in asked.only:
        if reason := syscalls.reason_to_skip(place):
            print(f"no kills at system calls: {reason}")
            return
        for name, most in STRUCK.items():
            yield from _struck(stage[name], peace(name), place / f"struck-{name}", asked.seed, asked.syscalls or most)


def _again(folder: str, stage: dict[str, Scenario], place: Path, preloaded: Preloaded) -> Iterator[Row]:
    """Repeat one folder, by the name that a failure gave."""
    scenario = stage[folder.partition("-")[0]]
    reference = Peace(stage, place)(scenario.name)
    repeat = kills.stop if "-term-" in folder else kills.chain
    yield _row(folder, [repeat(scenario, reference, place / folder, preloaded)])


def _row(part: str, trials: Sequence[Trial]) -> Row:
    blows = [blow for trial in trials for blow in trial.blows]
    hit = [100 * blow.committed / blow.total for blow in blows if blow.counts] or [0.0]
    row = Row(part, sum(blow.processes > 0 for blow in blows), kills.counted(trials), campaigns=len(trials))
    row.committed = f"{min(hit):.0f}-{max(hit):.0f} %"
    row.litter = sum(trial.litter for trial in trials)
    row.failures = [f"--again {trial.folder}: {fault}" for trial in trials for fault in trial.faults]
    row.seconds = sum(trial.seconds for trial in trials)
    row.detail = [asdict(trial) for trial in trials]
    return row


def _struck(scenario: Scenario, reference: Reference, place: Path, seed: str, most: int) -> Iterator[Row]:
    """Kills at system calls of a fresh campaign, then of one that goes on."""
    place.mkdir()
    with Preloaded(["run", scenario.config, "--output", place / "warm-up"], place) as preloaded:
        striker = syscalls.Striker(scenario, reference, preloaded, place)
        for what in ("fresh", "resumed"):
            part, began = f"{scenario.name} {what}", time.monotonic()
            try:
                points = striker.points()
            except RuntimeError as error:
                yield Row(f"syscalls {part}", failures=[f"{part}: {error}"])
                return
            chosen = syscalls.sample(points, most, random.Random(f"{seed}/{part}"))
            hits = [striker.strike(point) for point in chosen]
            yield _hit_row(part, hits, reference, time.monotonic() - began)
            striker.halfway(points)


def _hit_row(part: str, hits: Sequence[syscalls.Hit], reference: Reference, seconds: float) -> Row:
    struck = [hit for hit in hits if hit.struck is not None]
    inside = [hit for hit in struck if 0 < hit.committed < reference.total]
    row = Row(f"syscalls {part}", len(struck), len(inside), campaigns=len(hits), seconds=seconds)
    share = [100 * hit.committed / reference.total for hit in struck] or [0.0]
    row.committed = f"{min(share):.0f}-{max(share):.0f} %"
    row.failures = [f"{part} {_place(hit)}: {fault}" for hit in hits for fault in hit.faults]
    row.failures += [f"{part} {_place(hit)}: was not struck, ended with {hit.code}" for hit in hits if not hit.struck]
    row.detail = [asdict(hit) for hit in hits]
    return row


def _place(hit: syscalls.Hit) -> str:
    return f"{hit.point.call} {hit.point.ordinal} ({hit.point.path})"


def _table(rows: Sequence[Row]) -> None:
    sent, counted = sum(row.sent for row in rows), sum(row.counted for row in rows)
    failures = sum(len(row.failures) for row in rows)
    total = [
        "all",
        str(sent),
        str(counted),
        "",
        str(sum(r.campaigns for r in rows)),
        "",
        str(failures),
        f"{sum(row.seconds for row in rows):.0f}",
    ]
    lines = [list(COLUMNS), *(row.cells() for row in rows), total]
    widths = [max(len(line[k]) for line in lines) for k in range(len(COLUMNS))]
    print()
    for line in lines:
        print("  ".join(cell.ljust(w) if k == 0 else cell.rjust(w) for k, (cell, w) in enumerate(zip(line, widths))))
    if not failures and sent:
        print(f"0 failures in {sent} signals: less than {300 / sent:.2g} % of them do harm (95 % confidence)")


def _record(asked: argparse.Namespace, rows: Sequence[Row]) -> dict[str, Any]:
    revision = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    return {
        "seed": asked.seed,
        "kills": asked.kills,
        "revision": revision.stdout.strip(),
        "machine": {"system": platform.platform(), "python": platform.python_version(), "cpus": os.cpu_count()},
        "rows": [asdict(row) for row in rows],
    }


if __name__ == "__main__":
    sys.exit(main())
