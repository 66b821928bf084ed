"""The speed of graph building beside alignn and pymatgen, and the size of symmetry quotients.

Enters: crystals of the data packs. Leaves: tables on the terminal and one JSON file. Everyone gets
the same crystals in the same process; CPU time on one thread, contestants take turns, the best of
several rounds counts; wall time too for ours on two threads. A peer that is not installed is
skipped with a note.

The file is not called `featurize`: Ray puts the folder of a script first on the path of its
workers, and those of scaling.py would find this file where they look for the room.

    python benchmarks/featurizer.py --help
"""

from __future__ import annotations

import argparse
import os
import time
from typing import TYPE_CHECKING, Any

from measuring.crystals import CUTOFF, NEIGHBOURS, alignn_builders, real_crystals, sizes, superconductors
from measuring.stopwatch import Contestant, Rates, arguments, machine, race, row, say, settle, show, versions, write

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals

BATCH = 64
"""Crystals per call of our featurizer; near what a worker hands to a network at once."""
OURS = f"assay, batches of {BATCH}"
TOLERANCES = {"prediction": (1e-5, False), "training": (1e-3, False), "prediction, symmetrised": (1e-5, True)}
"""Å; what a campaign and a recipe use unless told otherwise, and what a campaign with `symmetrise`
does."""
SYMMETRISED = 0.01
"""Å, of the symmetry search."""
PEERS = ("alignn", "dgl", "jarvis-tools", "pymatgen", "pymatgen-core", "vesin", "matscipy")


def main(words: list[str] | None = None) -> None:
    """Measure, print and write."""
    options = _options(words)
    settle()
    import torch

    from assay.models import memory

    torch.set_num_threads(1)
    memory.keep()  # as in a campaign, and for every contestant
    report: dict[str, Any] = {"machine": machine(), "load": os.getloadavg()[0], "versions": versions(*PEERS)}
    packs = {"materials_project": real_crystals, "superconductors": superconductors}
    for name, load in packs.items():
        crystals = load(options.data, options.crystals)
        say(f"{name}: {len(crystals)} crystals, {crystals.nsites.mean():.1f} atoms each")
        report[name] = {
            "crystals": len(crystals),
            "atoms_per_crystal": float(crystals.nsites.mean()),
            "neighbours": neighbours(crystals, options.repeat),
            "featurize": featurize(crystals, options.repeat),
            "quotient": quotients(crystals, options.repeat),
            "threads": threads(crystals, options.repeat),
        }
    report["removed"] = {name: removed(load(options.data, options.quotients)) for name, load in packs.items()}
    write(report, options.output)


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = arguments(__doc__, "featurize.json")
    parser.add_argument("--crystals", type=int, default=600, help="of either data pack (default: 600)")
    parser.add_argument("--quotients", type=int, default=2000, help="whose quotients are counted (default: 2000)")
    options = parser.read(words, crystals=256, quotients=200)
    if options.repeat < 3 or options.crystals < BATCH or options.quotients < 1:
        parser.error(f"needs --repeat >= 3, --crystals >= {BATCH}, --quotients >= 1, got {vars(options)}")
    return options


# What is measured.


def neighbours(crystals: Crystals, repeat: int) -> Rates:
    """The 12 nearest atoms of every atom, beside compiled searches within 8 Å and a numpy sort."""
    from assay.featurize import graphs

    parts = _parts(crystals)
    spec = graphs.GraphSpec(k=NEIGHBOURS)
    contestants: dict[str, Contestant] = {OURS: lambda: [graphs.build(part, spec) for part in parts]}
    peers = searches(crystals)
    rates = race(contestants | peers, len(crystals), repeat)
    ours = [part for built in contestants[OURS]() for part in _distances(built)]
    for name, run in peers.items():
        rates[name]["largest_distance_difference"] = distance_gap(ours, run())
    compare(rates, f"the {NEIGHBOURS} nearest neighbours")
    return rates


def featurize(crystals: Crystals, repeat: int) -> Rates:
    """Graph, line graph and node features: ours beside both builders of alignn."""
    import numpy as np

    from assay.featurize import graphs

    parts, spec = _parts(crystals), graphs.GraphSpec(k=NEIGHBOURS, angles=True)

    def ours() -> list[graphs.Graphs]:
        built = [graphs.build(part, spec) for part in parts]
        for graph in built:
            graph.features()
        return built

    contestants: dict[str, Contestant] = {OURS: ours}
    peers = alignn_builders(crystals)
    contestants |= peers
    rates = race(contestants, len(crystals), repeat)
    for name, build in contestants.items():
        rates[name] |= sizes(build(), len(crystals))
    compare(rates, "graph + line graph + node features")
    if "alignn, pure torch" in peers:
        theirs = [
            nearest_distances(graph.src.numpy(), np.linalg.norm(graph.edata["r"].numpy(), axis=1))
            for graph, _ in peers["alignn, pure torch"]()
        ]
        gap = distance_gap([part for built in ours() for part in _distances(built)], theirs)
        rates["alignn, pure torch"]["largest_distance_difference"] = gap
        say(f"largest difference between the {NEIGHBOURS} nearest distances, ours and alignn's: {gap:.1e} Å")
    return rates


