"""A trained CGCNN for prediction alone, without torch, whose import takes half of a quick start.

Enters: the weights of a `assay.models.networks.cgcnn.CGCNN`, then `Graphs`. Leaves: states and
scaled predictions of crystals. Normalisations are folded into maps, all maps of one input are one
product, and what depends on a distance alone is read from a table. The last bits of a row depend on
that row alone. This module does not know properties' units, files of crystals or ensembles.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.featurize import atoms, elements
from assay.models.ensemble import kernels
from assay.models.target import LOG_VARIANCE

if TYPE_CHECKING:
    from assay.featurize.graphs import Graphs

EPS = 1e-5
"""Of batch normalisation, as torch has it."""
FINENESS, REACH = 0.04, 5.0
"""Step of a table, and how far it goes beyond the last Gaussian, in widths of a Gaussian. A cubic
through four rows is off by 7e-7 of a Gaussian's height, and the tables fit the second cache."""
EDGES_AT_ONCE = 4_096
"""Of whole crystals, so that the states of their nodes stay in the cache from layer to layer."""
_ROWS = 4
"""A product takes so many rows at once."""

Rows = NDArray[np.float32]
Weights = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Sizes:
    """Keyword arguments of the network; see `assay.models.networks.cgcnn.CGCNN`."""

    hidden: int = 64
    layers: int = 3
    bins: int = 40
    cutoff: float = 8.0
    dropout: float = 0.0
    variance: bool = False

    @property
    def sound(self) -> bool:
        """Whether such a network can be made."""
        whole = all(isinstance(size, int) for size in (self.hidden, self.layers, self.bins))
        return (
            whole and isinstance(self.variance, bool) and self.bins > 1 and self.cutoff > 0 and 0 <= self.dropout <= 1
        )

    def shapes(self, features: int, properties: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor of such a network with so many node features."""
        h = self.hidden
        found: dict[str, tuple[int, ...]] = {"embed.weight": (h, features), "embed.bias": (h,)}
        for k in range(self.layers):
            parts: dict[str, tuple[int, ...]] = {"source.weight": (2 * h, h), "edge.weight": (2 * h, self.bins)}
            parts |= {"target.weight": (2 * h, h), "target.bias": (2 * h,), "norm.num_batches_tracked": ()}
            parts |= {f"norm.{name}": (h,) for name in ("weight", "bias", "running_mean", "running_var")}
            found |= {f"layers.{k}.{name}": shape for name, shape in parts.items()}
        for name in properties:
            outputs = 2 if self.variance else 1
            last = {"0.weight": (h, 2 * h), "0.bias": (h,), "3.weight": (outputs, h), "3.bias": (outputs,)}
            found |= {f"heads.heads.{name}.{part}": shape for part, shape in last.items()}
        return found


@dataclass(frozen=True)
class _Map:
    """A linear map."""

    weight: Rows
    """(in, out)."""
    bias: Rows
    """(out,)."""

    def __call__(self, rows: Rows) -> Rows:
        """Padded rows (m, in) to (m, out)."""
        out = np.empty((len(rows), len(self.bias)), np.float32)
        kernels.product(rows, self.weight, self.bias, out)
        return out

    def silu(self, rows: Rows) -> Rows:
        """The same, through the activation."""
        out = self(rows)
        kernels.silu(out, out)
        return out


@dataclass(frozen=True)
class _Layer:
    """One convolution."""

    ends: _Map
    """What nodes send as a source and as a target."""
    table: Rows
    """(rows, 2 h) what an edge sends, by its length."""
    scale: Rows
    """(h,) of the normalisation."""
    shift: Rows
    """(h,) likewise."""


class Convolutions:
    """The network."""

    def __init__(self, weights: Weights, properties: Sequence[str], sizes: Sizes) -> None:
        """`weights` are the tensors of its state, by name."""
        self.weights, self.properties, self.sizes = weights, tuple(properties), sizes
        self._gamma = (sizes.bins - 1) / sizes.cutoff
        step = FINENESS / math.sqrt(self._gamma)
        self._grid = np.float32(0.0), np.float32(1 / step)
        self._embed = self._map("embed")
        self._elements: dict[str, tuple[Rows, Rows]] = {}
        self._heads = {name: [self._map(f"heads.heads.{name}.{k}") for k in (0, 3)] for name in self.properties}

    def look(self, graphs: Graphs) -> tuple[Rows, dict[str, Rows]]:
        """The state (n, 2 h) of each crystal, and scaled predictions (n,) per property."""
        return self.conclude(self.states(graphs), graphs)

    def states(self, graphs: Graphs) -> Rows:
        """What the heads read: the state of each crystal."""
        return self.encode(graphs)

    def conclude(self, states: Rows, _: Any) -> tuple[Rows, dict[str, Rows]]:
        """States (n, 2 h) and scaled predictions (n,) per property."""
        out, rows = {}, padded(states)
        for name, (first, last) in self._heads.items():
            made = last(first.silu(rows))[: len(states)]
            out[name] = made[:, 0]
            if self.sizes.variance:
                out[name + LOG_VARIANCE] = np.clip(made[:, 1], -10, 10)
        return states, out

    def encode(self, graphs: Graphs) -> Rows:
        """(n, 2 h) state of each crystal: mean and deviation of its nodes."""
        taper, merged = graphs.taper(), graphs.weights
        each = np.ones(len(graphs.source), np.float32) if merged is None else merged.edge
        count = np.ones(int(graphs.node_ptr[-1]), np.float32) if merged is None else merged.node
        weight = each if taper is None else taper * each
        pure = len(graphs.numbers) == len(count) and bool((graphs.occupancy == 1).all())
        features = None if pure else graphs.features()
        out = np.empty((len(graphs), 2 * len(self._embed.bias)), np.float32)
        for first, last in _portions(graphs.edge_ptr):
            n = slice(graphs.node_ptr[first], graphs.node_ptr[last])
            e = slice(graphs.edge_ptr[first], graphs.edge_ptr[last])
            ends = graphs.source[e] - n.start, graphs.target[e] - n.start
            if features is None:
                begun = self._of_elements(graphs.spec.atom_features, graphs.numbers[n])
            else:
                begun = self._of_features(features[n])
            x = self._convolved(*begun, *ends, weight[e], graphs.distance[e])
            kernels.pool(x, graphs.node_ptr[first : last + 1] - n.start, count[n], out[first:last])
        return out

    def nodes(self, features: Rows, source: Any, target: Any, weight: Rows, distance: Rows) -> Rows:
        """(N, h) states of nodes with features (N, p), which edges (E,) of some length (Å) join."""
        return self._convolved(*self._of_features(features), source, target, weight, distance)[: len(features)]

    def _of_features(self, features: Rows) -> tuple[Rows, Rows]:
        """Of nodes with such features, padded: the states at the beginning, and what they send."""
        x = self._embed.silu(padded(features))
        return x, self._layers[0].ends(x) if self._layers else x

    def _of_elements(self, table: str, numbers: NDArray[np.uint8]) -> tuple[Rows, Rows]:
        """The same of whole atoms: what is made of each element is made once."""
        if table not in self._elements:
            every = np.arange(elements.HEAVIEST + 1)
            pure = atoms.features(
                table, np.append(every, len(every)), every.astype(np.uint8), np.ones(len(every), np.float32)
            )
            self._elements[table] = self._of_features(pure)
        elements.check(numbers)
        rows = np.zeros(_room(len(numbers)), np.uint8)
        rows[: len(numbers)] = numbers
        x, ends = self._elements[table]
        return x[rows], ends[rows]

    def _convolved(self, x: Rows, ends: Rows, source: Any, target: Any, weight: Rows, distance: Rows) -> Rows:
        """Padded states of nodes after all layers; `ends` are what they send in the first one."""
        degree = np.empty(len(x), np.float32)
        kernels.degrees(target, weight, degree)
        for k, layer in enumerate(self._layers):
            message = np.zeros(x.shape, np.float32)
            edges = distance, *self._grid, layer.table, ends if k == 0 else layer.ends(x), source, target, weight
            kernels.send(*edges, message)
            kernels.crystal_update(x, message, degree, layer.scale, layer.shift)
        return x

    @cached_property
    def _layers(self) -> list[_Layer]:
        return [self._layer(f"layers.{k}.") for k in range(self.sizes.layers)]

    def _layer(self, prefix: str) -> _Layer:
        source, target = self._map(prefix + "source"), self._map(prefix + "target")
        weights = {name: self.weights[prefix + "norm." + name] for name in ("weight", "bias", "running_mean")}
        scale = weights["weight"].astype(np.float64) / np.sqrt(
            self.weights[prefix + "norm.running_var"].astype(np.float64) + EPS
        )
        shift = weights["bias"] - weights["running_mean"].astype(np.float64) * scale
        ends = _Map(np.hstack([source.weight, target.weight]), np.concatenate([source.bias, target.bias]))
        return _Layer(ends, self._table(prefix + "edge.weight"), scale.astype(np.float32), shift.astype(np.float32))

    def _map(self, name: str) -> _Map:
        weight = np.ascontiguousarray(self.weights[name + ".weight"].T, np.float32)
        bias = self.weights.get(name + ".bias", np.zeros(weight.shape[1]))
        return _Map(weight, np.ascontiguousarray(bias, np.float32))

    def _table(self, name: str) -> Rows:
        """A map of Gaussians, over equidistant lengths of which the second is 0."""
        centres = np.linspace(0.0, self.sizes.cutoff, self.sizes.bins, dtype=np.float32).astype(np.float64)
        width = 1 / math.sqrt(self._gamma)
        step = FINENESS * width
        rows = math.ceil((centres[-1] + REACH * width) / step) + 4
        expanded = np.exp(-self._gamma * ((np.arange(rows) - 1)[:, None] * step - centres) ** 2)
        return np.asarray(expanded @ self.weights[name].astype(np.float64).T, np.float32, order="C")


def padded(rows: Rows) -> Rows:
    """The rows (m, in), and below them zeros, so that a product can take them."""
    room = _room(len(rows))
    if room == len(rows):
        return np.ascontiguousarray(rows)
    out = np.zeros((room, rows.shape[1]), np.float32)
    out[: len(rows)] = rows
    return out


def _room(rows: int) -> int:
    """So many rows and those below them."""
    return -(-rows // _ROWS) * _ROWS


def _portions(edge_ptr: NDArray[np.int64]) -> list[tuple[int, int]]:
    """First crystal of each portion, and the first after it."""
    begun = edge_ptr[:-1] // EDGES_AT_ONCE
    cuts = [0, *(np.flatnonzero(np.diff(begun)) + 1).tolist(), len(begun)]
    return [(first, last) for first, last in itertools.pairwise(cuts) if last > first]
