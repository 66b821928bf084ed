"""MEGNet: materials graph network with a global state, Chen et al., Chem. Mater. 31, 3564 (2019).

Enters: `Batch`. Leaves: one scaled value per crystal and property. Three things differ from the
paper: one dense layer stands before each block and not two, the activation is SiLU and not a
softplus, and the parts of the bond network's first linear map are applied before the gather (the
same function, a fraction of the operations). The global state starts from a learned constant, and
everything that reaches it is a mean: it does not depend on the choice of cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from assay.models.networks.batch import Batch, total
from assay.models.networks.layers import Network, PropertyHeads, RadialBasis


@dataclass(frozen=True)
class Surroundings:
    """What all blocks ask of a batch, worked out once."""

    edge_crystal: Tensor
    """(E,) graph of each edge."""
    degree: Tensor
    """(N, 1) edges into each node, at least 1."""
    size: Tensor
    """(n, 1) atoms of each crystal."""
    bonds: Tensor
    """(n, 1) edges of each crystal, at least 1."""

    @classmethod
    def of(cls, batch: Batch) -> Surroundings:
        """Of a full or a quotient graph."""
        edge_crystal = batch.crystal.index_select(0, batch.target)
        ones = batch.distance.new_ones(len(batch.target), 1)
        bonds = total(ones, edge_crystal, len(batch), batch.edge_count).clamp(min=1)
        return cls(edge_crystal, batch.degree, batch.size[:, None], bonds)


class Block(nn.Module):
    """Update of edges by their ends, nodes by their edges, the state by both; with skips."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.dense = nn.ModuleDict({part: nn.Linear(hidden, hidden) for part in ("node", "edge", "state")})
        self.source = nn.Linear(hidden, hidden, bias=False)
        self.target = nn.Linear(hidden, hidden)
        self.edge = nn.Linear(hidden, hidden, bias=False)
        self.state = nn.Linear(hidden, hidden, bias=False)
        self.edge_out = nn.Linear(hidden, hidden)
        self.node_update = _two_layers(3 * hidden, hidden)
        self.state_update = _two_layers(3 * hidden, hidden)

    def forward(self, x: Tensor, y: Tensor, u: Tensor, batch: Batch, around: Surroundings) -> tuple[Tensor, ...]:
        """Return new states of nodes (N, h), edges (E, h) and crystals (n, h)."""
        node = functional.silu(self.dense["node"](x))
        edge = functional.silu(self.dense["edge"](y))
        state = functional.silu(self.dense["state"](u))
        at_target = self.target(node) + self.state(state).index_select(0, batch.crystal)
        edge = self.edge(edge) + self.source(node).index_select(0, batch.source)
        edge = functional.silu(edge + at_target.index_select(0, batch.target))
        edge = functional.silu(self.edge_out(edge))
        gathered = total(edge, batch.target, len(x), batch.edge_weight)
        seen = [gathered / around.degree, node, state.index_select(0, batch.crystal)]
        node = self.node_update(torch.cat(seen, dim=1))
        edges = total(gathered, batch.crystal, len(batch), batch.node_weight) / around.bonds
        nodes = total(node, batch.crystal, len(batch), batch.node_weight) / around.size
        state = self.state_update(torch.cat([edges, nodes, state], dim=1))
        return x + node, y + edge, u + state


class Set2Set(nn.Module):
    """Rows (m, h) of n owners to (n, 2h): an LSTM asks, a softmax over an owner's rows answers.

    Vinyals et al., ICLR 2016. An owner without rows is answered with zeros.
    """

    def __init__(self, hidden: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.cell = nn.LSTMCell(2 * hidden, hidden)

    def forward(self, rows: Tensor, owner: Tensor, n: int, count: Tensor | None) -> Tensor:
        """Read the set of each owner; row i stands for `count[i]` rows (m,), one where None."""
        question = rows.new_zeros(n, rows.shape[1])
        memory, answer = question, question
        for _ in range(self.steps):
            question, memory = self.cell(torch.cat([question, answer], dim=1), (question, memory))
            score = (rows * question.index_select(0, owner)).sum(1)
            highest = score.new_zeros(n).scatter_reduce(0, owner, score.detach(), "amax", include_self=False)
            share = torch.exp(score - highest.index_select(0, owner))
            if count is not None:
                share = share * count
            norm = total(share[:, None], owner, n)
            answer = total(rows, owner, n, share) / norm.clamp(min=1e-12)
        return torch.cat([question, answer], dim=1)


class MEGNet(Network):
    """Blocks of bond, atom and state updates, then Set2Set over atoms and over bonds."""

    def __init__(
        self,
        features: int,
        properties: Sequence[str],
        *,
        hidden: int = 64,
        blocks: int = 3,
        bins: int = 40,
        cutoff: float = 8.0,
        set2set_steps: int = 3,
        dropout: float = 0.0,
        variance: bool = False,
    ) -> None:
        """Make a network.

        Args:
            features: width of the node features.
            properties: names of the predicted properties.
            hidden: width of the states of atoms, bonds and crystal.
            blocks: number of updates.
            bins: Gaussians of the distance expansion.
            cutoff: Å, centre of the last Gaussian.
            set2set_steps: questions the readout asks.
            dropout: in the heads.
            variance: whether the heads also predict the variance of their error.
        """
        super().__init__()
        self.embed = nn.Linear(features, hidden)
        self.radial = RadialBasis(0.0, cutoff, bins)
        self.edge_embed = nn.Linear(bins, hidden)
        self.start = nn.Embedding(1, hidden)
        self.blocks = nn.ModuleList(Block(hidden) for _ in range(blocks))
        self.read_nodes = Set2Set(hidden, set2set_steps)
        self.read_edges = Set2Set(hidden, set2set_steps)
        self.heads = PropertyHeads(5 * hidden, hidden, properties, dropout, variance=variance)

    def encode(self, batch: Batch) -> Tensor:
        """(n, 5 * hidden) atoms and bonds as Set2Set reads them, and the state of each crystal."""
        around = Surroundings.of(batch)
        x = functional.silu(self.embed(batch.x))
        y = functional.silu(self.edge_embed(self.radial(batch.distance)))
        u = self.start.weight.expand(len(batch), -1)
        for block in self.blocks:
            x, y, u = block(x, y, u, batch, around)
        nodes = self.read_nodes(x, batch.crystal, len(batch), batch.node_weight)
        edges = self.read_edges(y, around.edge_crystal, len(batch), batch.edge_count)
        return torch.cat([nodes, edges, u], dim=1)

    def stages(self) -> list[nn.Module]:
        """The three embeddings, the blocks, then the readout."""
        embeddings = nn.ModuleList([self.embed, self.edge_embed, self.start])
        return [embeddings, *self.blocks, nn.ModuleList([self.read_nodes, self.read_edges])]


def _two_layers(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