def quotients(crystals: Crystals, repeat: int) -> Rates:
    """The symmetry quotient of ready graphs: with angles as in a campaign, and in full."""
    from assay.featurize import graphs, quotient, standard

    parts = _parts(crystals)
    spec = graphs.GraphSpec(k=NEIGHBOURS)
    bare = [graphs.build(part, spec) for part in parts]
    full = [built.with_angles() for built in bare]
    contestants: dict[str, Contestant] = {
        f"symmetrised cells, {SYMMETRISED} Å": lambda: [
            standard.symmetrised(part, SYMMETRISED) for part in _parts(crystals)
        ],
        "quotient of a graph with angles": lambda: [quotient.quotient(part) for part in full],
        "angles and quotient of a graph": lambda: [quotient.of_crystals(part, angles=True) for part in bare],
        "quotient of a graph without angles": lambda: [quotient.quotient(part) for part in bare],
    }
    rates = race(contestants, len(crystals), repeat)
    show("symmetry quotient", ["", "µs CPU/crystal", "crystals/s/core"], [row(*item) for item in rates.items()])
    return rates


def threads(crystals: Crystals, repeat: int) -> Rates:
    """Ours on one and two threads, all crystals in one batch: wall and CPU time."""
    from assay.featurize import graphs, quotient

    spec = graphs.GraphSpec(k=NEIGHBOURS, angles=True)
    bare = graphs.build(crystals, graphs.GraphSpec(k=NEIGHBOURS))
    rates: Rates = {}
    for count in (1, 2):
        work: dict[str, Contestant] = {
            "graph + line graph": lambda count=count: graphs.build(crystals, spec, threads=count),
            "quotient with angles": lambda count=count: quotient.of_crystals(bare, angles=True, threads=count),
        }
        for name, run in work.items():
            wall, cpu = _both_clocks(run, 2 * repeat)
            rates[f"{name}, threads: {count}"] = {
                "us_per_crystal": 1e6 * cpu / len(crystals),
                "crystals_per_s": len(crystals) / wall,
                "us_wall_per_crystal": 1e6 * wall / len(crystals),
            }
    rows = [[*row(name, rate), f"{rate['us_wall_per_crystal']:,.1f}"] for name, rate in rates.items()]
    show("threads", ["", "µs CPU/crystal", "crystals/s (wall)", "µs wall/crystal"], rows)
    return rates


def removed(crystals: Crystals) -> dict[str, Any]:
    """The triplets of full graphs per triplet of the quotients, for crystals as they came."""
    import numpy as np

    from assay.featurize import graphs, quotient, standard

    spec = graphs.GraphSpec(k=NEIGHBOURS, angles=True)
    full, even = (graphs.build(some, spec) for some in (crystals, standard.symmetrised(crystals, SYMMETRISED)))
    before, edges = np.diff(full.triplet_ptr), full.edge_ptr[-1]
    found: dict[str, Any] = {"crystals": len(crystals)}
    rows = []
    for name, (tolerance, symmetrised) in TOLERANCES.items():
        merged = quotient.quotient(even if symmetrised else full, tolerance)
        factor = before / np.diff(merged.triplet_ptr)
        bins = np.concatenate([2.0 ** np.arange(0, 8.5, 0.5), [np.inf]])
        found[name] = {
            "tolerance": tolerance,
            "nodes": float(full.node_ptr[-1] / merged.node_ptr[-1]),
            "edges": float(edges / merged.edge_ptr[-1]),
            "triplets": float(before.sum() / merged.triplet_ptr[-1]),
            "none_removed": float((factor <= 1).mean()),
            "percentiles": {str(q): float(np.percentile(factor, q)) for q in range(0, 101, 5)},
            "histogram": {"from": bins[:-1].tolist(), "crystals": np.histogram(factor, bins)[0].tolist()},
        }
        shown = [*(found[name][kind] for kind in ("nodes", "edges", "triplets")), *np.percentile(factor, [25, 50, 75])]
        none = f"{100 * found[name]['none_removed']:.1f} %"
        rows.append([f"{name}, {tolerance:g} Å", *(f"{ratio:.2f}×" for ratio in shown), none])
    header = ["fewer", "nodes", "edges", "triplets", "triplets: quartile", "median", "quartile", "crystals with none"]
    show(f"what the quotients of {len(crystals)} relaxed crystals save", header, rows)
    return found


