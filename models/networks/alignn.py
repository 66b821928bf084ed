"""ALIGNN: atomistic line graph network, Choudhary and DeCost, npj Comput. Mater. 7, 185 (2021).

Enters: `Batch` with angles. Leaves: one scaled value per crystal and property. Layer and parameter
names follow the published model. `GatedGCN` is the same network without its line graph: it reads
bond lengths and no angles. Here triplets are pairs of edges into the same atom. The published line
graph leads from an edge into an atom to an edge out of it, an edge back to where it came from
included: the same angles, seen by the edge of the opposite direction, so weights learned on one
kind do not predict on the other (`assay.models.published.graphs`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from assay.models.networks.batch import Batch, total
from assay.models.networks.fused import steps
from assay.models.networks.layers import BatchNorm, GraphPool, LayerNorm, Network, PropertyHeads, RadialBasis
from assay.models.networks.linear import check_bfloat16, halved, together

_FINENESS = 0.02
"""Step of a table, in widths of a Gaussian."""


class Embedding(nn.Sequential):
    """Linear map, normalisation, SiLU."""

    def __init__(self, width: int, hidden: int, norm: str) -> None:
        super().__init__(nn.Linear(width, hidden), normalisation(norm, hidden), nn.SiLU())

    def forward(self, x: Tensor, count: Tensor | None = None) -> Tensor:
        """Embed rows x (m, width) of which row i stands for `count[i]`."""
        linear, norm, _ = self
        made: Tensor = norm.activated(linear(x), count)  # type: ignore[operator]
        return made


@dataclass(frozen=True)
class Ends:
    """What an update runs along: edges between nodes, or triplets between edges."""

    source: Tensor
    """(m,) row of x each message comes from."""
    target: Tensor
    """(m,) row of x it goes to."""
    weight: Tensor | None
    """(m,) equal messages it stands for."""
    node_count: Tensor | None
    """(rows of x,) how often each counts in batch statistics."""
    edge_count: Tensor | None
    """(m,) how often each message counts there."""


class EdgeGatedConvolution(nn.Module):
    """Update of node (N, h) and edge states (E, h) with soft gates (Bresson and Laurent, 2017)."""

    lowered: frozenset[str] = frozenset()
    """Whose products are in bfloat16 while it learns: those of `nodes`, of `edges`."""

    def __init__(self, hidden: int, norm: str) -> None:
        super().__init__()
        self.src_gate = nn.Linear(hidden, hidden)
        self.dst_gate = nn.Linear(hidden, hidden)
        self.edge_gate = nn.Linear(hidden, hidden)
        self.bn_edges = normalisation(norm, hidden)
        self.src_update = nn.Linear(hidden, hidden)
        self.dst_update = nn.Linear(hidden, hidden)
        self.bn_nodes = normalisation(norm, hidden)

    def forward(
        self, x: Tensor, y: Tensor, ends: Ends, *, last: bool = False, places: steps.Places | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return new node and edge states; with `last` the old edge states: nothing reads them.

        With `places` the edges are looked up in the table `y`.
        """
        lowered = self.lowered if self.training else frozenset()
        own = halved(y, self.edge_gate) if "edges" in lowered else self.edge_gate(y)
        multiply = halved if "nodes" in lowered else together
        parts = multiply(x, self.src_gate, self.dst_gate, self.dst_update, self.src_update)
        if places is not None:
            own, y = places.look_up(own), y if last else places.look_up(y)
        m, updated = steps.gated(own, parts, (ends.source, ends.target, ends.weight))
        x = self.bn_nodes.activated(updated, ends.node_count, x)
        return x, y if last else self.bn_edges.activated(m, ends.edge_count, y)


class MeanPool(nn.Module):
    """Nodes (N, h) to crystals (n, h): the mean over the nodes of each crystal."""

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        """Pool node states."""
        return total(x, batch.crystal, len(batch), batch.node_weight) / batch.size[:, None]


class LinearHeads(PropertyHeads):
    """One linear map per property: (n, width) -> {name: (n,)} in scaled units."""

    def __init__(
        self, width: int, hidden: int, names: Sequence[str], dropout: float, *, variance: bool = False
    ) -> None:
        super().__init__(width, hidden, (), dropout, variance=variance)
        out = 2 if variance else 1
        self.heads = nn.ModuleDict({name: nn.Sequential(nn.Dropout(dropout), nn.Linear(width, out)) for name in names})


