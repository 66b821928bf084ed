"""Parts shared by the graph networks: radial basis, pooling over a crystal, property heads.

Enters and leaves: tensors. This module does not know units, scalers or data.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.batch import Batch, total


class RadialBasis(nn.Module):
    """Gaussians on a regular grid: (m,) -> (m, bins), exp(-(d - centre)^2 / spacing)."""

    def __init__(self, low: float, high: float, bins: int) -> None:
        super().__init__()
        self.register_buffer("centers", torch.linspace(low, high, bins), persistent=False)
        self.gamma = (bins - 1) / (high - low)

    def forward(self, values: Tensor) -> Tensor:
        """Expand values (m,) into (m, bins)."""
        return torch.exp(-self.gamma * (values[:, None] - self.get_buffer("centers")) ** 2)


class GraphPool(nn.Module):
    """Nodes (N, h) to crystals (n, 2h): mean and standard deviation over the nodes of each crystal.

    Both are independent of the choice of cell. The deviation tells a compound of unlike atoms from one of like atoms,
    which a mean cannot.
    """

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        """Pool node states."""
        size = batch.size[:, None]
        mean = total(x, batch.crystal, len(batch)) / size
        spread = total((x - mean.index_select(0, batch.crystal)) ** 2, batch.crystal, len(batch)) / size
        return torch.cat([mean, torch.sqrt(spread + 1e-6)], dim=1)


class PropertyHeads(nn.Module):
    """One small network per property: (n, width) -> {name: (n,)} in scaled units."""

    def __init__(self, width: int, hidden: int, names: Sequence[str], dropout: float) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Dropout(dropout), nn.Linear(hidden, 1))
                for name in names
            }
        )

    def forward(self, pooled: Tensor) -> dict[str, Tensor]:
        """Predict every property."""
        return {name: head(pooled).squeeze(1) for name, head in self.heads.items()}
