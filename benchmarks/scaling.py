"""What do the ledger and Ray cost, beside the bare worker function and beside Ray Data?

Enters: real crystals of the data packs, cut into chunks. Leaves: a table and one JSON file. Every
contestant does the same chunks with the same worker function and writes the same rows. Measured is
from the end of the first quarter to the last chunk (start-up is given apart), in wall time, because
orchestration is waiting more than computing; run it on an idle machine. Machines change their speed
from minute to minute. So beside the time per chunk, which compares different minutes, stands what
one run says of itself: how much of their time the workers were outside the worker function, and how
much CPU time was spent outside it.

    python benchmarks/scaling.py --help
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from measuring.stopwatch import arguments, machine, settle, show, versions, write

ROOT = Path(__file__).resolve().parents[1]
WORKERS = 2


def main(words: list[str] | None = None) -> None:
    """Measure, print and write."""
    options = _options(words)
    settle()
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
    report: dict[str, Any] = {
        "machine": machine(),
        "versions": versions("ray"),
        "crystals": options.crystals,
        "chunk_size": options.chunk_size,
        "model": options.model.name,
    }
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options)
        report["real work"] = compare(bench, score, options)
        report["no work"] = compare(bench, nothing, options)
    write(report, options.output)


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = arguments(__doc__, "scaling.json")
    parser.add_argument("--crystals", type=int, default=8192, help="crystals in all (default: 8192)")
    parser.add_argument("--chunk-size", type=int, default=512, help="crystals per chunk (default: 512, Assay's own)")
    parser.add_argument("--model", type=Path, default=ROOT / "models/zoo/tc-graphs", help="ensemble folder")
    return parser.read(words, crystals=2048, chunk_size=128, repeat=1)


Do = Callable[[Any, Any], Any]
"""A worker function: (work, crystals) -> result."""
Make = Callable[[str], Do]


def nothing(folder: str) -> Do:  # noqa: ARG001 (made like the real worker)
    """Make a worker function that predicts nothing and takes no time."""
    return _pass


def _pass(_: Any, chunk: Any) -> Any:
    import pyarrow as pa

    from assay.screening.runners.worker import Part

    zeros = pa.array([0.0] * chunk.num_rows)
    return Part(pa.table({"id": chunk["id"], "x_mean": zeros, "x_std": zeros}), [])


def score(folder: str) -> Do:
    """Make the worker function of campaigns."""
    from assay.screening.runners import worker

    return worker.Worker(partial(worker.load, [folder], 1))


def watched(spans: str, make: Make, folder: str) -> Do:
    """Make a worker function that writes down when it began and ended, and the CPU time it took."""
    inner, path = make(folder), Path(spans) / f"{os.getpid()}.txt"

    def do(work: Any, chunk: Any) -> Any:
        began, cpu = time.time(), time.process_time()
        result = inner(work, chunk)
        with path.open("a") as file:
            file.write(f"{began} {time.time()} {time.process_time() - cpu}\n")
        return result

    return do


class Bench:
    """A pulled and sealed campaign, and the contestants that score it."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        from assay.screening.campaign import drive, plan
        from assay.screening.runners import local
        from assay.screening.settings import config, yamlfile

        self.folder, self.model = folder, str(options.model)
        path = folder / "crystals.parquet"
        real_crystals(options.data, options.crystals, path)
        content = {
            "name": "bench",
            "models": [self.model],
            "output": str(folder / "campaign"),
            "max_bad": 1.0,
            "sources": [{"kind": "files", "paths": [str(path)]}],
            "chunk_size": options.chunk_size,
        }
        self.plan = plan.make(yamlfile.validate(config.Campaign, content, "bench"))
        drive.run(self.plan, local.LocalRunner(_pass), lambda: False, pull_only=True)
        self.n_chunks = len(self.chunks())
        assert self.n_chunks > 1, "one chunk has no steady state: more --crystals, or a smaller --chunk-size"

    def chunks(self) -> list[Any]:
        """The chunk tables."""
        from assay.screening.folder import snapshot
        from assay.screening.folder.ledger import Ledger
        from assay.sources import table

        ledger = Ledger(self.plan.folder)
        return [table.read(self.plan.folder / chunk.path) for chunk in snapshot.chunks(ledger)]

    def bare(self, make: Make) -> Iterator[float]:
        """The worker function in a loop."""
        from assay.screening.runners.score import Score

        do = make(self.model)
        for chunk in self.chunks():
            do(Score(), chunk)
            yield time.time()

    def processes(self, make: Make) -> Iterator[float]:
        """The worker function in plain processes, nothing kept."""
        with multiprocessing.get_context("spawn").Pool(WORKERS, _begin, (make, self.model)) as pool:
            yield from pool.imap_unordered(_work, self.chunks())

    def local(self, make: Make) -> Iterator[float]:
        """A campaign in this process."""
        from assay.screening.runners.local import LocalRunner

        yield from self._campaign(LocalRunner(make(self.model)))

    def ray(self, make: Make, workers: int = WORKERS) -> Iterator[float]:
        """A campaign on Ray."""
        from assay.screening.runners.cluster import ClusterRunner
        from assay.screening.settings.config import Ray

        runner = ClusterRunner(partial(make, self.model), Ray(workers=workers, min_workers=workers))
        try:
            yield from self._campaign(runner)
        finally:
            runner.close()

    def _campaign(self, runner: Any) -> Iterator[float]:
        """Score the campaign anew, with every commit."""
        from assay.screening.campaign import flow
        from assay.screening.campaign.flow import Flow
        from assay.screening.folder.attempts import Attempts
        from assay.screening.folder.ledger import Ledger
        from assay.screening.settings.progress import Board

        folder = self.folder / "scored"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.plan.folder, folder)
        with Attempts(folder / "attempts.log") as attempts:
            work = Flow(flow.scoring_stages(self.plan, Ledger(folder), Board()), attempts)
            for happened in runner.work(work.jobs, work.units, lambda: False):
                work.take(happened)
                yield time.time()

    def ray_data(self, make: Make) -> Iterator[float]:
        """The same on Ray Data: a pool of actors, one row group per chunk, Parquet written."""
        import ray

        ray.init(
            address="local",
            include_dashboard=False,
            num_cpus=WORKERS + 1,
            object_store_memory=256 << 20,
            logging_level="ERROR",
            log_to_driver=False,
        )
        try:
            import ray.data

            out = self.folder / f"ray-data-{time.monotonic_ns()}"
            chunks = ray.data.from_arrow(self.chunks())
            done = chunks.map_batches(
                _Mapper,
                fn_constructor_args=(make, self.model),
                batch_format="pyarrow",
                batch_size=None,
                compute=ray.data.ActorPoolStrategy(size=WORKERS),
            )
            done.write_parquet(str(out))
            stamps = sorted(path.stat().st_mtime for path in out.rglob("*.parquet"))
            assert len(stamps) == self.n_chunks, f"{len(stamps)} files of {self.n_chunks} chunks"
            yield from stamps
        finally:
            ray.shutdown()


