"""Prediction on another device than the CPU: graphs and pictures are made there too.

Enters: the members of an ensemble, `Crystals`. Leaves: a path for
`assay.models.ensemble.inference`, whose `Reading`s lie on the device. The networks run as they were
trained, on whole graphs: the symmetry quotient and the fused networks
(`assay.models.ensemble.frozen`) are code for a CPU. Pictures are drawn on the device
(`assay.featurize.pictures.raster_torch`). Sums are made in a fixed order, so that two runs on one
device give the same bits. This module does not know properties, calibration or means.

Tested on CPU tensors only: it has never run on CUDA, and its limits are guesses.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from assay.featurize import graphs as crystal_graphs, graphs_torch
from assay.featurize.graphs import GraphSpec
from assay.featurize.graphs_torch import DeviceGraphs
from assay.featurize.pictures import augment, raster_torch
from assay.models import memory
from assay.models.ensemble.reading import Reading, graph_members, readings
from assay.models.networks.batch import Batch, Images
from assay.models.networks.inputs import PictureInputs, Seeds
from assay.models.networks.layers import Network
from assay.sources.crystals import Crystals

if TYPE_CHECKING:
    from assay.featurize.pictures.augment import Augment
    from assay.models.ensemble.checkpoint import Checkpoint

EDGES_PER_BATCH = 2**18
TRIPLETS_PER_BATCH = 2**21
PIXELS_PER_BATCH = 256 * 224**2
"""Work per micro-batch: a state of every triplet, 256 wide, is 2 GB, and a network holds
several."""


def chosen(name: str) -> torch.device:
    """The device of that name: cpu, cuda (the first one) or cuda:1 and so on.

    Raises:
        ValueError: when there is none; the message says what there is.
    """
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and (kind == "cpu" or not number.isdecimal())):
        raise ValueError(f"device is {name!r}, expected cpu, cuda or cuda:<number>")
    if kind == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError(
            f"device {name} is not available: torch.cuda.is_available() is False (torch "
            f"{torch.__version__}, built for CUDA {torch.version.cuda}); there is: cpu"
        )
    found = [f"cuda:{k}" for k in range(torch.cuda.device_count())]
    if f"cuda:{int(number or 0)}" not in found:
        raise ValueError(f"device {name} is not available; there is: cpu, {', '.join(found)}")
    return torch.device("cuda", int(number or 0))


def path(
    members: Sequence[Checkpoint], device: torch.device, precision: str = "float32", *, compiled: bool = False
) -> DevicePath | None:
    """How the members predict there; None for the CPU, which has `inference.HostPath`.

    Raises:
        ValueError: when networks are to be compiled for the CPU.
    """
    if device.type == "cpu" and compiled:
        raise ValueError("compiled networks are for a GPU: those for the CPU are compiled ahead, and quicker")
    return None if device.type == "cpu" else DevicePath(members, device, precision, compiled=compiled)


def is_lost(error: Exception) -> bool:
    """Whether a device or its compiler has failed for good, so that every crystal would fail."""
    of_the_compiler = type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
    return of_the_compiler or ("CUDA error" in str(error) and not memory.ran_out(error))


@dataclass(frozen=True)
class DeviceGraphInputs:
    """Graphs on a device, ready for a network; the angles of a batch are made with it."""

    graphs: DeviceGraphs
    angles: bool
    """Whether the network reads angles."""

    def __len__(self) -> int:
        return len(self.graphs)

    @property
    def spec(self) -> GraphSpec:
        """How the graphs were built."""
        return self.graphs.spec

    @cached_property
    def cost(self) -> NDArray[np.int64]:
        """(n,) triplets of each crystal where angles are read, else edges, in edges."""
        edges = self.graphs.edge_ptr.diff()
        if self.angles:
            edges = torch.maximum(edges, self.graphs.triplet_counts() // (TRIPLETS_PER_BATCH // EDGES_PER_BATCH))
        return np.asarray(edges.numpy(force=True), np.int64)

    def batch(self, rows: NDArray[np.int64], network: Network, seeds: Seeds | None = None) -> Batch:  # noqa: ARG002
        """The rows (b,) as tensors on the device."""
        graphs = self.graphs.select(rows)
        nodes = graphs.node_ptr.diff()
        none = graphs.source[:0]
        edge, other, cosine = graphs.angles() if self.angles else (none, none, graphs.distance[:0])
        made = Batch(
            x=graphs.features(),
            crystal=torch.arange(len(rows), device=nodes.device).repeat_interleave(nodes),
            size=nodes.float(),
            source=graphs.source,
            target=graphs.target,
            distance=graphs.distance,
            triplet_edge=edge,
            triplet_other=other,
            cosine=cosine,
        )
        return made.faded(graphs.taper())

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Atomic numbers in these rows."""
        return np.unique(self.graphs.select(rows).numbers.numpy(force=True)).astype(np.uint8)

    def portions(self, rows: NDArray[np.int64], most: int) -> list[NDArray[np.int64]]:
        """Of like size."""
        return np.array_split(rows, max(1, -(-len(rows) // most)))

    def micro_batches(self) -> Iterator[NDArray[np.int64]]:
        """Rows in order, about as many at once as the limits allow."""
        return _in_order(self.cost, EDGES_PER_BATCH)

    def varied(self, augment: Augment) -> DeviceGraphInputs:  # noqa: ARG002 -- only pictures vary
        """The same graphs."""
        return self


@dataclass(frozen=True)
class DevicePictureInputs(PictureInputs):
    """Views, drawn on a device."""

    device: torch.device | str = "cpu"

    def batch(self, rows: NDArray[np.int64], network: Network, seeds: Seeds | None = None) -> Images:  # noqa: ARG002
        """All views of each crystal."""
        scenes = augment.crystals(self.scenes, rows)
        mean, std = (getattr(network, name).numpy(force=True) for name in ("mean", "std"))
        pixels = raster_torch.images(scenes, self.spec, self.device, mean=mean, std=std)
        crystal = torch.arange(len(rows)).repeat_interleave(torch.from_numpy(np.diff(scenes.view_ptr)))
        return Images(pixels, crystal, torch.from_numpy(scenes.weight), len(rows)).to(self.device)

    def micro_batches(self) -> Iterator[NDArray[np.int64]]:
        """Rows in order, about as many at once as the limits allow."""
        return _in_order(self.cost, PIXELS_PER_BATCH)


class DevicePath:
    """How the members of an ensemble read and predict on a device."""

    def __init__(
        self, members: Sequence[Checkpoint], device: torch.device, precision: str = "float32", *, compiled: bool = False
    ) -> None:
        """Copy the networks to the device; the members stay as they are.

        Args:
            members: read in float32. What reads compositions stays on the CPU.
            device: with float64.
            precision: "bfloat16" for transformers, from patches to last normalisation; the rest is
                float32 always.
            compiled: let torch compile the trunks of graph networks, for batches of any size; it
                begins at once.

        Raises:
            ValueError: when torch cannot compile them here.
        """
        self.members, self.device = tuple(members), device
        self._how = precision + (", compiled" if compiled else "")
        self.networks = tuple(
            member.network if member.kind.family == "composition" else copy.deepcopy(member.network).to(device).eval()
            for member in members
        )
        if precision == "bfloat16":
            for network in self.networks:
                network.lower_on(device)
        if compiled:
            self._compile()

    @property
    def device_kind(self) -> str:
        """The device by its own name, the precision of transformers, and whether torch compiled."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        return f"{name}, {self._how}"

    def _compile(self) -> None:
        """Call each trunk once, because torch compiles at the first call.

        A trunk that cannot be compiled is an error here, and no crystal is accused of it later.
        """
        for k in graph_members(self.members):
            network: Any = self.networks[k]
            network.encode = torch.compile(network.encode, dynamic=True)
            spec: Any = self.members[k].spec
            inputs = DeviceGraphInputs(self.build(_two_salts(), replace(spec, angles=False)), spec.angles)
            try:
                with torch.inference_mode(), self.exact():
                    network.encode(inputs.batch(np.arange(2), network))
            except Exception as error:
                reason = f"{type(error).__name__}: {error}".splitlines()[0]
                raise ValueError(
                    f"torch cannot compile {self.members[k].name} for {self.device}: {reason}; "
                    "predict without `compile`"
                ) from error

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Sums in a fixed order, and no TensorFloat-32.

        Networks add messages with `index_add_`, on CUDA by atomics in any order, unless torch is
        set otherwise: here for the time of a prediction, for the whole process. cuBLAS reads
        its variable when it is first used.
        """
        if self.device.type == "cuda":
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        before, warned = (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        )
        multiply = torch.backends.cuda.matmul.allow_tf32
        torch.use_deterministic_algorithms(mode=True)
        torch.backends.cuda.matmul.allow_tf32 = False
        try:
            with torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False):
                yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = multiply
            torch.use_deterministic_algorithms(before, warn_only=warned)

    def build(self, crystals: Crystals, spec: GraphSpec) -> DeviceGraphs:
        """Graphs of the crystals, on the device."""
        return graphs_torch.build(crystals, spec, self.device)

    def readings(self, crystals: Crystals, graphs: DeviceGraphs, *, angles: bool) -> Iterator[Reading]:
        """All inputs of the members, as `reading.readings`; `graphs` are those of the crystals."""
        if graph_members(self.members):
            inputs = DeviceGraphInputs(graphs, angles)
            yield Reading(graph_members(self.members), inputs, np.arange(len(graphs)), {})
        seeing = [k for k, member in enumerate(self.members) if member.kind.views]
        unread = crystal_graphs.build(crystals[:0], GraphSpec())
        for reading in readings([self.members[k] for k in seeing], crystals, unread, angles=False):
            seen: Any = reading.inputs
            drawn = DevicePictureInputs(seen.crystals, seen.scenes, seen.spec, device=self.device)
            yield replace(reading, members=tuple(seeing[k] for k in reading.members), inputs=drawn)


def _in_order(cost: NDArray[np.int64], limit: int) -> Iterator[NDArray[np.int64]]:
    """Rows in order, about as many at once as have a cost of `limit`."""
    cuts = np.flatnonzero(np.diff((np.cumsum(cost) - cost) // limit)) + 1
    yield from (rows for rows in np.split(np.arange(len(cost)), cuts) if len(rows))


def _two_salts() -> Crystals:
    """Rock salt in two cells: the smallest batch in which no size is 1."""
    small = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
    large = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0.5, 0.5], [0, 0, 0.5]])
    return Crystals(
        ids=np.array(["small", "large"]),
        lattice=np.stack([2.82 * (1 - np.eye(3)), np.diag([3.99, 3.99, 5.64])]),
        site_ptr=np.array([0, 2, 6]),
        frac=np.concatenate([small, large]),
        species_ptr=np.arange(7),
        numbers=np.array([11, 17, 11, 17, 11, 17], np.uint8),
        occupancy=np.ones(6, np.float32),
    )
