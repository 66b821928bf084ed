"""The campaigns that are disturbed: what they are, how far they got, and how two folders are compared.

Enters: crystals, servers on loopback. Leaves: a `Scenario` with its undisturbed `Reference`.
Everything is read from the outside: the command line, the records in `log/` and the files a
campaign leaves.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from assay.sources import prototypes as hypothetical, table
from assay.sources.crystals import Crystals
from tests.chaos.preloaded import Forked, Preloaded
from tests.chaos.processes import ROOT, Tree
from tests.metals import EMT, SYMBOLS, metals
from tests.screening.small_campaign import some_members
from tests.servers import materials_project, reference_server

TABLES = ("candidates.parquet", "unrankable.parquet", "excluded.parquet", "quarantine.parquet")
OUTPUTS = (*TABLES, "summary.json", "report.html")
FILTERS = {"predicted": {"formation_energy": {"max": -0.5, "confidence": 0.9}}}
KINDS = ("page", "relaxed", "part")
"""Kinds of log records that are progress."""
ON_RAY = {"ray": "overlapping", "objectives-ray": "objectives"}
"""Campaign on Ray -> the same one here."""
SERVED = "served"
"""Name of the source that is a server."""
RAY_START_S = 6.0
MODEL = ROOT / "models" / "zoo" / "formation-energy"


@dataclass(frozen=True)
class Scenario:
    """A campaign, and how it is run."""

    name: str
    config: Path
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    preloaded: Preloaded | None = None
    """Where its processes are forked; None: each is started anew."""

    def start(self, folder: Path) -> Tree | Forked:
        """Begin the campaign in `folder`, or go on with it."""
        if self.preloaded is not None:
            return Forked(self.preloaded, self._command(folder))
        logs = folder.with_name(folder.name + ".logs")
        logs.mkdir(parents=True, exist_ok=True)
        return Tree(self._command(folder), logs, self.environment)

    def finish(self, folder: Path, preloaded: Preloaded) -> tuple[int, str]:
        """Run the campaign in `folder` to its end; the exit code and the last lines on standard error."""
        if self.environment:  # Ray starts its processes with it
            tree = self.start(folder)
            return tree.finish(), tree.last_words()
        done = preloaded.run(self._command(folder))
        return done.returncode, done.stderr[-1500:].strip()

    def _command(self, folder: Path) -> list[str | Path]:
        return ["run", self.config, "--output", folder, *self.arguments]


@dataclass(frozen=True)
class Reference:
    """What an undisturbed run left."""

    code: int
    words: str
    """The end of its standard error."""
    digests: dict[str, str]
    totals: dict[str, int]
    """Records of each kind of KINDS."""
    gaps_s: list[float]
    """From each page, relaxed chunk or part to the next one, and a typical one after the last."""
    start_s: float
    """From the start of the command to its first commit."""

    @property
    def total(self) -> int:
        """Commits of a whole campaign."""
        return sum(self.totals.values())


def write_config(path: Path, sources: list[dict[str, Any]], **keys: Any) -> Path:
    """A campaign config with the bundled model of four networks."""
    content = {"name": "chaos", "sources": sources, "models": [str(MODEL)], "chunk_size": 16} | keys
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


def prototypes(n: int) -> list[dict[str, Any]]:
    """One source of hypothetical crystals."""
    return [{"kind": "prototypes", "n": n, "seed": 7}]


def served(url: str, page_limit: int) -> dict[str, Any]:
    """A source that is an OPTIMADE server."""
    return {"kind": "optimade", "provider": url, "name": SERVED, "page_limit": page_limit}


def undisturbed(scenario: Scenario, folder: Path, codes: Sequence[int] = (0, 3)) -> Reference:
    """Run a campaign in peace; it may end with one of these codes.

    Raises:
        RuntimeError: when even that fails.
    """
    tree = scenario.start(folder)
    code = tree.finish()
    if code not in codes or (code in (0, 3) and not (folder / "summary.json").exists()):
        raise RuntimeError(f"{scenario.name}: an undisturbed run ended with {code}: {tree.last_words()}")
    log = Log(folder)
    log.read()
    stamps = [stamp for stamp, kind in log.stamps if kind in KINDS]
    gaps = [after - before for before, after in itertools.pairwise(stamps)]
    totals = {kind: len(log.keys[kind]) for kind in KINDS}
    typical = statistics.median(gaps or [0.1])
    start_s = max(0.0, stamps[0] - tree.started)
    return Reference(code, tree.last_words(), digests(folder), totals, [*gaps, typical], start_s)


class Peace:
    """Name of a campaign -> what it leaves undisturbed; each is run once."""

    def __init__(self, stage: dict[str, Scenario], place: Path) -> None:
        self._stage, self._place = stage, place
        self._known: dict[str, Reference] = {}

    def __call__(self, name: str) -> Reference:
        """The reference; on Ray that of the same campaign here: the runners must agree to the byte."""
        if name in ON_RAY:
            return replace(self(ON_RAY[name]), start_s=RAY_START_S)
        if name not in self._known:
            self._known[name] = undisturbed(self._stage[name], self._place / f"{name}-undisturbed")
        return self._known[name]


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every output; absent ones say so."""
    return {name: digest(folder / name) for name in OUTPUTS}


