"""A trained graph network for prediction alone: the same function, several times as fast.

Enters: a network in eval mode. Leaves: something that looks at the same batches with the same
weights. Normalisations are folded into the maps before them; all linear maps of one input are one
product; what depends on one distance or one cosine alone is tabulated; and edges and triplets are
taken block by block, so that what stands between two products (`assay.models.ensemble.kernels`)
finds its rows in the cache. Blocks come in a few sizes, for which oneDNN compiles once. Nothing
here can learn. This module does not know properties or files.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from assay.models.ensemble import kernels
from assay.models.ensemble.lean.convolutions import REACH, Convolutions, Sizes
from assay.models.networks import linear
from assay.models.networks.alignn import ALIGNN, EdgeGatedConvolution, GatedGCN
from assay.models.networks.batch import Batch
from assay.models.networks.cgcnn import CGCNN
from assay.models.networks.fused import loops
from assay.models.networks.layers import BatchNorm, Network, RadialBasis

FINENESS = 0.01
"""Step of a table, in widths of a Gaussian: numbers pass through more layers here than in
`assay.models.ensemble.lean.convolutions`."""
BLOCK = 1_024
"""Rows of one product: with the widest network, a megabyte."""
_STEP = 128
"""The last block of a batch is filled up to a multiple of this many rows."""

Rows = NDArray[np.float32]


def freeze(network: Network) -> Network:
    """The quick twin of a network; the network itself where there is none.

    The twin has the weights of this moment: what the network learns later it does not know.
    """
    if isinstance(network, CGCNN):
        return _FrozenCGCNN(network)
    if isinstance(network, GatedGCN) and isinstance(network.atom_embedding[1], BatchNorm):
        return _FrozenGCN(network)
    return network


class _Frozen(Network):
    """A trunk without parameters, and pooling and heads of the network that was trained."""

    def __init__(self, trained: GatedGCN | CGCNN) -> None:
        super().__init__()
        self.pool, self.heads = trained.pool, trained.heads
        self.eval()

    def _pooled(self, nodes: Rows, batch: Batch) -> Tensor:
        pooled: Tensor = self.pool(torch.from_numpy(nodes[: len(batch.x)]), batch)
        return pooled


class _FrozenGCN(_Frozen):
    """Also an ALIGNN, whose updates that see angles come first."""

    def __init__(self, trained: GatedGCN) -> None:
        super().__init__(trained)
        self._atoms = _Product(trained.atom_embedding[0], norm=trained.atom_embedding[1])
        self._layers = [_Update(layer) for layer in trained.gcn_layers]
        self._pairs: list[tuple[_Update, _Update]] = []
        if isinstance(trained, ALIGNN):
            both = zip(trained.node_updates, trained.edge_updates, strict=True)
            half = trained.lowered
            self._pairs = [(_Update(on_bonds), _Update(on_angles, half=half)) for on_bonds, on_angles in both]
            for _, first in self._pairs[:1]:
                first.begin_with(trained.angle_embedding)
        for first in [*(bonds for bonds, _ in self._pairs), *self._layers][:1]:
            first.begin_with(trained.edge_embedding)

    def encode(self, batch: Batch) -> Tensor:
        """(n, width) state of each crystal."""
        x = self._atoms.silu(_padded(batch.x))
        bonds = _Links(batch.source, batch.target, batch.edge_weight, batch.distance)
        angles = _Links(batch.triplet_other, batch.triplet_edge, batch.triplet_weight, batch.cosine)
        for k, (on_bonds, on_angles) in enumerate(self._pairs, start=1):
            on_bonds(x, bonds)
            on_angles(bonds.state, angles, last=k == len(self._pairs))
        for k, layer in enumerate(self._layers, start=1):
            layer(x, bonds, last=k == len(self._layers))
        return self._pooled(x, batch)


class _FrozenCGCNN(_Frozen):
    """`Convolutions` between tensors."""

    def __init__(self, trained: CGCNN) -> None:
        super().__init__(trained)
        weights = {name: tensor.numpy(force=True).copy() for name, tensor in trained.state_dict().items()}
        hidden, bins = trained.embed.out_features, len(trained.radial.get_buffer("centers"))
        sizes = Sizes(hidden, len(trained.layers), bins, (bins - 1) / trained.radial.gamma)
        self._lean = Convolutions(weights, (), sizes)

    def encode(self, batch: Batch) -> Tensor:
        """(n, width) state of each crystal."""
        bonds = _Links(batch.source, batch.target, batch.edge_weight, batch.distance)
        edges = bonds.source, bonds.target, bonds.weight, bonds.values
        return self._pooled(self._lean.nodes(batch.x.numpy(), *edges), batch)


class _Links:
    """Edges between nodes, or triplets between edges, with states; messages run along them."""

    def __init__(self, source: Tensor, target: Tensor, weight: Tensor | None, values: Tensor) -> None:
        self.source, self.target, self.values = source.numpy(), target.numpy(), values.numpy()
        self.weight = np.ones(len(source), np.float32) if weight is None else weight.numpy()
        self.state: Rows = np.empty((0, 0), np.float32)
        """(m', h), padded; made by the first update."""

    def blocks(self) -> Iterator[slice]:
        return _blocks(_room(len(self.source)))


class _Product:
    """One linear map, or several of one input, with the normalisation after it folded in."""

    def __init__(self, *maps: Any, norm: Any = None) -> None:
        weight = torch.cat([part.weight.detach() for part in maps])
        bias = torch.cat([weight.new_zeros(len(part.weight)) if part.bias is None else part.bias for part in maps])
        if norm is not None:
            scale, shift = _scale_and_shift(norm)
            weight, bias = weight * scale[:, None], bias * scale + shift
        self._weight, self._bias = weight.contiguous(), bias.detach().contiguous()

    def __call__(self, block: Rows) -> Rows:
        """Rows (m, in) of one block to (m, out)."""
        made: Rows = linear.product(torch.from_numpy(block), self._weight, self._bias).numpy()
        return made

    def all(self, rows: Rows) -> Rows:
        """Padded rows (m, in), block by block."""
        out = np.empty((len(rows), len(self._bias)), np.float32)
        for block in _blocks(len(rows)):
            out[block] = self(rows[block])
        return out

    def silu(self, rows: Rows) -> Rows:
        """The same, through the activation."""
        out = self.all(rows)
        kernels.silu(out, out)
        return out


class _HalfProduct(_Product):
    """One linear map in bfloat16; sums and the bias are in single precision."""

    def __call__(self, block: Rows) -> Rows:
        """Rows (m, in) of one block to (m, out)."""
        x = torch.from_numpy(block).to(torch.bfloat16)
        made: Rows = linear.product(x, self._half, None).float().add_(self._bias).numpy()
        return made

    @cached_property
    def _half(self) -> Tensor:
        return self._weight.to(torch.bfloat16)


class _Table:
    """A function of one number that sees it through Gaussians."""

    def __init__(self, basis: RadialBasis, function: Callable[[Tensor], Tensor]) -> None:
        centres, width = basis.get_buffer("centers").double(), 1 / math.sqrt(basis.gamma)
        self._low, step = float(centres[0]), FINENESS * width
        rows = math.ceil((float(centres[-1]) + REACH * width - self._low) / step) + 4
        places = self._low + step * (torch.arange(rows, dtype=torch.float64) - 1)
        with torch.no_grad():
            expanded = torch.exp(-basis.gamma * (places[:, None] - centres) ** 2)
            self._rows = function(expanded).float().numpy()
        self._per_step = np.float32(1 / step)

    def __call__(self, values: Rows, out: Rows | None = None) -> Rows:
        """Numbers (m,) to rows (m, w), into the first rows of `out` if given."""
        out = np.empty((len(values), self._rows.shape[1]), np.float32) if out is None else out
        loops.look_up(values, np.float32(self._low), self._per_step, self._rows, out)
        return out


class _Update:
    """An edge-gated convolution; nodes and links are updated in place."""

    def __init__(self, layer: Any, *, half: bool = False) -> None:
        self._layer: EdgeGatedConvolution = layer
        self._edge = (_HalfProduct if half else _Product)(layer.edge_gate)
        self._ends = _Product(layer.src_gate, layer.dst_gate, layer.dst_update, layer.src_update)
        self._edge_norm, self._node_norm = _norm(layer.bn_edges), _norm(layer.bn_nodes)
        self._first: tuple[_Table, _Table] | None = None

    def begin_with(self, embedding: nn.Sequential) -> None:
        """Be the first update of links, whose states and gates are functions of one number then."""
        basis: Any
        basis, *embeddings = copy.deepcopy(embedding).double()
        gate = copy.deepcopy(self._layer.edge_gate).double()

        def state(expanded: Tensor) -> Tensor:
            for part in embeddings:
                expanded = part(expanded)
            return expanded

        self._first = _Table(basis, state), _Table(basis, lambda expanded: gate(state(expanded)))

    def __call__(self, x: Rows, links: _Links, *, last: bool = False) -> None:
        """Update padded nodes, and the links unless this is the last to read them."""
        own = self._ends.all(x)
        message, gates = np.zeros_like(x), np.zeros_like(x)
        if self._first:
            links.state = np.zeros((_room(len(links.source)), x.shape[1]), np.float32)
        for block in links.blocks():
            state = links.state[block]
            if self._first is None:
                gate = self._edge(state)
            else:
                fill, begin = self._first
                gate = begin(links.values[block])
                if not last:
                    fill(links.values[block], state)
            run = links.source[block], links.target[block], links.weight[block]
            kernels.edge_gates(gate, own, *run, *self._edge_norm, message, gates, state, last)
        kernels.node_update(x, own, message, gates, *self._node_norm)


def _room(rows: int) -> int:
    """Rows of a padded array."""
    return -(-rows // _STEP) * _STEP


def _padded(rows: Tensor) -> Rows:
    out = np.zeros((_room(len(rows)), rows.shape[1]), np.float32)
    out[: len(rows)] = rows.numpy()
    return out


def _blocks(rows: int) -> Iterator[slice]:
    for start in range(0, rows, BLOCK):
        yield slice(start, min(start + BLOCK, rows))


def _scale_and_shift(norm: Any) -> tuple[Tensor, Tensor]:
    """What batch normalisation is at prediction: x * scale + shift."""
    scale = norm.weight.detach().double() * torch.rsqrt(norm.running_var.double() + norm.eps)
    return scale.float(), (norm.bias.detach() - norm.running_mean.double() * scale).float()


def _norm(norm: Any) -> tuple[Rows, Rows]:
    scale, shift = _scale_and_shift(norm)
    return scale.numpy(), shift.numpy()
