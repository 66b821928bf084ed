"""A deep ensemble: one prediction with an honest error bar out of several trained networks.

Enters: `Crystals`. Leaves: `Predictions` for the crystals that could be predicted, `Quarantined`
rows for the others. Follows Lakshminarayanan et al., NeurIPS 2017. This module does not know
campaigns or files of crystals.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from assay.featurize import graphs as crystal_graphs
from assay.featurize.elements import HEAVIEST
from assay.featurize.graphs import Graphs, GraphSpec
from assay.featurize.graphs_torch import DeviceGraphs
from assay.featurize.pictures.scene import ViewSpec
from assay.models.ensemble import checkpoint, combine, device as devices
from assay.models.ensemble.calibration import Calibration
from assay.models.ensemble.checkpoint import Checkpoint
from assay.models.ensemble.combine import Outputs
from assay.models.ensemble.novelty import Reference
from assay.models.ensemble.reading import Reading, graph_members, micro_batches, readings, unmerged
from assay.models.networks import registry
from assay.models.networks.batch import Images
from assay.models.networks.inputs import GraphInputs
from assay.models.networks.layers import LOG_VARIANCE, VIEWS
from assay.models.target import Property
from assay.sources.elements import NUMBERS, SYMBOLS
from assay.sources.quarantine import Quarantined, Reason, Stage

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals

SHORTEST_BOND = 0.5
"""Å; atoms closer than this are refused. The shortest real bond, H-H in H2, is 0.74 Å."""

CHECKED = 256
"""One crystal in so many, chosen by its id, is also predicted on its full graph."""
DIFFERENCE = 1e-4
"""Largest accepted difference to it, in scales of the target: ten times what merging has been seen
to change."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PropertyPrediction:
    """Predictions of one property for m crystals, all in the property's unit."""

    mean: NDArray[np.float64]
    """(m,) weighted mean of the members."""
    std: NDArray[np.float64]
    """(m,) calibrated standard deviation: an estimate of the error. In ensembles calibrated before
    there was one, the spread."""
    lo: NDArray[np.float64]
    """(m,) lower end of the calibrated interval, not below the property's physical minimum."""
    hi: NDArray[np.float64]
    """(m,) upper end of the calibrated interval."""
    members: NDArray[np.float64]
    """(m, k) prediction of each member."""
    spread: NDArray[np.float64]
    """(m,) standard deviation of the members, ddof 1, with the variance they predict if they do:
    not yet the error."""
    disagreement: NDArray[np.float64] | None = None
    """(m,) mean of the members that read graphs less the mean of those that read pictures; None
    without either."""
    view_spread: NDArray[np.float64] | None = None
    """(m,) standard deviation, ddof 0, of what the views of a crystal say by themselves, its root
    mean square over the vision members; None without one."""


@dataclass(frozen=True)
class Predictions:
    """What the ensemble says about a batch of crystals."""

    index: NDArray[np.int64]
    """(m,) ascending rows of the input that were predicted."""
    values: dict[str, PropertyPrediction]
    """By property name."""
    ood: NDArray[np.bool_]
    """(m,) True where a crystal holds an element no training crystal held."""
    ood_distance: NDArray[np.float64] | None = None
    """(m,) distance to the nearest training crystals, 1 where 95 % of the calibration crystals are
    nearer (`assay.models.ensemble.novelty`); None where the ensemble has no reference."""


