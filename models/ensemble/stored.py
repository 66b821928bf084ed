"""An ensemble as its folder holds it: trained members, their calibration with its rows, and facts.

Enters: a folder, or everything that belongs into one. Leaves: a `Trained` that has been checked, or
a folder with `ensemble.json`. This module does not know crystals or predictions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from assay.featurize.composition import CompositionSpec
from assay.featurize.graphs import GraphSpec
from assay.featurize.pictures.scene import ViewSpec
from assay.models.ensemble import checkpoint, validation
from assay.models.ensemble.calibration import Calibration
from assay.models.ensemble.checkpoint import Checkpoint
from assay.models.ensemble.distribution.decision import Decision
from assay.models.ensemble.distribution.quantiles import KIND, QuantileCalibration
from assay.models.ensemble.novelty import Learned, Reference
from assay.models.networks import registry
from assay.models.target import Property

_OWN_KEYS = frozenset(
    {"name", "members", "calibration", "decision", "weights", "novelty", "learned", "calibration_rows", "sha256"}
)
ROWS = "calibration.safetensors"
"""In the ensemble's folder."""
LIGHT_WEIGHTS = 200_000
"""Weights of all networks of a light ensemble together; two networks of `tc-fast` have 164,104."""
ErrorBars = Calibration | QuantileCalibration
"""Both kinds of calibration."""


@dataclass(frozen=True)
class HeldRows:
    """The calibration rows of one property, as the ensemble predicts them, in its unit."""

    known: NDArray[np.float64]
    """(n,) known values."""
    mean: NDArray[np.float64]
    """(n,) predicted values."""
    std: NDArray[np.float64]
    """(n,) calibrated standard deviations."""
    group: NDArray[np.int64]
    """(n,) the same number for rows that the split keeps together, for example of one element
    set."""


@dataclass(frozen=True)
class CalibrationRows:
    """The rows on which the error bars of an ensemble were fitted, to select from new ones by."""

    rows: Mapping[str, HeldRows]
    """By property name."""
    by: str
    """What the split of the training keeps together: `element-set`, `formula` or `row`."""
    out_of_fold: bool
    """Whether they were predicted by members that learned from other rows of the training set than
    those of the ensemble, which learned from all of them."""

    def write(self, folder: Path) -> dict[str, Any]:
        """Write the file; returns the section `calibration_rows` of `ensemble.json`."""
        kinds = {field.name: np.int32 if field.name == "group" else np.float32 for field in fields(HeldRows)}
        parts = {
            f"{name}.{part}": getattr(held, part).astype(kind)
            for name, held in self.rows.items()
            for part, kind in kinds.items()
        }
        content = save(parts)
        checkpoint.write_whole(folder / ROWS, content)
        counts = {name: len(held.known) for name, held in self.rows.items()}
        return {
            "by": self.by,
            "out_of_fold": self.out_of_fold,
            "rows": counts,
            "sha256": hashlib.sha256(content).hexdigest(),
        }

    @classmethod
    def read(cls, folder: Path, described: dict[str, Any]) -> CalibrationRows:
        """Read the file that `described`, that section of `ensemble.json`, tells of.

        Raises:
            FileNotFoundError: when it is missing.
            ValueError: when it is another one.
        """
        parts, counts = checkpoint.arrays_of(folder / ROWS, described["sha256"]), described["rows"]
        names = [field.name for field in fields(HeldRows)]
        shapes = {f"{prop}.{name}": (n,) for prop, n in counts.items() for name in names}
        if {name: tuple(part.shape) for name, part in parts.items()} != shapes:
            raise ValueError(f"{folder / ROWS} holds other tensors than {', '.join(names)} of {counts}")
        kinds: dict[str, Any] = {name: np.int64 if name == "group" else np.float64 for name in names}
        rows = {
            prop: HeldRows(*(parts[f"{prop}.{name}"].astype(kind) for name, kind in kinds.items())) for prop in counts
        }
        return cls(rows, described["by"], described["out_of_fold"])


