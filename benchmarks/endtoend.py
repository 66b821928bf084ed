"""How long does a campaign take from a file to a ranked table, and how long without the networks?

Enters: real crystals of the data packs. Leaves: tables on the terminal and one JSON file. Whole
campaigns run as a user starts them, `assay run` in a process of its own, with a warm compile cache:
the benchmark takes wall time, CPU time, and the time until the first prediction is committed. Then
one campaign runs in this process with a worker that does nothing, and every call between two chunks
is timed: reading, committing, and the rest, which is orchestration.

    python benchmarks/endtoend.py --help

With `--ranking` only the ranking of so many scored rows is measured: the order and `p_top_k` of one
property, the fronts, `p_front` and `p_top_k` of three objectives, and the fronts of fewer rows
beside pymoo and moocore.

    python benchmarks/endtoend.py --ranking 1000000

With `--store` only campaigns are measured that find the outputs of an earlier one in a store.

    python benchmarks/endtoend.py --store --output runs/store.json
"""

from __future__ import annotations

import argparse
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import keeping
from measuring.stopwatch import arguments, machine, race, row, say, settle, show, timings, versions, write

ROOT = Path(__file__).resolve().parents[1]


def main(words: list[str] | None = None) -> None:
    """Measure, print and write."""
    options = _options(words)
    settle()
    if options.ranking:
        write({"machine": machine(), "versions": versions("moocore", "pymoo"), **ranking(options)}, options.output)
        return
    if options.store:
        write({"machine": machine(), "versions": versions(), "store": stores(options.crystals)}, options.output)
        return
    report: dict[str, Any] = {"machine": machine(), "versions": versions("ray")}
    with tempfile.TemporaryDirectory() as scratch:
        crystals = Path(scratch) / "crystals.parquet"
        report["crystals"] = real_crystals(options.data, options.crystals, crystals)
        report["campaigns"] = {
            name: best_of(options.repeat, changes, crystals, Path(scratch)) for name, changes in CAMPAIGNS.items()
        }
        report["orchestration"] = orchestration(crystals, Path(scratch))
        report["pull"] = pull(crystals, Path(scratch))
    show(
        f"assay run, {report['crystals']:,} crystals from Parquet to the ranked table, everything included",
        ["", "wall s", "crystals/s", "CPU s", "first prediction, s"],
        [
            [
                name,
                f"{one['wall_s']:.1f}",
                f"{one['crystals_per_s']:,.0f}",
                f"{one['cpu_s']:.1f}",
                f"{one['first_s']:.2f}",
            ]
            for name, one in report["campaigns"].items()
        ],
    )
    between = report["orchestration"]
    show(
        f"local runner, {between['chunks']} chunks, a worker that does nothing",
        ["per chunk", "µs"],
        [[name, f"{value:,.0f}"] for name, value in between["us_per_chunk"].items()],
    )
    write(report, options.output)


CHEAP, FULL = str(ROOT / "models/zoo/tc-fast"), str(ROOT / "models/zoo/tc-graphs")
CAMPAIGNS: dict[str, dict[str, Any]] = {
    "cheap tier alone": {"models": [CHEAP]},
    "cheap tier alone, Ray, 2 workers": {"models": [CHEAP], "workers": 2},
    "all members on all": {"models": [FULL]},
    "cascade, keep 0.02": {"models": [FULL], "cascade": {"tiers": [{"model": CHEAP, "keep": 0.02}], "audit": 200}},
}


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = arguments(__doc__, "endtoend.json")
    parser.add_argument("--crystals", type=int, default=20_000, help="crystals of a campaign (default: 20000)")
    parser.add_argument("--ranking", type=int, default=0, help="rank so many scored rows, and nothing else")
    parser.add_argument("--store", action="store_true", help="campaigns that share a store, and nothing else")
    parser.add_argument("--beside", type=int, default=20_000, help="rows of the fronts beside pymoo (default: 20000)")
    options = parser.read(words, crystals=10_000, repeat=1)
    if options.ranking and options.output == parser.get_default("output"):
        options.output = options.output.parent / "ranking" / "ranking.json"
    if options.repeat < 1 or options.crystals < 1024:
        parser.error(f"needs --repeat >= 1, --crystals >= 1024, got {vars(options)}")
    return options


