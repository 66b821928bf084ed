"""What a training run is: tasks, split, graph, members, start, schedule.

Enters: nothing. Leaves: frozen dataclasses that a YAML file fills
(`assay.screening.settings.config` checks it). Every field changes the trained weights, except where
it says otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from assay.featurize import refinement
from assay.featurize.composition import CompositionSpec
from assay.featurize.graphs import GraphSpec
from assay.featurize.pictures.augment import Augment
from assay.featurize.pictures.scene import ViewSpec
from assay.models.ensemble.distribution.decision import Decision
from assay.models.evaluation.split import SplitSpec
from assay.models.networks import registry
from assay.models.networks.kinds import Spec
from assay.models.target import Property


@dataclass(frozen=True)
class Task:
    """One property, and the data it is learned from."""

    dataset: str
    """A key of `assay.sources.datasets.DATASETS`, or `FILE.parquet#COLUMN`. `assay train` takes a
    campaign and a number that it pulled, too (`assay.screening.training.pulled`), and an
    `id_prop.csv` (`assay.screening.training.listed`)."""
    property: Property
    """What is learned; its scaler is fitted here, not given."""
    functional: str = ""
    """Level of theory of the values, where the dataset does not say; one that says another is
    refused. Empty: whatever the dataset says."""
    share: float | None = None
    """Rows that it gives to an epoch, beside those of the other tasks; unset: 1. With 0 nothing is
    learned of it, but its rows are divided with the others: a study compares learning with and
    without it on the same test rows."""


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters on frozen linear layers (Hu et al., ICLR 2022), merged in the end."""

    rank: int = 8
    alpha: float = 16.0
    """An update counts alpha / rank times."""
    dropout: float = 0.0
    """On the input of the adapters."""
    layers: tuple[str, ...] = ("src_gate", "dst_gate", "edge_gate", "src_update", "dst_update", "source", "target")
    """Names of the linear layers that get one, or ends of their dotted names: `attn.qkv` of a
    vision transformer."""


