"""What a distillation is: teacher, crystals, displacements, split, students, schedule.

Enters: nothing. Leaves: frozen dataclasses that a YAML file fills. Every field changes the trained
weights.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from assay.models.training.distil.sample import Displacement, Drawn
from assay.sources.elements import NUMBERS


@dataclass(frozen=True)
class StudentSpec:
    """One network of the ensemble."""

    seed: int
    """Of its weights, and of the order of its training rows."""
    features: int = 64
    layers: int = 2
    radial: int = 12
    """Bessel functions of the distance."""
    cutoff: float = 5.0
    """Å."""

    def __post_init__(self) -> None:
        for name in ("features", "layers", "radial", "cutoff"):
            if not getattr(self, name) > 0:
                raise ValueError(f"students.{name} is {getattr(self, name)}, expected above 0")


@dataclass(frozen=True)
class Schedule:
    """How a student learns: AdamW, with Muon for the matrices, and averaged weights."""

    epochs: int = 50
    batch_size: int = 64
    """Crystals in a step."""
    learning_rate: float = 1e-3
    """Peak, of all that is no matrix."""
    matrix_rate: float = 3e-3
    """Peak, of the matrices."""
    weight_decay: float = 1e-4
    warmup: float = 0.02
    """Share of the steps in which the rates rise; they fall as a cosine afterwards."""
    ema: float = 0.999
    """Of the weights that are kept."""
    clip: float = 1.0
    """Largest norm of a gradient."""
    largest_loss: float = 20.0
    """A step with a larger loss is not taken: Muon's steps are of one size, and one crystal that is
    predicted absurdly must not turn the weights."""
    energy: float = 2.0
    """Weight of the error of the energy per atom, in eV."""
    force: float = 1.0
    """Weight of the length of the error of a force, in eV/Å."""
    stress: float = 10.0
    """Weight of the error of a component of the stress, in eV/Å^3."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "matrix_rate", "clip", "largest_loss"):
            if not getattr(self, name) > 0:
                raise ValueError(f"schedule.{name} is {getattr(self, name)}, expected above 0")
        for name in ("warmup", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"schedule.{name} is {getattr(self, name)}, expected 0 to 1")


@dataclass(frozen=True)
class Round:
    """More labels, where the students of before disagree most, from which they learn again."""

    candidates: int
    """Most crystals about which the students are asked, drawn anew from the same places."""
    labels: int
    """Of these, how many the teacher labels."""
    students: Literal["further", "anew"] = "further"
    """Whether they go on from their weights, or begin again, with the labels of all rounds. Those
    that go on begin without an energy for atoms of an element that is new in this round."""
    displacement: Displacement | None = None
    """Of the candidates; unset: that of the recipe."""
    schedule: Schedule | None = None
    """How the students learn in this round; unset: that of the recipe."""

    def __post_init__(self) -> None:
        if not 1 <= self.labels <= self.candidates:
            raise ValueError(f"rounds.labels is {self.labels}, expected 1 to rounds.candidates, {self.candidates}")


@dataclass(frozen=True)
class Distillation:
    """From a teacher to a folder of students."""

    name: str
    """Of the folder."""
    teacher: str
    """As `assay.models.potentials.potential.load` takes it."""
    crystals: tuple[Drawn, ...]
    """Where the crystals come from."""
    students: tuple[StudentSpec, ...]
    """At least two: their spread says where they are unsure."""
    displacement: Displacement = field(default_factory=Displacement)
    """How far each crystal is moved."""
    elements: tuple[str, ...] = ()
    """Symbols; crystals of these alone are drawn. Empty: of all that the teacher knows."""
    seed: int = 0
    """Of the crystals, the displacements and the split."""
    parts: int | None = None
    """Only the first so many parts of the crystals are labelled; unset: all."""
    test: float = 0.05
    """Share of the chemical systems that test the students."""
    validation: float = 0.02
    """Share of the chemical systems by which training is watched."""
    largest_force: float = 25.0
    """eV/Å; a crystal on which the teacher finds a larger one is left out."""
    schedule: Schedule = field(default_factory=Schedule)
    rounds: tuple[Round, ...] = ()
    """What comes after the first labels have been learned."""
    energies: str = ""
    """`FILE.parquet#COLUMN`, a path below the data folder or any other: crystals that DFT relaxed,
    and their energies in eV per cell on the teacher's scale. The card compares with them; nothing
    learns from them."""
    moduli: str = ""
    """Likewise, with bulk moduli in GPa."""
    moduli_count: int = 200
    """Crystals whose bulk moduli are compared, drawn at random."""

    def __post_init__(self) -> None:
        if len(self.students) < 2:
            raise ValueError(f"students has {len(self.students)} entries, expected at least 2")
        if len(set(self.students)) < len(self.students):
            raise ValueError("two students are one network, and never disagree; give them different seeds")
        for symbol in self.elements:
            if symbol not in NUMBERS:
                raise ValueError(f"elements: {symbol!r} is not an element symbol (H to Og)")
        if not 0 < self.test < 0.5 or not 0 < self.validation < 0.5:
            raise ValueError(f"test is {self.test}, validation {self.validation}, expected 0 to 0.5")
        if self.parts is not None and self.parts < 1:
            raise ValueError(f"parts is {self.parts}, expected at least 1")
        if any(one.driver == "students" for one in self.displacement.frames):
            raise ValueError(
                "displacement.frames: driver is 'students', and the first round has none; name the teacher"
            )
