"""What the coordinates of a file do to predictions: split positions, and rounded coordinates.

Enters: the data packs and the bundled ensembles. Leaves: tables on the terminal and one JSON file
per question. `split`: how many rows of the packs have split positions; they hold next to none, so
that atoms of held-out crystals are split here, into two halves, 0.2 Å apart along a random
direction. The known value stays the same. `rounded`: predictions with fractional coordinates at 4,
5 and 6 decimals, as files and servers give them, against those with all digits.

    python benchmarks/positions.py --help
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from measuring.stopwatch import ROOT, arguments, machine, say, settle, show, versions, write

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from assay.sources.crystals import Crystals
    from assay.sources.datasets import Dataset

PACKS = ("3dsc-tc", "jarvis-tc", "mp-formation-energy", "mp-unlabelled", "oqmd-formation-energy", "experimental-gap")
ENSEMBLES = {"tc-fast": "3dsc-tc", "tc-graphs": "3dsc-tc", "formation-energy": "mp-formation-energy"}
ROUNDED = {"tc": "3dsc-tc", **ENSEMBLES, "band-gap": "mp-band-gap"}
DECIMALS = (4, 5, 6)
ACCEPTED = 0.005
"""Largest accepted change of a prediction, in standard deviations of the target."""
APART = 0.2
"""Å between the two halves of an atom."""
BATCH = 2048


def main(words: list[str] | None = None) -> None:
    """Measure, print and write."""
    parser = arguments(__doc__, "split_positions.json or rounded_positions.json")
    parser.add_argument("question", choices=("split", "rounded"))
    parser.add_argument("--crystals", type=int, default=0, help="crystals (default: 1000 split, 2000 rounded)")
    options = parser.read(words, crystals=200)
    settle()
    found = _split(options.crystals or 1000) if options.question == "split" else _rounded(options.crystals or 2000)
    output = options.output
    if output == parser.get_default("output"):
        output = output.with_name(f"{options.question}_positions.json")
    write({"machine": machine(), "versions": versions(), **found}, output)


def _split(crystals: int) -> dict[str, Any]:
    found = {name: refusals(name) for name in PACKS}
    show("data packs", ["pack", "rows", "with a site at most half full", "atoms too close"], _lines(found))
    moved = {name: predictions(name, pack, crystals) for name, pack in ENSEMBLES.items()}
    for name, table in moved.items():
        say(f"{name}: {crystals} held-out rows, the mean of them as prediction {table.pop('mean')['MAE']:.3f}")
        show(name, ["crystals", "MAE", "prediction moved by", "share marked as far"], _lines(table))
    return {"packs": found, "halves": moved}


def _rounded(crystals: int) -> dict[str, Any]:
    moved = {name: changes(name, pack, crystals) for name, pack in ROUNDED.items()}
    for name, table in moved.items():
        scale = table.pop("target")
        say(f"{name}: {crystals} rows, standard deviation of the target {scale['deviation']:.4g}")
        lines = [[decimals, *(f"{value:.4g}" for value in row.values())] for decimals, row in table.items()]
        show(name, ["decimals", "largest change", "99.9 % quantile", "share above 0.5 %"], lines)
        table["target"] = scale
    return {"rounded": moved}


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


def changes(ensemble: str, pack: str, n: int) -> dict[str, dict[str, float]]:
    """Changes of the prediction by rounded coordinates, of rows of a pack drawn at random."""
    import numpy as np

    from assay.models.ensemble.ensemble import Ensemble
    from assay.sources import datasets
    from assay.sources.crystals import wrap

    loaded = Ensemble.load(ROOT / "models" / "zoo" / ensemble)
    data = datasets.load(pack)
    rows = np.sort(np.random.default_rng(0).choice(len(data.target), min(n, len(data.target)), replace=False))
    crystals, deviation = data.crystals.select(rows), float(data.target.std())
    before, _ = _predicted(loaded, crystals)
    found = {}
    for decimals in DECIMALS:
        now, _ = _predicted(loaded, replace(crystals, frac=wrap(crystals.frac.round(decimals))))
        gap = abs(now - before)
        share = float((gap > ACCEPTED * deviation).mean())
        found[str(decimals)] = {"largest": float(gap.max()), "99.9 %": float(np.quantile(gap, 0.999)), "above": share}
    return {**found, "target": {"deviation": deviation}}


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
    assert table.num_rows == len(crystals), "some crystals were refused"
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
