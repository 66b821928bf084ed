"""Crystals per second through a network, beside alignn with the same weights and crystals.

Enters: real crystals of the data packs, ideal prototypes, trained networks. Leaves: tables on the
terminal and one JSON file. One thread; process CPU time; contestants take turns, the best of
several rounds counts.

    python benchmarks/predict.py --help
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring.crystals import CUTOFF, NEIGHBOURS, jarvis_atoms, prototypes, real_crystals, superconductors
from measuring.stopwatch import Contestant, Rates, arguments, machine, race, row, say, settle, show, versions, write

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from assay.featurize.graphs import Graphs
    from assay.models.ensemble.checkpoint import Checkpoint
    from assay.models.ensemble.lean.convolutions import Convolutions
    from assay.models.networks.layers import Network
    from assay.sources.crystals import Crystals

ROOT = Path(__file__).resolve().parents[1]
BATCH = 128
"""Crystals whose graphs are built at once."""
WHOLE = 8
"""Full graphs at once: about as many triplets as in a micro-batch."""
SHIPPED = "alignn's loop as shipped"
MEMBERS = ("tc-graphs/member-0", "tc-graphs/member-4", "band-gap/member-0", "formation-energy/member-0")
"""Of models/zoo: an ALIGNN, two CGCNN, a gated GCN."""


def main(words: list[str] | None = None) -> None:
    """Measure, print and write."""
    options = _options(words)
    settle()
    import torch

    from assay.models import memory

    torch.set_num_threads(1)
    memory.keep()  # as in a campaign, and for every contestant
    real = real_crystals(options.data, options.crystals)
    report: dict[str, Any] = {"machine": machine(), "versions": versions("alignn", "dgl", "jarvis-tools")}
    report["roofline"] = roofline(real[:: max(1, len(real) // 128)])
    peer = Peer.make(real)
    if peer:
        report["materials_project"] = peer.compare("Materials Project", real, options.repeat)
        report["prototypes"] = peer.compare("ideal prototypes", prototypes(options.prototypes), options.repeat)
    packs = {"Materials Project": real_crystals(options.data, options.checked)}
    packs["superconductors"] = superconductors(options.data, options.checked)
    folders = [*options.trained, *(ROOT / "models/zoo" / member for member in MEMBERS)]
    report["trained"] = [trained(folder, name, pack) for folder in folders for name, pack in packs.items()]
    show(
        "trained networks: quotient against full graph, in standard deviations of the target",
        ["network", "crystals", "triplets or edges cut", "largest difference", "99.9 %", "top 100 the same"],
        [
            [f"{one['network']} {one['folder']}", one["crystals"], f"{one['cut']:.2f}×"]
            + [f"{one[name]:.1e}" for name in ("largest", "p999")]
            + ["yes" if one["top_100_same"] else "NO"]
            for one in report["trained"]
        ],
    )
    report["ensembles"] = ensembles(packs, options.repeat)
    write(report, options.output)


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = arguments(__doc__, "predict.json")
    parser.add_argument("--crystals", type=int, default=512, help="real crystals for the race (default: 512)")
    parser.add_argument("--prototypes", type=int, default=200, help="ideal crystals for the race (default: 200)")
    parser.add_argument(
        "--checked", type=int, default=2000, help="crystals per data pack of each check (default: 2000)"
    )
    parser.add_argument("--trained", type=Path, nargs="*", default=[], help="further checkpoint folders to check")
    options = parser.read(words, crystals=100, prototypes=100, checked=100, repeat=1)
    if options.repeat < 1 or min(options.crystals, options.prototypes, options.checked) < 100:
        parser.error(f"needs --repeat >= 1 and at least 100 crystals of each kind, got {vars(options)}")
    return options


# The peer.


class Peer:
    """ALIGNN of the published size: alignn's model and ours with its weights.

    Weights are alignn's own initialisation (the published ones cannot be fetched offline; the work
    is the same), batch statistics those of real crystals, so that states have the size they have in
    use.
    """

    def __init__(self, theirs: Any, imported: Checkpoint) -> None:
        self.theirs, self.imported = theirs, imported

    @classmethod
    def make(cls, crystals: Crystals) -> Peer | None:
        """None, with a note, where alignn or dgl is not installed."""
        import torch

        from assay.models.published import alignn as interop, weights

        try:
            theirs = interop.import_alignn("alignn.models.alignn")
        except ImportError as error:
            say(f"the race is skipped: {error}")
            return None
        if theirs.dgl is None:
            say("the race is skipped: dgl does not load on this machine")
            return None
        torch.manual_seed(0)
        model = theirs.ALIGNN(theirs.ALIGNNConfig(name="alignn"))
        graphs = [_dgl(one) for one in jarvis_atoms(crystals[:32])]
        with torch.no_grad():
            for _ in range(4):
                for both in graphs:
                    model.train()(both)
        described = {"neighbor_strategy": "k-nearest", "cutoff": CUTOFF, "max_neighbors": NEIGHBOURS}
        described |= {"use_canonize": True, "atom_features": "cgcnn", "model": {"name": "alignn"}}
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "model.zip"
            held = io.BytesIO()
            torch.save({"model": model.state_dict()}, held)
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("model/config.json", json.dumps(described))
                archive.writestr("model/checkpoint_1.pt", held.getvalue())
            return cls(model.eval(), weights.convert(path, "y", "1"))

    def compare(self, what: str, crystals: Crystals, repeat: int) -> dict[str, Any]:
        """From crystals to numbers: theirs one by one, as its scripts do, and ours."""
        import numpy as np

        known = set(self.imported.elements)  # alignn's table lacks some, and gives NaN for them
        crystals = crystals.select(np.flatnonzero([known.issuperset(e.split("-")) for e in crystals.elements()]))
        atoms = jarvis_atoms(crystals)
        contestants = self._contestants(crystals, atoms)
        rates: Rates = race(contestants, len(crystals), repeat)
        said = {name: contestants[name]() for name in ("assay", SHIPPED)}
        gap = self._gap(said["assay"], said[SHIPPED], atoms, crystals)
        for rate in rates.values():
            rate["ratio_to_assay"] = rate["us_per_crystal"] / rates["assay"]["us_per_crystal"]
        show(
            f"{len(crystals)} crystals ({what}) -> ALIGNN 4 + 4, hidden 256 -> numbers, the same weights",
            ["", "µs CPU/crystal", "crystals/s/core", "assay is faster by"],
            [[*row(name, rate), f"{rate['ratio_to_assay']:,.1f}×"] for name, rate in rates.items()],
        )
        say(
            "difference to alignn's numbers, in their standard deviation: largest {largest_without_ties:.1e} for the "
            "{without_ties} crystals whose graphs have as many triplets, median {median:.1e} for all".format(**gap)
        )
        mean = float(crystals.nsites.mean())
        return {"crystals": len(crystals), "atoms_per_crystal": mean, "rates": rates, "difference": gap}

    def _contestants(self, crystals: Crystals, atoms: list[Any]) -> dict[str, Contestant]:
        """Each returns what the network says of the crystals, (n,)."""
        import numpy as np
        import torch

        from assay.models.ensemble.frozen import freeze
        from assay.models.networks.linear import multiplies_bfloat16

        def shipped() -> NDArray[np.float64]:
            return np.array([float(self.theirs(_dgl(one)).detach().numpy()) for one in atoms])

        def without_gradients() -> NDArray[np.float64]:
            with torch.no_grad():
                return shipped()

        frozen, plain = self.imported.frozen, self.imported.network
        ours: dict[str, Contestant] = {"assay": lambda: self._predict(frozen, crystals, merge=True)}
        if multiplies_bfloat16():
            half = copy.deepcopy(plain)
            half.lower()
            lowered = freeze(half)
            ours["assay, precision: bfloat16"] = lambda: self._predict(lowered, crystals, merge=True)
        return ours | {
            "assay, full graphs": lambda: self._predict(frozen, crystals, merge=False),
            "assay, full graphs, plain network": lambda: self._predict(plain, crystals, merge=False),
            "alignn's loop, no_grad": without_gradients,
            SHIPPED: shipped,
        }

    def _gap(
        self, said: NDArray[np.float64], theirs: NDArray[np.float64], atoms: list[Any], crystals: Crystals
    ) -> dict[str, float]:
        """Where an atom has ties among its neighbours, rounding decides which ones alignn keeps."""
        import numpy as np

        from assay.models.published import graphs as published_graphs, weights

        rule = weights.rule_of(self.imported)
        ours = np.concatenate(
            [
                np.diff(published_graphs.graphs(crystals[k : k + BATCH], rule).triplet_ptr)
                for k in range(0, len(crystals), BATCH)
            ]
        )
        same = ours == [_dgl(one)[1].num_edges() for one in atoms]
        apart = np.abs(said - theirs) / theirs.std()
        return {
            "without_ties": int(same.sum()),
            "largest_without_ties": float(apart[same].max(initial=0)),
            "median": float(np.median(apart)),
            "largest": float(apart.max()),
        }

    def _predict(self, network: Network, crystals: Crystals, *, merge: bool) -> NDArray[np.float64]:
        from assay.featurize.quotient import quotient
        from assay.models.published import graphs as published_graphs, weights

        rule = weights.rule_of(self.imported)

        def build(part: Crystals) -> Graphs:
            full = published_graphs.graphs(part, rule)
            return quotient(full) if merge else full

        return predict(network, crystals, build, BATCH if merge else WHOLE)


def _dgl(atoms: Any) -> Any:
    """What alignn's prediction gives to its model."""
    import torch

    from assay.models.published import alignn as interop

    build = interop.import_alignn("alignn.graphs").Graph.atom_dgl_multigraph
    graph, line_graph = build(atoms, cutoff=CUTOFF, max_neighbors=NEIGHBOURS)
    return graph, line_graph, torch.tensor(atoms.lattice_mat)