def digest(path: Path) -> str:
    """sha256 of a file; an absent one says so."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "absent"


class Log:
    """The log of a campaign folder, read again and again while another process writes it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "log"
        self._read = 0
        self.keys: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
        """Kind -> key -> how often it was committed."""
        self.stamps: list[tuple[float, str]] = []
        """When each record was written, in s since 1970, and its kind."""

    def read(self) -> int:
        """Take in new records; how many different pages and parts are committed."""
        while (path := self._folder / f"{self._read:08d}.json").exists():
            try:
                record, _ = json.JSONDecoder().raw_decode(path.read_text())  # its own digest may follow it
            except ValueError:  # torn: only a broken protocol shows this, and the command says so when it runs again
                break
            self._read += 1
            self.stamps.append((path.stat().st_mtime, record["kind"]))
            if record["kind"] in self.keys:
                self.keys[record["kind"]][record["key"]] += 1
        return sum(len(keys) for keys in self.keys.values())

    def again(self) -> list[str]:
        """Keys of work that was committed twice: chunks, and pages of the server; a block of a local file is cheap."""
        pages = [key for key, times in self.keys["page"].items() if times > 1 and key.startswith(f"{SERVED}/")]
        return pages + [key for kind in ("relaxed", "part") for key, times in self.keys[kind].items() if times > 1]


def verified(folder: Path, preloaded: Preloaded) -> list[str]:
    """What `assay verify` finds wrong with a folder."""
    done = preloaded.run(["verify", folder])
    return [] if done.returncode == 0 else [f"assay verify: {done.stderr[-1500:].strip()}"]


def committed(folder: Path) -> int:
    """Different pages and parts in the log of a folder."""
    return Log(folder).read()


def litter(folder: Path) -> int:
    """Temporary files that a finished campaign holds."""
    return sum(1 for path in folder.rglob("*") if path.name.endswith(".tmp"))


def faults(folder: Path, reference: Reference, code: int, words: str) -> list[str]:
    """What is wrong with a campaign that was disturbed and then run to its end; empty: nothing."""
    if code != reference.code:
        return [f"ended with exit code {code}, not {reference.code}: {words}"]
    found = digests(folder)
    wrong = [f"{name} differs" for name in OUTPUTS if found[name] != reference.digests[name]]
    log = Log(folder)
    log.read()
    for kind, total in reference.totals.items():
        if len(log.keys[kind]) != total:
            wrong.append(f"{len(log.keys[kind])} different {kind} records, not {total}")
    if log.again():
        wrong.append(f"finished work was done again: {', '.join(log.again())}")
    if (folder / "LOCK").exists():
        wrong.append("the LOCK is still there")
    return wrong


def crystals(n: int) -> Crystals:
    """Real crystals of the Materials Project where the data packs are; hypothetical ones elsewhere."""
    data = os.environ.get("ASSAY_DATA")
    return materials_project(Path(data), n) if data else hypothetical.generate(n, seed=3)


@contextmanager
def scenarios(place: Path) -> Iterator[dict[str, Scenario]]:
    """Every campaign by name, with the server that some of them pull from."""
    batch = crystals(96)
    tmp = Path(tempfile.mkdtemp(prefix="ray"))  # short: the names of Ray's sockets begin with it
    try:
        with reference_server(batch, place, page_limit=12) as url:
            both = overlapping(place, url, batch)
            found = [local(place), pulled(place, url), both, ray(both, tmp), cascade(place, both), relaxed(place)]
            ranked = objectives(place, both)
            found += [ranked, replace(ray(ranked, tmp), name="objectives-ray")]
            yield {scenario.name: scenario for scenario in [*found, small(place), paged(place, url)]}
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def local(place: Path) -> Scenario:
    """240 hypothetical crystals in 15 chunks, scored in the process of the command."""
    return Scenario("local", write_config(place / "local.yaml", prototypes(240)))


