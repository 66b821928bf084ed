"""CGCNN: crystal graph convolutions, Xie and Grossman, Phys. Rev. Lett. 120, 145301 (2018).

Enters: `Batch`. Leaves: one scaled value per crystal and property. Three things differ from the
paper, each measured in docs/log.md or chosen for speed: the three parts of the linear map are
applied before the gather (the same function, an order of magnitude fewer operations), messages are
averaged and not summed (tied shells change the count), and a crystal is the mean *and* deviation of
its atoms.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from assay.models.networks.batch import Batch
from assay.models.networks.fused import steps
from assay.models.networks.layers import BatchNorm, GraphPool, Network, PropertyHeads, RadialBasis


class GatedConvolution(nn.Module):
    """Update of node states (N, h) by gated messages from their neighbours."""

    def __init__(self, hidden: int, bins: int) -> None:
        super().__init__()
        self.source = nn.Linear(hidden, 2 * hidden, bias=False)
        self.target = nn.Linear(hidden, 2 * hidden)
        self.edge = nn.Linear(bins, 2 * hidden, bias=False)
        self.norm = BatchNorm(hidden)

    def forward(self, x: Tensor, radial: Tensor, batch: Batch, degree: Tensor) -> Tensor:
        """Return the new node states (N, h)."""
        ends = batch.source, batch.target, batch.edge_weight
        mean = steps.gated_sum(self.edge(radial), self.source(x), self.target(x), ends) / degree
        return functional.silu(x + self.norm(mean, batch.node_weight))


class CGCNN(Network):
    """Gated convolutions on the crystal graph, pooled over the crystal."""

    def __init__(
        self,
        features: int,
        properties: Sequence[str],
        *,
        hidden: int = 64,
        layers: int = 3,
        bins: int = 40,
        cutoff: float = 8.0,
        dropout: float = 0.0,
        variance: bool = False,
    ) -> None:
        """Make a network.

        Args:
            features: width of the node features.
            properties: names of the predicted properties.
            hidden: width of a node state.
            layers: number of convolutions.
            bins: Gaussians of the distance expansion.
            cutoff: Å, centre of the last Gaussian.
            dropout: in the heads.
            variance: whether the heads also predict the variance of their error.
        """
        super().__init__()
        self.embed = nn.Linear(features, hidden)
        self.radial = RadialBasis(0.0, cutoff, bins)
        self.layers = nn.ModuleList(GatedConvolution(hidden, bins) for _ in range(layers))
        self.pool = GraphPool()
        self.heads = PropertyHeads(2 * hidden, hidden, properties, dropout, variance=variance)

    def encode(self, batch: Batch) -> Tensor:
        """(n, 2 * hidden) state of each crystal."""
        x = functional.silu(self.embed(batch.x))
        radial = self.radial(batch.distance)
        degree = batch.degree
        for layer in self.layers:
            x = layer(x, radial, batch, degree)
        pooled: Tensor = self.pool(x, batch)
        return pooled

    def stages(self) -> list[nn.Module]:
        """The atom embedding, then the convolutions."""
        return [self.embed, *self.layers]
