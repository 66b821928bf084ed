"""Structures per second in training, beside alignn and PyTorch Geometric.

Enters: real crystals of the data packs. Leaves: tables on the terminal and one JSON file. A
contestant is one epoch of training: batches in a new order, forward, backward, a step of AdamW;
graphs are built before, and timed apart. One thread; process CPU time, contestants take turns, each
is warmed up, the best of several rounds counts. A peer that is not installed is skipped with a
note.

    python benchmarks/training.py --help
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from measuring import crystals as packs
from measuring.stopwatch import Contestant, Rates, arguments, machine, race, row, say, settle, show, versions, write

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from assay.featurize.graphs import Graphs, GraphSpec
    from assay.sources.crystals import Crystals

ROOT = Path(__file__).resolve().parents[1]
SEED = 0
RATE, DECAY, CLIP, EMA = 1e-3, 1e-4, 5.0, 0.995
"""Of our schedule; the cost of a step does not depend on them."""
BIG, ZOO = (4, 256), (2, 64)
"""Layers of either kind and width: the published ALIGNN, and the one in `models/zoo`."""


def main(words: list[str] | None = None) -> None:
    """Measure, print and write."""
    options = _options(words)
    settle()
    import torch

    from assay.models import memory

    torch.set_num_threads(1)
    memory.keep()  # as in `assay train`, and for every contestant
    crystals, target = labelled(options.data, options.crystals)
    few = min(options.big_crystals, len(crystals))
    say(f"{len(crystals)} crystals of {options.data.name}/mp, {crystals.nsites.mean():.1f} atoms each, 1 thread")
    report: dict[str, Any] = {"machine": machine(), "seed": SEED, "crystals": len(crystals)}
    report["versions"] = versions("alignn", "dgl", "jarvis-tools", "torch_geometric")
    report |= {"atoms_per_crystal": float(crystals.nsites.mean()), "big_crystals": few, "load": os.getloadavg()[0]}
    report["graphs"] = build_graphs(crystals, options.repeat)
    report["alignn-2+2-64"] = alignn(crystals, target, ZOO, options.batch, options.repeat)
    report |= smaller(crystals, target, options.batch, options.repeat)
    report["alignn-4+4-256"] = alignn(crystals[:few], target[:few], BIG, options.big_batch, options.repeat)
    write(report, options.output)


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = arguments(__doc__, "training.json")
    parser.add_argument("--crystals", type=int, default=240, help="crystals in all (default: 240)")
    parser.add_argument("--big-crystals", type=int, default=48, help="of them for ALIGNN 4 + 4 (default: 48)")
    parser.add_argument("--batch", type=int, default=64, help="crystals per step (default: 64)")
    parser.add_argument("--big-batch", type=int, default=16, help="the same, for ALIGNN 4 + 4 (default: 16)")
    options = parser.read(words, big_crystals=32)
    if options.repeat < 3 or min(options.crystals, options.big_crystals) < 2:
        parser.error(f"needs --repeat >= 3 and two crystals; got {vars(options)}")
    return options


def labelled(data: Path, n: int) -> tuple[Crystals, Any]:
    """`n` random Materials Project cells of at most 40 atoms, and standardised energies."""
    import numpy as np

    from assay.sources import table

    stored = table.read(data / "mp" / "mp_labelled_le40.parquet")
    rows = np.random.default_rng(SEED).choice(len(stored), n, replace=False)
    crystals, refused = table.from_table(stored.take(rows), "mp")
    if refused:
        say(f"{len(refused)} of {n} rows are left out: {refused[0].id}, {refused[0].message}")
    value = np.asarray(crystals.columns["e_form"], np.float32)
    return crystals, (value - value.mean()) / value.std()


# What is measured.


def alignn(crystals: Crystals, target: Any, sizes: tuple[int, int], batch: int, repeat: int) -> Rates:
    """An ALIGNN learns: ours on quotients and on full graphs, alignn's two on alignn's graphs."""
    from assay.models.networks import linear

    layers, hidden = sizes
    options = {"hidden": hidden, "alignn_layers": layers, "gcn_layers": layers}
    runs = ours("alignn", options, crystals, target, batch)
    if linear.multiplies_bfloat16():
        runs["assay, quotients, bfloat16"] = again = ours("alignn", options, crystals, target, batch)[
            "assay, quotients"
        ]
        again.network.learn_lowered()
    runs |= alignn_peers(crystals, target, sizes, batch)
    return compare(runs, f"ALIGNN {layers} + {layers}, hidden {hidden}, batches of {batch}", repeat)


def smaller(crystals: Crystals, target: Any, batch: int, repeat: int) -> dict[str, Rates]:
    """Training of a CGCNN, beside layers of PyTorch Geometric, and of a MEGNet without a peer."""
    cgcnn = ours("cgcnn", {"hidden": 64, "layers": 3}, crystals, target, batch)
    cgcnn |= geometric_peer(crystals, target, batch)
    megnet = ours("megnet", {"hidden": 64, "blocks": 3}, crystals, target, batch)
    return {
        "cgcnn-3-64": compare(cgcnn, f"CGCNN, 3 layers, hidden 64, batches of {batch}", repeat),
        "megnet-3-64": compare(megnet, f"MEGNet, 3 blocks, hidden 64, batches of {batch}", repeat),
    }


def build_graphs(crystals: Crystals, repeat: int) -> Rates:
    """Graphs with line graphs, made once before training; with and without the quotient."""
    from assay.featurize import graphs
    from assay.featurize.quotient import quotient
    from assay.models.training.recipe import Recipe

    spec = _spec(angles=True)
    contestants: dict[str, Contestant] = {
        "assay, graphs and their quotients": lambda: quotient(graphs.build(crystals, spec), Recipe.quotient),
        "assay, graphs": lambda: graphs.build(crystals, spec),
    }
    rates = race(contestants | packs.alignn_builders(crystals), len(crystals), repeat)
    full, merged = (contestants[name]() for name in reversed(contestants))
    for name, graph in zip(contestants, (merged, full)):
        rates[name] |= _sizes(graph)
    first = next(iter(rates.values()))["us_per_crystal"]
    for rate in rates.values():
        rate["ratio_to_assay"] = rate["us_per_crystal"] / first
    rows = [[*row(name, rate), f"{rate['ratio_to_assay']:,.2f}×"] for name, rate in rates.items()]
    show("graphs with line graphs", ["", "µs CPU/crystal", "crystals/s/core", "we are faster by"], rows)
    return rates


# One epoch of training.


@dataclass
class Training:
    """A network that learns for one epoch per call."""

    network: Any
    """Its parameters are counted in the report."""
    step: Callable[[Any], float]
    """Learns from the crystals at positions (b,), and returns the loss."""
    forward: Callable[[Any], Tensor]
    """Says what the network says of these crystals, (b,)."""
    crystals: int
    """Positions are drawn from 0 to here."""
    batch: int
    """Crystals per step; no step is a remnant."""
    facts: dict[str, float] = field(default_factory=dict)
    """What else goes into the report: nodes, edges, triplets per crystal."""
    losses: list[float] = field(default_factory=list)
    """Mean loss of every epoch so far."""

    def __call__(self) -> None:
        """One epoch, in a new order."""
        import numpy as np

        order = np.random.default_rng([SEED, len(self.losses)]).permutation(self.crystals)
        parts = np.array_split(order, -(-self.crystals // self.batch))
        self.losses.append(sum(self.step(part) for part in parts) / len(parts))


def compare(runs: dict[str, Training], title: str, repeat: int) -> Rates:
    """Race, check that all of them learned, and print; the first is the measure of the others."""
    n = next(iter(runs.values())).crystals
    rates = race(dict(runs), n, repeat)
    first = next(iter(rates.values()))["us_per_crystal"]
    rows = []
    for name, rate in rates.items():
        run = runs[name]
        if not run.losses[-1] < run.losses[0]:
            say(f"{name} did not learn: loss {run.losses[0]:.3f}, then {run.losses[-1]:.3f}")
        rate["ratio_to_assay"] = rate["us_per_crystal"] / first
        rate["parameters"] = sum(p.numel() for p in run.network.parameters())
        rate.update(run.facts, loss_first=run.losses[0], loss_last=run.losses[-1])
        counts = [f"{rate[key]:,.0f}" for key in ("nodes", "edges", "triplets")]
        speed = [f"{rate['us_per_crystal'] / 1000:,.2f}", f"{rate['crystals_per_s']:,.1f}"]
        rows.append([name, *speed, *counts, f"{rate['parameters']:,}", f"{rate['ratio_to_assay']:,.2f}×"])
    counted = ["nodes", "edges", "triplets", "weights"]
    header = ["", "ms CPU/structure", "structures/s/core", *counted, "we are faster by"]
    show(f"{title}: training on {n} crystals", header, rows)
    return rates


def ours(
    name: str, sizes: dict[str, Any], crystals: Crystals, target: Any, batch: int, device: str = "cpu"
) -> dict[str, Training]:
    """The network on both kinds of graph; a full graph gets its angles with each batch."""
    from assay.featurize import graphs
    from assay.featurize.quotient import quotient
    from assay.models.networks import registry
    from assay.models.training.recipe import Recipe

    full = graphs.build(crystals, _spec(angles=registry.MODELS[name].reads.angles))
    merged = quotient(full, Recipe.quotient)
    bare = graphs.build(crystals, _spec(angles=False))
    return {
        "assay, quotients": _our_training(name, sizes, merged, target, batch, _sizes(merged), device),
        "assay, full graphs": _our_training(name, sizes, bare, target, batch, _sizes(full), device),
    }


def _our_training(
    name: str, sizes: dict[str, Any], built: Graphs, target: Any, batch: int, facts: dict[str, float], device: str
) -> Training:
    """The step of `assay train`: L1 loss, clipping, AdamW, averages; off the CPU in bfloat16."""
    import torch

    from assay.featurize import atoms
    from assay.models.networks import registry
    from assay.models.networks.batch import Batch
    from assay.models.training import optimise

    torch.manual_seed(SEED)
    network = registry.create(name, atoms.width(built.spec.atom_features), ["y"], **sizes).train().to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY, fused=True)
    average = optimise.MovingAverage(network.state_dict(), EMA)
    truth, weight = torch.from_numpy(target).to(device), torch.ones(len(target), device=device)

    def forward(rows: Any) -> Tensor:
        chosen = built.select(rows)
        chosen = chosen.with_angles() if registry.MODELS[name].reads.angles else chosen
        with torch.autocast("cuda", torch.bfloat16, enabled=device != "cpu"):
            said: Tensor = network(Batch.of(chosen).to(device))["y"]
        return said.float()

    def step(rows: Any) -> float:
        share = {"y": weight[rows].sum()}
        optimizer.zero_grad(set_to_none=True)
        loss = optimise.masked_loss({"y": forward(rows)}, {"y": truth[rows]}, weight[rows], share, "l1")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()
        average.update(network.state_dict())
        return float(loss.item())

    return Training(network, step, forward, len(built), batch, facts)


# The peers.


def alignn_peers(
    crystals: Crystals, target: Any, sizes: tuple[int, int], batch: int, device: str = "cpu"
) -> dict[str, Training]:
    """The two models of alignn, of the same sizes, on its own graphs, in its own step."""
    from assay.models.published import alignn as interop

    try:
        classic, pure = (interop.import_alignn(f"alignn.models.{name}") for name in ("alignn", "alignn_atomwise_pure"))
        collate = interop.import_alignn("alignn.graphs").StructureDataset.collate_line_graph
        pure_collate = interop.import_alignn("alignn.pure_lmdb_dataset").PureTorchLMDBDataset.collate_line_graph
    except ImportError as error:
        say(f"alignn's models skipped: {error}")
        return {}
    layers, hidden = sizes
    shape = {"alignn_layers": layers, "gcn_layers": layers, "hidden_features": hidden, "atom_input_features": 92}
    property_only = {"calculate_gradient": False, "gradwise_weight": 0.0, "use_penalty": False}
    pure_config = pure.ALIGNNAtomWisePureConfig(name="alignn_atomwise_pure", **shape, **property_only)
    models = {
        "alignn, DGL": (lambda: classic.ALIGNN(classic.ALIGNNConfig(name="alignn", **shape)), collate),
        "alignn, pure torch": (lambda: pure.ALIGNNAtomWisePure(pure_config), pure_collate),
    }
    builders = {"alignn, DGL": "alignn, atom_dgl_multigraph", "alignn, pure torch": "alignn, pure torch"}
    found = packs.alignn_builders(crystals)
    return {
        name: _alignn_training(make, pairs, found[builders[name]](), crystals, target, batch, device)
        for name, (make, pairs) in models.items()
        if builders[name] in found
    }


def _alignn_training(
    make: Callable[[], torch.nn.Module],
    collate: Callable[[list[Any]], tuple[Any, ...]],
    built: list[tuple[Any, Any]],
    crystals: Crystals,
    target: Any,
    batch: int,
    device: str,
) -> Training:
    """The loop of `alignn.train.train_dgl`: collation, parameter groups, rates, L1 loss."""
    import torch

    from assay.models.published import alignn as interop

    torch.manual_seed(SEED)
    network = make().train().to(device)
    optimizer = torch.optim.AdamW(interop.import_alignn("alignn.utils").group_decay(network), lr=RATE)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=RATE, total_steps=1_000_000, pct_start=0.3)
    criterion, kept = torch.nn.L1Loss(), []
    lattices, labels = torch.tensor(crystals.lattice, dtype=torch.float32), torch.from_numpy(target)
    samples = [(g, line, lattices[k], labels[k]) for k, (g, line) in enumerate(built)]

    def forward(rows: Any) -> Tensor:
        g, line, lattice, _ = collate([samples[k] for k in rows])
        out = network([g.to(device), line.to(device), lattice.to(device)])
        said: Tensor = out["out"] if isinstance(out, dict) else out
        return said

    def step(rows: Any) -> float:
        optimizer.zero_grad()
        out, truth = forward(rows), labels[rows].to(device)
        loss = criterion(out, truth)
        kept.append((truth.tolist(), out.detach().tolist()))
        loss.backward()
        optimizer.step()
        scheduler.step()
        return float(loss.item())

    edges, triplets = packs.sizes(built, len(built)).values()
    facts = {"nodes": float(crystals.nsites.mean()), "edges": edges, "triplets": triplets}
    return Training(network, step, forward, len(built), batch, facts)


def geometric_peer(crystals: Crystals, target: Any, batch: int, device: str = "cpu") -> dict[str, Training]:
    """CGConv of PyTorch Geometric between an embedding and a mean, on full graphs."""
    try:
        from torch_geometric.data import Batch, Data
    except ImportError as error:
        say(f"PyTorch Geometric skipped: {error}")
        return {}
    import torch

    from assay.featurize import graphs
    from assay.models.networks.layers import RadialBasis

    built = graphs.build(crystals, _spec(angles=False))
    content, expand = torch.from_numpy(built.features()), RadialBasis(0.0, 8.0, 40)
    index = torch.from_numpy(built.source.astype("int64")), torch.from_numpy(built.target.astype("int64"))
    radial, truth = expand(torch.from_numpy(built.distance)), torch.from_numpy(target)
    data = []
    for k in range(len(built)):
        nodes, edges = slice(*built.node_ptr[k : k + 2].tolist()), slice(*built.edge_ptr[k : k + 2].tolist())
        ends = torch.stack([ends[edges] for ends in index]) - nodes.start
        data.append(Data(x=content[nodes].clone(), edge_index=ends, edge_attr=radial[edges].clone()))
    network = _geometric_network(content.shape[1]).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)

    def forward(rows: Any) -> Tensor:
        said: Tensor = network(Batch.from_data_list([data[k] for k in rows]).to(device))
        return said

    def step(rows: Any) -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.l1_loss(forward(rows), truth[rows].to(device))
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return {"PyG, CGConv": Training(network, step, forward, len(built), batch, _sizes(built))}


def _geometric_network(features: int) -> torch.nn.Module:
    import torch
    from torch import nn
    from torch_geometric.nn import CGConv, global_mean_pool

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(features, 64)
            self.layers = nn.ModuleList(CGConv(64, dim=40, batch_norm=True) for _ in range(3))
            self.head = nn.Sequential(nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

        def forward(self, data: Any) -> Tensor:
            x = nn.functional.silu(self.embed(data.x))
            for layer in self.layers:
                x = layer(x, data.edge_index, data.edge_attr)
            out: Tensor = self.head(global_mean_pool(x, data.batch, data.num_graphs)).squeeze(1)
            return out

    torch.manual_seed(SEED)
    return Network().train()


def _spec(*, angles: bool) -> GraphSpec:
    """The graph of the bundled ALIGNN and CGCNN of `models/zoo/formation-energy`."""
    from assay.featurize.graphs import GraphSpec

    return GraphSpec(k=packs.NEIGHBOURS, angles=angles, atom_features="properties-identity-v1")


def _sizes(built: Graphs) -> dict[str, float]:
    counts = {"nodes": built.node_ptr[-1], "edges": built.edge_ptr[-1], "triplets": built.triplet_ptr[-1]}
    return {name: float(count) / len(built) for name, count in counts.items()}


if __name__ == "__main__":
    main()
