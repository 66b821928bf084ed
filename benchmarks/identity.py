"""Finding the same crystal: errors of both kinds, and cost beside StructureMatcher and spglib.

Enters: real crystals of the data packs. Leaves: one table on the terminal and one JSON file. Known
pairs are rows of two packs with one Materials Project id and geometries from different releases;
known strangers are Materials Project ids of one formula. One thread, process CPU time, contestants
in turns.

    python benchmarks/identity.py --help
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring.stopwatch import Contestant, Rates, arguments, machine, race, say, settle, show, versions, write

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from assay.sources.crystals import Crystals

ROOT = Path(__file__).resolve().parents[1]
MP = ("mp/mp_labelled_le40", "mp/mp_unlabelled_le40")
WITH_MP_ID = (
    *("3dsc_mp/3dsc_mp", "transfer/matbench_mp_e_form", "transfer/matbench_log_gvrh"),
    *("transfer/dielectric_constant", "transfer/piezoelectric_tensor"),
)
LARGEST = 60
"""Sites of the largest crystal among the known pairs."""


def main(words: list[str] | None = None) -> None:
    """Measure, print and write."""
    options = _options(words)
    settle()
    warnings.simplefilter("ignore")  # pymatgen remarks on its own deprecations
    from assay.sources.crystals import concat

    mp = concat([_pack(options.data, name) for name in MP])
    found: dict[str, Any] = {
        "copies": copies(options.data, options.crystals),
        "known pairs": known_pairs(options.data, mp, options.pairs),
        "strangers": strangers(mp, options.families),
        "overlap": overlap(mp, _pack(options.data, "oqmd/oqmd_perovskites")),
        "cost": cost(options.data, options.crystals, options.repeat),
        "cost of whole search": search(mp, options.families // 5, options.repeat),
    }
    show("identity", ["question", "answer"], [[name, line] for name in found for line in _lines(found[name])])
    report = {"machine": machine(), "versions": versions("moyopy", "pymatgen", "spglib"), **found}
    write(report, options.output)


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = arguments(__doc__, "identity.json")
    parser.add_argument("--crystals", type=int, default=300, help="crystals disturbed and timed (default: 300)")
    parser.add_argument("--pairs", type=int, default=1500, help="known pairs of each pack, at most (default: 1500)")
    parser.add_argument("--families", type=int, default=1500, help="formulas with strangers (default: 1500)")
    return parser.read(words, crystals=60, pairs=200, families=200, repeat=1)


# What is measured.


def copies(data: Path, n: int) -> dict[str, Any]:
    """Crystals and three disturbed copies of each: lost copies, and merged originals."""
    import numpy as np

    from assay.sources.crystals import concat
    from tests import crystal_copies

    ordered, doped = _spread(_pack(data, "mp/mp_labelled_le40"), n), _pack(data, "3dsc_mp/3dsc_mp")
    doped = _spread(doped.select(~doped.is_ordered & (doped.nsites <= 80)), n)
    report = {}
    for name, batch in (("ordered", ordered), ("disordered", doped)):
        for shear in (0.0, 0.001, 0.002, 0.004):
            parts = [batch, *(crystal_copies.copies(batch, seed, shear) for seed in range(3))]
            cluster, related = _search(concat(parts))
            size = len(batch)
            pairs = list(zip(cluster[size:].tolist(), np.tile(cluster[:size], 3).tolist(), strict=True))
            apart = [pair for pair in pairs if pair[0] != pair[1]]
            near = sum(pair in related for pair in apart)
            report[f"{name}, shear {shear:g}"] = {
                "copies": 3 * size,
                "related": near,
                "missed": len(apart) - near,
                "originals_merged": size - len(set(cluster[:size].tolist())),
            }
    return report


def known_pairs(data: Path, mp: Crystals, most: int) -> dict[str, Any]:
    """Rows of another pack and of `mp` with one Materials Project id: how many are kept apart."""
    from assay.sources.crystals import concat

    row = {str(id): position for position, id in enumerate(mp.ids)}
    report = {}
    for name in WITH_MP_ID:
        pack = _pack(data, name)
        ids = pack.columns["mp_id"].tolist()
        doped = pack.columns.get("synth_doped", [False] * len(pack))
        small = pack.is_ordered & (pack.nsites <= LARGEST)
        chosen = [i for i, id in enumerate(ids) if id in row and small[i] and not doped[i]][:most]
        others = mp.select([row[ids[i]] for i in chosen])
        same, related = _matched(pack.select(chosen), others, concat)
        missed = len(chosen) - same - related
        report[name.partition("/")[2]] = {"pairs": len(chosen), "same": same, "related": related, "missed": missed}
    return report


def strangers(mp: Crystals, families: int) -> dict[str, Any]:
    """Formulas with several Materials Project ids: crystals that are the same, related pairs."""
    batch, pairs = _families(mp, families)
    cluster, related = _search(batch)
    merged, near = len(batch) - len(set(cluster.tolist())), len(related) // 2
    answer = {"crystals": len(batch), "pairs_of_one_formula": pairs, "crystals_merged": merged, "pairs_related": near}
    return {"all": answer}


def overlap(mp: Crystals, oqmd: Crystals) -> dict[str, Any]:
    """How many Materials Project crystals occur among the perovskites of OQMD."""
    import numpy as np

    from assay.sources.crystals import concat

    shared = np.isin(mp.formulas(), oqmd.formulas())
    part = mp.select(shared)
    cluster, _ = _search(concat([part, oqmd]))
    ours, theirs = cluster[: len(part)], cluster[len(part) :]
    return {
        "mp with a formula of oqmd": int(shared.sum()),
        "mp found in oqmd": int(np.isin(ours, theirs).sum()),
        "oqmd found in mp": int(np.isin(theirs, ours).sum()),
        "oqmd found in oqmd": len(theirs) - len(set(theirs.tolist())),
    }


def cost(data: Path, n: int, repeat: int) -> Rates:
    """The cost of labels beside two routes of pymatgen, and of one comparison."""
    from pymatgen.analysis import prototypes
    from pymatgen.analysis.structure_matcher import StructureMatcher

    from assay.sources import identity
    from assay.sources.formats import convert
    from assay.sources.identity import likeness
    from assay.sources.identity.cells import cells
    from tests import crystal_copies

    batch = _spread(_pack(data, "mp/mp_labelled_le40"), n)
    other = crystal_copies.copies(batch, 0)
    matcher = StructureMatcher(0.2, 0.3, 5)

    def reduced(crystals: Crystals) -> list[Any]:
        return [likeness.reduced(cell) for cell in cells(crystals)]

    mine, theirs = reduced(batch), reduced(other)
    labelling: dict[str, Contestant] = {
        "labels, both tolerances": lambda: identity.labels(batch),
        "pymatgen via moyopy, both tolerances": lambda: [
            prototypes.get_protostructure_label_from_moyopy(one, symprec=symprec)
            for symprec in (0.1, 0.01)
            for one in convert.to_pymatgen(batch)
        ],
        "pymatgen via spglib, one tolerance": lambda: [
            prototypes.get_protostructure_label_from_spglib(one) for one in convert.to_pymatgen(batch)
        ],
        "reduced cell": lambda: reduced(batch),
        "comparison of reduced cells, same crystal": lambda: [likeness.compare(a, b) for a, b in zip(mine, theirs)],
        "StructureMatcher, same crystal": lambda: [
            matcher.fit(a, b) for a, b in zip(convert.to_pymatgen(batch), convert.to_pymatgen(other))
        ],
    }
    return race(labelling, len(batch), repeat)


def search(mp: Crystals, families: int, repeat: int) -> Rates:
    """All crystals of some formulas, clustered by Assay and by StructureMatcher."""
    import numpy as np
    from pymatgen.analysis.structure_matcher import StructureMatcher

    from assay.sources.formats import convert

    batch, _ = _families(mp, families)
    formula = batch.formulas()

    def matcher() -> int:
        groups = 0
        for name in np.unique(formula):
            block = convert.to_pymatgen(batch.select(formula == name))
            groups += len(StructureMatcher(0.2, 0.3, 5).group_structures(block))
        return groups

    contestants: dict[str, Contestant] = {
        "labels, blocks, confirm": lambda: _search(batch),
        "StructureMatcher on formula blocks": matcher,
    }
    rates = race(contestants, len(batch), repeat)
    rates["labels, blocks, confirm"] |= {"crystals": len(batch), "clusters": len(set(_search(batch)[0].tolist()))}
    rates["StructureMatcher on formula blocks"] |= {"crystals": len(batch), "clusters": matcher()}
    return rates


# Crystals, and the search.


def _search(crystals: Crystals) -> tuple[NDArray[Any], set[tuple[int, int]]]:
    """The cluster of each row, and the pairs of related clusters, each in both orders."""
    from assay.sources import identity

    found = identity.confirm(crystals, identity.blocks(identity.labels(crystals)))
    cluster = identity.clusters(len(crystals), found.same)
    near = cluster[found.related].tolist()
    return cluster, {(a, b) for pair in near for a, b in (pair, pair[::-1])}


def _matched(one: Crystals, other: Crystals, concat: Any) -> tuple[int, int]:
    """How many rows of `one` equal the row of `other` beside them, and how many are related."""
    import numpy as np

    from assay.sources import identity

    n = len(one)
    both = concat([one, other])
    block = identity.blocks(identity.labels(both))
    alike = np.flatnonzero(block[:n] == block[n:])
    pairs = both.select(np.concatenate([alike, alike + n]))
    found = identity.confirm(pairs, np.tile(np.arange(len(alike)), 2))
    return len(found.same), len(found.related)


def _families(mp: Crystals, families: int) -> tuple[Crystals, int]:
    """The crystals of evenly spread formulas with 2 to 20 crystals each, and their pairs."""
    import numpy as np

    _, inverse, counts = np.unique(mp.formulas(), return_inverse=True, return_counts=True)
    several = np.flatnonzero((counts > 1) & (counts <= 20))
    chosen = several[np.unique(np.linspace(0, len(several) - 1, families).astype(np.int64))]
    pairs = int(np.sum(counts[chosen] * (counts[chosen] - 1) // 2))
    return mp.select(np.isin(inverse, chosen)), pairs


def _pack(data: Path, name: str) -> Crystals:
    from assay.sources import table

    return table.from_table(table.read(data / f"{name}.parquet"), name)[0]


def _spread(crystals: Crystals, n: int) -> Crystals:
    import numpy as np

    return crystals.select(np.unique(np.linspace(0, len(crystals) - 1, n).astype(np.int64)))


def _lines(answer: dict[str, Any]) -> list[str]:
    lines = []
    for name, value in answer.items():
        if isinstance(value, dict):
            text = ", ".join(f"{v:,.4g} {k}" if isinstance(v, float) else f"{v:,} {k}" for k, v in value.items())
            lines.append(f"{name}: {text}")
        else:
            lines.append(f"{name}: {value:,}")
    return lines


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    say(f"{time.perf_counter() - started:.0f} s")
