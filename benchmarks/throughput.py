"""How many crystals per second, stage by stage, and beside alignn on the same crystals?

Enters: real crystals of the data packs. Leaves: tables on the terminal and one JSON file. One thread; process CPU time,
so that a busy machine does not change the figures much; contestants take turns, the best of several rounds counts.
A stage whose library or model is missing is skipped with a note.

    python benchmarks/throughput.py --help
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stopwatch import Contestant, Rates, arguments, machine, race, row, say, settle, show, versions, write

if TYPE_CHECKING:
    from models.ensemble import Ensemble
    from sources.crystals import Crystals

ROOT = Path(__file__).resolve().parents[1]
CUTOFF, NEIGHBOURS = 8.0, 12
"""Å and number: the graph of the published ALIGNN models."""
BATCH = 64
"""Crystals per call of our featurizer; near what a worker hands to a network at once."""


def main(words: list[str] | None = None) -> None:
    """Measure, print and write."""
    options = _options(words)
    settle()
    import torch

    from models import memory

    torch.set_num_threads(1)
    memory.keep()  # as in a campaign, and for every contestant
    crystals = real_crystals(options.data, options.crystals)
    say(f"{len(crystals)} crystals of {options.data.name}/mp, {crystals.nsites.mean():.1f} atoms each, 1 thread")
    report: dict[str, Any] = {
        "machine": machine(),
        "versions": versions("alignn", "dgl", "jarvis-tools"),
        "crystals": len(crystals),
    }
    report["atoms_per_crystal"] = float(crystals.nsites.mean())
    report["featurize"] = featurize(crystals, options.repeat)
    report["network"] = network(spread(crystals, options.network_crystals), options.repeat)
    report["stages"] = stages(crystals, options.model, options.repeat)
    write(report, options.output)


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = arguments(__doc__, "throughput.json")
    parser.add_argument("--crystals", type=int, default=600, help="crystals in all (default: 600)")
    parser.add_argument("--network-crystals", type=int, default=40, help="of them for the big networks (default: 40)")
    parser.add_argument("--model", type=Path, default=ROOT / "models/zoo/tc", help="ensemble folder for the stages")
    options = parser.parse_args(words)
    if options.repeat < 3 or options.crystals < 1:
        parser.error(f"needs --repeat >= 3, --crystals >= 1, got {vars(options)}")
    return options


# What is measured.


def featurize(crystals: Crystals, repeat: int) -> Rates:
    """Graph, line graph and node features: ours beside both builders of alignn."""
    from featurize import graphs

    spec = graphs.GraphSpec(k=NEIGHBOURS, angles=True)
    parts = [crystals[start : start + BATCH] for start in range(0, len(crystals), BATCH)]

    def ours() -> list[graphs.Graphs]:
        built = [graphs.build(part, spec) for part in parts]
        for graph in built:
            graph.features()
        return built

    contestants: dict[str, Contestant] = {f"assay, batches of {BATCH}": ours}
    peers = alignn_builders(crystals)
    contestants |= peers
    rates = race(contestants, len(crystals), repeat)
    for name, build in contestants.items():
        rates[name] |= sizes(build(), len(crystals))
    compare(rates, "graph + line graph + node features")
    if "alignn, pure torch" in peers:
        gap = distance_gap(ours(), peers["alignn, pure torch"]())
        rates["alignn, pure torch"]["largest_distance_difference"] = gap
        say(f"largest difference between the {NEIGHBOURS} nearest distances, ours and alignn's: {gap:.1e} Å")
    return rates


def network(crystals: Crystals, repeat: int) -> Rates:
    """From crystals to numbers through an ALIGNN of the published size, random weights: none are to be had offline."""
    import torch

    from featurize import graphs
    from models.alignn import ALIGNN
    from models.batch import Batch

    spec = graphs.GraphSpec(k=NEIGHBOURS, angles=True)
    order = crystals.nsites.argsort(kind="stable")
    parts = [crystals.select(order[start : start + 4]) for start in range(0, len(order), 4)]
    torch.manual_seed(0)
    ours = ALIGNN(graphs.build(parts[0], spec).features().shape[1], ["y"]).eval()

    def assay() -> None:
        with torch.inference_mode():
            for part in parts:
                ours(Batch.of(graphs.build(part, spec)))

    rates = race({"assay, batches of 4": assay} | alignn_loops(crystals), len(crystals), repeat)
    parameters = sum(weights.numel() for weights in ours.parameters())
    compare(rates, f"crystal -> ALIGNN 4 + 4, hidden 256 ({parameters:,} parameters, random weights) -> number")
    return rates


def stages(crystals: Crystals, folder: Path, repeat: int) -> Rates:
    """What a campaign does with one bundled ensemble, from a server on loopback to the ranked table."""
    from featurize import graphs
    from screening import worker
    from sources import table

    if not folder.is_dir():
        say(f"stages skipped: there is no ensemble in {folder}; name one with --model")
        return {}
    from models.ensemble import Ensemble

    ensemble = Ensemble.load(folder)
    spec = replace(ensemble.spec, angles=ensemble.angles)
    part = worker.score(crystals, [ensemble])
    with tempfile.TemporaryDirectory() as scratch:
        work: dict[str, Contestant] = {
            "graph": lambda: graphs.build(crystals, spec).features(),
            "predict": lambda: ensemble.predict(crystals),
            "write": lambda: table.write(part.table, Path(scratch) / "part.parquet"),
        }
        rates = race(work, len(crystals), repeat)
        rates |= served_stages(crystals, ensemble, Path(scratch), repeat)
    title = f"stages with {ensemble.name}: {len(ensemble.members)} members"
    rates = {name: rates[name] for name in ("pull", *work, "end to end") if name in rates}
    show(title, ["stage", "µs CPU/crystal", "crystals/s/core"], [row(name, rate) for name, rate in rates.items()])
    return rates


def served_stages(crystals: Crystals, ensemble: Ensemble, scratch: Path, repeat: int) -> Rates:
    """Pull, and the whole campaign, against the reference OPTIMADE server; the server's own time is not counted."""
    try:
        from tests.servers import reference_server
    except ImportError as error:
        say(f"pull and end to end skipped: {error}; pip install -e .[dev]")
        return {}
    from screening import campaign, config, local, plan, worker
    from sources import optimade, providers

    runs = iter(range(10_000))

    def pull(url: str) -> None:
        with optimade.connect(providers.resolve(url)) as client:
            received = sum(page.n_entries for page in optimade.pages(client, optimade.Query()))
        assert received == len(crystals), f"{received} of {len(crystals)} crystals arrived"

    def screen(url: str) -> None:
        settings = config.Campaign.model_validate(
            {
                "name": "benchmark",
                "sources": [{"kind": "optimade", "provider": url}],
                "models": [str(ensemble.folder)],
                "max_bad": 1.0,
                "output": str(scratch / f"run-{next(runs)}"),
            }
        )
        planned = plan.make(settings)
        runner = local.LocalRunner(lambda: worker.Scorer(planned.ensembles))
        outcome = campaign.run(planned, runner, lambda: False)
        assert outcome.accounts.received == len(crystals), outcome

    with reference_server(crystals, scratch) as url:
        contestants: dict[str, Contestant] = {"pull": lambda: pull(url), "end to end": lambda: screen(url)}
        return race(contestants, len(crystals), repeat)


