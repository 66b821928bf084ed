"""Damaged files of a campaign and of its model: each is found, and the next command holds or refuses.

Enters: a finished campaign of two sources, one that is half done, the model, and another valid
campaign and model to take files from. Leaves: a `Tally`. A trial damages one file, then reads the
folder with `assay verify` and another command, runs it again, and predicts with the model. Every
command runs in this process, since importing the libraries takes ten times as long as a trial.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import random
import shutil
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import yaml

from assay.screening.commands import cli
from assay.screening.settings.exits import Exit, explain
from assay.sources import table
from assay.sources.crystals import Crystals
from tests.chaos import campaigns
from tests.chaos.tally import Tally
from tests.servers import FaultServer, entries_from_crystals

MODEL, OTHER_MODEL = campaigns.MODEL.with_name("tc-fast"), campaigns.MODEL
"""The model that is damaged, quick to load, and one to take files from."""
HOWS = ("flip", "flip", "cut", "zero", "swap", "delete", "replace", "rename", "append")
PAGE = 4096
REFUSALS = {Exit.BALANCE_BROKEN, Exit.DISK, Exit.CONFIG}
READERS = ("status", "status", "errors", "errors", "report", "rank")
REMADE = {"attempts.log", "config.resolved.yaml"}
"""Files that every run writes anew: `verify` need not know how they were."""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    """Exit code; -1 for an exception that is no failure of the list."""
    line: str
    """The line on standard error, or the end of a traceback."""


def command(*arguments: str | Path) -> Ended:
    """`assay` with these arguments, in this process."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            code = cli.app([*map(str, arguments)], standalone_mode=False)
    except Exception as error:  # noqa: BLE001 (what the command itself would do)
        failure = explain(error)
        if failure is None or "\n" in str(failure):
            return Ended(-1, traceback.format_exc()[-1500:])
        return Ended(failure.code, str(failure))
    return Ended(int(code or 0), "")


@dataclass
class Damage:
    """One damaged file."""

    how: str
    path: Path
    touched: set[Path]
    """The files that are not as they were."""


@dataclass
class Ground:
    """A campaign folder and its model, and how both were before any harm."""

    config: Path
    folder: Path
    model: Path
    crystals: Path
    """A file to predict with the model."""
    spare: dict[str, list[bytes]]
    """Kind of file -> contents of valid files of this kind that belong to another campaign or model."""
    outputs: dict[str, str]
    """Digests of the outputs of an undisturbed run."""
    predictions: str = ""
    """Digest of the undisturbed predictions of `crystals`."""
    pristine: dict[Path, bytes] = field(default_factory=dict)
    aims: tuple[str, ...] = ()
    """Names of the files that are damaged; none: all."""

    def remember(self) -> None:
        """Take both folders as they are now for sound."""
        self.pristine = contents(self.folder) | contents(self.model)

    def restore(self) -> None:
        """Bring both folders back."""
        now = contents(self.folder) | contents(self.model)
        for path in now.keys() - self.pristine.keys():
            path.unlink()
        for path, content in self.pristine.items():
            if now.get(path) != content:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)

    def kind(self, path: Path) -> str:
        """What a file is for."""
        if self.model in path.parents:
            return f"model {path.name}"
        return kind(path.relative_to(self.folder))

    def kinds(self) -> dict[str, list[Path]]:
        """Kind -> the files of it."""
        found: dict[str, list[Path]] = {}
        for path in sorted(self.pristine):
            if not self.aims or path.name in self.aims:
                found.setdefault(self.kind(path), []).append(path)
        return found

    def predict(self) -> Ended:
        """Predict with the model; the line of an ended command is then the digest of what it wrote."""
        output = self.folder.with_name("predictions.parquet")
        output.unlink(missing_ok=True)
        ended = command("predict", self.crystals, "--model", self.model, "--output", output)
        return Ended(0, campaigns.digest(output)) if ended.code == 0 else ended


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file of a folder."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kind(name: Path) -> str:
    """What a file of a campaign is for, by its name in the folder."""
    *above, last = name.parts
    if not above:
        return last
    quarantined = " quarantine" if last.endswith(".quarantine.parquet") else ""
    if above[0] == "snapshot" and "chunks" not in above:
        return f"page{quarantined}"
    return above[1] if len(above) > 1 and above[0] in ("snapshot", "identity") else above[0]


