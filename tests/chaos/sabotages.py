"""Safeguards taken away on purpose: the trials must find that something is lost.

Enters: the place of the trials. Leaves: for each sabotage what the trials found first; nothing
found is a failure of the trials themselves. A sabotage is a patch of this process, or a text that
the command runs before anything else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from assay.models.ensemble import stored
from assay.screening.folder.ledger import Ledger
from assay.sources.databases import client, trust
from assay.sources.databases.trust import BrokenEntry
from tests.chaos import campaigns, damages, kills, outages, replies, syscalls
from tests.chaos.campaigns import Reference, Scenario
from tests.chaos.damages import Ground
from tests.chaos.preloaded import Preloaded
from tests.chaos.processes import ROOT

MOST = 60
"""Trials after which a sabotage counts as unseen."""
NOT_ATOMIC = """
import os
def write(source, target, **_):
    data = open(source, "rb").read()
    with open(target, "wb", buffering=0) as file:
        file.write(data[: len(data) // 2])
        file.write(data[len(data) // 2 :])
def link(source, target, **_):
    if os.path.exists(target):
        raise FileExistsError(target)
    write(source, target)
def replace(source, target, **_):
    write(source, target)
    os.unlink(source)
os.link, os.rename, os.replace = link, replace, replace
"""
"""Renames and links that copy, in two steps."""
NO_FSYNC = "import os\nos.fsync = lambda descriptor: None\n"
UNDEAD = "from assay.screening.folder import lock\nlock._verdict = lambda content, age: lock.Verdict.ALIVE\n"
"""The process that holds a lock is taken for a living one."""
TRUSTING = "from assay.sources.databases.paging import Walk\nWalk._shortfall = lambda *_, **__: ''\n"
"""A pull that ends early counts as whole."""


def no_digests(ground: Ground, seed: str) -> str:
    """The digests of committed files are not compared."""
    with mock.patch.object(Ledger, "wrong", return_value=""):
        return _first(lambda place: damages.trials(ground, 1, f"{seed}/{place}", "sabotaged").lost)


def no_seal(ground: Ground, seed: str) -> str:
    """The digest of `ensemble.json` and `model.json` is not compared."""
    aimed = replace(ground, aims=("ensemble.json", "model.json"))
    with mock.patch.object(stored, "check_seal"):
        return _first(lambda place: damages.trials(aimed, 1, f"{seed}/{place}", "sabotaged", ("digit",)).lost)


def dropped_entries(trials: replies.Trials, seed: str) -> str:
    """An entry that cannot be read is left out without a record."""

    def parse(body: bytes) -> Any:
        document = trust.parse(body)
        if isinstance(document, dict) and isinstance(document.get("data"), list):
            document["data"] = [entry for entry in document["data"] if not isinstance(entry, BrokenEntry)]
        return document

    with mock.patch.object(client, "parse", parse):
        return _first(lambda place: trials.run(1, f"{seed}/{place}").lost)


def trusted_ends(place: Path, seed: str) -> str:
    """A pull that ends early counts as whole."""
    with outages.outages(place, TRUSTING) as sabotaged:
        return _said(sabotaged.run(1, seed, ["a next link to itself"]).lost)


def undead_locks(scenario: Scenario, reference: Reference, place: Path, seed: str) -> str:
    """The lock of a dead process is never taken over."""
    with hooked(UNDEAD, scenario, place) as preloaded:
        sabotaged = Scenario(scenario.name, scenario.config, preloaded=preloaded)
        return _said(kills.chain(sabotaged, reference, place / f"{scenario.name}-{seed}", preloaded, 2).faults)


def two_step_renames(scenario: Scenario, reference: Reference, place: Path) -> str:
    """Renames and links copy, in two steps."""
    with hooked(NOT_ATOMIC, scenario, place) as preloaded:
        striker = syscalls.Striker(scenario, reference, preloaded, place)
        points = [point for point in striker.points() if point.call == "write" and point.path.startswith("log/0")]
        return _first(lambda number: striker.strike(points[1 + 2 * number]).faults, len(points) // 2)


def no_fsync(scenario: Scenario, reference: Reference, place: Path) -> str:
    """Nothing is flushed to the disk."""
    with hooked(NO_FSYNC, scenario, place) as preloaded:
        return _said(syscalls.Striker(scenario, reference, preloaded, place).unsynced())


@contextlib.contextmanager
def hooked(hook: str, scenario: Scenario, place: Path) -> Iterator[Preloaded]:
    """The command, with a text that it runs before anything else."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "sitecustomize.py").write_text(hook)
    extra = {"PYTHONPATH": f"{place}:{ROOT}"}
    with Preloaded(["run", scenario.config, "--output", place / "warm-up"], place, extra) as preloaded:
        yield preloaded


def caught(stage: dict[str, Scenario], peace: campaigns.Peace, place: Path, seed: str) -> Iterator[tuple[str, str]]:
    """Every sabotage, and what the trials found of it first; empty: nothing."""
    with damages.grounds(place / "sabotaged-damages") as grounds:
        yield "digests of files not compared", no_digests(grounds["finished"], seed)
        yield "digest of a model's numbers not compared", no_seal(grounds["finished"], seed)
    with replies.hurried():
        yield "unreadable entries dropped", dropped_entries(replies.Trials(place / "sabotaged-replies"), seed)
    yield "early ends trusted", trusted_ends(place / "sabotaged-ends", seed)
    yield "locks of the dead respected", undead_locks(stage["pulled"], peace("pulled"), place / "undead", seed)
    if not syscalls.reason_to_skip(place):
        yield "renames in two steps", two_step_renames(stage["small"], peace("small"), place / "two-steps")
        yield "no fsync", no_fsync(stage["small"], peace("small"), place / "no-fsync")


def _first(trial: Callable[[int], list[str]], most: int = MOST) -> str:
    """What the first trial found that found anything."""
    return next((found for number in range(most) if (found := _said(trial(number)))), "")


def _said(losses: list[str]) -> str:
    return losses[0].splitlines()[0][:300] if losses else ""