@dataclass(frozen=True)
class Ensemble:
    """Trained members that predict the same properties; those that read graphs read the same ones."""

    name: str
    """From `ensemble.json`."""
    folder: Path
    """Where it was loaded from."""
    members: tuple[Checkpoint, ...]
    """At least two."""
    calibration: dict[str, Calibration]
    """By property name."""
    facts: dict[str, Any]
    """Everything else in `ensemble.json`: data, split, metrics, baselines."""
    weights: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """By property name, one weight per member; a property that is not in it is predicted by the
    plain mean."""
    reference: Reference | None = None
    """Training crystals that tell how far a new one lies."""
    threads: int = 1
    """That build graphs; networks take one, and no number depends on it."""
    elsewhere: devices.DevicePath | None = field(default=None, repr=False, compare=False)
    """How the members predict on another device; None: on the CPU."""

    @classmethod
    def load(
        cls,
        folder: Path | str,
        precision: str | None = None,
        device: str = "cpu",
        threads: int = 1,
        *,
        compiled: bool = False,
    ) -> Ensemble:
        """Load an ensemble folder, checking every weights file and the reference.

        `precision` takes the place of what the ensemble says, see `Recipe.precision`; gradients
        need float32. The members predict on `device`, `compiled` by torch if asked for, and explain
        on the CPU.

        Raises:
            FileNotFoundError: when the folder is missing or is not an ensemble.
            ValueError: when it is damaged, its members disagree on graphs or properties, or the
                device is not there.
        """
        folder, place = Path(folder), devices.chosen(device)
        described = checkpoint.read_json(folder / "ensemble.json", "a model ensemble")
        precision = precision or described.get("precision", "float32")
        kept = precision if place.type == "cpu" else "float32"  # a device lowers its own copies
        members = tuple(checkpoint.read(folder / name, kept) for name in described["members"])
        calibration = {name: Calibration(**fields) for name, fields in described["calibration"].items()}
        weights = {name: tuple(shares) for name, shares in described.get("weights", {}).items()}
        reference = None
        if "novelty" in described:
            reference = Reference.read(folder, described["novelty"])
            if members[reference.member].sha256 != described["novelty"]["weights_sha256"]:
                raise ValueError(f"the reference of {folder} was made with other weights of member {reference.member}")
        facts = {key: value for key, value in described.items() if key not in _OWN_KEYS}
        elsewhere = devices.path(members, place, precision, compiled=compiled)
        return cls(described["name"], folder, members, calibration, facts, weights, reference, threads, elsewhere)

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise ValueError(f"{self.folder} has {len(self.members)} member; an error bar needs at least 2")
        if any(member.name in registry.UNLABELLED for member in self.members):
            raise ValueError(f"{self.folder} holds a network that learned without known values; start others from it")
        if any("published" in member.facts for member in self.members):
            raise ValueError(f"{self.folder} holds imported weights, right on the graphs of their own rule only; "
                             "use them as the start of a recipe")  # fmt: skip
        for member in self.members[1:]:
            if isinstance(member.spec, GraphSpec) and replace(member.spec, angles=False) != self.spec:
                raise ValueError(f"members of {self.folder} read different graphs: {member.spec} and {self.spec}")
            if [(p.name, p.unit) for p in member.properties] != [(p.name, p.unit) for p in self.properties]:
                raise ValueError(f"members of {self.folder} predict different properties")
        self._check_outputs()

    def _check_outputs(self) -> None:
        for name, shares in self.weights.items():
            if len(shares) != len(self.members) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
                raise ValueError(f"weights of {name} in {self.folder} are {list(shares)}, expected "
                                 f"{len(self.members)} numbers of at least 0 that sum to 1")  # fmt: skip
        for member in self.members:
            bent = [prop.transform for prop in member.properties if prop.transform != "identity"]
            if bent and member.sizes.get("variance"):
                raise ValueError(f"a member of {self.folder} predicts a variance of {bent[0]}, which has no unit")

    @property
    def spec(self) -> GraphSpec:
        """The graphs of all members that read graphs, without angles; the default where none does."""
        read = (member.spec for member in self.members if isinstance(member.spec, GraphSpec))
        return replace(next(read, GraphSpec()), angles=False)

    @property
    def views(self) -> tuple[ViewSpec, ...]:
        """The pictures that members see, each once, in the order of the members."""
        return tuple(dict.fromkeys(member.spec for member in self.members if isinstance(member.spec, ViewSpec)))

    @property
    def angles(self) -> bool:
        """Whether some member reads angles."""
        return any(member.name in registry.NEEDS_ANGLES for member in self.members)

    @property
    def properties(self) -> tuple[Property, ...]:
        """What is predicted, with units."""
        return self.members[0].properties

    @property
    def sha256(self) -> tuple[str, ...]:
        """Hash of each member's weights."""
        return tuple(member.sha256 for member in self.members)

    @property
    def elements(self) -> frozenset[str]:
        """Symbols every member has seen in training."""
        return frozenset.intersection(*(frozenset(member.elements) for member in self.members))

    def predict(self, crystals: Crystals) -> tuple[Predictions, list[Quarantined]]:
        """Predict every crystal, or say why not.

        The micro-batches, and with them the last bits of each number, depend only on `crystals`.
        """
        with torch.inference_mode(), self.elsewhere.exact() if self.elsewhere else nullcontext():
            rows, graphs, refused = self._sound(crystals)
            sound, unread = crystals.select(rows), len(refused)
            out = Outputs(len(rows), len(self.members), len(self.properties))
            for reading in self._readings(sound, graphs):
                for row, reason in reading.refused.items():
                    if not out.failed[row]:
                        refused.append(_refusal(crystals, rows[row], Reason.UNSUPPORTED, reason))
                    out.failed[row] = True
                self._predict_reading(reading, out, refused, sound.ids)
                if isinstance(graphs, Graphs) and isinstance(reading.inputs, GraphInputs):
                    refused[unread:] = self._check_quotient(sound.ids, graphs, out, refused[unread:])
        return self._summarise(crystals, rows, out), refused

    def _readings(self, crystals: Crystals, graphs: Graphs | DeviceGraphs) -> Iterator[Reading]:
        if isinstance(graphs, Graphs):
            return readings(self.members, crystals, graphs, angles=self.angles, threads=self.threads)
        assert self.elsewhere is not None
        return self.elsewhere.readings(crystals, graphs, angles=self.angles)

    def _check_quotient(
        self, ids: NDArray[Any], graphs: Graphs, out: Outputs, refused: list[Quarantined]
    ) -> list[Quarantined]:
        """Predict some crystals again on their full graphs; where that is not the same, all of them, and refuse anew.

        Graphs are read before pictures: what has failed so far, and is `refused`, has failed on its
        quotient.
        """
        drawn = np.array([row for row, name in enumerate(ids) if zlib.crc32(name.encode()) % CHECKED == 0], np.int64)
        on_graphs = graph_members(self.members)
        if not len(drawn):
            return refused
        full = Outputs(len(drawn), len(self.members), len(self.properties))
        for reading in unmerged(self.members, graphs.select(drawn), angles=self.angles):
            self._predict_reading(reading, full, [], ids[drawn])
        gaps = [
            np.abs(prop.encode(full.values[:, on_graphs, k]) - prop.encode(out.values[drawn][:, on_graphs, k]))
            for k, prop in enumerate(self.properties)
        ]
        worst = np.nan_to_num(np.max(gaps, axis=(0, 2)))  # NaN where one failed, which is told elsewhere
        if worst.max() <= DIFFERENCE:
            return refused
        told = "merging equal atoms changes what is said of %s by %.1e of the target's scale; all %d go to full graphs"
        _log.warning(told, ids[drawn[worst.argmax()]], worst.max(), len(ids))
        anew: list[Quarantined] = []
        out.failed[:] = False
        for reading in unmerged(self.members, graphs, angles=self.angles):
            self._predict_reading(reading, out, anew, ids)
        return anew

    def _predict_reading(self, reading: Reading, out: Outputs, refused: list[Quarantined], ids: NDArray[Any]) -> None:
        for batch in self.elsewhere.micro_batches(reading) if self.elsewhere else micro_batches(reading.inputs):
            self._predict_rows(reading, batch, out, refused, ids)

    def _sound(self, crystals: Crystals) -> tuple[NDArray[np.int64], Graphs | DeviceGraphs, list[Quarantined]]:
        """Rows that networks can read, their graphs, and the rows they cannot."""
        heavy = np.zeros(len(crystals), bool)
        heavy[crystals.site_crystal[crystals.species_site[crystals.numbers > HEAVIEST]]] = True
        refused = [
            _refusal(crystals, row, Reason.UNKNOWN_SPECIES, f"holds an element beyond {SYMBOLS[HEAVIEST]}")
            for row in np.flatnonzero(heavy)
        ]
        rows = np.flatnonzero(~heavy)
        build = self.elsewhere.build if self.elsewhere else partial(crystal_graphs.build, threads=self.threads)
        graphs = build(crystals.select(rows), self.spec)
        shortest = graphs.shortest()
        close = shortest < SHORTEST_BOND
        for row, distance in zip(rows[close], shortest[close], strict=True):
            message = f"two atoms are {distance:.3f} Å apart, accepted is at least {SHORTEST_BOND} Å"
            refused.append(_refusal(crystals, row, Reason.ATOMS_TOO_CLOSE, message))
        return rows[~close], graphs.select(np.flatnonzero(~close)), refused

    def _predict_rows(
        self,
        reading: Reading,
        batch: NDArray[np.int64],
        out: Outputs,
        refused: list[Quarantined],
        ids: NDArray[Any],
    ) -> None:
        """Fill `out` for the rows of `batch`; on failure halve the batch until the guilty crystal stands alone."""
        try:
            self._forward(reading, batch, out)
        except Exception as error:
            if devices.is_lost(error):
                raise
            told = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            return
        # the error is gone, and with it the memory of what failed
        if len(batch) == 1:
            row = int(reading.rows[batch[0]])
            if not out.failed[row]:  # another kind of network may have failed before
                refused.append(Quarantined(str(ids[row]), "", Stage.PREDICT, Reason.PREDICTION_FAILED, told))
            out.failed[row] = True
            return
        _log.warning("a micro-batch of %d crystals failed and is halved: %s", len(batch), told)
        for half in np.array_split(batch, 2):
            self._predict_rows(reading, half, out, refused, ids)

    def _forward(self, reading: Reading, chosen: NDArray[np.int64], out: Outputs) -> None:
        """Fill `out` for the chosen ones of a reading; what members share runs once."""
        batch = reading.inputs.batch(chosen, self.members[reading.members[0]].network)
        rows = reading.rows[chosen]
        states: dict[str, torch.Tensor] = {}
        for k in reading.members:
            member = self.members[k]
            network = self.elsewhere.networks[k] if self.elsewhere else member.frozen
            if isinstance(batch, Images):
                state, scaled = network.look(batch)
            else:
                if member.trunk not in states:
                    states[member.trunk] = network.encode(batch)
                state = states[member.trunk]
                scaled = network.heads(state)
            scaled = {name: values.cpu() for name, values in scaled.items()}
            if self.reference and self.reference.member == k:
                out.distance[rows] = self.reference.distance(state.cpu())
            for position, prop in enumerate(member.properties):
                out.values[rows, k, position] = prop.decode(scaled[prop.name].numpy())
                unsure = scaled.get(prop.name + LOG_VARIANCE)
                if unsure is not None:
                    out.variance[rows, k, position] = np.exp(unsure.numpy().astype(np.float64)) * prop.scale**2
                if isinstance(batch, Images):
                    views = torch.from_numpy(prop.decode(scaled[prop.name + VIEWS].numpy())).to(batch.weight.device)
                    out.views[rows, k, position] = batch.variance(views).cpu().numpy()

    def _summarise(self, crystals: Crystals, rows: NDArray[np.int64], out: Outputs) -> Predictions:
        kept = ~out.failed
        rows, every, variance = rows[kept], out.values[kept], out.variance[kept]
        values = {}
        for position, prop in enumerate(self.properties):
            members, shares = every[:, :, position], self.weights.get(prop.name)
            mean, spread = combine.mean_and_spread(members, shares, variance[:, :, position])
            fitted = self.calibration[prop.name]
            half = fitted.half_width(spread)
            low = mean - half if prop.minimum is None else np.maximum(mean - half, prop.minimum)
            values[prop.name] = PropertyPrediction(
                mean, fitted.deviation(spread), low, mean + half, members, spread,
                self._disagreement(members), self._view_spread(out.views[kept, :, position]),
            )  # fmt: skip
        known = np.zeros(len(SYMBOLS), bool)
        known[[NUMBERS[symbol] for symbol in self.elements]] = True
        unseen = crystals.site_crystal[crystals.species_site[~known[crystals.numbers]]]
        ood = np.zeros(len(crystals), bool)
        ood[unseen] = True
        return Predictions(rows, values, ood[rows], None if self.reference is None else out.distance[kept])

    def _disagreement(self, members: NDArray[np.float64]) -> NDArray[np.float64] | None:
        seeing = np.array([isinstance(member.spec, ViewSpec) for member in self.members])
        if seeing.all() or not seeing.any():
            return None
        return np.asarray(members[:, ~seeing].mean(axis=1) - members[:, seeing].mean(axis=1), np.float64)

    def _view_spread(self, variance: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """`variance` (m, k), NaN for members that see no views."""
        seeing = [k for k, member in enumerate(self.members) if isinstance(member.spec, ViewSpec)]
        return np.asarray(np.sqrt(variance[:, seeing].mean(axis=1)), np.float64) if seeing else None


def write(
    folder: Path,
    name: str,
    members: list[str],
    calibration: dict[str, Calibration],
    facts: dict[str, Any],
    weights: dict[str, tuple[float, ...]] | None = None,
    reference: Reference | None = None,
) -> None:
    """Write `ensemble.json` beside the member folders, and the reference if there is one."""
    described: dict[str, Any] = {
        "name": name,
        "members": members,
        "calibration": {prop: asdict(fitted) for prop, fitted in calibration.items()},
    }
    if weights:
        described["weights"] = {prop: list(shares) for prop, shares in weights.items()}
    if reference:
        embedder = checkpoint.read_json(folder / members[reference.member] / "model.json", "a checkpoint")
        described["novelty"] = {**reference.write(folder), "weights_sha256": embedder["weights_sha256"]}
    described |= facts
    checkpoint.write_whole(folder / "ensemble.json", checkpoint.to_json(described))


_OWN_KEYS = frozenset({"name", "members", "calibration", "weights", "novelty"})


def _refusal(crystals: Crystals, row: Any, reason: Reason, message: str) -> Quarantined:
    origin = str(crystals.columns["origin"][row]) if "origin" in crystals.columns else ""
    return Quarantined(str(crystals.ids[row]), origin, Stage.FEATURIZE, reason, message)