# Our networks.


def predict(
    network: Network | Convolutions, crystals: Crystals, build: Callable[[Crystals], Graphs], batch: int = BATCH
) -> NDArray[np.float64]:
    """(n,) predictions of a network from crystals; quotients in micro-batches, as in a campaign."""
    import numpy as np
    import torch

    from assay.models.ensemble.lean.convolutions import Convolutions
    from assay.models.networks.batch import Batch
    from assay.models.networks.inputs import GraphInputs

    said = np.empty(len(crystals))
    with torch.inference_mode():
        for start in range(0, len(crystals), batch):
            graphs = build(crystals[start : start + batch])
            whole = graphs.weights is None  # as it is: to select from a full graph builds its angles anew, by our rule
            for rows in [np.arange(len(graphs))] if whole else GraphInputs(graphs).micro_batches():
                part = graphs if whole else graphs.select(rows)
                (scaled,) = network.look(part if isinstance(network, Convolutions) else Batch.of(part))[1].values()
                said[start + rows] = np.asarray(scaled)
    return said


def trained(folder: Path, what: str, crystals: Crystals) -> dict[str, Any]:
    """A trained network on quotients and on full graphs: differences, and the ranking."""
    import numpy as np

    from assay.featurize import graphs
    from assay.featurize.quotient import of_crystals
    from assay.models.ensemble import checkpoint
    from assay.models.networks import registry

    kept = checkpoint.read(folder)
    assert isinstance(kept.spec, graphs.GraphSpec), f"{folder} reads pictures"
    angles, spec = registry.MODELS[kept.name].reads.angles, replace(kept.spec, angles=False)
    counts = {"full": 0, "merged": 0}

    def build(part: Crystals, *, merge: bool) -> Graphs:
        bare = graphs.build(part, spec)
        built = of_crystals(bare, angles=angles) if merge else (bare.with_angles() if angles else bare)
        counts["merged" if merge else "full"] += int((built.triplet_ptr if angles else built.edge_ptr)[-1])
        return built

    merged = predict(kept.frozen, crystals, lambda part: build(part, merge=True))
    full = predict(kept.network, crystals, lambda part: build(part, merge=False), WHOLE)
    apart = np.abs(merged - full)
    best = [np.argsort(-said, kind="stable")[:100].tolist() for said in (merged, full)]
    return {
        "folder": f"{folder.parent.name}/{folder.name}",
        "network": kept.name,
        "crystals": f"{len(crystals)} {what}",
        "cut": counts["full"] / max(1, counts["merged"]),
        "largest": float(apart.max()),
        "p999": float(np.quantile(apart, 0.999)),
        "median": float(np.median(apart)),
        "top_100_same": best[0] == best[1],
        "top_100_same_set": set(best[0]) == set(best[1]),
    }