# The peers.


def alignn_builders(crystals: Crystals) -> dict[str, Contestant]:
    """Both graph builders of alignn, each with its line graph; fewer where they are not installed."""
    from models import interop

    try:
        pure = interop.import_alignn("alignn.torch_graph_builder").build_pure_torch_graph
        classic = interop.import_alignn("alignn.graphs")
    except ImportError as error:
        say(f"alignn's builders skipped: {error}")
        return {}
    atoms = jarvis_atoms(crystals)
    options = {"cutoff": CUTOFF, "max_neighbors": NEIGHBOURS, "compute_line_graph": True}
    builders: dict[str, Contestant] = {
        "alignn, pure torch": lambda: [
            pure(one, two_body_cutoff=CUTOFF, max_neighbors=NEIGHBOURS, use_matscipy_topology=False) for one in atoms
        ]
    }
    if classic.dgl is None:
        say("atom_dgl_multigraph skipped: dgl does not load on this machine")
    else:
        builders["alignn, atom_dgl_multigraph"] = lambda: [
            classic.Graph.atom_dgl_multigraph(one, **options) for one in atoms
        ]
    return builders


def alignn_loops(crystals: Crystals) -> dict[str, Contestant]:
    """The prediction loop of alignn, one crystal after the other, as shipped and without the record for gradients."""
    import torch

    from models import interop

    try:
        build = interop.import_alignn("alignn.graphs").Graph.atom_dgl_multigraph
        theirs = interop.import_alignn("alignn.models.alignn")
    except ImportError as error:
        say(f"alignn's prediction loop skipped: {error}")
        return {}
    if theirs.dgl is None:
        say("alignn's prediction loop skipped: dgl does not load on this machine")
        return {}
    atoms = jarvis_atoms(crystals)
    torch.manual_seed(0)
    model = theirs.ALIGNN(theirs.ALIGNNConfig(name="alignn")).eval()

    def shipped() -> None:
        for one in atoms:
            graph, line_graph = build(one, cutoff=CUTOFF, max_neighbors=NEIGHBOURS)
            model((graph, line_graph, torch.tensor(one.lattice_mat))).detach().numpy()

    def without_gradients() -> None:
        with torch.no_grad():
            shipped()

    return {"alignn's loop as shipped": shipped, "alignn's loop, no_grad": without_gradients}