def harm(ground: Ground, rng: random.Random, hows: Sequence[str] = HOWS) -> Damage | None:
    """Damage one file at random, all kinds of files alike; None when nothing would change."""
    how, kinds = rng.choice(hows), ground.kinds()
    found = rng.choice(sorted(kinds))
    path = rng.choice(kinds[found])
    content = ground.pristine[path]
    touched = {path}
    if how == "delete":
        path.unlink()
        return Damage(how, path, touched)
    if how == "rename":
        other = path.with_name(rng.choice((f"{path.name}.bak", f"copy-{path.name}", next_name(path))))
        if other.exists():
            return None
        path.rename(other)
        return Damage(how, path, touched | {other})
    if how == "swap":
        other = rng.choice(kinds[found])
        other.write_bytes(content)
        touched.add(other)
        after = ground.pristine[other]
    elif how == "replace":
        after = rng.choice(ground.spare.get(found) or [b""])
    else:
        after = spoiled(content, how, rng)
    if after == content:
        return None
    path.write_bytes(after)
    return Damage(how, path, touched)


def spoiled(content: bytes, how: str, rng: random.Random) -> bytes:
    """The content of a file with some bits flipped, another digit, its end cut off, a page of zeros or a tail."""
    changed = bytearray(content)
    if how == "append":
        return content + rng.choice((b"\0", b"\n", b"{}", content[:64] or b" ", rng.randbytes(40)))
    if not content:
        return content
    if how == "flip":
        for _ in range(rng.choice((1, 1, 1, 3))):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif how == "digit":
        place = rng.choice([place for place, byte in enumerate(content) if 48 <= byte < 58] or [0])
        changed[place] = 48 + (changed[place] + rng.randrange(1, 10) - 48) % 10
    elif how == "cut":
        del changed[rng.randrange(len(changed)) :]
    else:
        start = PAGE * rng.randrange((len(changed) - 1) // PAGE + 1)
        changed[start : start + PAGE] = bytes(len(changed[start : start + PAGE]))
    return bytes(changed)


def next_name(path: Path) -> str:
    """The name of a file of the same kind that is not there, such as that of the next record."""
    return f"{int(path.stem) + 90:08d}{path.suffix}" if path.stem.isdecimal() else f"0{path.name}"


def judge(ground: Ground, damage: Damage, rng: random.Random) -> tuple[str, Ended]:
    """What is wrong with how a damage was met (empty: nothing), and how the refusal ended, if it was one."""
    ended = []
    if ground.model in damage.path.parents:
        predicted = ground.predict()
    else:
        predicted, found = Ended(0, ground.predictions), command("verify", ground.folder)
        ended = [found, command(rng.choice(READERS), ground.folder)]
        if found.code == 0 and not excused(ground, damage):
            return "verify finds nothing", found
    ran = command("run", ground.config, "--output", ground.folder)
    ended += [ran, predicted]
    if strange := [each for each in ended if each.code not in {0, *REFUSALS}]:
        return f"ended with {strange[0].code}", strange[0]
    if ran.code == 0 and campaigns.digests(ground.folder) != ground.outputs:
        return "the next run ends in other bytes", ran
    if predicted.code == 0 and predicted.line != ground.predictions:
        return "the model predicts other numbers", predicted
    if ran.code and (others := changed(ground, damage)):
        return f"a run that refused changed {', '.join(path.name for path in others)}", ran
    if (ground.folder / "LOCK").exists():
        return "the LOCK is still there", ran
    return "", next((each for each in (ran, predicted) if each.code), ran)


def excused(ground: Ground, damage: Damage) -> bool:
    """Whether the folder is a sound one of another moment, or the file is made anew by every run."""
    records = [path for path in ground.pristine if path.parent == ground.folder / "log"]
    gone = not damage.path.exists() and damage.path == max(records)
    return gone or damage.path.name in REMADE


def changed(ground: Ground, damage: Damage) -> list[Path]:
    """Sound files that are not as they were, leaving out what every command writes anew."""
    now = contents(ground.folder) | contents(ground.model)
    free = damage.touched | {ground.folder / name for name in (*REMADE, *campaigns.OUTPUTS)}
    return [path for path, content in ground.pristine.items() if path not in free and now.get(path) != content]


def trials(ground: Ground, number: int, seed: str, part: str, hows: Sequence[str] = HOWS) -> Tally:
    """Damage the folder so many times, and bring it back each time."""
    tally, began = Tally(part), time.monotonic()
    for place in itertools.count():
        if tally.tried == number:
            break
        rng = random.Random(f"{seed}/{part}/{place}")
        damage = harm(ground, rng, hows)
        if damage is not None:
            wrong, ended = judge(ground, damage, rng)
            if wrong:
                tally.lose(f"{part} {place} of seed {seed}: {damage.how} {damage.path}: {wrong} ({ended.line})")
            elif ended.code:
                tally.refuse(ended.code, ended.line)
            else:
                tally.hold()
            name = f"{ground.kind(damage.path)} {damage.how}"
            tally.detail.append({"place": place, "damage": name, "code": ended.code, "wrong": wrong})
        ground.restore()
    tally.seconds = time.monotonic() - began
    return tally


@contextlib.contextmanager
def grounds(place: Path) -> Iterator[dict[str, Ground]]:
    """A finished campaign of a server and a file, with duplicates and refused rows, and one that is half done."""
    place.mkdir(parents=True, exist_ok=True)
    batch = campaigns.crystals(40)
    with FaultServer(entries_from_crystals(batch), page_limit=8, faults=["nan:3,37"]) as server:
        model = Path(shutil.copytree(MODEL, place / "model"))
        config = _config(place, server.url, batch, model)
        finished = _finished(config, place / "finished", place / "twins.parquet", model, _spare(place))
        half = _half_done(finished, place / "half")
        yield {"finished": finished, "half": half}


def _config(place: Path, url: str, batch: Crystals, model: Path) -> Path:
    """Two sources with crystals in common; each has rows that are refused."""
    config = campaigns.overlapping(place, url, batch).config
    _break_one_row(place / "twins.parquet")
    limits = campaigns.FILTERS if model == OTHER_MODEL else {"predicted": {"tc": {"min": 2.0}}}
    chosen = yaml.safe_load(config.read_text()) | {"models": [str(model)], "max_bad": 1.0, "filters": limits}
    config.write_text(yaml.safe_dump(chosen))
    return config


def _finished(config: Path, folder: Path, crystals: Path, model: Path, spare: dict[str, list[bytes]]) -> Ground:
    ended = command("run", config, "--output", folder)
    if ended.code:
        raise RuntimeError(f"an undisturbed run ended with {ended}")
    ground = Ground(config, folder, model, crystals, spare, campaigns.digests(folder))
    ground.predictions = ground.predict().line
    ground.remember()
    return ground


def _half_done(finished: Ground, folder: Path) -> Ground:
    """The folder as it was when half of its chunks were scored."""
    shutil.copytree(finished.folder, folder)
    records = sorted((folder / "log").iterdir())
    parts = [path for path in records if json.loads(path.read_bytes())["kind"] == "part"]
    for path in records[records.index(parts[len(parts) // 2]) :]:
        for name in json.loads(path.read_bytes())["files"]:
            (folder / name).unlink()
        path.unlink()
    ground = Ground(
        finished.config,
        folder,
        finished.model,
        finished.crystals,
        finished.spare,
        finished.outputs,
        finished.predictions,
    )
    ground.remember()
    return ground


def _spare(place: Path) -> dict[str, list[bytes]]:
    """Files of every kind from another campaign and another model."""
    batch, other = campaigns.crystals(16), place / "other"
    with FaultServer(entries_from_crystals(batch), page_limit=8, faults=["nan:5"]) as server:
        config = _config(other, server.url, batch, OTHER_MODEL)
        ended = command("run", config, "--output", other / "out")
    if ended.code:
        raise RuntimeError(f"an undisturbed run ended with {ended}")
    found: dict[str, list[bytes]] = {}
    for path, content in contents(other / "out").items():
        found.setdefault(kind(path.relative_to(other / "out")), []).append(content)
    for path, content in contents(OTHER_MODEL).items():
        found.setdefault(f"model {path.name}", []).append(content)
    return found


def _break_one_row(path: Path) -> None:
    """Make the last row of a table one that is refused."""
    content = table.read(path)
    sites = content["nsites"].to_pylist()
    sites[-1] = 99
    place = content.column_names.index("nsites")
    table.write(content.set_column(place, content.field(place), pa.array(sites, pa.int32())), path)