def ensembles(packs: dict[str, Crystals], repeat: int) -> Rates:
    """The bundled ensembles, from crystals to calibrated predictions."""
    from assay.models.ensemble.ensemble import Ensemble

    rates: Rates = {}
    for described in sorted((ROOT / "models/zoo").glob("*/ensemble.json")):
        ensemble = Ensemble.load(described.parent)
        for name, pack in packs.items():
            parts = [pack[start : start + 512] for start in range(0, len(pack), 512)]
            contest: dict[str, Contestant] = {
                f"{ensemble.name}, {len(ensemble.members)} members, {name}": lambda parts=parts, ensemble=ensemble: [
                    ensemble.predict(part) for part in parts
                ]
            }
            rates |= race(contest, len(pack), repeat)
    show("bundled ensembles", ["", "µs CPU/crystal", "crystals/s/core"], [row(*item) for item in rates.items()])
    return rates


# The machine.


def roofline(crystals: Crystals) -> dict[str, Any]:
    """GFLOP/s of float32 products on one core, and the share that a full-size ALIGNN reaches."""
    import torch

    from assay.models.networks import linear

    weight, x = torch.randn(256, 256), torch.randn(1_024, 256)
    products = {"oneDNN": linear.product, "MKL": torch.nn.functional.linear}
    rates = {
        name: 2e-9 * x.numel() * 256 / _quickest(lambda product=product: product(x, weight, None))
        for name, product in products.items()
    }
    asked, multiplied, seconds = _full_size(crystals)
    best = max(rates.values())
    found = {"measured": rates, "asked_gflop_per_crystal": asked, "multiplied_gflop_per_crystal": multiplied}
    found["ms_per_crystal"] = 1e3 * seconds
    found["fraction_multiplied"], found["fraction_asked"] = multiplied / seconds / best, asked / seconds / best
    show(
        f"ALIGNN 4 + 4, hidden 256, on the quotients of {len(crystals)} crystals, network alone",
        ["", "GFLOP/crystal", "GFLOP/s", "of the measured product"],
        [
            *([f"{name}, 1024 x 256 x 256", "", f"{rate:,.0f}", f"{rate / best:.0%}"] for name, rate in rates.items()),
            *(
                [name, f"{work:.3f}", f"{work / seconds:,.0f}", f"{work / seconds / best:.0%}"]
                for name, work in (("what is multiplied", multiplied), ("what the network asks for", asked))
            ),
        ],
    )
    return found


