"""What do the ledger and Ray cost, beside the bare worker function and beside Ray Data?

Enters: real crystals of the data packs, cut into chunks. Leaves: a table and one JSON file. Wall time between the first
finished chunks and the last (start-up is given apart), because orchestration is waiting more than computing; run it on
an idle machine. Every contestant does the same chunks with the same worker function and writes the same rows.

    python benchmarks/scaling.py --help
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from stopwatch import machine, say, show, versions

ROOT = Path(__file__).resolve().parents[1]
WORKERS = 2


def main(arguments: list[str] | None = None) -> None:
    """Measure, print and write."""
    options = _options(arguments)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS"):
        os.environ[name] = "1"
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
    sys.path.insert(0, str(ROOT))  # the rooms of this checkout, whatever is installed
    os.environ["PYTHONPATH"] = str(ROOT)
    report: dict[str, Any] = {"machine": machine(), "versions": versions(), "crystals": options.crystals,
                              "chunk_size": options.chunk_size, "model": options.model.name}  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), options)
        report["real work"] = compare(bench, score, options.chunk_size, options.repeat)
        report["no work"] = compare(bench, nothing, options.chunk_size, options.repeat)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    say(f"written to {options.output}")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    data = os.environ.get("ASSAY_DATA")
    parser.add_argument(
        "--data", type=Path, default=data, required=data is None, help="data packs; default: ASSAY_DATA"
    )
    parser.add_argument("--crystals", type=int, default=8192, help="crystals in all (default: 8192)")
    parser.add_argument("--chunk-size", type=int, default=512, help="crystals per chunk (default: 512, Assay's own)")
    parser.add_argument("--repeat", type=int, default=2, help="rounds; the best counts")
    parser.add_argument("--model", type=Path, default=ROOT / "models/zoo/tc", help="ensemble folder")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/scaling.json")
    return parser.parse_args(arguments)


def nothing(folder: str) -> Callable[[str, Any], Any]:  # noqa: ARG001 (made like the real worker)
    """Make a worker function that predicts nothing and takes no time."""
    return _pass


def _pass(_: str, chunk: Any) -> Any:
    import pyarrow as pa

    from screening.worker import Part

    zeros = pa.array([0.0] * chunk.num_rows)
    return Part(pa.table({"id": chunk["id"], "x_mean": zeros, "x_std": zeros}), [])


def score(folder: str) -> Callable[[str, Any], Any]:
    """Make the worker function of campaigns."""
    from screening import worker

    return worker.Worker(partial(worker.load, [folder], 1))


class Bench:
    """A pulled and sealed campaign, and the contestants that score it."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        from screening import campaign, config, local, plan, yamlfile

        self.folder, self.model = folder, str(options.model)
        path = folder / "crystals.parquet"
        real_crystals(options.data, options.crystals, path)
        content = {"name": "bench", "models": [self.model], "output": str(folder / "campaign"), "max_bad": 1.0,
                   "sources": [{"kind": "files", "paths": [str(path)]}], "chunk_size": options.chunk_size}  # fmt: skip
        self.plan = plan.make(yamlfile.validate(config.Campaign, content, "bench"))
        campaign.run(self.plan, local.LocalRunner(_pass), lambda: False, pull_only=True)
        self.n_chunks = len(self.chunks())

    def chunks(self) -> list[Any]:
        """The chunk tables."""
        from screening import snapshot
        from screening.ledger import Ledger
        from sources import table

        book = Ledger(self.plan.folder)
        return [table.read(self.plan.folder / chunk.path) for chunk in snapshot.chunks(book)]

    def bare(self, make: Callable[[str], Any]) -> Iterator[float]:
        """The worker function in a loop."""
        work = make(self.model)
        for chunk in self.chunks():
            work("score", chunk)
            yield time.time()

    def processes(self, make: Callable[[str], Any]) -> Iterator[float]:
        """The worker function in plain processes, nothing kept."""
        with multiprocessing.get_context("spawn").Pool(WORKERS, _begin, (make, self.model)) as pool:
            yield from pool.imap_unordered(_work, self.chunks())

    def local(self, make: Callable[[str], Any]) -> Iterator[float]:
        """A campaign in this process."""
        from screening.local import LocalRunner

        yield from self._campaign(LocalRunner(make(self.model)))

    def ray(self, make: Callable[[str], Any], workers: int = WORKERS) -> Iterator[float]:
        """A campaign on Ray."""
        from screening.cluster import ClusterRunner
        from screening.config import Ray

        runner = ClusterRunner(partial(make, self.model), Ray(workers=workers, min_workers=workers))
        try:
            yield from self._campaign(runner)
        finally:
            runner.close()

    def _campaign(self, runner: Any) -> Iterator[float]:
        """Score the campaign anew, with every commit."""
        import shutil

        from screening.attempts import Attempts
        from screening.flow import Flow
        from screening.ledger import Ledger
        from screening.progress import Board

        folder = self.folder / "scored"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.plan.folder, folder)
        with Attempts(folder / "attempts.log") as attempts:
            flow = Flow(self.plan.campaign, Ledger(folder), Board(), attempts)
            for happened in runner.work(flow.jobs, flow.tasks, lambda: False):
                flow.take(happened)
                yield time.time()

    def ray_data(self, make: Callable[[str], Any]) -> Iterator[float]:
        """The same on Ray Data: a pool of actors, one row group per chunk, Parquet written."""
        import ray

        ray.init(address="local", include_dashboard=False, num_cpus=WORKERS + 1, object_store_memory=256 << 20,
                 logging_level="ERROR", log_to_driver=False)  # fmt: skip
        try:
            import ray.data

            out = self.folder / f"ray-data-{time.monotonic_ns()}"
            chunks = ray.data.from_arrow(self.chunks())
            done = chunks.map_batches(_Mapper, fn_constructor_args=(make, self.model), batch_format="pyarrow",
                                      batch_size=None, compute=ray.data.ActorPoolStrategy(size=WORKERS))  # fmt: skip
            done.write_parquet(str(out))
            stamps = sorted(path.stat().st_mtime for path in out.rglob("*.parquet"))
            assert len(stamps) == self.n_chunks, f"{len(stamps)} files of {self.n_chunks} chunks"
            yield from stamps
        finally:
            ray.shutdown()


