"""What a training run is: data, property, split, graph, members, schedule.

Enters: nothing. Leaves: frozen dataclasses that a YAML file fills (`screening.config` checks it). Every field changes
the trained weights, except where it says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from featurize.graphs import GraphSpec
from models.split import SplitSpec
from models.target import Property


@dataclass(frozen=True)
class MemberSpec:
    """One network of the ensemble."""

    network: str
    """A key of `models.registry.MODELS`."""
    seed: int
    """Seeds the weights and the order of rows."""
    sizes: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the network."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast one member learns."""

    epochs: int = 50
    """At most; the learning rate reaches zero at the last one."""
    batch_size: int = 64
    """Crystals per step."""
    learning_rate: float = 2e-3
    """Peak of a linear warm-up and cosine decay."""
    warmup: float = 0.1
    """Share of all steps in which the rate rises."""
    weight_decay: float = 1e-4
    """Of AdamW."""
    clip: float = 5.0
    """Largest norm of the gradient."""
    loss: Literal["l1", "huber", "mse"] = "l1"
    """On scaled targets."""
    patience: int = 20
    """Epochs without a better validation error before the run stops."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "clip", "patience"):
            if not getattr(self, name) > 0:
                raise ValueError(f"schedule.{name} is {getattr(self, name)}, expected above 0")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"schedule.warmup is {self.warmup}, expected 0 to below 1")


@dataclass(frozen=True)
class Recipe:
    """A training run, from a named dataset to a calibrated ensemble."""

    name: str
    """Name of the ensemble."""
    dataset: str
    """A key of `sources.datasets.DATASETS`."""
    property: Property
    """What is learned; its scaler is fitted here, not given."""
    members: tuple[MemberSpec, ...]
    """Networks of the ensemble; at least two, or there is no error bar."""
    graph: GraphSpec = field(default_factory=GraphSpec)
    """How crystals become graphs; angles are added for networks that read them."""
    split: SplitSpec = field(default_factory=SplitSpec)
    """How rows are held out, by element set."""
    schedule: Schedule = field(default_factory=Schedule)
    """How each member learns."""
    level: float = 0.9
    """Nominal coverage of the interval."""
    limit: int | None = None
    """Use only the first rows of the dataset, for a rehearsal."""

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise ValueError(f"members lists {len(self.members)} networks, expected at least 2 for an error bar")
        if not 0 < self.level < 1:
            raise ValueError(f"level is {self.level}, expected between 0 and 1")
