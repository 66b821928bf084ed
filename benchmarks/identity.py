"""Finding the same crystal: errors of both kinds, and cost beside StructureMatcher and before.

Enters: real crystals of the data packs. Leaves: one table on the terminal and one JSON file. Known
pairs are rows of two packs with one Materials Project id and geometries from different releases;
known strangers are Materials Project ids of one formula. `--before FOLDER` is a checkout of the
build with labels (`git worktree add FOLDER c8e5383a`), which searches the same pull. One thread,
process CPU time, contestants in turns.

    python benchmarks/identity.py --help
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
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
        "a pull of three sources": pull(options.data, mp, options.rows, options.before),
        "snapshots": {str(n): snapshots(n) for n in (options.frames // 4, options.frames)},
    }
    show("identity", ["question", "answer"], [[name, line] for name in found for line in _lines(found[name])])
    report = {"machine": machine(), "versions": versions("moyopy", "pymatgen"), **found}
    write(report, options.output)


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = arguments(__doc__, "identity.json")
    parser.add_argument("--crystals", type=int, default=300, help="crystals disturbed and timed (default: 300)")
    parser.add_argument("--pairs", type=int, default=1500, help="known pairs of each pack, at most (default: 1500)")
    parser.add_argument("--families", type=int, default=1500, help="formulas with strangers (default: 1500)")
    parser.add_argument("--rows", type=int, default=20_000, help="rows of the pull (default: 20,000)")
    parser.add_argument("--frames", type=int, default=4_000, help="snapshots of one cell (default: 4,000)")
    parser.add_argument("--before", type=Path, help="checkout of the build with labels")
    return parser.read(words, crystals=60, pairs=200, families=200, rows=3_000, frames=400, repeat=1)


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
    """The cost of fingerprints, of mappings and of symmetry beside StructureMatcher."""
    import numpy as np
    from pymatgen.analysis.structure_matcher import StructureMatcher

    from assay.featurize import identity
    from assay.sources.crystals import concat
    from assay.sources.formats import convert
    from tests import crystal_copies

    batch = _spread(_pack(data, "mp/mp_labelled_le40"), n)
    other = crystal_copies.copies(batch, 0)
    both = concat([batch.without_columns(), other])
    pairs = np.stack([np.arange(n), np.arange(n) + n], axis=1)
    matcher = StructureMatcher(0.2, 0.3, 5)
    contestants: dict[str, Contestant] = {
        "fingerprints": lambda: identity.fingerprints(batch),
        "comparison, same crystal": lambda: identity.confirm(both, pairs),
        "space group at 0.1 Å": lambda: identity.space_groups(batch),
        "StructureMatcher, same crystal": lambda: [
            matcher.fit(a, b) for a, b in zip(convert.to_pymatgen(batch), convert.to_pymatgen(other))
        ],
    }
    return race(contestants, len(batch), repeat)


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

    ours, theirs = "fingerprints, mappings", "StructureMatcher on formula blocks"
    contestants: dict[str, Contestant] = {ours: lambda: _search(batch), theirs: matcher}
    rates = race(contestants, len(batch), repeat)
    rates[ours] |= {"crystals": len(batch), "clusters": len(set(_search(batch)[0].tolist()))}
    rates[theirs] |= {"crystals": len(batch), "clusters": matcher()}
    return rates


BEFORE = """
import sys, time, warnings, logging
warnings.simplefilter("ignore"); logging.disable(logging.WARNING)
from assay.sources import identity, table
crystals = table.from_table(table.read(sys.argv[1]), "pull")[0]
def find(batch):
    pairs = identity.confirm(batch, identity.blocks(identity.labels(batch)))
    return identity.clusters(len(batch), pairs.same)