@dataclass(frozen=True)
class Start:
    """Trained weights to start from: the trunk is taken over, the heads are made anew."""

    folder: str
    """A checkpoint, or an ensemble: member k takes its member k, or where that is another network,
    number k of those that fit (again from the first when there are fewer). For a vision network
    also a .safetensors file of its backbone, or `timm`: the backbone's published weights, from the
    cache or the hub."""
    freeze: Literal["none", "embeddings", "first", "all-but-last", "head-only"] = "none"
    """What of the trunk keeps its weights and its batch statistics: nothing; the embeddings; the
    embeddings and the first `layers` layers; all but the last `layers` layers; everything. The
    states of a vision transformer are levelled by their batches even then
    (`assay.models.networks.vision.Level`)."""
    layers: int = 1
    """Read by `first` and `all-but-last`."""
    backbone_rate: float = 1e-5
    """Peak learning rate of the trunk."""
    head_rate: float = 1e-3
    """Peak learning rate of the heads."""
    lora: Lora | None = None
    """Train adapters instead of the trunk's own weights."""

    def __post_init__(self) -> None:
        for name in ("layers", "backbone_rate", "head_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"start.{name} is {getattr(self, name)}, expected above 0")
        if self.lora and self.freeze != "none":
            raise ValueError(f"start.lora freezes the whole trunk, so start.freeze cannot be {self.freeze!r}")


@dataclass(frozen=True)
class Formulas:
    """Training rows without a structure, for the members that read the composition alone."""

    dataset: str
    """A key of `assay.sources.datasets.FORMULAS`, or `FILE.parquet#COLUMN` with a column
    `formula`."""
    property: str = ""
    """Of which task they hold the known value; empty: of the only one."""
    learn_from: int | None = None
    """Each member learns from this many of them, drawn by its seed: for learning curves."""

    def __post_init__(self) -> None:
        if self.learn_from is not None and not self.learn_from > 0:
            raise ValueError(f"formulas.learn_from is {self.learn_from}, expected above 0")


@dataclass(frozen=True)
class Measured:
    """Values that came later, from which every member learns: `assay learn` writes this section.

    They and all rows that share with them what the split keeps together, with `by: row` the
    formula, test, calibrate and stop nothing. All other rows stay in their parts.
    """

    dataset: str
    """`FILE.parquet#COLUMN`."""
    property: str = ""
    """Of which task; empty: of the only one."""


@dataclass(frozen=True)
class Contradictions:
    """Training rows with the value 0 that are left out, because their neighbours say otherwise.

    A neighbour is a training row of another composition; see `assay.models.training.formulas`. No
    row that tests, calibrates or stops a member is left out.
    """

    distance: float = 0.01
    """Share of the atoms in which two compositions differ, below which they are neighbours."""
    above: float = 10.0
    """Median of the neighbours, in the property's unit, that a zero contradicts."""
    property: str = ""
    """Of which task; empty: of the only one."""

    def __post_init__(self) -> None:
        if not 0 < self.distance < 1:
            raise ValueError(f"contradictions.distance is {self.distance}, expected between 0 and 1")


@dataclass(frozen=True)
class CrossValidation:
    """Scores and error bars from every row, each predicted by members that learned nothing of it.

    Members of its own are trained for each fold, on all rows outside the fold; what `split.by`
    keeps together lies in one fold. The members that are kept learn from all rows.
    """

    folds: int = 5
    """Parts of the data, each tested by members that learned from the others."""
    repeats: int = 3
    """Ways to divide the data; their seeds are `split.seed` and the numbers after it."""
    threshold: float | None = None
    """What a screening looks for, in the property's unit; unset: ranked lists are not judged."""

    def __post_init__(self) -> None:
        if self.folds < 2 or self.repeats < 1:
            said = f"{self.folds} folds, {self.repeats} repeats"
            raise ValueError(f"cross_validation: {said}; expected at least 2 and 1")


@dataclass(frozen=True)
class MemberSpec:
    """One network of the ensemble."""

    network: str
    """A key of `assay.models.networks.registry.MODELS`."""
    seed: int
    """Seeds the weights, the order of rows and the bootstrap."""
    sizes: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the network."""
    schedule: dict[str, Any] = field(default_factory=dict)
    """What this member does otherwise than the recipe's `schedule`, for example {epochs: 15}."""
    start: Start | None = None
    """Trained weights for this member; unset: those of the recipe's `start`."""
    composition: CompositionSpec | None = None
    """The table of this member, which reads the composition alone; unset: that of the recipe."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast one member learns."""

    epochs: int = 50
    """At most; `cosine` and `onecycle` reach a rate of zero at the last one."""
    batch_size: int = 64
    """Crystals per step. A step that does not fit into memory is taken in parts, see
    `assay.models.training.budget`."""
    learning_rate: float = 2e-3
    """Peak rate of weights that start fresh; `Start` has its own."""
    matrix_rate: float = 0.0
    """Peak rate of Muon, which then moves the matrices of fresh weights; 0: AdamW moves everything.
    See `assay.models.training.optimise.Muon`."""
    kind: Literal["cosine", "onecycle", "plateau"] = "cosine"
    """Warm-up, then: half a cosine; a cosine that rises and falls (Smith and Topin, 2019);
    constant, halved after every `patience // 4` epochs without a better validation error."""
    warmup: float = 0.1
    """Share of all steps in which the rate rises; `onecycle` spends 0.3 there."""
    weight_decay: float = 1e-4
    """Of AdamW."""
    clip: float = 5.0
    """Largest norm of the gradient."""
    loss: Literal["l1", "huber", "mse", "nll"] = "l1"
    """On scaled targets; `nll` learns a variance too (Gaussian negative log-likelihood)."""
    ema: float = 0.0
    """Decay per step of an exponential moving average of the weights, which is validated and kept
    instead of the last weights; 0: none, else for example 0.999."""
    patience: int = 20
    """Epochs without a better validation error before the run stops."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """In which an ALIGNN multiplies states of triplets, and of bonds for them, while it learns on a
    CPU. bfloat16 makes a wide one a fifth faster, and asks for a processor with the instructions.
    A GPU takes all products in bfloat16, whatever stands here."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "clip", "patience"):
            if not getattr(self, name) > 0:
                raise ValueError(f"schedule.{name} is {getattr(self, name)}, expected above 0")
        if not 0 <= self.matrix_rate < math.inf:
            raise ValueError(f"schedule.matrix_rate is {self.matrix_rate}, expected 0 or more")
        for name in ("warmup", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"schedule.{name} is {getattr(self, name)}, expected 0 to below 1")


@dataclass(frozen=True)
class Recipe:
    """A training run, from named datasets to a calibrated ensemble."""

    name: str
    """Name of the ensemble."""
    tasks: tuple[Task, ...]
    """What is learned, from what. Several tasks share one trunk, each with its own head; every task
    contributes the same number of rows to an epoch."""
    members: tuple[MemberSpec, ...]
    """Networks of the ensemble; at least two, or there is no error bar."""
    graph: GraphSpec = field(default_factory=GraphSpec)
    """How crystals become graphs; angles are added for networks that read them."""
    view: ViewSpec = field(default_factory=ViewSpec)
    """Which pictures vision networks see."""
    composition: CompositionSpec = field(default_factory=CompositionSpec)
    """Which table of features members read that need no structure."""
    formulas: Formulas | None = None
    """More training rows for these members."""
    measured: Measured | None = None
    """More training rows for all members."""
    contradictions: Contradictions | None = None
    """Which training rows no member learns from; unset: all members learn from all of theirs."""
    augment: Augment = field(default_factory=Augment)
    """What of the pictures varies in training."""
    quotient: float = 1e-3
    """Å; equal atoms, bonds and angles are merged for training, 4 to 6 times less work with the
    same result (`assay.featurize.quotient`); 0: train on full graphs. Prediction merges what is
    equal within 1e-5 Å."""
    split: SplitSpec = field(default_factory=SplitSpec)
    """How rows are held out."""
    cross_validation: CrossValidation | None = None
    """Unset: some rows are held out for scores and error bars, as `split` says. Else no row is:
    `split.test` and `split.calibration` are not read, and `split.folds` only by members that stop
    early."""
    start: Start | None = None
    """Trained weights to start from, of members that have none of their own."""
    bootstrap: bool = False
    """Each member learns from its own resampling of its training rows, drawn with replacement."""
    schedule: Schedule = field(default_factory=Schedule)
    """How each member learns."""
    combine: Literal["mean", "validation", "stacking"] = "mean"
    """Weights of the members: equal; by the inverse square of the validation error; fitted on half
    of the calibration rows, the other half of which then calibrates."""
    decision: Decision | None = None
    """How the values of all trees of all members become one predicted value, with an interval from
    their quantiles that is calibrated by range of the predicted value; all members must be forests.
    Unset: the members have a mean, and the interval is scaled with their spread."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """In which vision networks predict on a CPU, and an ALIGNN takes its triplets; learning has
    `Schedule.precision`. bfloat16 is several times as fast for pictures and a fifth faster for a
    wide ALIGNN where the processor has the instructions, and cannot be used where it has none."""
    level: float = 0.9
    """Nominal coverage of the interval."""
    note: str = ""
    """What a reader of the card must know of the recipe, for example how it was chosen; changes no
    weight."""
    limit: int | None = None
    """Use only the first rows of each dataset, for a rehearsal."""
    learn_from: int | None = None
    """Each member learns from this many of its training rows, drawn by its seed: for learning
    curves."""

    def schedule_of(self, member: MemberSpec) -> Schedule:
        """How one member learns."""
        return replace(self.schedule, **member.schedule)

    def reads(self, member: MemberSpec) -> Spec:
        """What one member sees of a crystal."""
        spec: Spec = registry.MODELS[member.network].reads.spec(
            self.graph, self.view, member.composition or self.composition
        )
        return spec

    def structural(self) -> bool:
        """Whether some member reads a structure; the others read the composition alone."""
        known = [registry.MODELS[member.network] for member in self.members if member.network in registry.MODELS]
        return len(known) < len(self.members) or any(entry.reads.family != "composition" for entry in known)

    def shares(self) -> list[float]:
        """What each task gives to an epoch, beside the others."""
        return [1.0 if task.share is None else task.share for task in self.tasks]

    def task_of(self, name: str) -> int:
        """Number of the task with this property; of the only one where the name is empty."""
        names = [task.property.name for task in self.tasks]
        if name not in (names if len(names) > 1 else ["", *names]):
            raise ValueError(
                f"property {name!r} of formulas, measured or contradictions is not one of {', '.join(names)}"
            )
        return names.index(name) if name else 0

    def start_of(self, member: MemberSpec) -> Start | None:
        """What one member starts from; one that is fitted at once starts from nothing."""
        if member.network in registry.MODELS and not registry.MODELS[member.network].gradients:
            return None
        return member.start or self.start

    def __post_init__(self) -> None:
        self._check_members()
        if not self.tasks:
            raise ValueError("tasks is empty, expected at least one dataset with its property")
        names = [task.property.name for task in self.tasks]
        if len(set(names)) < len(names):
            raise ValueError(f"two tasks predict the same property: {names}; give each its own name")
        if not (min(self.shares()) >= 0 and 0 < sum(self.shares()) < math.inf):
            raise ValueError(f"the shares of the tasks are {self.shares()}, expected numbers of at least 0, not all 0")
        for part in (self.formulas, self.measured, self.contradictions):
            self.task_of(part.property if part else names[0])
        self._check_decision()
        self._check_cross_validation()
        if not 0 < self.level < 1:
            raise ValueError(f"level is {self.level}, expected between 0 and 1")
        if self.quotient and not self.quotient >= refinement.SMALLEST:
            raise ValueError(f"quotient is {self.quotient} Å, expected 0, or at least {refinement.SMALLEST}")
        bent = [task.property.transform for task in self.tasks if task.property.transform != "identity"]
        losses = {self.schedule_of(member).loss for member in self.members}
        if bent and ("nll" in losses or any(member.sizes.get("variance") for member in self.members)):
            raise ValueError(f"a variance needs targets on their own scale, not {bent[0]}: it is one of errors")

    def _check_decision(self) -> None:
        if self.decision is None:
            return
        for member in self.members:
            if member.network in registry.MODELS and not registry.MODELS[member.network].draws:
                raise ValueError(f"decision rests on the values of trees, and {member.network} has none")
        if self.combine != "mean":
            raise ValueError(f"decision counts all trees alike, so combine cannot be {self.combine!r}")

    def _check_cross_validation(self) -> None:
        if self.cross_validation is None:
            return
        if self.split.kfold is not None or self.split.family is not None:
            raise ValueError("split.kfold and split.family hold rows out, and cross_validation tests them all")
        if len(self.tasks) != 1:
            raise ValueError(f"cross_validation is for one task, and there are {len(self.tasks)}")
        if self.combine != "mean":
            raise ValueError(f"combine is {self.combine!r}, and cross_validation keeps no rows for it")

    def _check_twins(self) -> None:
        """Refuse two members that would be one network: their spread would be no error bar."""
        stopping = any(m.network not in registry.MODELS or registry.MODELS[m.network].gradients for m in self.members)
        folds = self.split.folds if self.cross_validation is None or stopping else 1
        for k, member in enumerate(self.members):
            if self.start_of(member) is None and member in self.members[k % folds : k : folds]:
                same = f"members: number {k} is an earlier one again ({member.network}, seed {member.seed}), and learns"
                raise ValueError(f"{same} from the same rows; give it a seed of its own")

    def _check_members(self) -> None:
        for member in self.members:
            unknown = sorted(set(member.schedule) - {item.name for item in fields(Schedule)})
            if unknown:
                raise ValueError(f"members: schedule has no {unknown[0]!r}")
            self.schedule_of(member)
            reads = registry.MODELS[member.network].reads.family if member.network in registry.MODELS else ""
            if member.composition and reads not in ("", "composition"):
                raise ValueError(f"members: {member.network} reads {reads} and no table of the composition")
            if member.start and self.start_of(member) is None:
                raise ValueError(f"members: {member.network} is fitted at once and has no start")
        self._check_twins()
        if len(self.members) < 2:
            raise ValueError(f"members lists {len(self.members)} networks, expected at least 2 for an error bar")
        known = [registry.MODELS[m.network] for m in self.members if m.network in registry.MODELS]
        labelled = {entry.labelled for entry in known}  # a network that is not known is refused where it is made
        if len(labelled) > 1 or (False in labelled and len(self.tasks) != 1):
            raise ValueError("members that learn without known values have a recipe of their own, with one task")
        if self.formulas and "composition" not in {entry.reads.family for entry in known}:
            raise ValueError("formulas are for members that read the composition alone, and there is none")
