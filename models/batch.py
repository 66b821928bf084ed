"""Graphs as tensors: the one input every graph network reads.

Enters: `Graphs`. Leaves: `Batch`. This module does not know networks or targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from featurize.graphs import Graphs


@dataclass(frozen=True)
class Batch:
    """`n` graphs with `N` nodes, `E` edges (ascending in target) and `T` triplets (ascending in edge)."""

    x: Tensor
    """(N, p) float32 node features."""
    crystal: Tensor
    """(N,) int64 graph of each node, ascending."""
    size: Tensor
    """(n,) float32 nodes of each graph."""
    source: Tensor
    """(E,) int64."""
    target: Tensor
    """(E,) int64."""
    distance: Tensor
    """(E,) float32, Å."""
    triplet_edge: Tensor
    """(T,) int64, empty without angles."""
    triplet_other: Tensor
    """(T,) int64."""
    cosine: Tensor
    """(T,) float32."""

    @classmethod
    def of(cls, graphs: Graphs) -> Batch:
        """Tensors of a batch of graphs, on the CPU."""
        nodes = np.diff(graphs.node_ptr)
        return cls(
            x=torch.from_numpy(graphs.features()),
            crystal=torch.from_numpy(np.repeat(np.arange(len(graphs)), nodes)),
            size=torch.from_numpy(nodes.astype(np.float32)),
            source=torch.from_numpy(graphs.source.astype(np.int64)),
            target=torch.from_numpy(graphs.target.astype(np.int64)),
            distance=torch.from_numpy(graphs.distance),
            triplet_edge=torch.from_numpy(graphs.triplet_edge.astype(np.int64)),
            triplet_other=torch.from_numpy(graphs.triplet_other.astype(np.int64)),
            cosine=torch.from_numpy(graphs.cosine),
        )

    def __len__(self) -> int:
        return len(self.size)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return Batch(**{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})


def total(values: Tensor, owner: Tensor, n: int) -> Tensor:
    """(n, h) sum of the rows of `values` (m, h) that each owner has."""
    return values.new_zeros(n, values.shape[1]).index_add_(0, owner, values)