find(crystals[:200])
start = time.process_time()
found = find(crystals)
print(time.process_time() - start, len(set(found.tolist())))
"""


def pull(data: Path, mp: Crystals, rows: int, before: Path | None) -> dict[str, Any]:
    """Rows of databases with disturbed copies, searched whole by this build and the one before."""
    from assay.sources import table
    from assay.sources.crystals import concat
    from tests import crystal_copies

    transfer = concat([_pack(data, f"transfer/matbench_mp_{name}").without_columns() for name in ("e_form", "gap")])
    base = _spread(mp, rows // 2)
    parts = [base.without_columns(), _spread(_pack(data, "oqmd/oqmd_perovskites"), rows // 10).without_columns()]
    parts += [_named(_spread(transfer, rows // 4), "t"), crystal_copies.copies(_spread(base, 3 * rows // 20), 1, 0.002)]
    both = concat(parts)
    _search(both[:200])
    start = time.process_time()
    groups = len(set(_search(both)[0].tolist()))
    report = {"this build": _timed(time.process_time() - start, len(both), groups)}
    if before is not None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pull.parquet"
            table.write(table.to_table(both), path)
            words = [sys.executable, "-c", BEFORE, str(path)]
            environment = {**os.environ, "PYTHONPATH": str(before)}
            said = subprocess.run(words, env=environment, cwd=before, check=True, capture_output=True, text=True)  # noqa: S603
        seconds, groups = said.stdout.split()
        report["build with labels"] = _timed(float(seconds), len(both), int(groups))
    return report


def snapshots(n: int) -> dict[str, Any]:
    """Frames of one cell of 16 atoms in molecular dynamics, in two sources, found and timed."""
    import numpy as np

    from assay.sources.crystals import Crystals, concat

    lattice, numbers, places = _dynamics(n)
    moved = places + 1e-5 * np.random.default_rng(0).normal(size=places.shape)

    def source(name: str, frac: NDArray[Any]) -> Crystals:
        return Crystals(
            ids=np.array([f"{name}/{k:06d}" for k in range(n)], dtype=object),
            lattice=np.tile(lattice, (n, 1, 1)),
            site_ptr=16 * np.arange(n + 1),
            frac=(frac % 1.0).reshape(-1, 3),
            species_ptr=np.arange(16 * n + 1),
            numbers=np.tile(numbers, n).astype(np.uint8),
            occupancy=np.ones(16 * n, np.float32),
        )

    both = concat([source("a", places), source("b", moved)])
    start = time.process_time()
    cluster, _ = _search(both)
    seconds = time.process_time() - start
    found = int(np.sum(cluster[:n] == cluster[n:]))
    return {"rows": 2 * n, "ms_per_row": 1e3 * seconds / (2 * n), "found": found}


def _dynamics(n: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Cell, atomic numbers and fractional positions of CuAu, 16 atoms, 600 K, every 20 fs."""
    import numpy as np
    from ase import units
    from ase.build import bulk
    from ase.calculators.emt import EMT
    from ase.md.langevin import Langevin

    atoms = bulk("Cu", cubic=True, a=3.8) * (2, 2, 1)
    atoms.numbers[np.random.default_rng(1).permutation(16)[:8]] = 79
    atoms.calc = EMT()
    md = Langevin(atoms, 5 * units.fs, temperature_K=600, friction=0.02, rng=np.random.default_rng(2))
    places = []
    for steps in [200] + [4] * (n - 1):
        md.run(steps)
        places.append(atoms.get_scaled_positions())
    return atoms.cell.array, atoms.numbers, np.array(places)


def _timed(seconds: float, rows: int, groups: int) -> dict[str, Any]:
    return {"rows": rows, "us_per_crystal": 1e6 * seconds / rows, "clusters": groups}


def _named(crystals: Crystals, source: str) -> Crystals:
    """The same under ids of their own, without columns."""
    import numpy as np

    from assay.sources.crystals import Crystals

    ids = np.array([f"{source}/{k}" for k in range(len(crystals))], dtype=object)
    names = ("lattice", "site_ptr", "frac", "species_ptr", "numbers", "occupancy")
    return Crystals(ids, *(getattr(crystals, name) for name in names))


# Crystals, and the search.


def _search(crystals: Crystals) -> tuple[NDArray[Any], set[tuple[int, int]]]:
    """The group of each row, and the pairs of related groups, each in both orders."""
    from assay.featurize import identity

    leader, found = identity.find(crystals)
    near = found.related.tolist()
    return leader, {(a, b) for pair in near for a, b in (pair, pair[::-1])}


def _matched(one: Crystals, other: Crystals, concat: Any) -> tuple[int, int]:
    """How many rows of `one` equal the row of `other` beside them, and how many are related.

    A pair counts only if fingerprints propose it.
    """
    import numpy as np

    from assay.featurize import identity

    n = len(one)
    both = concat([_named(one, "a"), _named(other, "b")])
    pairs = np.array([pair for k in range(n) for pair in _proposed(both, k, n)]).reshape(-1, 2)
    found = identity.confirm(both, pairs)
    return len(found.same), len(found.related)


def _proposed(both: Crystals, k: int, n: int) -> list[list[int]]:
    from assay.featurize import identity

    proposed = len(identity.Search(identity.fingerprints(both.select([k, k + n]))).pairs())
    return [[k, k + n]] * proposed


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
