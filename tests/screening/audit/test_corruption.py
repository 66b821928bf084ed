"""Whatever happens to the files of a campaign: `verify` tells, and the next run refuses or ends in the same bytes."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from assay.models.ensemble.ensemble import Ensemble
from assay.screening.audit import audit
from assay.screening.settings.exits import Exit, Failure, explain
from assay.sources.crystals import Crystals
from tests.screening import small_campaign

TRIALS = 150
"""Per folder; both together would show a failure rate of 1 % with 95 % certainty."""
PAGE = 4096
READ = {"weights.safetensors", "model.json", "ensemble.json", "reference.safetensors"}
"""Files of an ensemble that are loaded; its card and its training history are for people."""
REFUSED = {Exit.DISK, Exit.BALANCE_BROKEN, Exit.CONFIG}
HOWS = (*("flip",) * 5, *("truncate", "zero", "delete", "swap") * 2, "tail")
UNCOMMITTED = {"attempts.log", "config.resolved.yaml"}
"""Files that every run writes anew: `verify` need not know how they were, but no run may trust
them."""


@dataclass
class Victim:
    """A campaign folder, the model it was made with, and how both looked before any harm."""

    config: Path
    folder: Path
    model: Path
    ensembles: list[Ensemble]
    pristine: dict[Path, bytes] = field(default_factory=dict)

    def remember(self) -> None:
        roots = (self.folder, self.model)
        self.pristine = {path: path.read_bytes() for root in roots for path in root.rglob("*") if path.is_file()}

    def restore(self) -> None:
        for path in [path for path in self.folder.rglob("*") if path.is_file() and path not in self.pristine]:
            path.unlink()
        for path, content in self.pristine.items():
            if not path.exists() or path.read_bytes() != content:
                path.write_bytes(content)

    def groups(self) -> dict[str, list[Path]]:
        """Kind of file -> the files of this kind that are damaged in turn."""
        found: dict[str, list[Path]] = {}
        for path in sorted(self.pristine):
            if self.model in path.parents:
                if path.name in READ:
                    found.setdefault(f"model {path.name}", []).append(path)
            else:
                name = path.relative_to(self.folder)
                kind = "chunks" if "chunks" in name.parts else name.parts[0] if len(name.parts) > 1 else "top"
                found.setdefault(kind, []).append(path)
        return found

    def load(self, folders: Sequence[str]) -> list[Ensemble]:
        return self.ensembles


@pytest.fixture(scope="module")
def started(real: Crystals, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Victim]:
    """Make campaigns over the same sources, with the same copy of the model."""

    folder = tmp_path_factory.mktemp("victims")
    small_campaign.write_sources(folder, real)
    shutil.copytree(model, folder / "model")

    def start(name: str) -> Victim:
        path = small_campaign.write_config(folder, folder / "model", output=str(folder / name))
        return Victim(path, folder / name, folder / "model", [Ensemble.load(folder / "model")])

    return start


@pytest.fixture(scope="module")
def finished(started: Callable[..., Victim]) -> Victim:
    victim = started("finished")
    assert small_campaign.run(small_campaign.make(victim.config)).code is Exit.DONE
    victim.remember()
    return victim


@pytest.fixture(scope="module")
def half(started: Callable[..., Victim]) -> Victim:
    """Stopped when two of its chunks were scored."""
    victim = started("half")
    parts = victim.folder / "parts"
    with pytest.raises(Failure) as caught:
        small_campaign.run(small_campaign.make(victim.config), lambda: len(list(parts.glob("*.parquet"))) >= 2)
    assert caught.value.code is Exit.STOPPED
    assert 0 < len(list(parts.iterdir())) < len(list((victim.folder / "snapshot" / "chunks").iterdir()))
    victim.remember()
    return victim


def harm(victim: Victim, chance: random.Random) -> tuple[str, Path] | None:
    """Damage one file at random; None when what was drawn would change nothing."""
    how, groups = chance.choice(HOWS), victim.groups()
    path = chance.choice(groups[chance.choice(sorted(groups))])
    content = bytearray(victim.pristine[path])
    if how == "flip":
        for _ in range(chance.choice((1, 1, 1, 3))):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    elif how == "truncate":
        content = content[: chance.randrange(len(content))]
    elif how == "zero":
        start = PAGE * chance.randrange((len(content) - 1) // PAGE + 1)
        content[start : start + PAGE] = bytes(len(content[start : start + PAGE]))
    elif how == "swap":
        group = next(group for group in groups.values() if path in group)
        other = chance.choice(group)
        content = bytearray(victim.pristine[other])
        other.write_bytes(victim.pristine[path])
    elif how == "tail":
        records = sorted((victim.folder / "log").iterdir())
        for record in records[chance.randrange(len(records)) :]:
            record.unlink()
        return how, victim.folder / "log"
    if how == "delete":
        path.unlink()
    elif bytes(content) == victim.pristine[path]:
        return None
    else:
        path.write_bytes(content)
    return how, path


def next_run(victim: Victim, *, weights: bool) -> Exit:
    """How the next run ends: refused with this code, or done."""
    try:
        small_campaign.run(small_campaign.make(victim.config, None if weights else victim.ensembles))
    except Exception as error:
        failure = explain(error)
        if failure is None:
            raise
        return failure.code
    return Exit.DONE


def last_record(victim: Victim, path: Path) -> bool:
    return path == max(path for path in victim.pristine if path.parent == victim.folder / "log")


@pytest.mark.parametrize("state", ["finished", "half"])
def test_no_damage_passes_unseen(
    state: str,
    finished: Victim,
    half: Victim,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # nothing here depends on a power cut
    victim: Victim = request.getfixturevalue(state)
    reference = small_campaign.digests(finished.folder)
    chance = random.Random(f"corruption of a {state} campaign")
    assert audit.check(victim.folder).code is Exit.DONE
    counts: Counter[str] = Counter()
    unseen, harmful = [], []
    while counts["trials"] < TRIALS:
        done = harm(victim, chance)
        if done is None:
            victim.restore()
            continue
        how, path = done
        weights = victim.model in path.parents
        try:
            findings = audit.check(victim.folder) if weights else audit.check(victim.folder, victim.load)
            code = next_run(victim, weights=weights)
            same = code is Exit.DONE and small_campaign.digests(victim.folder) == reference
            counts.update(
                ["trials", "found" if findings.problems else "silent", "refused" if code in REFUSED else "harmless"]
            )
            # without its newest records a log is that of an earlier moment: the work is done again
            excused = how == "tail" or (how == "delete" and last_record(victim, path)) or path.name in UNCOMMITTED
            if not (findings.problems or excused):
                unseen.append((counts["trials"], how, path))
            if code not in REFUSED and not same:
                harmful.append((counts["trials"], how, path, code))
        finally:
            victim.restore()
    with capsys.disabled():
        print(f"\n{state} campaign: {dict(counts)}")
    assert unseen == []
    assert harmful == []
    assert audit.check(victim.folder).code is Exit.DONE
    assert min(counts[what] for what in ("found", "refused", "harmless")) > TRIALS / 20