class GatedGCN(Network):
    """Updates of atoms and bonds by gated messages (Bresson and Laurent, 2017); no angles."""

    def __init__(
        self,
        features: int,
        properties: Sequence[str],
        *,
        hidden: int = 64,
        layers: int = 4,
        bins: int = 80,
        embedding: int = 64,
        cutoff: float = 8.0,
        norm: Literal["batch", "layer"] = "batch",
        pool: Literal["mean-std", "mean"] = "mean-std",
        head: Literal["mlp", "linear"] = "mlp",
        dropout: float = 0.0,
        variance: bool = False,
    ) -> None:
        """Make a network.

        Args:
            features: width of the node features.
            properties: names of the predicted properties.
            hidden: width of node and edge states.
            layers: updates of edges and nodes.
            bins: Gaussians of the distance expansion.
            embedding: width between expansion and state.
            cutoff: Å, centre of the last distance Gaussian.
            norm: batch normalisation, as in the published models, or layer normalisation, as in
                ALIGNN 2.
            pool: mean and deviation of a crystal's atoms, or the mean alone, as in the published
                models.
            head: two layers per property, or one linear map, as in the published models.
            dropout: in the heads.
            variance: whether the heads also predict the variance of their error.
        """
        super().__init__()
        self.atom_embedding = Embedding(features, hidden, norm)
        self.edge_embedding = _expansion(0.0, cutoff, bins, (embedding, hidden), norm)
        self.gcn_layers = nn.ModuleList(EdgeGatedConvolution(hidden, norm) for _ in range(layers))
        self.pool = _one_of({"mean-std": GraphPool, "mean": MeanPool}, "pool", pool)()
        heads = _one_of({"mlp": PropertyHeads, "linear": LinearHeads}, "head", head)
        width = hidden if pool == "mean" else 2 * hidden
        self.heads = heads(width, hidden, properties, dropout, variance=variance)

    def encode(self, batch: Batch) -> Tensor:
        """(n, 2 * hidden) state of each crystal; half as wide where only means are pooled."""
        bonds = Ends(batch.source, batch.target, batch.edge_weight, batch.node_weight, batch.edge_count)
        x = self.atom_embedding(batch.x, batch.node_weight)
        x, y = self.begun(x, _embed(self.edge_embedding, batch.distance, bonds.edge_count), bonds, batch)
        for k, layer in enumerate(self.gcn_layers, 1):
            x, y = layer(x, y, bonds, last=k == len(self.gcn_layers))
        pooled: Tensor = self.pool(x, batch)
        return pooled

    def begun(self, x: Tensor, y: Tensor, bonds: Ends, batch: Batch) -> tuple[Tensor, Tensor]:  # noqa: ARG002
        """Node and edge states before the updates of `gcn_layers`."""
        return x, y

    def stages(self) -> list[nn.Module]:
        """The embeddings, then one entry per layer."""
        return [nn.ModuleList([self.atom_embedding, self.edge_embedding]), *self.gcn_layers]