@dataclass(frozen=True)
class Trained:
    """Trained members that predict the same properties; all graphs among their inputs are alike."""

    name: str
    """From `ensemble.json`."""
    folder: Path
    """Where the ensemble was loaded from."""
    members: tuple[Checkpoint, ...]
    """At least two."""
    calibration: Mapping[str, ErrorBars]
    """By property name."""
    facts: dict[str, Any]
    """Everything else in `ensemble.json`: data, split, metrics, baselines."""
    weights: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """By property name, one weight per member. A property that is not in it is predicted by the
    plain mean."""
    reference: Reference | None = None
    """Training crystals, to measure how far a new one lies."""
    learned: Learned | None = None
    """The compositions that some member learned from."""
    decisions: dict[str, Decision] = field(default_factory=dict)
    """By property name, how the draws of all trees become its value. A property that is not in it
    is predicted by the mean of the members; the value of a forest is then that of its own
    decision."""
    calibration_rows: CalibrationRows | None = None
    """The rows that the error bars were fitted on; None in ensembles fitted before they were
    kept."""
    digest: str = ""
    """Sha256 of `ensemble.json` and each `model.json`, and so of all files that they name; empty
    where it was not read from a folder."""

    def __post_init__(self) -> None:
        _check_members(self.members, self.folder)
        _check_inputs(self.members, self.folder, self.spec)
        _check_weights(self.weights, len(self.members), self.folder)
        names = [*self.weights, *(self.calibration_rows.rows if self.calibration_rows else ())]
        _check_names(self.calibration, names, [p.name for p in self.properties], self.folder)
        _check_decisions(self)

    @property
    def spec(self) -> GraphSpec:
        """The graphs that members read, without angles; the default where none reads graphs."""
        graphs: Iterator[GraphSpec] = (m.kind.agreed(m.spec) for m in self.members if m.kind.family == "graphs")
        return next(graphs, GraphSpec())

    @property
    def structural(self) -> bool:
        """Whether some member reads a structure; the others read the composition alone."""
        return any(member.kind.family != "composition" for member in self.members)

    @property
    def light(self) -> bool:
        """Whether a crystal takes some 0.2 ms or less: compositions, and small networks of bonds.

        These run without torch, as the students of `tc-fast` do.
        """
        read = [member.lean for member in self.members if member.kind.family != "composition"]
        small = [sum(weight.size for weight in lean.weights.values()) for lean in read if lean is not None]
        return len(small) == len(read) and sum(small) <= LIGHT_WEIGHTS

    @property
    def tables(self) -> tuple[CompositionSpec, ...]:
        """The tables of features that members read, each once, in the order of the members."""
        read: list[Any] = [member.spec for member in self.members if member.kind.family == "composition"]
        return tuple(dict.fromkeys(read))

    @property
    def views(self) -> tuple[ViewSpec, ...]:
        """The pictures that members see, each once, in the order of the members."""
        seen: list[Any] = [member.spec for member in self.members if member.kind.views]
        return tuple(dict.fromkeys(seen))

    @property
    def draws(self) -> tuple[int, ...]:
        """Values per crystal in the predictive distribution of each member; 0: it has none."""
        return tuple(member.draws for member in self.members)

    @property
    def angles(self) -> bool:
        """Whether some member reads angles."""
        return any(registry.MODELS[member.name].reads.angles for member in self.members)

    @property
    def properties(self) -> tuple[Property, ...]:
        """The predicted properties, with units."""
        return self.members[0].properties

    @property
    def sha256(self) -> tuple[str, ...]:
        """Hash of each member's weights."""
        return tuple(member.sha256 for member in self.members)

    @property
    def elements(self) -> frozenset[str]:
        """Symbols that every member has seen in training."""
        return frozenset.intersection(*(frozenset(member.elements) for member in self.members))


def read(folder: Path, described: dict[str, Any], precision: str) -> dict[str, Any]:
    """The fields of a `Trained`, from its folder and the checked content of `ensemble.json`.

    Raises:
        FileNotFoundError: when a member or the reference is missing.
        ValueError: when a file is damaged, or the reference was made with other weights.
    """
    members = tuple(checkpoint.read(folder / name, precision) for name in described["members"])
    reference = None
    if "novelty" in described:
        reference = Reference.read(folder, described["novelty"])
        if members[reference.member].sha256 != described["novelty"]["weights_sha256"]:
            raise ValueError(f"the reference of {folder} was made with other weights of member {reference.member}")
    return {
        "name": described["name"],
        "folder": folder,
        "members": members,
        "calibration": {name: _calibration(entry) for name, entry in described["calibration"].items()},
        "facts": {key: checkpoint.finite(value) for key, value in described.items() if key not in _OWN_KEYS},
        "weights": {name: tuple(shares) for name, shares in described.get("weights", {}).items()},
        "reference": reference,
        "learned": Learned.read(folder, described["learned"]) if "learned" in described else None,
        "decisions": {name: Decision(**entry) for name, entry in described.get("decision", {}).items()},
        "calibration_rows": CalibrationRows.read(folder, found)
        if (found := described.get("calibration_rows"))
        else None,
        "digest": _digest(folder, described),
    }


def _entry(fitted: ErrorBars) -> dict[str, Any]:
    return {name: list(part) if isinstance(part, tuple) else part for name, part in asdict(fitted).items()}


def _calibration(entry: dict[str, Any]) -> ErrorBars:
    return QuantileCalibration.read(entry) if entry.get("kind") == KIND else Calibration(**entry)


def write(
    folder: Path,
    name: str,
    members: list[str],
    calibration: Mapping[str, ErrorBars],
    facts: dict[str, Any],
    weights: dict[str, tuple[float, ...]] | None = None,
    reference: Reference | None = None,
    decisions: Mapping[str, Decision] | None = None,
    learned: Learned | None = None,
    rows: CalibrationRows | None = None,
) -> None:
    """Write `ensemble.json` beside the member folders, and what else there is."""
    described: dict[str, Any] = {
        "name": name,
        "members": members,
        "calibration": {prop: _entry(fitted) for prop, fitted in calibration.items()},
    }
    if decisions:
        described["decision"] = {prop: asdict(decision) for prop, decision in decisions.items()}
    if weights:
        described["weights"] = {prop: list(shares) for prop, shares in weights.items()}
    if reference:
        embedder = checkpoint.read_json(folder / members[reference.member] / "model.json", "a checkpoint")
        described["novelty"] = {**reference.write(folder), "weights_sha256": embedder["weights_sha256"]}
    if learned:
        described["learned"] = learned.write(folder)
    if rows:
        described["calibration_rows"] = rows.write(folder)
    validation.ensemble(described)
    _write(folder, described | facts)