def jarvis_atoms(crystals: Crystals) -> list[Any]:
    """The crystals as objects of jarvis-tools, which alignn reads."""
    from models import interop
    from sources.elements import SYMBOLS

    cls = interop.import_alignn("alignn.graphs").Atoms
    sites = zip(crystals.site_ptr[:-1], crystals.site_ptr[1:], strict=True)
    return [
        cls(
            lattice_mat=lattice,
            coords=crystals.frac[first:last],
            elements=[SYMBOLS[number] for number in crystals.numbers[first:last]],
            cartesian=False,
        )
        for lattice, (first, last) in zip(crystals.lattice, sites, strict=True)
    ]


# Crystals, clocks and comparisons.


def real_crystals(data: Path, n: int) -> Crystals:
    """`n` labelled Materials Project cells of at most 40 atoms, evenly spread over the data pack."""
    import numpy as np

    from sources import table

    stored = table.read(data / "mp" / "mp_labelled_le40.parquet")
    rows = np.linspace(0, len(stored) - 1, n).astype(np.int64)
    crystals, refused = table.from_table(stored.take(rows), "mp")
    if refused:
        say(f"{len(refused)} of {n} rows are left out: {refused[0].id}, {refused[0].message}")
    return crystals


def spread(crystals: Crystals, n: int) -> Crystals:
    """At most `n` crystals, evenly spread."""
    return crystals[:: max(1, -(-len(crystals) // n))]


def sizes(built: list[Any], crystals: int) -> dict[str, float]:
    """Edges and triplets per crystal in whatever a builder returned."""
    if isinstance(built[0], tuple):
        count = [(_edges(graph), _edges(line_graph)) for graph, line_graph in built]
    else:
        count = [(len(graph.source), len(graph.cosine)) for graph in built]
    edges, triplets = (sum(column) / crystals for column in zip(*count, strict=True))
    return {"edges_per_crystal": edges, "triplets_per_crystal": triplets}


def _edges(graph: Any) -> int:
    return int(graph.num_edges() if callable(graph.num_edges) else graph.num_edges)


def distance_gap(ours: list[Any], theirs: list[Any]) -> float:
    """Largest difference (Å) between the distances of the nearest atoms, over the crystals where both found enough."""
    import numpy as np

    mine = [
        _nearest(batch.target[rows], batch.distance[rows])
        for batch in ours
        for rows in map(slice, batch.edge_ptr[:-1], batch.edge_ptr[1:])
    ]
    yours = [_nearest(graph.src.numpy(), np.linalg.norm(graph.edata["r"].numpy(), axis=1)) for graph, _ in theirs]
    both = [(a, b) for a, b in zip(mine, yours, strict=True) if a.shape == b.shape]
    return float(max(np.abs(a - b).max() for a, b in both))


def _nearest(atom: Any, distance: Any) -> Any:
    """Sorted distances of the first neighbours of each atom that has enough, flat."""
    import numpy as np

    order = np.lexsort((distance, atom))
    rank = np.arange(len(order)) - np.searchsorted(atom[order], atom[order])
    return distance[order][rank < NEIGHBOURS]


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
