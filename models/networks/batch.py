"""Inputs of networks as tensors: `Batch` of graphs, `Images`, `Compositions`.

Enters: `Graphs`, pictures, tables of features. Leaves: one of the three. This module does not know
networks or targets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.sources.checks import importing

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from assay.featurize.graphs import Graphs
else:
    torch = importing.later("torch")


@dataclass(frozen=True)
class Compositions:
    """`n` compositions: the table of their features, and their elements."""

    x: Tensor
    """(n, q) float32 features, on the CPU; NaN where one is not known."""
    share: Tensor
    """(n, 103) float32 share of the atoms of each element."""

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device | str) -> Compositions:
        """The shares elsewhere; what reads the features stays on the CPU."""
        return replace(self, share=self.share.to(device))


@dataclass(frozen=True)
class Batch:
    """`n` graphs: `N` nodes, `E` edges ascending in target, `T` triplets ascending in edge."""

    x: Tensor
    """(N, p) float32 node features."""
    crystal: Tensor
    """(N,) int64 graph of each node, ascending."""
    size: Tensor
    """(n,) float32 atoms of each crystal: nodes, each with its multiplicity."""
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
    node_weight: Tensor | None = None
    """(N,) float32 atoms of the crystal that a node stands for; None: one each."""
    edge_weight: Tensor | None = None
    """(E,) float32 equal edges into the same node that an edge stands for, times its taper; None:
    one each."""
    triplet_weight: Tensor | None = None
    """(T,) float32 equal triplets of the same edge that a triplet stands for, times the taper of
    its other edge; None: one each."""

    @classmethod
    def of(cls, graphs: Graphs) -> Batch:
        """Tensors of a batch of graphs, on the CPU."""
        nodes = np.diff(graphs.node_ptr)
        crystal = np.repeat(np.arange(len(graphs)), nodes)
        weights: dict[str, Tensor] = {}
        size = nodes
        if graphs.weights is not None:
            merged = graphs.weights
            parts = {"node_weight": merged.node, "edge_weight": merged.edge, "triplet_weight": merged.triplet}
            weights = {name: torch.from_numpy(counts) for name, counts in parts.items()}
            size = np.bincount(crystal, weights=merged.node, minlength=len(graphs))
        taper = graphs.taper()
        made = cls(
            x=torch.from_numpy(graphs.features()),
            crystal=torch.from_numpy(crystal),
            size=torch.from_numpy(size.astype(np.float32)),
            source=torch.from_numpy(graphs.source.astype(np.int64)),
            target=torch.from_numpy(graphs.target.astype(np.int64)),
            distance=torch.from_numpy(graphs.distance),
            triplet_edge=torch.from_numpy(graphs.triplet_edge.astype(np.int64)),
            triplet_other=torch.from_numpy(graphs.triplet_other.astype(np.int64)),
            cosine=torch.from_numpy(graphs.cosine),
            **weights,
        )
        return made.faded(None if taper is None else torch.from_numpy(taper))

    def faded(self, taper: Tensor | None) -> Batch:
        """The same batch; edges count by their taper (E,), angles by that of their other edge."""
        if taper is None:
            return self
        seen = taper.index_select(0, self.triplet_other)
        return replace(
            self,
            edge_weight=taper if self.edge_weight is None else self.edge_weight * taper,
            triplet_weight=seen if self.triplet_weight is None else self.triplet_weight * seen,
        )

    def __len__(self) -> int:
        return len(self.size)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        moved: dict[str, Any] = {}
        for name in self.__dataclass_fields__:
            tensor = getattr(self, name)
            moved[name] = None if tensor is None else tensor.to(device)
        return Batch(**moved)

    @property
    def degree(self) -> Tensor:
        """(N, 1) edges into each node, at least 1."""
        ones = self.distance.new_ones(len(self.target)) if self.edge_weight is None else self.edge_weight
        return total(ones[:, None], self.target, len(self.x)).clamp(min=1)

    @property
    def edge_count(self) -> Tensor | None:
        """(E,) edges of the whole crystal that an edge stands for; None: one each."""
        if self.edge_weight is None or self.node_weight is None:
            return self.edge_weight
        return self.edge_weight * self.node_weight.index_select(0, self.target)

    @property
    def triplet_count(self) -> Tensor | None:
        """(T,) triplets of the whole crystal that a triplet stands for; None: one each."""
        edges = self.edge_count
        if edges is None or self.triplet_weight is None:
            return None
        return self.triplet_weight * edges.index_select(0, self.triplet_edge)


@dataclass(frozen=True)
class Images:
    """`V` pictures of `n` crystals."""

    pixels: Tensor
    """(V, C, size, size) float32, normalised as the network wants it."""
    crystal: Tensor
    """(V,) int64 crystal of each picture, ascending; every crystal has one at least."""
    weight: Tensor
    """(V,) float32 views that each picture stands for."""
    count: int
    """Crystals, `n`."""

    def __len__(self) -> int:
        return self.count

    def to(self, device: torch.device | str) -> Images:
        """The same pictures on another device."""
        return Images(self.pixels.to(device), self.crystal.to(device), self.weight.to(device), self.count)

    def mean(self, values: Tensor) -> Tensor:
        """(n, h) mean of values (V, h) over the views of each crystal, by their weight."""
        share = self.weight / total(self.weight[:, None], self.crystal, self.count)[:, 0].index_select(0, self.crystal)
        return total(values, self.crystal, self.count, share)

    def variance(self, values: Tensor) -> Tensor:
        """(n,) variance of values (V,) over the views of each crystal, by their weight."""
        apart = values - self.mean(values[:, None])[:, 0].index_select(0, self.crystal)
        return self.mean((apart**2)[:, None])[:, 0]


def total(values: Tensor, owner: Tensor, n: int, weight: Tensor | None = None) -> Tensor:
    """(n, h) sum of the rows of `values` (m, h) that each owner has, each times its weight (m,)."""
    if weight is not None:
        values = values * weight[:, None]
    return values.new_zeros(n, values.shape[1]).index_add_(0, owner, values)
