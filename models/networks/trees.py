"""A forest of regression trees as a network: it reads composition features and learns at once.

Enters: `Compositions`. Leaves: one scaled value per crystal and property, those of all its trees,
and the place of each crystal among the training compositions. `assay.models.training.forests` fits
the trees. This module does not know elements, properties or scikit-learn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from assay.models.networks.batch import Compositions
from assay.models.networks.forest import arrays, kernels
from assay.models.networks.forest.arrays import DECISIONS, Forest, Packed
from assay.models.networks.layers import Network
from assay.models.target import DRAWS, LOG_VARIANCE

WIDTH = 16
"""Principal components of the features in which distances between compositions are measured."""
MOST_TREES = 10_000
COUNTED = ("threshold", "entry", "value", "exact", "large")
"""Tensors of a forest whose lengths are stored among the sizes of its network."""
_SHORT = 2**16
"""Training rows that numbers of 16 bits can tell apart."""


class Trees(Network):
    """One forest per property over the same features."""

    HEAD_SIZES: ClassVar[frozenset[str]] = frozenset()
    filler: Tensor
    """(q,) what stands for a feature that is not known: its median in training."""
    center: Tensor
    """(q,) mean of the features in training."""
    axes: Tensor
    """(q, w) from features less `center` to the leading principal components of the standardised
    features of the training rows."""

    def __init__(
        self,
        features: int,
        properties: Sequence[str],
        *,
        trees: int = 200,
        max_features: float = 0.3,
        min_leaf: int = 1,
        bootstrap: bool = False,
        splits: str = "random",
        decision: str = "median",
        variance: bool = False,
        half: bool = False,
        counts: Sequence[Sequence[int]] = (),
    ) -> None:
        """Make a network without trees, or with room for those that `counts` tells of.

        Args:
            features: columns of a table of composition features.
            properties: names of the predicted properties.
            trees: of each property.
            max_features: share of the features among which a split is chosen.
            min_leaf: training compositions in a leaf, at least.
            bootstrap: whether each tree learns from a resampling of the training rows.
            splits: `random` tries one random threshold per feature (extremely randomised trees),
                `best` all of them, as a random forest does (Breiman, Machine Learning 45, 5, 2001).
            decision: `median`, `interquartile-mean` or `mean` of the training rows in the leaves
                that a crystal reaches, all trees together.
            variance: whether the variance of these rows is predicted too.
            half: whether thresholds are stored in 16 bits. They divide the training rows as before,
                and lie elsewhere between two of them.
            counts: splits, entries of leaves, training rows, exact thresholds and large leaves of
                each property; set by training.

        Raises:
            ValueError: for a size out of its range.
        """
        super().__init__()
        _check_types({"trees": trees, "min_leaf": min_leaf}, int, "a whole number")
        _check_types({"bootstrap": bootstrap, "variance": variance, "half": half}, bool, "true or false")
        _check_types({"max_features": max_features}, float, "a number")
        _check_sizes(trees, max_features, min_leaf, decision)
        if splits not in ("random", "best"):
            raise ValueError(f"splits is {splits!r}, expected random or best")
        self.decision, self.variance, self.features = decision, variance, features
        self.trees, self.max_features, self.min_leaf, self.bootstrap = trees, max_features, min_leaf, bootstrap
        self.splits, self.draws = splits, trees
        self.halved = half
        self.register_buffer("filler", torch.zeros(features))
        self.register_buffer("center", torch.zeros(features))
        self.register_buffer("axes", torch.zeros(features, min(WIDTH, features)))
        stored = counts or [(0, 0, 0, 0, 0)] * len(properties)
        self.heads: ForestHeads = ForestHeads(properties, trees, features, stored, half=half)  # type: ignore[assignment] # trees

    def encode(self, batch: Compositions) -> Tensor:
        """(n, w) leading principal components of each crystal."""
        return self._placed(self.states(batch))

    def states(self, batch: Compositions) -> Tensor:
        """(n, q) features without gaps."""
        x = batch.x.to(torch.float32)
        return torch.where(torch.isnan(x), self.filler, x)

    def conclude(self, states: Tensor, batch: Compositions) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ARG002 -- the contract
        """Principal components (n, w); scaled predictions (n,) and draws (n, T) per property."""
        return self._placed(states), self.heads.decide(states, self.decision, variance=self.variance)

    def check(self) -> None:
        """Refuse arrays that are no whole trees."""
        self.heads.check()

    def _placed(self, states: Tensor) -> Tensor:
        """Products are summed row by row: the last bits must not depend on the other rows."""
        out = np.empty((len(states), self.axes.shape[1]), np.float32)
        kernels.project(states.numpy(), self.center.numpy(), self.axes.numpy(), out)
        return torch.from_numpy(out)


class ForestHeads(nn.Module):
    """The forests by property."""

    def __init__(
        self, names: Sequence[str], trees: int, features: int, counts: Sequence[Sequence[int]], *, half: bool
    ) -> None:
        super().__init__()
        if len(counts) != len(names) or any(len(of_one) != 5 for of_one in counts):
            raise ValueError(f"counts has {len(counts)} entries, expected five numbers for each of {len(names)}")
        forests = {
            name: ForestHead(trees, features, *of_one, half=half) for name, of_one in zip(names, counts, strict=True)
        }
        self.heads = nn.ModuleDict(forests)
        self._forests = forests

    def decide(self, states: Tensor, decision: str, *, variance: bool) -> dict[str, Tensor]:
        """{name: (n,)} and {name/draws: (n, T)} in scaled units."""
        out, rows = {}, states.numpy()
        for name, head in self._forests.items():
            grown = head.grown()
            reached = grown.reach(rows)
            out[name] = torch.from_numpy(grown.decide(reached, decision).astype(np.float32))
            out[name + DRAWS] = torch.from_numpy(reached.mean)
            if variance:
                spread = np.maximum(grown.variance(reached), math.exp(-10.0))
                out[name + LOG_VARIANCE] = torch.from_numpy(np.log(spread).astype(np.float32))
        return out

    def counts(self) -> list[list[int]]:
        """Splits, entries, training rows, exact thresholds and large leaves of each property."""
        return [[len(getattr(head, part)) for part in COUNTED] for head in self._forests.values()]

    def check(self) -> None:
        """Refuse arrays that are no whole trees."""
        for name, head in self._forests.items():
            try:
                head.grown()
            except ValueError as error:
                raise ValueError(f"trees of {name}: {error}") from error


class ForestHead(nn.Module):
    """The trees of one property as they are stored (`assay.models.networks.forest.arrays`)."""

    kind: Tensor
    """(N / 4,) uint8, kinds of nodes, see `arrays.squeeze`."""
    feature: Tensor
    """(S,) uint16, of the splits."""
    large: Tensor
    """(l,) uint16, entries of the leaves that hold more than two."""
    threshold: Tensor
    """(S,) of the splits, float32 or float16."""
    exact: Tensor
    """(x,) float32, those that float16 does not hold, see `arrays.halve`."""
    entry: Tensor
    """(E,) training rows in the leaves: uint16, or int32 where there are more than 65,536."""
    value: Tensor
    """(R,) of the training rows."""
    weight: Tensor
    """(R,) likewise."""

    def __init__(
        self, trees: int, features: int, splits: int, entries: int, rows: int, exact: int, large: int, *, half: bool
    ) -> None:
        super().__init__()
        self.trees, self.features = trees, features
        self._nodes = 2 * splits + trees if entries else 0
        self.register_buffer("kind", torch.zeros(-(-self._nodes // 4), dtype=torch.uint8))
        self.register_buffer("feature", torch.zeros(splits, dtype=torch.uint16))
        self.register_buffer("large", torch.zeros(large, dtype=torch.uint16))
        self.register_buffer("threshold", torch.zeros(splits, dtype=torch.float16 if half else torch.float32))
        self.register_buffer("exact", torch.zeros(exact))
        self.register_buffer("entry", torch.zeros(entries, dtype=torch.uint16 if rows <= _SHORT else torch.int32))
        self.register_buffer("value", torch.zeros(rows))
        self.register_buffer("weight", torch.zeros(rows))
        self._grown: Forest | None = None

    def grown(self) -> Forest:
        """The trees, ready to be walked; they are unpacked once.

        Raises:
            ValueError: when the arrays are no whole trees, or none were fitted.
        """
        if self._grown is None:
            parts: dict[str, Any] = {n: getattr(self, n).numpy() for n in ("entry", "value", "weight")}
            kinds = self.kind.numpy(), self.feature.numpy(), self.large.numpy()
            parts["code"] = arrays.codes(self._nodes, *kinds, self.features)
            threshold = arrays.whole(self.threshold.numpy(), self.exact.numpy())
            self._grown = arrays.unpack(Packed(threshold=threshold, **parts), self.trees, self.features)
        return self._grown


def _check_types(sizes: dict[str, Any], kind: type, expected: str) -> None:
    for name, value in sizes.items():
        fits = isinstance(value, (int, float)) if kind is float else isinstance(value, kind)
        if not fits or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{name} is {value!r}, expected {expected}")


def _check_sizes(trees: int, max_features: float, min_leaf: int, decision: str) -> None:
    if not 1 <= trees <= MOST_TREES:
        raise ValueError(f"trees is {trees}, expected 1 to {MOST_TREES}")
    if not 0 < max_features <= 1:
        raise ValueError(f"max_features is {max_features}, expected a share above 0, up to 1")
    if min_leaf < 1:
        raise ValueError(f"min_leaf is {min_leaf}, expected at least 1")
    if decision not in DECISIONS:
        raise ValueError(f"decision is {decision!r}, expected one of {', '.join(DECISIONS)}")