class _Mapper:
    """The worker function as Ray Data wants it."""

    def __init__(self, make: Make, model: str) -> None:
        from assay.screening.runners.score import Score

        self._do, self._work = make(model), Score()

    def __call__(self, chunk: Any) -> Any:
        return self._do(self._work, chunk).table


def _begin(make: Make, model: str) -> None:
    from assay.screening.runners.score import Score

    globals()["_SCORE"] = partial(make(model), Score())


def _work(chunk: Any) -> float:
    globals()["_SCORE"](chunk)
    return time.time()


def compare(bench: Bench, make: Make, options: argparse.Namespace) -> dict[str, Any]:
    """Race the contestants in turns, and print them."""
    contestants: dict[str, tuple[Callable[[Make], Iterator[float]], int]] = {
        "worker function, 1 process": (bench.bare, 1),
        "assay, local": (bench.local, 1),
        f"worker function, {WORKERS} processes": (bench.processes, WORKERS),
        "assay, Ray, 1 worker": (partial(bench.ray, workers=1), 1),
        f"assay, Ray, {WORKERS} workers": (bench.ray, WORKERS),
        f"Ray Data, {WORKERS} actors": (bench.ray_data, WORKERS),
    }
    best: dict[str, dict[str, float]] = {}
    for _ in range(options.repeat):
        for name, (run, workers) in contestants.items():
            found = timed(run, make, bench, workers)
            if name not in best or found["s_per_chunk"] < best[name]["s_per_chunk"]:
                best[name] = found
    peers = {
        "assay, local": "worker function, 1 process",
        "assay, Ray, 1 worker": "worker function, 1 process",
        f"assay, Ray, {WORKERS} workers": f"worker function, {WORKERS} processes",
        f"Ray Data, {WORKERS} actors": f"worker function, {WORKERS} processes",
    }
    rows = []
    for name, found in best.items():
        if name in peers:
            bare = best[peers[name]]["s_per_chunk"]
            found["overhead_ms_per_chunk"] = 1e3 * (found["s_per_chunk"] - bare)
            found["overhead_ms_per_1000"] = found["overhead_ms_per_chunk"] * 1000 / options.chunk_size
            found["overhead_share"] = 1 - bare / found["s_per_chunk"]
        rows.append([name, *(form.format(found[key]) if key in found else "" for key, form in COLUMNS.items())])
    title = f"{'no work' if make is nothing else 'real work'}, {bench.n_chunks} chunks of {options.chunk_size}"
    show(title, ["", *(key.replace("_", " ") for key in COLUMNS)], rows)
    return best