class _Mapper:
    """The worker function as Ray Data wants it."""

    def __init__(self, make: Callable[[str], Any], model: str) -> None:
        self._work = make(model)

    def __call__(self, chunk: Any) -> Any:
        return self._work("score", chunk).table


def _begin(make: Callable[[str], Any], model: str) -> None:
    globals()["_WORK"] = make(model)


def _work(chunk: Any) -> float:
    globals()["_WORK"]("score", chunk)
    return time.time()


def compare(bench: Bench, make: Callable[[str], Any], chunk_size: int, repeat: int) -> dict[str, Any]:
    """Race the contestants in turns, and print them."""
    contestants: dict[str, Callable[[Callable[[str], Any]], Iterator[float]]] = {
        "worker function, 1 process": bench.bare,
        "assay, local": bench.local,
        f"worker function, {WORKERS} processes": bench.processes,
        "assay, Ray, 1 worker": partial(bench.ray, workers=1),
        f"assay, Ray, {WORKERS} workers": bench.ray,
        f"Ray Data, {WORKERS} actors": bench.ray_data,
    }
    best: dict[str, dict[str, float]] = {}
    for _ in range(repeat):
        for name, run in contestants.items():
            found = timed(run, make, bench.n_chunks)
            if name not in best or found["s_per_chunk"] < best[name]["s_per_chunk"]:
                best[name] = found
    peers = {"assay, local": "worker function, 1 process", "assay, Ray, 1 worker": "worker function, 1 process",
             f"assay, Ray, {WORKERS} workers": f"worker function, {WORKERS} processes",
             f"Ray Data, {WORKERS} actors": f"worker function, {WORKERS} processes"}  # fmt: skip
    rows = []
    for name, found in best.items():
        if name in peers:
            bare = best[peers[name]]["s_per_chunk"]
            found["overhead_ms_per_chunk"] = 1e3 * (found["s_per_chunk"] - bare)
            found["overhead_ms_per_1000"] = found["overhead_ms_per_chunk"] * 1000 / chunk_size
            found["overhead_share"] = 1 - bare / found["s_per_chunk"]
        cells = [
            f"{found[key]:,.1f}" if key in found else "" for key in ("overhead_ms_per_chunk", "overhead_ms_per_1000")
        ]
        share = f"{found['overhead_share']:.1%}" if "overhead_share" in found else ""
        rows.append([name, f"{1e3 * found['s_per_chunk']:,.1f}", *cells, share, f"{found['start_s']:.1f}"])
    header = ["", "ms per chunk", "more than bare, ms per chunk", "ms per 1,000 crystals", "share", "first chunk, s"]
    title = f"{'no work' if make is nothing else 'real work'}, {bench.n_chunks} chunks of {chunk_size}"
    show(title, header, rows)
    return best


def timed(run: Callable[[Callable[[str], Any]], Iterator[float]], make: Any, n_chunks: int) -> dict[str, float]:
    """Steady time per chunk, from the end of the first quarter to the last; and the wait for the first chunk."""
    start = time.time()
    times = list(run(make))
    assert len(times) == n_chunks, f"{len(times)} of {n_chunks} chunks"
    skipped = max(1, n_chunks // 4)
    return {
        "s_per_chunk": (times[-1] - times[skipped - 1]) / (n_chunks - skipped),
        "start_s": times[0] - start,
    }


def real_crystals(data: Path, n: int, path: Path) -> None:
    """`n` cells of the Materials Project, spread over the data pack, as a Parquet file."""
    import numpy as np

    from sources import table

    stored = table.read(data / "mp" / "mp_labelled_le40.parquet")
    rows = (np.arange(n) * max(1, stored.num_rows // n)) % stored.num_rows
    crystals, _ = table.from_table(stored.take(rows), "mp")
    table.write(table.to_table(crystals), path)


if __name__ == "__main__":
    main()
