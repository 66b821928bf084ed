"""Crystals as their networks read them, batch by batch: graphs or pictures.

Enters: `Graphs` or `Scenes`. Leaves: `Batch` or `Images`. The training loop and the ensemble read
only what both kinds of `Inputs` offer. This module does not know targets, weights or losses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from assay.featurize.pictures import augment, raster
from assay.models.networks.batch import Batch, Images
from assay.models.networks.layers import Network

if TYPE_CHECKING:
    from assay.featurize.graphs import Graphs
    from assay.featurize.pictures.augment import Augment
    from assay.featurize.pictures.scene import Scenes, ViewSpec
    from assay.sources.crystals import Crystals

PIXELS_AT_ONCE = 128 * 224**2
"""Of the pictures predicted at once."""

Seeds = tuple[int, ...]
"""What the random choices of one pass over the rows depend on, beside the row."""


class Inputs(Protocol):
    """`n` crystals, ready for a network."""

    def __len__(self) -> int:
        """Crystals."""

    @property
    def cost(self) -> NDArray[np.int64]:
        """(n,) work of each crystal, in proportion to the memory a network takes for it."""

    def batch(self, rows: NDArray[np.int64], network: Network, seeds: Seeds | None = None) -> Batch | Images:
        """The rows (b,) as tensors on the CPU, as `network` reads them; with `seeds`, varied as in training."""

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Atomic numbers in these rows, ascending, each once."""

    def portions(self, rows: NDArray[np.int64], most: int) -> list[NDArray[np.int64]]:
        """The rows in order, at most so many at once, and of pictures no more than `PIXELS_AT_ONCE`."""


@dataclass(frozen=True)
class GraphInputs:
    """Graphs; angles are added to each batch where the network reads them and the graphs have none."""

    graphs: Graphs
    angles: bool = False
    """Whether the network reads angles."""

    def __len__(self) -> int:
        return len(self.graphs)

    @cached_property
    def cost(self) -> NDArray[np.int64]:
        """(n,) states a network holds: nodes, edges, and triplets if it reads them, built or not yet."""
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