def stores(crystals: int) -> dict[str, Any]:
    """Campaigns over so many crystals that find the outputs of an earlier one."""
    with tempfile.TemporaryDirectory() as scratch:
        return {name: keeping.kept(name, crystals, crystals // 10, Path(scratch)) for name in keeping.ENSEMBLES}


def ranking(options: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds and memory of each ranking, and the fronts beside other libraries."""
    import numpy as np

    from assay.screening.folder.summary import Target
    from assay.screening.ranking import several
    from assay.screening.ranking.compared import fronts
    from assay.screening.settings.choice import Rank

    tc, energy = (Target(name, name, unit, calibrated=True) for name, unit in (("tc", "K"), ("energy", "eV/atom")))
    three = [{"property": "tc", "by": "lower"}, {"property": "energy", "order": "ascending"}, {"property": "p_stable"}]
    goals = Rank.model_validate({"objectives": three})
    rules = {
        "one property, p_top_k": several.make(Rank(by="lower"), tc),
        "three objectives, fronts, p_front, p_top_k": several.make(goals, tc, [tc, energy, Target("", "p_stable", "")]),
    }
    found: dict[str, Any] = {"rows": options.ranking, "ranking": {}}
    for name, rule in rules.items():
        _rank(scored(1_000), rule)
        content = scored(options.ranking)
        seconds = min(
            next(timings(lambda rule=rule, content=content: _rank(content, rule))) for _ in range(options.repeat)
        )
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        found["ranking"][name] = {"cpu_s": seconds, "peak_gib": peak}
    table = [[name, f"{one['cpu_s']:.2f}", f"{one['peak_gib']:.2f}"] for name, one in found["ranking"].items()]
    show(f"{options.ranking:,} scored rows", ["", "CPU s", "peak of the process, GiB"], table)
    some = scored(options.beside)
    points = np.stack([some[name].to_numpy() for name in ("tc_lo", "energy_mean", "p_stable")], axis=1) * [1, -1, 1]
    rates = race(_judges(points, fronts.fronts(points)), options.beside, options.repeat)
    show(f"all fronts of {options.beside:,} rows", ["", "µs/row", "rows/s"], [row(*one) for one in rates.items()])
    return {**found, "beside": {"rows": options.beside, **rates}}


def scored(n: int) -> Any:
    """Predictions like those of a campaign: errors grow with the value, stability with energy."""
    import numpy as np
    import pyarrow as pa

    rng = np.random.default_rng(0)
    mean, energy = rng.gamma(1.0, 6.0, n), rng.normal(-0.5, 0.8, n)
    std, error = 1 + 0.2 * mean * rng.uniform(0.5, 1.5, n), rng.uniform(0.02, 0.1, n)
    stable = 1 / (1 + np.exp((energy + 0.5 + 0.3 * rng.normal(size=n)) / 0.05))
    columns = {"tc_mean": mean, "tc_std": std, "tc_lo": np.maximum(mean - 1.6 * std, 0), "tc_hi": mean + 1.6 * std}
    columns |= {"energy_mean": energy, "energy_std": error, "energy_hi": energy + 1.6 * error, "p_stable": stable}
    return pa.table({"id": [f"prototypes/{k:07d}" for k in range(n)], **columns})


def _rank(content: Any, rule: Any) -> None:
    """Everything between scored rows and their order, in the portions of a campaign."""
    from assay.screening.ranking import rank
    from assay.screening.ranking.standing import Standing

    standing, parts = Standing(rule, 50), [content.slice(start, 512) for start in range(0, len(content), 512)]
    learnt = [parted for part in parts for parted in standing.learn(part)] + list(standing.settle())
    ordered = [ranked.sort_by(rank.keys(rule)) for ranked, _ in learnt]
    assert sum(map(len, ordered)) == len(content)
    assert sum(len(ranked) for ranked, _ in standing.parts(iter(parts))) == len(content)


def _judges(points: Any, wanted: Any) -> dict[str, Callable[[], Any]]:
    """Ways to sort points into fronts, which agree."""
    import moocore
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    from assay.screening.ranking.compared import fronts

    judges = {
        "assay": lambda: fronts.fronts(points),
        "moocore pareto_rank": lambda: moocore.pareto_rank(-points) + 1,
        "pymoo NonDominatedSorting": lambda: NonDominatedSorting().do(-points, return_rank=True)[1] + 1,
    }
    for name, judge in judges.items():
        assert (judge() == wanted).all(), f"{name} finds other fronts"
    return judges


def real_crystals(data: Path, n: int, path: Path) -> int:
    """`n` unlabelled Materials Project cells, evenly spread over the pack, as a Parquet file."""
    import numpy as np

    from assay.sources import table

    stored = table.read(data / "mp" / "mp_unlabelled_le40.parquet")
    rows = np.linspace(0, len(stored) - 1, min(n, len(stored))).astype(np.int64)
    crystals, _ = table.from_table(stored.take(rows), "mp")
    table.write(table.to_table(crystals), path)
    return len(crystals)


def best_of(repeat: int, changes: dict[str, Any], crystals: Path, scratch: Path) -> dict[str, float]:
    """The quickest of several runs, after one that warms the compile cache."""
    runs = [screen(changes, crystals, scratch) for _ in range(1 + repeat)]
    return min(runs[1:], key=lambda run: run["wall_s"])


def screen(changes: dict[str, Any], crystals: Path, scratch: Path) -> dict[str, float]:
    """One campaign in a process of its own."""
    import yaml

    from assay.screening.folder.results import Results

    folder = scratch / f"run-{time.monotonic_ns()}"
    config = {
        "name": "bench",
        "sources": [{"kind": "files", "paths": [str(crystals)]}],
        "max_bad": 1.0,
        "rank": {"property": "tc"},
        "output": str(folder),
        **changes,
    }
    workers = config.pop("workers", None)
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(config))
    words = [sys.executable, "-m", "assay", "run", str(path)]
    words += ["--on", "ray", "--workers", str(workers)] if workers else []
    before, began, first = resource.getrusage(resource.RUSAGE_CHILDREN), time.time(), float("nan")
    with subprocess.Popen(  # noqa: S603 (our own command)
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ
    ) as child:
        while child.poll() is None:
            if math.isnan(first) and any((folder / "parts").glob("*.parquet")):
                first = time.time() - began
            time.sleep(0.01)
        complaint = child.stderr.read().decode() if child.stderr else ""
    assert child.returncode == 0, complaint
    wall, after = time.time() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    n = Results(folder).summary.balance.ranked
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": wall, "cpu_s": cpu, "first_s": first, "ranked": n, "crystals_per_s": n / wall}


def orchestration(crystals: Path, scratch: Path) -> dict[str, Any]:
    """Microseconds per chunk of a campaign whose worker computes nothing."""
    from assay.screening.campaign import drive, flow, plan
    from assay.screening.campaign.flow import Flow
    from assay.screening.folder.attempts import Attempts
    from assay.screening.folder.ledger import Ledger
    from assay.screening.runners import local
    from assay.screening.settings import config, yamlfile
    from assay.screening.settings.progress import Board

    content = {
        "name": "bench",
        "models": [CHEAP],
        "output": str(scratch / "idle"),
        "max_bad": 1.0,
        "chunk_size": 128,
        "sources": [{"kind": "files", "paths": [str(crystals)]}],
    }
    planned = plan.make(yamlfile.validate(config.Campaign, content, "bench"))
    drive.run(planned, local.LocalRunner(_nothing), lambda: False, pull_only=True)
    clock = Clock()
    with Attempts(planned.folder / "attempts.log") as attempts:
        ledger = Ledger(planned.folder)
        ledger.read = clock.timed("reading: Parquet, verified", ledger.read)  # type: ignore[method-assign]
        ledger.commit = clock.timed("committing: Parquet, fsync, rename, record", ledger.commit)  # type: ignore[method-assign]
        work = Flow(flow.scoring_stages(planned, ledger, Board()), attempts)
        chunks = len(work.units)
        clock.spent.clear()
        began = time.perf_counter()
        for happened in local.LocalRunner(clock.timed("the worker", _nothing)).work(
            work.jobs, work.units, lambda: False
        ):
            work.take(happened)
        whole = time.perf_counter() - began
    spent = dict(clock.spent)
    spent["orchestration: everything else"] = whole - sum(spent.values())
    return {"chunks": chunks, "us_per_chunk": {name: 1e6 * seconds / chunks for name, seconds in spent.items()}}


def pull(path: Path, scratch: Path, most: int = 600) -> dict[str, float]:
    """CPU time per crystal to pull from the reference OPTIMADE server on loopback.

    The time of the server itself is not counted.
    """
    try:
        from tests.servers import reference_server
    except ImportError as error:
        say(f"pull skipped: {error}; pip install -e .[dev]")
        return {}
    from assay.sources import table
    from assay.sources.databases import optimade, providers

    crystals = table.from_table(table.read(path), "mp")[0][:most]
    with reference_server(crystals, scratch) as url:
        seconds = []
        for _ in range(4):
            began = time.process_time()
            with optimade.connect(providers.resolve(url)) as client:
                received = sum(page.n_entries for page in optimade.pages(client, optimade.Query()))
            seconds.append(time.process_time() - began)
            assert received == len(crystals), f"{received} of {len(crystals)} crystals arrived"
    found = {"us_per_crystal": 1e6 * min(seconds) / len(crystals), "crystals_per_s": len(crystals) / min(seconds)}
    say(f"pull over OPTIMADE: {found['us_per_crystal']:.0f} µs CPU/crystal, {found['crystals_per_s']:,.0f} crystals/s")
    return found


class Clock:
    """Adds up the time spent in functions."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time added up."""

        def run(*words: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*words, **named)
            finally:
                self.spent[name] += time.perf_counter() - began

        return run


def _nothing(_: str, chunk: Any) -> Any:
    import pyarrow as pa

    from assay.screening.runners.worker import Part

    zeros = pa.array([0.0] * chunk.num_rows)
    return Part(pa.table({"id": chunk["id"], "tc_mean": zeros, "tc_std": zeros}), [])


if __name__ == "__main__":
    main()