# The peers.


def searches(crystals: Crystals) -> dict[str, Contestant]:
    """Neighbour lists within 8 Å from raw arrays, then distances to the 12 nearest atoms."""
    import numpy as np

    sites = list(zip(crystals.site_ptr[:-1], crystals.site_ptr[1:], strict=True))
    cells = [np.ascontiguousarray(cell) for cell in crystals.lattice]
    places = [np.ascontiguousarray(crystals.frac[a:b] @ cell) for cell, (a, b) in zip(cells, sites, strict=True)]
    found: dict[str, Contestant] = {}
    try:
        from pymatgen.optimization.neighbors import find_points_in_spheres

        periodic = np.ones(3, np.int64)

        def pymatgen(xyz: Any, cell: Any) -> Any:
            i, _, _, d = find_points_in_spheres(xyz, xyz, r=CUTOFF, pbc=periodic, lattice=cell)
            real = d > 1e-8
            return nearest_distances(i[real], d[real])

        found["pymatgen, find_points_in_spheres + numpy"] = lambda: list(map(pymatgen, places, cells))
    except ImportError as error:
        say(f"pymatgen skipped: {error}")
    try:
        from vesin import NeighborList

        lists = NeighborList(cutoff=CUTOFF, full_list=True)

        def vesin(xyz: Any, cell: Any) -> Any:
            return nearest_distances(*lists.compute(points=xyz, box=cell, periodic=True, quantities="id"))

        found["vesin + numpy"] = lambda: list(map(vesin, places, cells))
    except ImportError as error:
        say(f"vesin skipped: {error}")
    try:
        from matscipy.neighbours import neighbour_list

        def matscipy(xyz: Any, cell: Any) -> Any:
            return nearest_distances(*neighbour_list("id", positions=xyz, cell=cell, pbc=[True] * 3, cutoff=CUTOFF))

        found["matscipy + numpy"] = lambda: list(map(matscipy, places, cells))
    except ImportError as error:
        say(f"matscipy skipped: {error}")
    return found


# Clocks and comparisons.


def _parts(crystals: Crystals) -> list[Crystals]:
    return [crystals[start : start + BATCH] for start in range(0, len(crystals), BATCH)]


def _both_clocks(run: Contestant, rounds: int) -> tuple[float, float]:
    """Best wall and CPU seconds of some rounds, after a warm-up."""
    run()
    wall = cpu = float("inf")
    for _ in range(rounds):
        start, spent = time.perf_counter(), time.process_time()
        run()
        wall, cpu = min(wall, time.perf_counter() - start), min(cpu, time.process_time() - spent)
    return wall, cpu


def _distances(built: Any) -> list[Any]:
    """What `nearest_distances` gives for each crystal of a batch of ours."""
    edges = map(slice, built.edge_ptr[:-1], built.edge_ptr[1:])
    return [nearest_distances(built.target[rows] - built.target[rows].min(), built.distance[rows]) for rows in edges]


def nearest_distances(atom: Any, distance: Any) -> Any:
    """(m, 12) sorted distances of each atom with that many; it selects the edges of the peers."""
    import numpy as np

    if not (atom[1:] >= atom[:-1]).all():
        order = np.argsort(atom, kind="stable")
        atom, distance = atom[order], distance[order]
    count = np.bincount(atom)
    table = np.full((len(count), max(NEIGHBOURS, count.max())), np.inf)
    table[atom, np.arange(len(atom)) - (np.cumsum(count) - count)[atom]] = distance
    nearest = np.argpartition(table, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
    return np.sort(np.take_along_axis(table, nearest, axis=1)[count >= NEIGHBOURS], axis=1)


def distance_gap(ours: list[Any], theirs: list[Any]) -> float:
    """The largest difference (Å) between nearest distances, where both found enough atoms."""
    import numpy as np

    both = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.shape == b.shape]
    return float(max(np.abs(a - b).max() for a, b in both))


def compare(rates: Rates, title: str) -> None:
    """Print the contestants, the first of them as the measure of the others."""
    ours = next(iter(rates.values()))["us_per_crystal"]
    counted = "edges_per_crystal" in next(iter(rates.values()))
    header = ["", "µs CPU/crystal", "crystals/s/core", *(["edges", "triplets"] if counted else []), "we are faster by"]
    rows = []
    for name, rate in rates.items():
        rate["ratio_to_assay"] = rate["us_per_crystal"] / ours
        counts = [f"{rate[key]:,.0f}" for key in ("edges_per_crystal", "triplets_per_crystal") if key in rate]
        rows.append([*row(name, rate), *counts, f"{rate['ratio_to_assay']:,.1f}×"])
    show(title, header, rows)


if __name__ == "__main__":
    main()