class ALIGNN(GatedGCN):
    """Updates on the crystal graph and its line graph in turn, then on the crystal graph alone."""

    def __init__(
        self,
        features: int,
        properties: Sequence[str],
        *,
        hidden: int = 256,
        alignn_layers: int = 4,
        gcn_layers: int = 4,
        bins: int = 80,
        angle_bins: int = 40,
        embedding: int = 64,
        cutoff: float = 8.0,
        norm: Literal["batch", "layer"] = "batch",
        pool: Literal["mean-std", "mean"] = "mean-std",
        head: Literal["mlp", "linear"] = "mlp",
        dropout: float = 0.0,
        variance: bool = False,
    ) -> None:
        """Make a network.

        Args:
            features: width of the node features.
            properties: names of the predicted properties.
            hidden: width of node, edge and triplet states.
            alignn_layers: updates of triplets, edges and nodes.
            gcn_layers: updates of edges and nodes that follow.
            bins: as in `GatedGCN`.
            angle_bins: Gaussians of the cosine expansion.
            embedding: width between expansion and state.
            cutoff: as in `GatedGCN`.
            norm: likewise.
            pool: likewise.
            head: likewise.
            dropout: likewise.
            variance: likewise.
        """
        own = {"bins": bins, "cutoff": cutoff, "pool": pool, "head": head, "dropout": dropout, "variance": variance}
        shared: dict[str, Any] = {"hidden": hidden, "layers": gcn_layers, "embedding": embedding, "norm": norm, **own}
        super().__init__(features, properties, **shared)
        self.angle_embedding = _expansion(-1.0, 1.0, angle_bins, (embedding, hidden), norm)
        self.node_updates = nn.ModuleList(EdgeGatedConvolution(hidden, norm) for _ in range(alignn_layers))
        self.edge_updates = nn.ModuleList(EdgeGatedConvolution(hidden, norm) for _ in range(alignn_layers))

    def learn_lowered(self) -> None:
        """Multiply states of triplets, and of bonds for them, in bfloat16 while learning.

        The first states of triplets are a table, which stays in single precision.

        Raises:
            ValueError: when the processor has no instructions for it.
        """
        check_bfloat16()
        for k, update in enumerate(self.edge_updates):
            assert isinstance(update, EdgeGatedConvolution)
            update.lowered = frozenset({"nodes", "edges"} if k else {"nodes"})

    def lower(self) -> None:
        """Let the frozen network multiply the states of triplets in bfloat16.

        These are half of its products. Each prediction sums over so many triplets that it moves by
        less than 1e-4 of the target's scale, see docs/performance.md; bonds and atoms, which are
        fewer, would move it more.

        Raises:
            ValueError: when the processor has no instructions for it.
        """
        check_bfloat16()
        self.lowered = True

    def begun(self, x: Tensor, y: Tensor, bonds: Ends, batch: Batch) -> tuple[Tensor, Tensor]:
        """Node and edge states after the updates that see angles."""
        triplets, pairs = batch.triplet_count, len(self.node_updates)
        angles = Ends(batch.triplet_other, batch.triplet_edge, batch.triplet_weight, bonds.edge_count, triplets)
        places = self._places(batch.cosine) if self.training else None
        if places is None:
            z = _embed(self.angle_embedding, batch.cosine, triplets)
        else:
            z = _embed(self.angle_embedding, places.knots, places.spread(triplets))
        for k, (node_update, edge_update) in enumerate(zip(self.node_updates, self.edge_updates, strict=True), 1):
            x, y = node_update(x, y, bonds)
            y, z = edge_update(y, z, angles, last=k == pairs, places=places if k == 1 else None)
        return x, y

    def _places(self, cosine: Tensor) -> steps.Places | None:
        """Where angles stand in a table of their embedding: batches repeat them many times."""
        basis: Any = self.angle_embedding[0]
        return steps.Places.between(-1.0, 1.0, _FINENESS / math.sqrt(basis.gamma), cosine)

    def stages(self) -> list[nn.Module]:
        """The three embeddings, then one entry per layer."""
        embeddings = nn.ModuleList([self.atom_embedding, self.edge_embedding, self.angle_embedding])
        pairs = zip(self.node_updates, self.edge_updates, strict=True)
        return [embeddings, *(nn.ModuleList(pair) for pair in pairs), *self.gcn_layers]


def _expansion(low: float, high: float, bins: int, widths: tuple[int, int], norm: str) -> nn.Sequential:
    """A number through Gaussians and two layers of these widths."""
    first, second = widths
    return nn.Sequential(RadialBasis(low, high, bins), Embedding(bins, first, norm), Embedding(first, second, norm))


def normalisation(kind: str, width: int) -> BatchNorm | LayerNorm:
    """A layer that normalises rows (m, width) and takes their counts as second argument."""
    made: BatchNorm | LayerNorm = _one_of({"batch": BatchNorm, "layer": LayerNorm}, "norm", kind)(width)
    return made


def _one_of(kinds: dict[str, Any], name: str, kind: str) -> Any:
    if kind not in kinds:
        raise TypeError(f"{name} is {kind!r}, expected one of {sorted(kinds)}")
    return kinds[kind]


def _embed(parts: nn.Sequential, values: Tensor, count: Tensor | None) -> Tensor:
    expand, *embeddings = parts
    out: Tensor = expand(values)
    for embedding in embeddings:
        out = embedding(out, count)
    return out
