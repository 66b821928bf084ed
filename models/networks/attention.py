"""Attention over the elements of a composition, each weighed by its share of the atoms.

Enters: `Compositions`. Leaves: one scaled value per composition and property. After Roost (Goodall
and Lee, Nature Communications 11, 6280, 2020): a composition is a set of elements that send each
other messages, and a message counts by the share of its element. An element whose share goes to
zero drops out without a jump. Three things differ from the paper: attention has heads in the way of
a transformer, an element starts from tabulated properties and a learned vector of its own, and
knows its share.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from assay.featurize import elements
from assay.models.networks.batch import Compositions
from assay.models.networks.layers import Network, PropertyHeads

_OCTAVES = 6
"""Waves of the logarithm of a share that an element starts from."""


class Exchange(nn.Module):
    """One round of messages between the elements (n, k, h) of each composition."""

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.asked, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.inner = nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.SiLU(), nn.Linear(2 * hidden, hidden))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, log_share: Tensor) -> Tensor:
        """Return the new states; `log_share` (n, k) is -inf where there is no element."""
        n, k, h = x.shape
        split = self.asked(self.before(x)).view(n, k, 3, self.heads, h // self.heads).permute(2, 0, 3, 1, 4)
        counted = log_share[:, None, None, :].expand(n, self.heads, k, k)
        told = functional.scaled_dot_product_attention(split[0], split[1], split[2], attn_mask=counted)
        x = x + self.dropout(self.out(told.transpose(1, 2).reshape(n, k, h)))
        out: Tensor = x + self.dropout(self.inner(self.between(x)))
        return out


class SetAttention(Network):
    """Rounds of messages between the elements, then their mean and deviation by share."""

    properties: Tensor
    """(103, p) standardised properties of the elements."""

    def __init__(
        self,
        features: int,  # noqa: ARG002 -- the contract: it reads the elements and not the table
        properties: Sequence[str],
        *,
        hidden: int = 64,
        layers: int = 3,
        attention_heads: int = 4,
        dropout: float = 0.0,
        variance: bool = False,
    ) -> None:
        """Make a network.

        Args:
            features: columns of a table of composition features, which this network does not read.
            properties: names of the predicted properties.
            hidden: width of the state of an element.
            layers: rounds of messages.
            attention_heads: of a round; they divide `hidden`.
            dropout: in the rounds and in the heads.
            variance: whether the heads also predict the variance of their error.

        Raises:
            ValueError: when the heads do not divide the width.
        """
        super().__init__()
        if hidden % attention_heads:
            raise ValueError(f"hidden is {hidden}, expected a multiple of attention_heads ({attention_heads})")
        table = torch.from_numpy(elements.standardised()[1:].copy())
        self.register_buffer("properties", table)
        self.known = nn.Linear(table.shape[1], hidden)
        self.own = nn.Embedding(len(table), hidden)
        self.amount = nn.Linear(2 * _OCTAVES + 2, hidden)
        self.layers = nn.ModuleList(Exchange(hidden, attention_heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.heads = PropertyHeads(2 * hidden, hidden, properties, dropout, variance=variance)

    def encode(self, batch: Compositions) -> Tensor:
        """(n, 2 * hidden) state of each composition."""
        most = int((batch.share > 0).sum(1).max()) if len(batch) else 1
        share, element = batch.share.topk(most, dim=1)
        log_share = share.log()
        x = self.known(self.properties)[element] + self.own(element) + self.amount(_waves(share))
        for layer in self.layers:
            x = layer(x, log_share)
        x = self.norm(x)
        mean = (share[:, :, None] * x).sum(1)
        spread = (share[:, :, None] * (x - mean[:, None]) ** 2).sum(1)
        return torch.cat([mean, torch.sqrt(spread + 1e-6)], dim=1)

    def stages(self) -> list[nn.Module]:
        """What an element starts from, then the rounds."""
        return [nn.ModuleList([self.known, self.own, self.amount]), *self.layers]


def _waves(share: Tensor) -> Tensor:
    """(n, k) shares -> (n, k, 2 * octaves + 2): as they are, and finer the smaller they are."""
    size = torch.log10(share.clamp(min=1e-4))
    angle = size[:, :, None] * (torch.pi / 4) * 2.0 ** torch.arange(_OCTAVES, device=share.device)
    return torch.cat([share[:, :, None], size[:, :, None], angle.sin(), angle.cos()], dim=2)
