"""Changed replies of a server: no traceback, the balance holds, a broken entry costs one entry.

Enters: a good server of real crystals, and the change of one of its replies: of some bytes or of
the JSON structure, in one entry (whenever it is sent) or in the whole reply (once, or always).
Leaves: a `Tally`: `held` are replies of which every entry arrived as it was sent, `refused` those
that left a row in quarantine (exit code 0), an incomplete source (3) or one that is down (69). Each
trial pulls a campaign of two sources from scratch, in this process, and compares with the pull of
the good server. Waits are hundredths of seconds.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from assay.screening.campaign import drive, fingerprint, plan
from assay.screening.campaign.plan import Plan
from assay.screening.folder import balance
from assay.screening.folder.ledger import Ledger
from assay.screening.runners.local import LocalRunner
from assay.screening.runners.worker import Worker
from assay.screening.settings import config, yamlfile
from assay.screening.settings.exits import Exit, explain
from assay.sources import table
from assay.sources.databases import optimade, pace
from tests.chaos import campaigns
from tests.chaos.tally import Tally
from tests.servers import Entry, FaultServer, entries_from_crystals

N, PAGE = 40, 10
SERVED = "served"
HONEST = {Exit.DONE, Exit.INCOMPLETE, Exit.SOURCE_DOWN}
QUICK = {"backoff_s": 0.001, "timeout_s": 5.0, "deadline_s": 20.0}
SCOPES = ("entry", "entry", "entry", "once", "always")
"""What is changed: one entry, or a whole reply the first time or each time that it is asked for."""
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 10**400, 1.5, float("nan"), float("inf"), "", "x", "\0", "é\ud800", [], {}, [[]]),
    *([None], {"a": {}}, "1", [1] * 50, [[1, 2, 3]] * 7, {"x": None}, "9" * 4000),
)
SPLICES = (b"\0", b"\xff", b'"', b"\\", b"}", b"]", b"{", b"[", b",", b":", b"null", b"[" * 3000, b"9" * 5000, b"\xc3")


@dataclass(frozen=True)
class Pulled:
    """What a pull left."""

    code: int
    """Exit code; -1 for an exception that is no failure of the list."""
    line: str
    crystals: dict[str, int]
    """Id -> digest of the crystal."""
    refused: list[str]
    """Ids of quarantined rows."""
    wrong: str = ""
    """A balance that does not hold."""


@dataclass
class Change:
    """One changed reply."""

    scope: str
    how: str
    entry: int
    """Place of the changed entry; -1 for a whole reply."""
    after: bytes


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Some bytes flipped, removed, doubled, replaced or put in; never none left."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        start = rng.randrange(len(changed))
        stop = min(len(changed), start + rng.choice((1, 1, 2, 8, 200)))
        how = rng.randrange(5)
        if how == 0:
            changed[start] ^= 1 << rng.randrange(8)
        elif how == 1:
            changed[start:stop] = rng.randbytes(stop - start)
        elif how == 2:
            changed[start:stop] = b""
        elif how == 3:
            changed[start:start] = rng.choice(SPLICES)
        else:
            changed[start:start] = changed[start:stop]
        changed = changed or bytearray(b" ")
    return bytes(changed)


def mutate_structure(document: Any, rng: random.Random) -> Any:
    """A value of a JSON document removed, doubled, exchanged or replaced by an odd one."""
    document = json.loads(json.dumps(document))
    holder, key = rng.choice([*_places({"": document})][1:] or [({"": document}, "")])
    how = rng.randrange(4)
    if how == 0:
        holder[key] = rng.choice(ODD)
    elif how == 1:
        del holder[key]
    elif how == 2 and isinstance(holder, list):
        holder[key:key] = [holder[key]] * rng.choice((1, 3, 40))
    else:
        other, there = rng.choice([*_places(document)])
        holder[key], other[there] = other[there], holder[key]
    try:
        json.dumps(document)
    except (ValueError, RecursionError):  # a value that was put into itself
        return rng.choice(ODD)
    return document


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """(holder, key) of every value below a document."""
    keys = list(document) if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    for key in keys:
        yield document, key
        yield from _places(document[key])


class Trials:
    """Pulls a campaign again and again."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._entries: list[Entry] = entries_from_crystals(campaigns.crystals(N))
        self._planned = self._plan()
        with FaultServer(self._entries, page_limit=PAGE) as server:
            self.good = self._pull(server, "good")

    def run(self, number: int, seed: str) -> Tally:
        """So many changed replies."""
        tally, began = Tally("replies"), time.monotonic()
        for place in range(number):
            rng = random.Random(f"{seed}/replies/{place}")
            with FaultServer(self._entries, page_limit=PAGE) as server:
                change = self._change(server, rng)
                pulled = self._pull(server, "changed")
            wrong = self._wrong(change, pulled)
            what = f"{change.scope}, {change.how}"
            if wrong:
                tally.lose(f"replies {place} of seed {seed}: {what}: {wrong} (exit code {pulled.code}: {pulled.line})")
            elif pulled.code == Exit.DONE and not pulled.refused:
                tally.hold()
            else:
                tally.refuse(pulled.code, pulled.line or f"quarantined: {', '.join(pulled.refused)[:300]}")
            tally.detail.append({"place": place, "change": what, "code": pulled.code, "wrong": wrong})
        tally.seconds = time.monotonic() - began
        return tally

    def _change(self, server: FaultServer, rng: random.Random) -> Change:
        scope, how = rng.choice(SCOPES), rng.choice(("bytes", "structure"))
        if scope == "entry":
            place = rng.randrange(N)
            entry = self._entries[place]
            after = changed(json.dumps(entry).encode(), how, rng)
            server.raw[place] = after
            return Change(scope, how, place, after)
        struck, times = rng.randrange(1 + N // PAGE), itertools.count()
        seed, paths = rng.random(), {}

        def rewrite(path: str, body: bytes) -> bytes:
            number = paths.setdefault(path, len(paths))
            if number != struck or (scope == "once" and next(times)):
                return body
            return changed(body, how, random.Random(seed))

        server.rewrite = rewrite
        return Change(scope, how, -1, b"")

    def _wrong(self, change: Change, pulled: Pulled) -> str:
        if pulled.code not in HONEST:
            return "no honest end"
        if pulled.wrong:
            return pulled.wrong
        lost = self.good.crystals.keys() - pulled.crystals.keys()
        altered = [name for name, digest in pulled.crystals.items() if self.good.crystals.get(name, digest) != digest]
        if change.scope == "entry":
            own = f"{SERVED}/{self._entries[change.entry]['id']}"
            if others := (lost | {*altered}) - {own}:
                return f"other entries are lost or altered: {', '.join(sorted(others))}"
            recorded = pulled.refused or len(pulled.crystals) == len(self.good.crystals)  # under another id
            if own in lost and not recorded and pulled.code != Exit.SOURCE_DOWN:
                return "the changed entry is gone without a record"
        if pulled.code == Exit.DONE and len(pulled.crystals) + len(pulled.refused) < len(self.good.crystals):
            return f"{len(lost)} entries are missing, and the campaign says that it is complete"
        return ""

    def _plan(self) -> Plan:
        content = {
            "name": "replies",
            "sources": [{"kind": "prototypes", "n": 1}],
            "models": [str(campaigns.MODEL)],
            "output": str(self._place / "none"),
        }
        return plan.make(yamlfile.validate(config.Campaign, content, "here"))

    def _pull(self, server: FaultServer, name: str) -> Pulled:
        folder = self._place / name
        shutil.rmtree(folder, ignore_errors=True)
        source = campaigns.served(server.url, PAGE) | {"patience_s": 0.0, "shard_size": 10_000}
        content = {
            "name": "replies",
            "sources": [source, {"kind": "prototypes", "n": 4}],
            "models": self._planned.models,
            "output": str(folder),
            "max_bad": 1.0,
        }
        chosen = yamlfile.validate(config.Campaign, content, "here")
        stamp = fingerprint.take(chosen, self._planned.ensembles)
        asked = replace(self._planned, campaign=chosen, folder=folder, fingerprint=stamp)
        try:
            outcome = drive.run(asked, LocalRunner(Worker(list)), lambda: False, pull_only=True)
        except Exception as error:  # noqa: BLE001 (what the command itself would do)
            failure = explain(error)
            if failure is None or "\n" in str(failure):
                return Pulled(-1, traceback.format_exc()[-1500:], {}, [])
            return _left(folder, failure.code, str(failure))
        return _left(folder, outcome.code, outcome.note)


def changed(content: bytes, how: str, rng: random.Random) -> bytes:
    """A JSON document with some bytes or some values changed."""
    if how == "bytes":
        return mutate_bytes(content, rng)
    return json.dumps(mutate_structure(json.loads(content), rng)).encode()


def _left(folder: Path, code: int, line: str) -> Pulled:
    """What is in the snapshot of a folder, and whether it balances."""
    ledger = Ledger(folder)
    try:
        balance.take(ledger)
    except Exception as error:  # noqa: BLE001 (whatever it is, the balance does not hold)
        return Pulled(code, line, {}, [], repr(error))
    crystals: dict[str, int] = {}
    refused: list[str] = []
    for record in ledger.all("page"):
        for path in record.files:
            content = ledger.read(record, path)
            if path.endswith(".quarantine.parquet"):
                refused += [row.id for row in table.quarantine_rows(content)]
            else:
                crystals |= dict(zip(content["id"].to_pylist(), _digests(content), strict=True))
    return Pulled(code, line, {name: digest for name, digest in crystals.items() if name.startswith(SERVED)}, refused)


def _digests(content: Any) -> list[int]:
    """One number per row: a hash of every field of its crystal."""
    fields = [column.name for column in table.CRYSTAL_FIELDS]
    return [hash(json.dumps([row[name] for name in fields], default=str)) for row in content.to_pylist()]


@contextlib.contextmanager
def hurried() -> Iterator[Callable[[], None]]:
    """The same rules on a shorter scale: hundredths of a second where they wait for minutes."""
    with (
        mock.patch.object(optimade, "connect", partial(optimade.connect, **QUICK)),
        mock.patch.object(pace, "HostPace", partial(pace.HostPace, open_s=0.01, max_open_s=0.05)),
    ):
        yield lambda: None
