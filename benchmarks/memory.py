"""How much memory does a campaign take, and does it grow with the rows?

Enters: numbers of rows. Leaves: a table and one JSON file. For each number the script makes so many
hypothetical crystals, 4,096 at a time, and writes them into one Parquet file with ids of their own.
`assay run` screens them in a process of its own, then `assay verify` reads the folder again. The
kernel reports the peak of each process (VmHWM), and the resident memory of all of them together is
sampled ten times a second. `--peer` names another checkout of Assay to run beside this one.

    python benchmarks/memory.py --help
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measuring.stopwatch import ROOT, CommandLine, machine, say, settle, show, versions, write

BLOCK = 4096
"""Crystals that this script makes at once."""
SAMPLED_S = 0.1
"""How often the processes are looked at."""
MIB = 1024
"""KiB in one MiB: the kernel reports KiB."""


def main(words: list[str] | None = None) -> None:
    """Measure, print and write."""
    options = _options(words)
    settle()
    builds = {"assay": ROOT} | ({"peer": options.peer} if options.peer else {})
    report: dict[str, Any] = {"machine": machine(), "versions": versions("pyarrow"), "model": options.model, "runs": []}
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        for rows in options.rows:
            crystals = Path(scratch) / f"{rows}.parquet"
            make(rows, crystals)
            for name, checkout in builds.items():
                report["runs"].append({"build": name, "rows": rows, **measured(checkout, crystals, options)})
                say(f"{name}, {rows:,} rows: {report['runs'][-1]['run']}")
            crystals.unlink()
    report["bytes_per_row"] = {name: slope([run for run in report["runs"] if run["build"] == name]) for name in builds}
    show(
        f"peak memory of a campaign with {options.model}, MiB",
        ["", "rows", "assay run", "all its processes", "assay verify", "wall s", "CPU s"],
        [_line(run) for run in report["runs"]],
    )
    say(f"bytes per row, from the fewest rows to the most: {report['bytes_per_row']}")
    write(report, options.output)


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = CommandLine(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 300_000, 1_000_000], help="rows of a campaign")
    parser.add_argument("--model", default="tc-fast", help="ensemble (default: tc-fast)")
    parser.add_argument("--peer", type=Path, help="root of another checkout to run on the same files")
    parser.add_argument("--workers", type=int, default=0, help="run on Ray with so many workers (default: local)")
    parser.add_argument("--keep", type=Path, help="folder that keeps candidates.parquet of every run")
    parser.add_argument("--scratch", type=Path, help="folder for campaigns (default: that of the system)")
    default = ROOT / "benchmarks/results/memory.json"
    parser.add_argument("--output", type=Path, default=default, help="JSON file of the results")
    return parser.read(words, rows=[20_000, 60_000])


def make(rows: int, path: Path) -> None:
    """Write hypothetical crystals into a Parquet file, each under an id of its own."""
    import pyarrow.parquet as pq

    from assay.sources import prototypes, table

    first = table.to_table(prototypes.generate(1))
    with pq.ParquetWriter(path, first.schema, write_page_checksum=True) as writer:
        for start in range(0, rows, BLOCK):
            writer.write_table(table.to_table(prototypes.generate(min(BLOCK, rows - start), start=start)))


def measured(checkout: Path, crystals: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The peaks of `assay run` and `assay verify`, and the digest of the ranked table."""
    import yaml

    folder = crystals.with_name(f"run-{time.monotonic_ns()}")
    config = {
        "name": "memory",
        "sources": [{"kind": "files", "paths": [str(crystals)]}],
        "models": [options.model],
        "max_bad": 1.0,
        "rank": {"property": "tc", "by": "mean"},
        "output": str(folder),
    }
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(config))
    words = ["run", str(path), *(["--on", "ray", "--workers", str(options.workers)] if options.workers else [])]
    run = watched(checkout, words)
    verify = watched(checkout, ["verify", str(folder)])
    table = folder / "candidates.parquet"
    if options.keep:
        options.keep.mkdir(parents=True, exist_ok=True)
        (options.keep / f"{crystals.stem}-{checkout.resolve().name}.parquet").write_bytes(table.read_bytes())
    return {"run": run, "verify": verify, "sha256": _sha256(table)}


def _sha256(path: Path) -> str:
    from assay.sources import durable

    return durable.sha256(path)


def watched(checkout: Path, words: list[str]) -> dict[str, Any]:
    """Run a command of a checkout to its end: peaks in MiB, wall and CPU time."""
    environment = os.environ | {"PYTHONPATH": str(checkout.resolve())}
    began = time.monotonic()
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(  # noqa: S603 (our own command)
            [sys.executable, "-m", "assay", *words],
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            env=environment,
            cwd=checkout,
        ) as child,
    ):
        peaks: dict[int, float] = {}
        together = 0.0
        while True:
            try:
                found = {pid: _memory(pid) for pid in _tree(child.pid)}
            except OSError:  # a process ended while it was looked at
                found = {}
            for pid, (high, _) in found.items():
                peaks[pid] = max(peaks.get(pid, 0.0), high)
            together = max(together, sum(now for _, now in found.values()))
            # the child stays a zombie until it is waited for, so that its times can be read below
            if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                break
            time.sleep(SAMPLED_S)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        complaints.seek(0)
        assert child.returncode == 0, complaints.read().decode()[-2000:]
    return {
        "main_mib": round(max(peaks.pop(child.pid, 0.0), usage.ru_maxrss / MIB), 1),
        "others_mib": sorted((round(peak, 1) for peak in peaks.values()), reverse=True),
        "together_mib": round(together, 1),
        "wall_s": round(time.monotonic() - began, 1),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 1),
    }


def _tree(root: int) -> list[int]:
    """A process and everything that it started."""
    found = [root]
    for pid in found:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def _memory(pid: int) -> tuple[float, float]:
    """Highest and present resident memory of a process, MiB; zeros for one that has ended."""
    lines = [line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
    values = {line[0]: line[1] for line in lines if len(line) > 1}
    return int(values.get("VmHWM:", 0)) / MIB, int(values.get("VmRSS:", 0)) / MIB


def slope(runs: list[dict[str, Any]]) -> float | None:
    """Bytes of the peak per row, from the fewest rows to the most; None for one number of rows."""
    first, last = runs[0], runs[-1]
    if first["rows"] == last["rows"]:
        return None
    grown = last["run"]["main_mib"] - first["run"]["main_mib"]
    return round(grown * 2**20 / (last["rows"] - first["rows"]), 1)


def _line(run: dict[str, Any]) -> list[str]:
    peak, verify = run["run"], run["verify"]
    numbers = (peak["main_mib"], peak["together_mib"], verify["main_mib"], peak["wall_s"], peak["cpu_s"])
    return [run["build"], f"{run['rows']:,}", *(f"{number:,.0f}" for number in numbers)]


if __name__ == "__main__":
    main()
