"""Split positions: how many rows of the data packs have them, and what they do to predictions.

Enters: the data packs and the bundled ensembles. Leaves: two tables on the terminal and one JSON
file. The packs hold next to no split positions, so that atoms of held-out crystals are split here:
into two halves, 0.2 Å apart along a random direction. The known value stays the same.

    python benchmarks/split_positions.py --help
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from typing import TYPE_CHECKING, Any

from stopwatch import ROOT, arguments, machine, say, settle, show, versions, write

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from assay.sources.crystals import Crystals
    from assay.sources.datasets import Dataset

PACKS = ("3dsc-tc", "jarvis-tc", "mp-formation-energy", "mp-unlabelled", "oqmd-formation-energy", "experimental-gap")
ENSEMBLES = {"tc-fast": "3dsc-tc", "tc-graphs": "3dsc-tc", "formation-energy": "mp-formation-energy"}
APART = 0.2
"""Å between the two halves of an atom."""
BATCH = 2048


def main(words: list[str] | None = None) -> None:
    """Measure, print and write."""
    options = _options(words)
    settle()
    found = {name: refusals(name) for name in PACKS}
    show("data packs", ["pack", "rows", "with a site at most half full", "atoms too close"], _lines(found))
    moved = {name: predictions(name, pack, options.crystals) for name, pack in ENSEMBLES.items()}
    for name, table in moved.items():
        say(f"{name}: {options.crystals} held-out rows, the mean of them as prediction {table.pop('mean')['MAE']:.3f}")
        show(name, ["crystals", "MAE", "prediction moved by", "share marked as far"], _lines(table))
    report = {"machine": machine(), "versions": versions(), "packs": found, "halves": moved}
    write(report, options.output)


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = arguments(__doc__, "split_positions.json")
    parser.add_argument("--crystals", type=int, default=1000, help="held-out crystals (default: 1000)")
    return parser.parse_args(words)


def _lines(table: dict[str, dict[str, Any]]) -> list[list[str]]:
    return [[name, *(f"{value:,.3f}".removesuffix(".000") for value in row.values())] for name, row in table.items()]


def refusals(pack: str) -> dict[str, int]:
    """Rows, rows with a site at most half full, and rows refused because atoms are too close."""
    import numpy as np

    from assay.featurize import alternatives, graphs
    from assay.featurize.readable import readable
    from assay.sources import datasets
    from assay.sources.quarantine import Reason

    crystals = datasets.load(pack).crystals
    build = partial(graphs.build, spec=graphs.GraphSpec())
    refused = [
        bad.reason
        for start in range(0, len(crystals), BATCH)
        for bad in readable(crystals[start : start + BATCH], build).refused
    ]
    open_sites = crystals.site_crystal[crystals.site_occupancy <= alternatives.FULL / 2]
    return {
        "rows": len(crystals),
        "with a site at most half full": len(np.unique(open_sites)),
        "too close": refused.count(Reason.ATOMS_TOO_CLOSE),
    }


def predictions(ensemble: str, pack: str, n: int) -> dict[str, dict[str, float]]:
    """Errors on held-out crystals as they are, with one site in halves, and with all of them."""
    import numpy as np

    from assay.models.ensemble.ensemble import Ensemble

    loaded, rng = Ensemble.load(ROOT / "models" / "zoo" / ensemble), np.random.default_rng(0)
    data = _held_out(ensemble, pack, n, rng)
    crystals, known, weight = data.crystals, data.target, data.weight
    one = np.zeros(len(crystals.frac), bool)
    one[crystals.site_ptr[:-1] + rng.integers(0, crystals.nsites)] = True
    batches = {
        "as written": crystals,
        "one site in two halves": halved(crystals, one, rng),
        "every site in two halves": halved(crystals, np.ones(len(one), bool), rng),
    }
    mean = np.average(known, weights=weight)
    found = {"mean": {"MAE": float(np.average(abs(known - mean), weights=weight))}}
    before = None
    for name, batch in batches.items():
        predicted, far = _predicted(loaded, batch)
        before = predicted if before is None else before
        found[name] = {
            "MAE": float(np.average(abs(predicted - known), weights=weight)),
            "moved by": float(np.average(abs(predicted - before), weights=weight)),
            "far": float(far.mean()),
        }
    return found


def _held_out(ensemble: str, pack: str, n: int, rng: np.random.Generator) -> Dataset:
    """Test rows of an ensemble, drawn at random."""
    import numpy as np

    from assay.sources import datasets

    data = datasets.load(pack)
    test = json.loads((ROOT / "models" / "zoo" / ensemble / "split.json").read_text())["test"]
    rows = np.flatnonzero(np.isin(data.crystals.ids, test))
    return data.select(np.sort(rng.choice(rows, min(n, len(rows)), replace=False)))


def _predicted(ensemble: Any, crystals: Crystals) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Means of the one property, and whether each crystal is far from those of the training."""
    import assay

    table = assay.predict(crystals, ensemble).table
    assert table.num_rows == len(crystals)
    [name] = [name for name in table.column_names if name.endswith("_mean")]
    return table[name].to_numpy(), table["ood_distance"].to_numpy() > 1


def halved(crystals: Crystals, chosen: NDArray[np.bool_], rng: np.random.Generator) -> Crystals:
    """The same crystals with two sites in place of each chosen one, with half of every share."""
    import numpy as np

    from assay.sources.crystals import Crystals, gather_ranges, wrap

    old = np.repeat(np.arange(len(chosen)), np.where(chosen, 2, 1))
    first = np.diff(old, prepend=-1) > 0
    way = rng.normal(size=crystals.frac.shape)
    way *= (APART / 2 * chosen / np.linalg.norm(way, axis=1))[:, None]
    step = np.einsum("si,sij->sj", way, np.linalg.inv(crystals.lattice)[crystals.site_crystal])
    held, species_ptr = gather_ranges(crystals.species_ptr, old)
    part = np.where(chosen, 0.5, 1.0)[crystals.species_site[held]]
    return Crystals(
        ids=crystals.ids,
        lattice=crystals.lattice,
        site_ptr=np.concatenate([[0], np.cumsum(np.bincount(crystals.site_crystal[old], minlength=len(crystals)))]),
        frac=wrap(crystals.frac[old] + np.where(first, 1, -1)[:, None] * step[old]),
        species_ptr=species_ptr,
        numbers=crystals.numbers[held],
        occupancy=(crystals.occupancy[held] * part).astype(np.float32),
    )


if __name__ == "__main__":
    main()
