"""Parts shared by the networks: contract, radial basis, normalisation, pooling, heads.

Enters and leaves: tensors. This module does not know units, scalers or data.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from assay.models.networks.batch import Batch, total
from assay.models.networks.fused import steps
from assay.models.target import LOG_VARIANCE


class Network(nn.Module):
    """What every network is: a trunk that embeds crystals, and one small head per property.

    A graph network reads `Batch` and is a function of the crystal, whatever graph represents it:
    nodes, edges and triplets that stand for several (`Batch.node_weight` and so on) count that
    often, in sums, means and batch statistics alike. A vision network reads `Images`, and every
    view counts by its weight. What reads `Compositions` knows the elements and their amounts only.
    """

    heads: PropertyHeads
    """Read the embedding; all parameters outside of them are the trunk."""
    HEAD_SIZES: ClassVar[frozenset[str]] = frozenset({"dropout", "head", "variance"})
    """Sizes that the trunk does not depend on."""
    draws: int = 0
    """Values per crystal in its predictive distribution, under the suffix `DRAWS`; 0: it has
    none."""

    def encode(self, batch: Any) -> Tensor:
        """(n, width) state of each crystal."""
        raise TypeError(f"{type(self).__name__} does not say how it encodes {len(batch)} crystals")

    def states(self, batch: Any) -> Tensor:
        """The rows that the heads read: by default the state of each crystal."""
        return self.encode(batch)

    def conclude(self, states: Tensor, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ARG002 -- views do
        """State (n, width) and scaled predictions (n,) per crystal, from `states` of a batch."""
        return states, self.heads(states)

    def stages(self) -> list[nn.Module]:
        """Parts of the trunk from input to output: the embeddings, then one entry per layer."""
        raise TypeError(f"{type(self).__name__} does not name its stages")

    def look(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The state (n, width) of each crystal, and scaled predictions (n,) per property."""
        return self.conclude(self.states(batch), batch)

    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Scaled predictions (n,) per property."""
        return self.look(batch)[1]

    @classmethod
    def published(cls, source: str, shape: Any, sizes: dict[str, Any]) -> tuple[dict[str, Tensor], str] | None:  # noqa: ARG003
        """Published weights of the trunk, and their hash; None for a network that has none.

        `source` is no folder: the name of a hub, or a file.
        """
        return None

    def check(self) -> None:
        """Refuse weights that do not fit together; by default all do.

        Raises:
            ValueError: when they do not.
        """

    lowered: bool = False
    """Whether it predicts in bfloat16 and keeps its weights in float32."""

    def lower(self) -> None:
        """Predict in bfloat16 on the CPU from now on; by default a network cannot and stays."""

    def learn_lowered(self) -> None:
        """Learn with some products in bfloat16 on the CPU from now on; by default none are."""

    def lower_on(self, device: torch.device) -> None:
        """The same on another device."""


class RadialBasis(nn.Module):
    """Gaussians on a regular grid: (m,) -> (m, bins), exp(-(d - centre)^2 / spacing)."""

    def __init__(self, low: float, high: float, bins: int) -> None:
        super().__init__()
        self.register_buffer("centers", torch.linspace(low, high, bins), persistent=False)
        self.gamma = (bins - 1) / (high - low)

    def forward(self, values: Tensor) -> Tensor:
        """Expand values (m,) into (m, bins)."""
        if steps.compiled(values) and not (values.requires_grad and torch.is_grad_enabled()):
            return steps.expanded(values, self.get_buffer("centers"), self.gamma)
        return torch.exp(-self.gamma * (values[:, None] - self.get_buffer("centers")) ** 2)


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation in which a row can stand for several, as if it were repeated."""

    def forward(self, x: Tensor, count: Tensor | None = None) -> Tensor:
        """Normalise rows x (m, h); row i stands for `count[i]` rows (m,), one where None."""
        if count is None or not self.training:
            return super().forward(x)
        rows = count.sum()
        share = (count / rows)[:, None]
        mean = (share * x).sum(0)
        centred = x - mean
        variance = (share * centred**2).sum(0)
        self.track(mean, variance, float(rows))
        return centred * (self.weight * torch.rsqrt(variance + self.eps)) + self.bias

    def activated(self, x: Tensor, count: Tensor | None = None, state: Tensor | None = None) -> Tensor:
        """(m, h) silu of the normalised rows, added to `state` (m, h) where there is one."""
        if not (self.training and steps.compiled(x)):
            return _activated(self(x, count), state)
        made, mean, variance, rows = steps.activated(x, (self.weight, self.bias, self.eps), count, state)
        self.track(mean, variance, float(rows))
        return made

    def track(self, mean: Tensor, variance: Tensor, rows: float) -> None:
        """Move the running statistics towards those of a batch, (h,) each, of so many rows."""
        with torch.no_grad():
            momentum = 0.1 if self.momentum is None else self.momentum
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            self.running_mean.lerp_(mean.to(self.running_mean), momentum)
            self.running_var.lerp_((variance * (rows / max(rows - 1, 1.0))).to(self.running_var), momentum)
            self.num_batches_tracked += 1


