"""Crystals as their networks read them, batch by batch: graphs, pictures or compositions.

Enters: `Graphs`, `Scenes` or atoms of each element. Leaves: `Batch`, `Images` or `Compositions`.
The training loop and the ensemble read only what all kinds of `Inputs` offer. This module does not
know targets, weights or losses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from assay.featurize import composition
from assay.featurize.composition import CompositionSpec, shares
from assay.featurize.pictures import augment, raster
from assay.models.networks.batch import Batch, Compositions, Images
from assay.sources.checks import importing

if TYPE_CHECKING:
    import torch

    from assay.featurize.graphs import Graphs, GraphSpec
    from assay.featurize.pictures.augment import Augment
    from assay.featurize.pictures.scene import Scenes, ViewSpec
    from assay.models.networks.layers import Network
    from assay.sources.crystals import Crystals
else:
    torch = importing.later("torch")

EDGES_PER_BATCH = 8_192
TRIPLETS_PER_BATCH = 65_536
PIXELS_PER_BATCH = 32 * 224**2
"""Work per micro-batch of a prediction, small enough for the cache of one core."""
COMPOSITIONS_PER_BATCH = 4_096
"""Of a prediction: a tree is read from memory once for all of them."""
PIXELS_AT_ONCE = 128 * 224**2
"""Of the pictures that are predicted at once while a network is validated."""

Seeds = tuple[int, ...]
"""What the random choices of one pass over the rows depend on, beside the row."""


class Inputs(Protocol):
    """`n` crystals, ready for a network."""

    @property
    def spec(self) -> GraphSpec | ViewSpec | CompositionSpec:
        """How the crystals became this input."""

    def __len__(self) -> int:
        """Crystals."""

    @property
    def cost(self) -> NDArray[np.int64]:
        """(n,) work of each crystal, in proportion to the memory a network takes for it."""

    def batch(
        self, rows: NDArray[np.int64], network: Network, seeds: Seeds | None = None
    ) -> Batch | Images | Compositions:
        """The rows (b,) as tensors for `network`; with `seeds`, varied as in training."""

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Atomic numbers in these rows, ascending, each once."""

    def portions(self, rows: NDArray[np.int64], most: int) -> list[NDArray[np.int64]]:
        """The rows in order, at most `most` at once; of pictures at most `PIXELS_AT_ONCE`."""

    def micro_batches(self) -> Iterator[NDArray[np.int64]]:
        """All rows in portions of about equal work, as they are predicted."""

    def varied(self, augment: Augment) -> Inputs:
        """The same crystals, varied in training as `augment` says."""


