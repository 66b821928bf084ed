"""Does a server bear many clients, and many bad uploads, and how long does a page take?

Enters: numbers of uploads, clients and rows. Leaves: tables and one JSON file. A server of its own
runs on loopback, on the same processors as the clients. `uploads` are real crystals as CIF, each
sent once by one of the clients, which send the next when they have the answer. `malformed` are
files that hold no crystal, of 16 sorts; each must be answered 4xx with a reason, and the memory of
the server and of its readers is compared before and after. With `--rows` the candidates of a
campaign are copied under other ids until there are so many, and pages of them are asked for.

    ASSAY_DATA=... python benchmarks/serving/load.py --model tc-fast
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from measuring.stopwatch import CommandLine, machine, show, versions, write  # noqa: E402

PATIENCE_S = 120


def main() -> None:
    """Run what the arguments ask for."""
    parser = CommandLine(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uploads", type=int, default=500)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--malformed", type=int, default=1000)
    parser.add_argument("--model", default="tc-fast")
    parser.add_argument("--replicas", help="on Ray, so many: 2 or 1-4; default: in the process of the server")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "serving" / "load.json")
    asked = parser.read(None, uploads=100, clients=20, malformed=160)
    where = ["--on", "ray", "--replicas", asked.replicas] if asked.replicas else []
    files = cifs(asked.uploads)
    with tempfile.TemporaryDirectory() as place, served(Path(place), ["--model", asked.model, *where]) as (port, child):
        send(port, [("a.cif", files[0])], 1)  # the readers start with the first file
        found: dict[str, Any] = {"uploads": uploads(port, child.pid, files, asked.clients)}
        found["malformed"] = malformed(port, child.pid, asked.malformed, asked.clients)
    for name, numbers in found.items():
        show(name, ["", ""], [[key, str(value)] for key, value in numbers.items()])
    write(
        {
            "model": asked.model,
            "replicas on Ray": asked.replicas,
            **found,
            "machine": machine(),
            "versions": versions(),
        },
        asked.output,
    )


@contextmanager
def served(place: Path, arguments: Sequence[str]) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A server on a free port: `assay serve` in a child process."""
    command = [sys.executable, "-m", "assay", "serve", "--port", "0", "--store", str(place / "store"), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    child = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, env=environment)  # noqa: S603 (ours)
    assert child.stdout is not None
    try:
        told = child.stdout.readline()
        port = re.search(r":(\d+)/", told)
        assert port is not None, f"the server said {told!r}"
        for _ in range(100 * PATIENCE_S):
            try:
                request(int(port[1]), "GET", "/health")
                break
            except ConnectionError:
                time.sleep(0.01)
        yield int(port[1]), child
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(PATIENCE_S)


def uploads(port: int, pid: int, files: Sequence[bytes], clients: int) -> dict[str, Any]:
    """Seconds until the answers, and of processor time of the server and its readers."""
    began, worked, alone = time.perf_counter(), processor_s(family(pid)), processor_s([pid])
    answers = send(port, [(f"{number}.cif", content) for number, content in enumerate(files)], clients)
    took = time.perf_counter() - began
    seconds = np.array([second for _, _, second in answers])
    statuses = Counter(status for status, _, _ in answers)
    return {
        "sent": len(files),
        "clients": clients,
        "answered 200": statuses[200],
        "other statuses": {str(status): count for status, count in statuses.items() if status != 200},
        "median s": round(float(np.median(seconds)), 3),
        "p95 s": round(float(np.quantile(seconds, 0.95)), 3),
        "longest s": round(float(seconds.max()), 3),
        "ms of processor time per upload": round(1e3 * (processor_s(family(pid)) - worked) / len(files), 1),
        "ms of them in the process of the server": round(1e3 * (processor_s([pid]) - alone) / len(files), 1),
        "uploads per s": round(len(files) / took, 1),
    }


def malformed(port: int, pid: int, count: int, clients: int) -> dict[str, Any]:
    """Statuses of bad uploads, and the memory before and after."""
    bad = [(f"{number}{ending}", content) for number, (ending, content) in zip(range(count), _bad(), strict=False)]
    send(port, bad[:100], clients)  # what is loaded once is loaded now
    before = memory(pid)
    answers = send(port, bad, clients)
    statuses = Counter(status for status, _, _ in answers)
    reasons = [json.loads(text) for _, text, _ in answers]
    silent = sum(1 for told in reasons if not (told.get("detail") or told.get("refused")))
    return {
        "sent": len(bad),
        "statuses": {str(status): number for status, number in sorted(statuses.items())},
        "not 4xx": sum(number for status, number in statuses.items() if not 400 <= status < 500),
        "without a reason": silent,
        "MB before": before,
        "MB after": memory(pid),
    }


