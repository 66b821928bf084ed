"""How long does a page of candidates take, of a million, as HTML, REST and OPTIMADE?

Enters: a ranked campaign folder, and a number of rows. Leaves: a table and one JSON file. The index
of the campaign is copied, with other ids and values, until it has so many rows; the crystals of a
copy are those of its original, so that a page opens few files of the snapshot. Each question is
asked three times over HTTP, and the quickest answer counts: wall time, and processor time of the
server, which is this process.

    python benchmarks/serving/pages.py runs/tc --rows 1000000
"""

from __future__ import annotations

import argparse
import http.client
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from measuring.stopwatch import CommandLine, machine, settle, show, versions, write  # noqa: E402

if TYPE_CHECKING:
    from assay.screening.serving.shelf import Served

ASKED = {
    "first page": "/campaigns/big",
    "row 900,000": "/campaigns/big?offset=900000",
    "largest std first": "/campaigns/big?sort=-{name}_std",
    "largest std first, row 500,000": "/campaigns/big?sort=-{name}_std&offset=500000",
    "two elements": "/campaigns/big?elements=Cu,O",
    "part of a formula": "/campaigns/big?text=La1.8",
    "two bounds": "/campaigns/big?{name}_mean_min=5&nsites_max=10",
    "REST, 1,000 rows": "/campaigns/big/candidates?limit=1000&offset=500000",
    "OPTIMADE, 100 structures": "/optimade/v1/structures?page_limit=100&page_offset=500000",
    "OPTIMADE, filter": "/optimade/v1/structures?page_limit=100&filter="
    + quote('elements HAS ALL "Cu","O" AND _assay_{name}_mean>5', safe="{}"),
    "OPTIMADE, sorted": "/optimade/v1/structures?page_limit=100&sort=-_assay_{name}_std",
}
"""Question -> path; `{name}` is the property that ranks."""


def main() -> None:
    """Serve the copy, and ask."""
    parser = CommandLine(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "serving" / "pages.json")
    asked = parser.read(None, rows=1_000_000)
    with tempfile.TemporaryDirectory() as place:
        served, port = _serve(asked.folder, asked.rows, Path(place))
        name = served.results.summary.target.name
        found = {title: _measured(port, path.replace("{name}", name)) for title, path in ASKED.items()}
    rows = [[title, *map(str, told.values())] for title, told in found.items()]
    show(f"{served.count:,} candidates", ["", "ms", "ms of processor time", "kB"], rows)
    write({"rows": served.count, "pages": found, "machine": machine(), "versions": versions()}, asked.output)


def _measured(port: int, path: str) -> dict[str, float]:
    best: list[float] = []
    for _ in range(3):
        began, worked = time.perf_counter(), time.process_time()
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        line.request("GET", path, headers={"Accept": "text/html"})
        answer = line.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {content[:300]!r}")
        best = min(best or [9e9], [1e3 * (time.perf_counter() - began), 1e3 * (time.process_time() - worked)])
    return {"ms": round(best[0], 1), "processor ms": round(best[1], 1), "kB": round(len(content) / 1e3, 1)}


def _serve(folder: Path, rows: int, place: Path) -> tuple[Served, int]:
    """A server over the copied index, in a thread of this process."""
    import uvicorn

    from assay.screening.prediction import predict
    from assay.screening.serving import app
    from assay.screening.serving.optimade import server as optimade
    from assay.screening.serving.predicting.predictor import LocalPredictor
    from assay.screening.serving.run import Address, bound
    from assay.screening.serving.store import Store

    served = _copied(folder, rows, place)
    listening = bound(Address(port=0))
    port = listening.getsockname()[1]
    database = optimade.make([served], f"http://127.0.0.1:{port}/optimade", place)
    made = app.make([served], LocalPredictor(predict.load("tc-fast")), Store(place / "store"), app.Limits(), database)
    server = uvicorn.Server(uvicorn.Config(made, log_level="warning"))
    threading.Thread(target=server.run, args=([listening],), daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    return served, port


def _copied(folder: Path, rows: int, place: Path) -> Served:
    import numpy as np
    import polars as pl

    from assay.screening.serving import shelf

    (few,) = shelf.serve([folder], place)
    name, generator = few.results.summary.target.name, np.random.default_rng(0)
    every = few.scan().collect()
    parts = [
        every.with_columns(
            pl.format("{}#{}", "id", pl.lit(copy)).alias("id"),
            (pl.col(f"{name}_mean") + generator.normal(size=len(every))).alias(f"{name}_mean"),
            (pl.col(f"{name}_std") * generator.lognormal(size=len(every))).alias(f"{name}_std"),
        )
        for copy in range(-(-rows // len(every)))
    ]
    whole = pl.concat(parts).head(rows).sort(f"{name}_mean", descending=True)
    whole = whole.with_columns(pl.int_range(1, rows + 1, dtype=pl.Int64).alias("rank"))
    shelf.write(whole.lazy(), place / "big.parquet")

    class Copied(shelf.Served):
        def crystals(self, rows: Sequence[dict[str, Any]]) -> Any:
            originals = [row | {"id": row["id"].rpartition("#")[0]} for row in rows]
            names = list(dict.fromkeys(row["id"] for row in originals))
            found = super().crystals(originals)
            return found.select(np.array([names.index(row["id"]) for row in originals], np.int64))

    return Copied("big", few.results, place / "big.parquet")


if __name__ == "__main__":
    settle()
    main()