def pulled(place: Path, url: str) -> Scenario:
    """96 crystals of an OPTIMADE server in 8 pages and 12 chunks."""
    return Scenario("pulled", write_config(place / "pulled.yaml", [served(url, 12)], chunk_size=8))


def overlapping(place: Path, url: str, batch: Crystals) -> Scenario:
    """A server and a file with half of its crystals in common: a quarter of those by id, the rest under other ids."""
    half = batch[len(batch) // 2 :]
    names = [name.split("/", 1)[-1] for name in half.ids.tolist()]
    ids = np.array([f"{SERVED if k % 4 == 0 else 'twin'}/{name}" for k, name in enumerate(names)])
    place.mkdir(parents=True, exist_ok=True)
    table.write(table.to_table(replace(half, ids=ids)), place / "twins.parquet")
    sources = [served(url, 16), {"kind": "files", "paths": [str(place / "twins.parquet")], "name": "twins"}]
    return Scenario("overlapping", write_config(place / "overlapping.yaml", sources, chunk_size=8, filters=FILTERS))


def objectives(place: Path, both: Scenario) -> Scenario:
    """The campaign `overlapping`, ranked by three objectives."""
    wanted = [
        {"property": "formation_energy", "order": "ascending", "by": "upper"},
        {"property": "nsites", "order": "ascending"},
        {"property": "ood_distance", "order": "ascending"},
    ]
    content = yaml.safe_load(both.config.read_text())
    keys = {name: content[name] for name in ("chunk_size", "filters")} | {"rank": {"objectives": wanted, "top": 9}}
    return Scenario("objectives", write_config(place / "objectives.yaml", content["sources"], **keys))


def ray(both: Scenario, tmp: Path) -> Scenario:
    """A campaign, `overlapping` for one, on a Ray of two workers, begun and ended by the command."""
    return Scenario("ray", both.config, ("--on", "ray", "--workers", "2"), {"RAY_TMPDIR": str(tmp)})


def cascade(place: Path, both: Scenario) -> Scenario:
    """The two sources of `overlapping`, for two networks first; the bundled model scores some of them."""
    tier = {"model": str(some_members(place / "fast", MODEL, (0, 1))), "keep": 0.25}
    sources = yaml.safe_load(both.config.read_text())["sources"]
    keys: dict[str, Any] = {"cascade": {"tiers": [tier], "audit": 16}, "chunk_size": 8, "filters": FILTERS}
    return Scenario("cascade", write_config(place / "cascade.yaml", sources, **keys))


def relaxed(place: Path) -> Scenario:
    """96 strained metals in 12 chunks: a force field relaxes them, and its energies are compared with a hull.

    EMT counts energies from the metals at rest.
    """
    path = place / "metals.parquet"
    table.write(table.to_table(metals(96)), path)
    source = {"kind": "files", "paths": [str(path)], "name": "metals"}
    elements, hull = place / "elements.parquet", place / "hull.parquet"
    table.write(pa.table({"element": SYMBOLS, "energy_per_atom": np.zeros(len(SYMBOLS))}), elements)
    table.write(pa.table({"formula": [*SYMBOLS, "AuCu3"], "e": [*np.zeros(len(SYMBOLS)), -0.05]}), hull)
    section = {"hull": f"{hull}#e", "functional": "ase.calculators.emt:EMT, that of the calculator"}
    section |= {"energy": "potential", "references": str(elements)}
    keys: dict[str, Any] = {"relax": {"model": EMT}, "stability": {**section, "error": 0.03}, "chunk_size": 8}
    return Scenario("relaxed", write_config(place / "relaxed.yaml", [source], **keys))


def small(place: Path) -> Scenario:
    """48 hypothetical crystals in 3 chunks, for kills at every system call."""
    return Scenario("small", write_config(place / "small.yaml", prototypes(48)))


def paged(place: Path, url: str) -> Scenario:
    """32 crystals of a server in 2 pages and 2 chunks, likewise."""
    source = served(url, 16) | {"max_entries": 32}
    return Scenario("paged", write_config(place / "paged.yaml", [source]))