def send(port: int, files: Sequence[tuple[str, bytes]], clients: int) -> list[tuple[int, str, float]]:
    """Status, text and seconds of each answer."""

    def one(named: tuple[str, bytes]) -> tuple[int, str, float]:
        began = time.perf_counter()
        status, text = request(port, "POST", "/predict", *form(*named))
        return status, text, time.perf_counter() - began

    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(one, files))


def form(name: str, content: bytes) -> tuple[bytes, str]:
    """A form with one file, and its content type."""
    head = f'--cut\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return head.encode() + content + b"\r\n--cut--\r\n", "multipart/form-data; boundary=cut"


def request(port: int, method: str, path: str, body: bytes = b"", kind: str = "") -> tuple[int, str]:
    """Ask the server once."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, body, {"Content-Type": kind} if kind else {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def memory(pid: int) -> float:
    """Memory of a process and its children that no other process shares, MB."""
    every = [Path(f"/proc/{one}/smaps_rollup").read_text() for one in family(pid)]
    kept = [re.findall(r"Private_\w+:\s+(\d+)", text) for text in every]
    return round(sum(int(size) for sizes in kept for size in sizes) / 1e3, 1)


def processor_s(pids: Sequence[int]) -> float:
    """Processor time of some processes so far."""
    every = [Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split() for one in pids]
    return sum(int(fields[11]) + int(fields[12]) for fields in every) / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process with all that it started, and what those started."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    return [pid, *(one for child in children for one in family(child))]


def cifs(count: int) -> list[bytes]:
    """Real superconductors as CIF, ordered and disordered ones, at most 60 sites each."""
    from assay.sources import table
    from assay.sources.formats.writing.structures import cif

    stored = table.read(Path(os.environ["ASSAY_DATA"]) / "3dsc_mp" / "3dsc_mp.parquet")
    rows = np.linspace(0, len(stored) - 1, 2 * count).astype(np.int64)
    crystals, _ = table.from_table(stored.take(rows), "3dsc", 60)
    return [cif(crystals[row : row + 1], {}).encode() for row in range(min(count, len(crystals)))]


def _bad() -> Iterator[tuple[str, bytes]]:
    """Files that hold no crystal, without end."""
    cell = b"data_x\n" + b"".join(
        b"_cell_length_%s 4\n_cell_angle_%s 90\n" % pair
        for pair in zip((b"a", b"b", b"c"), (b"alpha", b"beta", b"gamma"), strict=True)
    )
    loop = b"loop_\n_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n"
    number = 0
    while True:
        number += 1
        tail = b"%d" % number
        yield ".cif", cell[: 20 + number % 60]
        yield ".cif", cell + loop
        yield ".cif", cell + loop + b"Xx 0 0 0\n# " + tail
        yield ".cif", cell + loop + b"Na nan 0 0\n# " + tail
        yield ".cif", cell.replace(b" 4", b" 0") + loop + b"Na 0 0 0\n"
        yield ".cif", cell + loop + b"Na 0 0 0\nNa 0.001 0 0\n"
        yield ".cif", cell + loop + b"Na 0 0\n"
        yield ".cif", np.random.default_rng(number).bytes(2_000)
        yield ".vasp", b"x\n1\n4 0 0\n0 4 0\n0 0 4\nNa\n3\ndirect\n0 0 0\n# " + tail
        yield ".vasp", b"x\n1\n4 0 0\n4 0 0\n0 0 4\nNa\n1\ndirect\n0 0 0\n# " + tail
        yield ".extxyz", b'5\nLattice="4 0 0 0 4 0 0 0 4"\nNa 0 0 0\n'
        yield ".json", b"[" * 10_000
        yield ".json", b'{"structures": [{"lattice": %s}]}' % tail
        yield ".exe", b"MZ" + tail
        yield ".zip", b"PK\x03\x04" + tail
        yield ".cif", b"   \n"


if __name__ == "__main__":
    main()