COLUMNS = {
    "s_per_chunk": "{:.4f}",
    "overhead_ms_per_chunk": "{:,.1f}",
    "overhead_ms_per_1000": "{:,.1f}",
    "overhead_share": "{:.1%}",
    "outside_share": "{:.2%}",
    "lost_share": "{:.2%}",
    "cpu_elsewhere_share": "{:.2%}",
    "start_s": "{:.1f}",
}


def timed(run: Callable[[Make], Iterator[float]], make: Make, bench: Bench, workers: int) -> dict[str, float]:
    """The time of one run from the end of its first quarter to the last chunk, and its start-up.

    `outside_share` is the part of the workers' time that was not spent in the worker function,
    `lost_share` the part in which the worker function did not compute: outside it, or inside it
    while others had the core. `cpu_elsewhere_share` is the CPU time that this process and all below
    it spent outside the function, as a part of the CPU time inside.
    """
    spans = Path(tempfile.mkdtemp(dir=bench.folder))
    skipped = max(1, bench.n_chunks // 4)
    start, times, cpu = time.time(), [], []
    for stamp in run(partial(watched, str(spans), make)):
        times.append(stamp)
        if len(times) in (skipped, bench.n_chunks):
            cpu.append((time.time(), _tree_cpu()))
    assert len(times) == bench.n_chunks, f"{len(times)} of {bench.n_chunks} chunks"
    first, last = times[skipped - 1], times[-1]
    done = [tuple(map(float, line.split())) for path in spans.iterdir() for line in path.read_text().splitlines()]
    capacity = workers * (last - first)
    found = {
        "s_per_chunk": (last - first) / (bench.n_chunks - skipped),
        "start_s": times[0] - start,
        "outside_share": 1 - sum(_within(span, first, last) for span in done) / capacity,
        "lost_share": 1 - _computed(done, first, last) / capacity,
    }
    (began, before), (ended, after) = cpu
    if ended - began > 0.5 * (last - first):  # not where the stamps came all at once, at the end
        found["cpu_elsewhere_share"] = (after - before) / _computed(done, began, ended) - 1
    return found


def _computed(done: list[tuple[float, ...]], first: float, last: float) -> float:
    """CPU seconds in the worker function between two instants."""
    return sum(span[2] * _within(span, first, last) / max(span[1] - span[0], 1e-9) for span in done)


def _within(span: tuple[float, ...], first: float, last: float) -> float:
    return max(0.0, min(span[1], last) - max(span[0], first))


def _tree_cpu() -> float:
    """CPU seconds of this process and of every living process below it, Ray's own ones too."""
    import psutil

    total = 0.0
    for process in (own := psutil.Process(), *own.children(recursive=True)):
        with suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def real_crystals(data: Path, n: int, path: Path) -> None:
    """`n` cells of the Materials Project, spread over the data pack, as a Parquet file."""
    import numpy as np

    from assay.sources import table

    stored = table.read(data / "mp" / "mp_labelled_le40.parquet")
    rows = (np.arange(n) * max(1, stored.num_rows // n)) % stored.num_rows
    crystals, _ = table.from_table(stored.take(rows), "mp")
    table.write(table.to_table(crystals), path)


if __name__ == "__main__":
    main()