@dataclass(frozen=True)
class GraphInputs:
    """Graphs; a batch gets angles where the network reads them and the graphs have none."""

    graphs: Graphs
    angles: bool = False
    """Whether the network reads angles."""

    def __len__(self) -> int:
        return len(self.graphs)

    @property
    def spec(self) -> GraphSpec:
        """How the graphs were built."""
        return self.graphs.spec

    @cached_property
    def cost(self) -> NDArray[np.int64]:
        """(n,) states a network holds: nodes, edges, and triplets if it reads them."""
        graphs = self.graphs
        states = np.diff(graphs.node_ptr) + np.diff(graphs.edge_ptr)
        if self.angles and graphs.spec.angles:
            states += np.diff(graphs.triplet_ptr)
        elif self.angles:
            degree = np.bincount(graphs.target, minlength=int(graphs.node_ptr[-1]))
            states += np.diff(np.concatenate([[0], np.cumsum(degree * (degree - 1))])[graphs.node_ptr])
        return np.asarray(states, np.int64)

    def batch(self, rows: NDArray[np.int64], network: Network, seeds: Seeds | None = None) -> Batch:  # noqa: ARG002
        """Graphs are the same every time they are shown."""
        chosen = self.graphs.select(rows)
        return Batch.of(chosen.with_angles() if self.angles else chosen)

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Atomic numbers in these rows."""
        return np.unique(self.graphs.select(rows).numbers)

    def portions(self, rows: NDArray[np.int64], most: int) -> list[NDArray[np.int64]]:
        """Of like size."""
        return np.array_split(rows, max(1, math.ceil(len(rows) / most)))

    def micro_batches(self) -> Iterator[NDArray[np.int64]]:
        """Rows of about equal work, crystals of like size together."""
        edges = np.diff(self.graphs.edge_ptr) / EDGES_PER_BATCH
        return _filled(np.maximum(edges, np.diff(self.graphs.triplet_ptr) / TRIPLETS_PER_BATCH))

    def varied(self, augment: Augment) -> GraphInputs:  # noqa: ARG002 -- only pictures vary
        """The same graphs."""
        return self


@dataclass(frozen=True)
class PictureInputs:
    """Views, drawn when they are needed, straight into the normalised batch."""

    crystals: Crystals
    scenes: Scenes
    """Of these crystals."""
    spec: ViewSpec
    augment: Augment | None = None
    """What training varies."""

    def __len__(self) -> int:
        return len(self.crystals)

    @cached_property
    def cost(self) -> NDArray[np.int64]:
        """(n,) pixels of the views of a crystal."""
        views = np.diff(self.scenes.view_ptr)
        if self.augment:
            views = np.full(len(self), min(self.augment.views or self.spec.views, self.spec.views))
        return np.asarray(views * self.spec.size**2, np.int64)

    def batch(self, rows: NDArray[np.int64], network: Network, seeds: Seeds | None = None) -> Images:
        """All views of each crystal; with `seeds`, some of them, varied."""
        if seeds is None or self.augment is None:
            scenes = augment.crystals(self.scenes, rows)
        else:
            scenes = augment.draw(self.scenes, rows, self.augment, seeds)
        mean, std = (getattr(network, name).numpy(force=True) for name in ("mean", "std"))
        pixels = raster.images(scenes, self.spec, mean=mean, std=std)
        crystal = np.repeat(np.arange(len(rows)), np.diff(scenes.view_ptr))
        return Images(torch.from_numpy(pixels), torch.from_numpy(crystal), torch.from_numpy(scenes.weight), len(rows))

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Atomic numbers in these rows."""
        return np.unique(self.crystals.select(rows).numbers)

    def portions(self, rows: NDArray[np.int64], most: int) -> list[NDArray[np.int64]]:
        """As many as fit."""
        many = max(1, PIXELS_AT_ONCE // (self.spec.views * self.spec.size**2))
        return np.array_split(rows, max(1, math.ceil(len(rows) / min(most, many))))

    def micro_batches(self) -> Iterator[NDArray[np.int64]]:
        """Rows of about equal work, crystals with as many views together."""
        return _filled(self.cost / PIXELS_PER_BATCH)

    def varied(self, augment: Augment) -> PictureInputs:
        """The same crystals, of which training sees varied views."""
        return replace(self, augment=augment)


@dataclass(frozen=True)
class CompositionInputs:
    """Atoms of each element, and the features made of them."""

    atoms: NDArray[np.float64]
    """(n, 119) of each atomic number, as `Crystals.composition` gives them; each row holds some."""
    spec: CompositionSpec
    """Which features."""

    def __len__(self) -> int:
        return len(self.atoms)

    @cached_property
    def features(self) -> NDArray[np.float32]:
        """(n, q) features; NaN where one is not known."""
        return composition.features(self.atoms, self.spec)

    @property
    def cost(self) -> NDArray[np.int64]:
        """(n,) the same for all."""
        return np.ones(len(self), np.int64)

    def batch(self, rows: NDArray[np.int64], network: Network, seeds: Seeds | None = None) -> Compositions:  # noqa: ARG002
        """Compositions are the same every time they are shown."""
        share = torch.from_numpy(shares.of(self.atoms[rows]).astype(np.float32))
        return Compositions(torch.from_numpy(self.features[rows]), share)

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Atomic numbers in these rows."""
        return np.flatnonzero(self.atoms[rows].any(axis=0)).astype(np.uint8)

    def portions(self, rows: NDArray[np.int64], most: int) -> list[NDArray[np.int64]]:  # noqa: ARG002 -- all are small
        """Many at once."""
        return np.array_split(rows, max(1, math.ceil(len(rows) / COMPOSITIONS_PER_BATCH)))

    def micro_batches(self) -> Iterator[NDArray[np.int64]]:
        """All rows in order, many at once."""
        yield from (rows for rows in self.portions(np.arange(len(self)), len(self)) if len(rows))

    def varied(self, augment: Augment) -> CompositionInputs:  # noqa: ARG002 -- only pictures vary
        """The same compositions."""
        return self


def _filled(load: NDArray[np.float64]) -> Iterator[NDArray[np.int64]]:
    """Rows in the order of their load, as many at once as have a sum of at most 1."""
    order = np.lexsort((np.arange(len(load)), load))
    start, used = 0, 0.0
    for stop, row in enumerate(order):
        if used and used + load[row] > 1:
            yield order[start:stop]
            start, used = stop, 0.0
        used += load[row]
    if start < len(order):
        yield order[start:]
