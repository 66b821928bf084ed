"""Graphs and graph networks on a device, timed beside the CPU, alignn and PyTorch Geometric.

Enters: a clock, crystals, sizes of a network. Leaves: rates by contestant, and how far each way to
compute leads from float32 on the device. It does not know cards or files of results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import training
from measuring.crystals import alignn_builders
from measuring.stopwatch import Contestant, Rates, say, show

from devices import members

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from assay.models.ensemble.checkpoint import Checkpoint
    from assay.models.ensemble.device import DevicePath
    from assay.sources.crystals import Crystals
    from devices.timing import Clock, Contestants

FEW = 64
"""Crystals for a contestant that takes them one by one, or on a CPU."""
AT_ONCE = 512
"""Crystals whose graphs the host builds at once."""
FLOAT32, GRAPHS = "assay, float32", "assay, graphs and angles alone"
Feed = Callable[[], Iterator[tuple["NDArray[np.int64]", Any]]]
"""Makes all batches, each with the rows of its crystals."""


def products(clock: Clock) -> dict[str, float]:
    """TFLOP/s of products in the shape of a network, and GB/s of a copy, read and written."""
    import torch

    rows = 2**20 if clock.place.type == "cuda" else 2**12
    x, weight = torch.randn(rows, 256, device=clock.place), torch.randn(256, 256, device=clock.place)
    low, narrow = x.bfloat16(), weight.bfloat16()

    def coarse() -> None:
        with tf32():
            torch.mm(x, weight)

    runs: Contestants = {
        "float32": (lambda: torch.mm(x, weight), rows),
        "TF32": (coarse, rows),
        "bfloat16": (lambda: torch.mm(low, narrow), rows),
        "copy": (x.clone, rows),
    }
    rates = clock.race(f"{rows:,} rows x 256 x 256, one row as a crystal", runs)
    found = {f"{way}_tflops": 2e-12 * 256**2 * rates[way]["crystals_per_s"] for way in rates if way != "copy"}
    return found | {"copy_gb_per_s": 8e-9 * 256 * rates["copy"]["crystals_per_s"]}


def graphs(clock: Clock, crystals: Crystals) -> Rates:
    """Crystals in the memory of the host become edges on the device, or graphs on the host."""
    from assay.featurize import graphs as host, graphs_torch
    from assay.featurize.quotient import of_crystals

    spec, n, few = host.GraphSpec(k=12), len(crystals), crystals[:FEW]
    parts = [crystals[first : first + AT_ONCE] for first in range(0, n, AT_ONCE)]
    runs: Contestants = {
        "assay, edges on the device": (lambda: graphs_torch.build(crystals, spec, clock.place), n),
        "assay, one core of the host": (lambda: [host.build(part, spec).with_angles() for part in parts], n),
        "the same, quotients": (lambda: [of_crystals(host.build(part, spec), angles=True) for part in parts], n),
    }
    runs |= {f"{name}, one core of the host": (run, len(few)) for name, run in alignn_builders(few).items()}
    return clock.race("graphs", runs)


def prediction(clock: Clock, crystals: Crystals, name: str, shape: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """From crystals to numbers: every way to compute, an ensemble, the CPU and peers."""
    from assay.models.ensemble.device import DevicePath

    member, n, few = members.fresh(name, shape, crystals), len(crystals), crystals[:FEW]
    two = members.ensemble(scratch / name, [member, members.fresh(name, shape, crystals, seed=1)])
    whole = replace(two, device=DevicePath(two.members, clock.place))
    host = partial(on_host, member, few, "cpu")
    said: dict[str, NDArray[np.float64]] = {}
    rates = clock.race(
        f"{n} crystals -> {name} {shape} -> numbers",
        {
            **ways(clock.place, member, crystals, said),
            "assay, two members, calibrated": (lambda: whole.predict(crystals), n),
            "assay, one core of the host": (lambda: numbers(member.frozen, host, len(few)), len(few)),
            **peers(name, shape, few, str(clock.place)),
        },
    )
    found: dict[str, Any] = {"rates": rates, "differences": differences(said)}
    if {GRAPHS, FLOAT32} <= rates.keys():
        found["graphs_share"] = rates[GRAPHS]["us_per_crystal"] / rates[FLOAT32]["us_per_crystal"]
    if name == "alignn":
        found["gflop_per_crystal"] = each = asked(crystals[:AT_ONCE], shape)
        found["tflops_asked"] = {way: 1e-3 * each * rates[way]["crystals_per_s"] for way in said if way in rates}
    return found


def ways(
    place: torch.device, member: Checkpoint, crystals: Crystals, said: dict[str, NDArray[np.float64]]
) -> Contestants:
    """Precisions, feeds, sizes of batches and the compiler; each leaves its numbers in `said`."""
    from assay.models.ensemble.device import DevicePath

    path, n = DevicePath([member], place), len(crystals)
    there, merged = partial(on_device, path, crystals), partial(on_host, member, crystals, place)
    half = partial(bfloat16, place)
    runs: Contestants = {GRAPHS: (lambda: [len(rows) for rows, _ in there()], n)}

    def enter(way: str, feed: Feed, mode: Mode = nullcontext, network: Any = path.networks[0]) -> None:
        def run() -> None:
            with mode():
                said[way] = numbers(network, feed, n)

        runs[way] = run, n

    enter(FLOAT32, there)
    enter("assay, float32, sums in order, as in a campaign", there, path.exact)
    enter("assay, TF32", there, tf32)
    enter("assay, bfloat16", there, half)
    enter("assay, quotients of the host", merged)
    enter("assay, quotients of the host, bfloat16", merged, half)
    if place.type == "cuda":
        for edges in (2**16, 2**20):
            enter(f"assay, batches of {edges:,} edges", there, partial(batches_of, edges))
        try:
            compiled = DevicePath([member], place, compiled=True).networks[0]
        except ValueError as error:
            say(f"compiled networks are left out: {error}")
        else:
            enter("assay, compiled", there, network=compiled)
            enter("assay, compiled, bfloat16", there, half, compiled)
    return runs


# Ways to compute.

Mode = Callable[[], AbstractContextManager[Any]]


@contextmanager
def tf32() -> Iterator[None]:
    """Products of float32 numbers by their first ten bits, where the device can."""
    import torch

    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def bfloat16(place: torch.device) -> AbstractContextManager[Any]:
    """Products in bfloat16, where torch holds that safe; no campaign predicts graphs so."""
    import torch

    return torch.autocast(place.type, torch.bfloat16)


@contextmanager
def batches_of(edges: int) -> Iterator[None]:
    """Micro-batches of so many edges, and eight times as many triplets."""
    from assay.models.ensemble import device

    before = device.EDGES_PER_BATCH, device.TRIPLETS_PER_BATCH
    device.EDGES_PER_BATCH, device.TRIPLETS_PER_BATCH = edges, 8 * edges
    try:
        yield
    finally:
        device.EDGES_PER_BATCH, device.TRIPLETS_PER_BATCH = before


def on_device(path: DevicePath, crystals: Crystals) -> Iterator[tuple[NDArray[np.int64], Any]]:
    """Full graphs, made on the device."""
    from assay.models.ensemble.device import DeviceGraphInputs

    spec: Any = path.members[0].spec
    inputs = DeviceGraphInputs(path.build(crystals, replace(spec, angles=False)), spec.angles)
    for rows in inputs.micro_batches():
        yield rows, inputs.batch(rows, path.networks[0])


def on_host(
    member: Checkpoint, crystals: Crystals, place: torch.device | str
) -> Iterator[tuple[NDArray[np.int64], Any]]:
    """Quotients, made on one core of the host."""
    from assay.featurize import graphs as host
    from assay.featurize.quotient import of_crystals
    from assay.models.networks.inputs import GraphInputs

    spec: Any = member.spec
    for first in range(0, len(crystals), AT_ONCE):
        bare = host.build(crystals[first : first + AT_ONCE], replace(spec, angles=False))
        inputs = GraphInputs(of_crystals(bare, angles=spec.angles))
        for rows in inputs.micro_batches():
            yield first + rows, inputs.batch(rows, member.network).to(place)


def numbers(network: Any, feed: Feed, n: int) -> NDArray[np.float64]:
    """(n,) what a network with one property says; the device is waited for once, at the end."""
    import numpy as np
    import torch

    said = np.empty(n)
    with torch.inference_mode():
        parts = [(rows, *network(batch).values()) for rows, batch in feed()]
    for rows, values in parts:
        said[rows] = values.float().numpy(force=True)
    return said


# Judgements.


def differences(said: dict[str, NDArray[np.float64]]) -> dict[str, dict[str, Any]]:
    """How far each way leads from float32, in standard deviations of what that says; printed."""
    import numpy as np

    if FLOAT32 not in said:
        return {}
    first = said[FLOAT32]
    best = set(np.argsort(-first, kind="stable")[:100].tolist())
    found = {}
    for way, values in said.items():
        apart = np.abs(values - first) / first.std()
        same = len(best & set(np.argsort(-values, kind="stable")[:100].tolist())) / len(best)
        found[way] = {"largest": float(apart.max()), "median": float(np.median(apart)), "top_100_kept": same}
    lines = [
        [way, *(f"{one[key]:.1e}" for key in ("largest", "median")), f"{one['top_100_kept']:.0%}"]
        for way, one in found.items()
    ]
    show("difference to float32, in standard deviations", ["", "largest", "median", "kept of the best 100"], lines)
    return found


def asked(crystals: Crystals, shape: dict[str, Any]) -> float:
    """GFLOP per crystal of an ALIGNN on full graphs: the products of its definition."""
    from assay.featurize import graphs as host

    built = host.build(crystals, host.GraphSpec(k=12, angles=True))
    nodes, edges, triplets = len(built.features()), len(built.source), len(built.cosine)
    pairs, layers, square = shape["alignn_layers"], shape["gcn_layers"], 2 * shape["hidden"] ** 2
    rows = pairs * triplets + (5 * pairs + layers) * edges + 4 * (pairs + layers) * nodes
    return 1e-9 * square * rows / len(crystals)


# The peers.


def peers(name: str, shape: dict[str, Any], crystals: Crystals, place: str) -> Contestants:
    """The same kind of network by others, as their prediction scripts do, on the same device."""
    import numpy as np
    import torch

    target, n = np.zeros(len(crystals), np.float32), len(crystals)
    if name == "cgcnn":
        made = training.geometric_peer(crystals, target, n, place)
    else:
        made = training.alignn_peers(crystals, target, (shape["gcn_layers"], shape["hidden"]), n, place)

    def run(peer: training.Training, build: Contestant | None, parts: list[list[int]]) -> None:
        if build:
            build()
        peer.network.eval()
        with torch.no_grad():
            for rows in parts:
                peer.forward(rows).numpy(force=True)

    if name == "cgcnn":
        return {
            f"{peer}, one batch, graphs ready": (partial(run, one, None, [list(range(n))]), n)
            for peer, one in made.items()
        }
    builders = {"alignn, DGL": "alignn, atom_dgl_multigraph", "alignn, pure torch": "alignn, pure torch"}
    built, singly = alignn_builders(crystals), [[k] for k in range(n)]
    return {f"{peer}, its loop": (partial(run, one, built[builders[peer]], singly), n) for peer, one in made.items()}