def _full_size(crystals: Crystals) -> tuple[float, float, float]:
    """GFLOP of a full-size ALIGNN and of its compiled twin, and seconds, per crystal."""
    import torch

    from assay.featurize import graphs
    from assay.featurize.quotient import of_crystals
    from assay.models.ensemble.frozen import freeze
    from assay.models.networks.alignn import ALIGNN
    from assay.models.networks.batch import Batch
    from assay.models.networks.inputs import GraphInputs

    merged = of_crystals(graphs.build(crystals, graphs.GraphSpec(k=NEIGHBOURS)), angles=True)
    batches = [Batch.of(merged.select(rows)) for rows in GraphInputs(merged).micro_batches()]
    torch.manual_seed(0)
    twin = freeze(ALIGNN(batches[0].x.shape[1], ["y"]).eval())
    with torch.inference_mode():
        twin(batches[0])
        seconds = _quickest(lambda: [twin(batch) for batch in batches], 5) / len(crystals)
    nodes, edges, triplets = len(merged.features()), len(merged.source), len(merged.cosine)
    square = 2 * 256 * 256
    multiplied = square * (3 * triplets + 23 * edges + 32 * nodes)
    widths = {"triplets": (40, triplets), "edges": (80, edges)}
    embedded = sum(2 * (bins * 64 + 64 * 256) * rows for bins, rows in widths.values())
    asked = square * (4 * triplets + 24 * edges + 32 * nodes) + embedded
    return 1e-9 * asked / len(crystals), 1e-9 * multiplied / len(crystals), seconds


def _quickest(work: Contestant, rounds: int = 60) -> float:
    best = float("inf")
    for _ in range(rounds):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


if __name__ == "__main__":
    main()