class LayerNorm(nn.LayerNorm):
    """Layer normalisation, which does not ask how many rows a row stands for."""

    def forward(self, x: Tensor, count: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Normalise each row of x (m, h)."""
        return super().forward(x)

    def activated(self, x: Tensor, count: Tensor | None = None, state: Tensor | None = None) -> Tensor:
        """(m, h) silu of the normalised rows, added to `state` (m, h) where there is one."""
        return _activated(self(x, count), state)


def _activated(normalised: Tensor, state: Tensor | None) -> Tensor:
    made = functional.silu(normalised)
    return made if state is None else state + made


class GraphPool(nn.Module):
    """Nodes (N, h) to crystals (n, 2h): mean and standard deviation over the nodes of each crystal.

    Both are independent of the choice of cell. The deviation tells a compound of unlike atoms from
    one of like atoms, which a mean cannot.
    """

    def forward(self, x: Tensor, batch: Batch) -> Tensor:
        """Pool node states."""
        size = batch.size[:, None]
        weight = batch.node_weight
        mean = total(x, batch.crystal, len(batch), weight) / size
        spread = total((x - mean.index_select(0, batch.crystal)) ** 2, batch.crystal, len(batch), weight) / size
        return torch.cat([mean, torch.sqrt(spread + 1e-6)], dim=1)


class PropertyHeads(nn.Module):
    """One small network per property: (n, width) -> {name: (n,)} in scaled units.

    With `variance`, a head also says how sure it is: `{name + LOG_VARIANCE: (n,)}`, the logarithm
    of the variance of its error in scaled units.
    """

    def __init__(
        self,
        width: int,
        hidden: int | Sequence[int],
        names: Sequence[str],
        dropout: float,
        *,
        variance: bool = False,
    ) -> None:
        super().__init__()
        layers = [width, hidden] if isinstance(hidden, int) else [width, *hidden]
        self.heads = nn.ModuleDict({name: _head(layers, dropout, 2 if variance else 1) for name in names})

    def forward(self, pooled: Tensor) -> dict[str, Tensor]:
        """Predict every property."""
        out = {}
        for name, head in self.heads.items():
            columns = head(pooled).unbind(1)
            out[name] = columns[0]
            if len(columns) > 1:
                out[name + LOG_VARIANCE] = columns[1].clamp(-10.0, 10.0)
        return out


def _head(layers: Sequence[int], dropout: float, outputs: int) -> nn.Sequential:
    """Linear layers of these widths with activation and dropout, then one to the outputs."""
    parts: list[nn.Module] = []
    for wide, narrow in itertools.pairwise(layers):
        parts += [nn.Linear(wide, narrow), nn.SiLU(), nn.Dropout(dropout)]
    return nn.Sequential(*parts, nn.Linear(layers[-1], outputs))
