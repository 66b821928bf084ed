"""Faults of a server, each met by a campaign of two sources that is killed and run again.

Enters: one server on loopback that takes on one fault after another, and the seed of the kills.
Leaves: a `Tally`. With a fault that passes, a campaign must end in the bytes of a healthy server.
With one that stays, it must end as the unkilled campaign did: with an exit code that says so, in a
balance that holds, with the same bytes; and a source that was down must come back whole once the
server is healthy. Waits are tenths of seconds (`replies.hurried`).
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from assay.screening.settings.exits import Exit
from assay.sources import table
from tests.chaos import campaigns, kills
from tests.chaos.campaigns import Reference, Scenario
from tests.chaos.kills import Trial
from tests.chaos.preloaded import Preloaded
from tests.chaos.processes import ROOT
from tests.chaos.tally import Tally
from tests.servers import FaultServer, entries_from_crystals

N, PAGE = 48, 8
HURRY = "from tests.chaos import replies\nhurry = replies.hurried()\nhurry.__enter__()\n"
"""Put into `sitecustomize`: the command waits hundredths of seconds for a server."""

PASSING = {
    "torn reply": "truncated*1",
    "cut chunked reply": "half-chunk*1",
    "cut gzip": "short-gzip*1",
    "plain bytes called gzip": "not-gzip*1",
    "HTML instead of JSON": "html*1",
    "empty body": "no-body*1",
    "connection reset": "reset*1",
    "closed before the stated length": "close*1",
    "no answer": "hang@16*1",
    "500 once": "500*1",
    "a run of 502 and 503": "503*2",
    "504 at one page": "504@24*3",
    "429 without Retry-After": "429*2",
    "429 with Retry-After": "429-after:0.2*1",
    "429 with a date": "429-date:0@16*1",
}
"""Faults after which the server answers rightly: the same bytes as from a healthy server."""
HARMLESS = {
    "JSON called HTML": "text-type",
    "rubbish behind the gzip": "gzip-tail",
    "next link without response_fields": "forget-fields",
    "more_data_available on the last page": "more-lies",
    "no data_available": "no-available",
    "an older API version": "api-version:0.9.5",
}
"""Faults that last and cost nothing: the same bytes too."""
OTHER_PAGES = {
    "next link without page_limit": "forget:page_limit",
    "smaller pages than asked for": "ignore-limit:5",
    "opaque cursors": "cursor-next",
}
"""Ways to page that cost nothing: the same crystals with the same predictions, from other pages."""
BROKEN = {
    "an invalid byte": "bad-byte:11",
    "deep nesting": "nested:20",
    "5,000 digits": "digits:3",
    "null attributes": "null-attributes:30",
    "500 for one entry": "500#17",
    "NaN positions": "nan:40",
    "gzip in gzip at one offset": "twice-gzip@16",
    "deep nesting of the reply at one offset": "deep@16",
    "a bomb at one offset": "bomb@16",
}
"""Faults of one entry, or of each request that begins with it: it is counted, all others arrive."""
LYING = {
    "more entries announced than there are": "wrong-count:60",
    "another total on each page": "shrink:3",
    "no count": "no-count",
    "endless fresh ids": "endless",
    "rows lost between pages": "lost:2",
    "rows again, and none behind them": "doubled:2",
    "a next link to itself": "self-next",
    "pages that go round": "loop-next",
    "more_data_available without a link": "next-key:",
    "empty page with a next link": "empty-next:16",
    "numbers as ids": "int-ids",
    "the count of the page": "page-count",
}
"""Faults that no client can see through: an honest exit code, and the same end however often killed."""
LASTING = {
    "redirect": "redirect:http://127.0.0.1:9/x@16",
    "next link to another host": "foreign-next:http://127.0.0.1:9",
    "endless headers": "headers@16",
    "another content coding": "brotli@16",
    "a body byte by byte": "trickle@24",
    "errors in a good reply": "errors",
    "no list of data": "null-data",
    "503 for ever": "503",
    "401": "401@16",
}
"""Faults that end the source: 69 or 3, and all rows once the server is healthy again."""
FAULTS = {**PASSING, **HARMLESS, **OTHER_PAGES, **BROKEN, **LYING, **LASTING}


@dataclass
class Outage:
    """A server and the campaign that pulls from it."""

    server: FaultServer
    scenario: Scenario
    preloaded: Preloaded
    place: Path
    healthy: Reference
    rows: int
    """Rows that a healthy campaign receives."""

    def trial(self, fault: str, number: int, seed: str) -> tuple[Trial, Reference, str]:
        """One fault, and so many kills under it; what is wrong with the end of the unkilled campaign."""
        slug = fault.replace(" ", "-").replace(",", "")
        self.server.become([FAULTS[fault]])
        folder = self.place / f"{slug}-undisturbed"
        reference = campaigns.undisturbed(self.scenario, folder, (0, 3, 69))
        wrong = self.dishonest(fault, reference, folder)
        self.server.become([FAULTS[fault]])
        folder = self.place / f"{slug}-{seed}"
        trial = kills.chain(self.scenario, reference, folder, self.preloaded, number)
        if reference.code == Exit.SOURCE_DOWN and not trial.faults:
            self.server.become([])
            code, words = self.scenario.finish(folder, self.preloaded)
            trial.faults += [f"healed: {what}" for what in self.different(self.healthy, code, folder, words)]
        return trial, reference, wrong

    def dishonest(self, fault: str, reference: Reference, folder: Path) -> str:
        """What is wrong with how an unkilled campaign met a fault; empty: nothing."""
        if "Traceback" in reference.words:
            return f"a traceback: {reference.words[-600:]}"
        if fault in PASSING or fault in HARMLESS:
            return "; ".join(self.different(self.healthy, reference.code, folder, reference.words))
        if fault in OTHER_PAGES and predictions(folder) != predictions(self.place / "healthy"):
            return "other crystals, or other predictions"
        if fault in LASTING and reference.code not in (Exit.SOURCE_DOWN, Exit.INCOMPLETE):
            return f"exit code {reference.code} for a source that ended early"
        if reference.code == Exit.SOURCE_DOWN:
            return ""
        balance = json.loads((folder / "summary.json").read_text())["balance"]
        if fault in BROKEN and (reference.code, balance["received"], balance["quarantined"]) != (0, self.rows, 1):
            return f"exit code {reference.code} and {balance} for one broken entry"
        if reference.code == Exit.DONE and balance["received"] < self.rows:
            return f"{balance['received']} of {self.rows} rows, and the campaign says that it is complete"
        return ""

    def different(self, other: Reference, code: int, folder: Path, words: str) -> list[str]:
        """How a folder differs from what another campaign left."""
        if code != other.code:
            return [f"exit code {code}, not {other.code}: {words}"]
        found = campaigns.digests(folder)
        return [f"{name} differs" for name in campaigns.OUTPUTS if found[name] != other.digests[name]]

    def run(self, number: int, seed: str, chosen: Sequence[str] = tuple(FAULTS)) -> Tally:
        """Kill the campaign `number` times, under one fault after the other."""
        tally, began = Tally("server faults"), time.monotonic()
        for place, fault in enumerate(chosen):
            share = number // len(chosen) + (place < number % len(chosen))
            if share == 0:
                continue
            trial, reference, wrong = self.trial(fault, share, seed)
            faults = [*filter(None, [wrong]), *trial.faults]
            if faults:
                tally.lose(f"{fault} ({FAULTS[fault]}), folder {trial.folder}: {'; '.join(faults)}")
            elif reference.code == Exit.DONE:
                tally.hold()
            else:
                tally.refuse(reference.code, reference.words.splitlines()[-1] if reference.words else "")
            detail = {"fault": fault, "spelling": FAULTS[fault], "code": reference.code, "line": reference.words[-300:]}
            tally.detail.append({**detail, "kills": trial.counted, "sent": len(trial.blows), "wrong": faults})
        tally.seconds = time.monotonic() - began
        killed = sum(row["kills"] for row in tally.detail)
        tally.note = f"{killed} kills with some but not all of the work committed"
        return tally


def predictions(folder: Path) -> list[tuple[str, float]]:
    """Id and predicted mean of every ranked crystal."""
    content = table.read(folder / "candidates.parquet", ["id", "formation_energy_mean"])
    return list(zip(*(column.to_pylist() for column in content.columns), strict=True))


@contextlib.contextmanager
def outages(place: Path, sabotage: str = "", preloaded: Preloaded | None = None) -> Iterator[Outage]:
    """The server, and what a campaign leaves that meets it in good health; see `tests.chaos.sabotages`.

    A parent that is given forks commands that wait as long as they do for users.
    """
    place.mkdir(parents=True, exist_ok=True)
    batch = campaigns.crystals(N)
    half = batch[N // 2 :]
    paths = []
    for number in range(3):
        ids = np.array([f"twin/{name.split('/', 1)[-1]}" for name in half[number::3].ids.tolist()])
        paths.append(str(place / f"twins-{number}.parquet"))
        table.write(table.to_table(replace(half[number::3], ids=ids)), Path(paths[-1]))
    with FaultServer(entries_from_crystals(batch), page_limit=PAGE) as server:
        source = campaigns.served(server.url, PAGE) | {"patience_s": 0.0}
        sources = [source, {"kind": "files", "paths": paths, "name": "twins"}]
        config = campaigns.write_config(place / "outages.yaml", sources, chunk_size=8, max_bad=1.0)
        with contextlib.nullcontext(preloaded) if preloaded else _hurried(config, place, sabotage) as parent:
            scenario = Scenario("outages", config, preloaded=parent)
            healthy = campaigns.undisturbed(scenario, place / "healthy")
            rows = json.loads((place / "healthy" / "summary.json").read_text())["balance"]["received"]
            yield Outage(server, scenario, parent, place, healthy, rows)


def _hurried(config: Path, place: Path, sabotage: str) -> Preloaded:
    hook = place / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(HURRY + sabotage)
    return Preloaded(["run", config, "--output", place / "warm-up"], place, {"PYTHONPATH": f"{hook}:{ROOT}"})