def seal(folder: Path) -> None:
    """Record the digest of an ensemble folder anew, after a wanted change of its JSON files."""
    _write(folder, checkpoint.read_json(folder / "ensemble.json", "a model ensemble"))


def check_seal(folder: Path, described: dict[str, Any]) -> None:
    """Hold `ensemble.json`, and `model.json` of each member, against the recorded digest, if any.

    Raises:
        ValueError: when one of them is damaged or was changed.
    """
    recorded = described.get("sha256")
    digest = _digest(folder, described)
    if recorded is not None and recorded != digest:
        raise ValueError(
            f"ensemble.json or a model.json of {folder} is damaged or was changed: sha256 {digest[:12]}, ensemble.json "
            f"says {recorded[:12]}; copy it again, or after a wanted change call assay.models.ensemble.stored.seal"
        )


def _write(folder: Path, described: dict[str, Any]) -> None:
    described = json.loads(checkpoint.to_json(described))  # as it will be read
    described["sha256"] = _digest(folder, described)
    checkpoint.write_whole(folder / "ensemble.json", checkpoint.to_json(described))


def _digest(folder: Path, described: dict[str, Any]) -> str:
    """Sha256 of the content of `ensemble.json`, without the digest, and of each `model.json`.

    The content counts, not its layout: keys are sorted, and spaces are left out.
    """
    rest = {key: value for key, value in described.items() if key != "sha256"}
    models = [checkpoint.read_json(folder / name / "model.json", "a checkpoint") for name in described["members"]]
    canonical = json.dumps([rest, *models], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _check_members(members: Sequence[Checkpoint], folder: Path) -> None:
    """Refuse members that did not learn known values here, or whose variance has no unit."""
    if len(members) < 2:
        raise ValueError(f"{folder} has {len(members)} member; an error bar needs at least 2")
    if not all(registry.MODELS[member.name].labelled for member in members):
        raise ValueError(f"{folder} holds a network that learned without known values; start others from it")
    if any("published" in member.facts for member in members):
        raise ValueError(
            f"{folder} holds imported weights, right on the graphs of their own rule only; "
            "use them as the start of a recipe"
        )
    for member in members:
        bent = [prop.transform for prop in member.properties if prop.transform != "identity"]
        if bent and member.sizes.get("variance"):
            raise ValueError(f"a member of {folder} predicts a variance of {bent[0]}, which has no unit")


def _check_inputs(members: Sequence[Checkpoint], folder: Path, spec: GraphSpec) -> None:
    """All members read the same graphs, if any, and predict the same properties."""
    first = [(p.name, p.unit) for p in members[0].properties]
    for member in members[1:]:
        if member.kind.family == "graphs" and member.kind.agreed(member.spec) != spec:
            raise ValueError(f"members of {folder} read different graphs: {member.spec} and {spec}")
        if [(p.name, p.unit) for p in member.properties] != first:
            raise ValueError(f"members of {folder} predict different properties")


def _check_weights(weights: dict[str, tuple[float, ...]], members: int, folder: Path) -> None:
    """The weights of a property lie on the simplex."""
    for name, shares in weights.items():
        if len(shares) != members or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(
                f"weights of {name} in {folder} are {list(shares)}, expected "
                f"{members} numbers of at least 0 that sum to 1"
            )


def _check_names(
    calibration: Mapping[str, ErrorBars], others: Sequence[str], properties: list[str], folder: Path
) -> None:
    """Each property has a calibration; nothing else has one, or weights, or calibration rows."""
    missing = [name for name in properties if name not in calibration]
    unknown = [name for name in (*calibration, *others) if name not in properties]
    if missing:
        raise ValueError(f"{folder} has no calibration of {missing[0]}, which its members predict")
    if unknown:
        raise ValueError(f"{folder} has a calibration or weights of {unknown[0]}, expected {', '.join(properties)}")


def _check_decisions(trained: Trained) -> None:
    """A decision needs draws of every member, which count alike; quantiles need a decision."""
    names = [prop.name for prop in trained.properties]
    for name in trained.decisions:
        if name not in names:
            raise ValueError(f"{trained.folder} has a decision on {name}, expected {', '.join(names)}")
        if not all(trained.draws):
            other = trained.members[trained.draws.index(0)].name
            raise ValueError(f"{trained.folder} has a decision on the draws of {name}, and its {other} has none")
        if name in trained.weights:
            raise ValueError(f"{trained.folder} has a decision on {name}, and weights, which it would not use")
    for name, fitted in trained.calibration.items():
        if isinstance(fitted, QuantileCalibration) and name not in trained.decisions:
            raise ValueError(f"{trained.folder} calibrates quantiles of {name}, and has no decision on its draws")
