"""ALIGNN: atomistic line graph network, Choudhary and DeCost, npj Comput. Mater. 7, 185 (2021).

Enters: `Batch` with angles. Leaves: one scaled value per crystal and property. Layer and parameter names follow the
published model. Triplets are pairs of edges into the same atom; for a symmetric neighbour list these are the line
graph's pairs with one edge reversed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.batch import Batch, total
from models.layers import GraphPool, PropertyHeads, RadialBasis


class Embedding(nn.Sequential):
    """Linear map, batch normalisation, SiLU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.SiLU())


class EdgeGatedConvolution(nn.Module):
    """Joint update of node states (N, h) and edge states (E, h) with soft edge gates (Bresson and Laurent, 2017)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.src_gate = nn.Linear(hidden, hidden)
        self.dst_gate = nn.Linear(hidden, hidden)
        self.edge_gate = nn.Linear(hidden, hidden)
        self.bn_edges = nn.BatchNorm1d(hidden)
        self.src_update = nn.Linear(hidden, hidden)
        self.dst_update = nn.Linear(hidden, hidden)
        self.bn_nodes = nn.BatchNorm1d(hidden)

    def forward(self, x: Tensor, y: Tensor, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return new node and edge states."""
        m = self.edge_gate(y) + self.src_gate(x).index_select(0, source) + self.dst_gate(x).index_select(0, target)
        gate = torch.sigmoid(m)
        message = total(gate * self.dst_update(x).index_select(0, source), target, len(x))
        message = message / (total(gate, target, len(x)) + 1e-6)
        x = x + functional.silu(self.bn_nodes(self.src_update(x) + message))
        return x, y + functional.silu(self.bn_edges(m))


class ALIGNN(nn.Module):
    """Alternating updates on the crystal graph and its line graph, then on the crystal graph alone."""

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
        dropout: float = 0.0,
    ) -> None:
        """Make a network.

        Args:
            features: width of the node features.
            properties: names of the predicted properties.
            hidden: width of node, edge and triplet states.
            alignn_layers: updates of triplets, edges and nodes.
            gcn_layers: updates of edges and nodes that follow.
            bins: Gaussians of the distance expansion.
            angle_bins: Gaussians of the cosine expansion.
            embedding: width between expansion and state.
            cutoff: Å, centre of the last distance Gaussian.
            dropout: in the heads.
        """
        super().__init__()
        self.atom_embedding = Embedding(features, hidden)
        self.edge_embedding = nn.Sequential(
            RadialBasis(0.0, cutoff, bins), Embedding(bins, embedding), Embedding(embedding, hidden)
        )
        self.angle_embedding = nn.Sequential(
            RadialBasis(-1.0, 1.0, angle_bins), Embedding(angle_bins, embedding), Embedding(embedding, hidden)
        )
        self.node_updates = nn.ModuleList(EdgeGatedConvolution(hidden) for _ in range(alignn_layers))
        self.edge_updates = nn.ModuleList(EdgeGatedConvolution(hidden) for _ in range(alignn_layers))
        self.gcn_layers = nn.ModuleList(EdgeGatedConvolution(hidden) for _ in range(gcn_layers))
        self.pool = GraphPool()
        self.heads = PropertyHeads(2 * hidden, hidden, properties, dropout)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Scaled predictions (n,) per property."""
        x = self.atom_embedding(batch.x)
        y = self.edge_embedding(batch.distance)
        z = self.angle_embedding(batch.cosine)
        for node_update, edge_update in zip(self.node_updates, self.edge_updates, strict=True):
            x, y = node_update(x, y, batch.source, batch.target)
            y, z = edge_update(y, z, batch.triplet_other, batch.triplet_edge)
        for layer in self.gcn_layers:
            x, y = layer(x, y, batch.source, batch.target)
        out: dict[str, Tensor] = self.heads(self.pool(x, batch))
        return out
