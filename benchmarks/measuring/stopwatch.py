"""The stopwatch of the benchmarks: CPU time, contestants in turns, best of several rounds.

Enters: a command line, functions without arguments. Leaves: rates, printed tables, a JSON file, and
what they were measured on. It does not know what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SHORTEST_ROUND = 0.2
"""s; something quicker is repeated within a round, and its best repeat counts."""

Contestant = Callable[[], Any]
Rates = dict[str, dict[str, Any]]


class CommandLine(argparse.ArgumentParser):
    """A command line with an option `--output`, and with `--short`."""

    def read(self, words: list[str] | None, **short: Any) -> argparse.Namespace:
        """Read `words`; with `--short` the defaults are these, and results go to runs/short."""
        told = ", ".join(f"{name} {value}" for name, value in short.items())
        self.add_argument("--short", action="store_true", help=f"a short run: {told}; output in runs/short")
        if "--short" in (sys.argv[1:] if words is None else words):
            self.set_defaults(output=ROOT / "runs/short" / self.get_default("output").name, **short)
        return self.parse_args(words)


def arguments(doc: str, output: str) -> CommandLine:
    """A command line with data folder, rounds, and the JSON file `output` of the results."""
    parser = CommandLine(description=doc.splitlines()[0])
    data = os.environ.get("ASSAY_DATA")
    parser.add_argument(
        "--data", type=_folder, default=data, required=data is None, help="data packs; default: ASSAY_DATA"
    )
    parser.add_argument("--repeat", type=int, default=3, help="rounds, the best counts (default: 3)")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "benchmarks/results" / output, help="JSON file of the results"
    )
    return parser


def _folder(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no folder")
    return Path(text)


def settle() -> None:
    """Set one thread everywhere and import this checkout; called before numpy is imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS"):
        os.environ[name] = "1"
    sys.path.insert(0, str(ROOT))
    os.environ["PYTHONPATH"] = str(ROOT)


def write(report: dict[str, Any], output: Path) -> None:
    """Leave the results in a JSON file, and say where."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n")
    say(f"written to {output}")


def race(contestants: dict[str, Contestant], crystals: int, repeat: int) -> Rates:
    """Best CPU time of each contestant over interleaved rounds, after one warm-up each."""
    best = dict.fromkeys(contestants, float("inf"))
    for run in contestants.values():
        run()
    for _ in range(repeat):
        for name, run in contestants.items():
            best[name] = min([best[name], *timings(run)])
    return {
        name: {"us_per_crystal": 1e6 * seconds / crystals, "crystals_per_s": crystals / seconds}
        for name, seconds in best.items()
    }


def timings(run: Contestant) -> Iterator[float]:
    """CPU seconds of one call, or of several calls where one is very short."""
    spent = 0.0
    while spent < SHORTEST_ROUND:
        start = time.process_time()
        run()
        spent += (lasted := time.process_time() - start)
        yield lasted


def row(name: str, rate: dict[str, Any]) -> list[str]:
    """Name and both forms of the rate."""
    return [name, f"{rate['us_per_crystal']:,.1f}", f"{rate['crystals_per_s']:,.0f}"]


def show(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print a table."""
    from rich.console import Console
    from rich.table import Table

    view = Table(title=title, title_justify="left")
    for position, name in enumerate(header):
        view.add_column(name, justify="right" if position else "left")
    for cells in rows:
        view.add_row(*cells)
    Console(width=max(120, Console().width)).print(view)


def say(text: str) -> None:
    """A line of plain text."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.processor(), "cores": os.cpu_count(), "system": platform.system()}


def versions(*peers: str) -> dict[str, str]:
    """Python and every library that takes part."""
    found = {"python": platform.python_version()}
    for name in ("numpy", "numba", "torch", "pyarrow", "polars", *peers):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
