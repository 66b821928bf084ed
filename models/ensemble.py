"""A deep ensemble: one prediction with an honest error bar out of several trained networks.

Enters: `Crystals`. Leaves: `Predictions` for the crystals that could be predicted, `Quarantined` rows for the others.
Follows Lakshminarayanan et al., NeurIPS 2017. This module does not know campaigns or files of crystals.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from featurize import graphs as crystal_graphs
from featurize.elements import HEAVIEST
from featurize.graphs import Graphs, GraphSpec
from models import checkpoint, registry
from models.batch import Batch
from models.calibration import Calibration
from models.checkpoint import Checkpoint
from models.target import Property
from sources.elements import NUMBERS, SYMBOLS
from sources.quarantine import Quarantined, Reason, Stage

if TYPE_CHECKING:
    from sources.crystals import Crystals

SHORTEST_BOND = 0.5
"""Å; atoms closer than this are refused. The shortest real bond, H-H in H2, is 0.74 Å."""

EDGES_PER_BATCH = 8_192
TRIPLETS_PER_BATCH = 65_536
"""Work per micro-batch, small enough for the cache of one core."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PropertyPrediction:
    """Predictions of one property for m crystals, all in the property's unit."""

    mean: NDArray[np.float64]
    """(m,) mean of the members."""
    std: NDArray[np.float64]
    """(m,) standard deviation of the members, ddof 1: what the members disagree on, not the error."""
    lo: NDArray[np.float64]
    """(m,) lower end of the calibrated interval, not below the property's physical minimum."""
    hi: NDArray[np.float64]
    """(m,) upper end of the calibrated interval."""
    members: NDArray[np.float64]
    """(m, k) prediction of each member."""


@dataclass(frozen=True)
class Predictions:
    """What the ensemble says about a batch of crystals."""

    index: NDArray[np.int64]
    """(m,) ascending rows of the input that were predicted."""
    values: dict[str, PropertyPrediction]
    """By property name."""
    ood: NDArray[np.bool_]
    """(m,) True where a crystal holds an element no training crystal held."""


@dataclass(frozen=True)
class Ensemble:
    """Trained members that read the same graphs and predict the same properties."""

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

    @classmethod
    def load(cls, folder: Path | str) -> Ensemble:
        """Load an ensemble folder, checking every weights file.

        Raises:
            FileNotFoundError: when the folder is missing or is not an ensemble.
            ValueError: when it is damaged or its members disagree on graphs or properties.
        """
        folder = Path(folder)
        described = checkpoint.read_json(folder / "ensemble.json", "a model ensemble")
        members = tuple(checkpoint.read(folder / name) for name in described["members"])
        calibration = {name: Calibration(**fields) for name, fields in described["calibration"].items()}
        own = ("name", "members", "calibration")
        facts = {key: value for key, value in described.items() if key not in own}
        return cls(described["name"], folder, members, calibration, facts)

    def __post_init__(self) -> None:
        if len(self.members) < 2:
            raise ValueError(f"{self.folder} has {len(self.members)} member; an error bar needs at least 2")
        for member in self.members[1:]:
            if replace(member.spec, angles=False) != self.spec:
                raise ValueError(f"members of {self.folder} read different graphs: {member.spec} and {self.spec}")
            if [(p.name, p.unit) for p in member.properties] != [(p.name, p.unit) for p in self.properties]:
                raise ValueError(f"members of {self.folder} predict different properties")

    @property
    def spec(self) -> GraphSpec:
        """The graphs all members read; angles are added where a member needs them."""
        return replace(self.members[0].spec, angles=False)

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
        rows, graphs, refused = self._featurize(crystals)
        out = np.full((len(rows), len(self.members), len(self.properties)), np.nan)
        failed = np.zeros(len(rows), bool)
        with torch.inference_mode():
            for batch in _micro_batches(graphs, angles=self.angles):
                self._predict_rows(graphs, batch, out, failed, refused, crystals.ids[rows])
        kept = rows[~failed]
        return self._summarise(crystals, kept, out[~failed]), refused

    def _featurize(self, crystals: Crystals) -> tuple[NDArray[np.int64], Graphs, list[Quarantined]]:
        heavy = np.zeros(len(crystals), bool)
        heavy[crystals.site_crystal[crystals.species_site[crystals.numbers > HEAVIEST]]] = True
        refused = [
            _refusal(crystals, row, Reason.UNKNOWN_SPECIES, f"holds an element beyond {SYMBOLS[HEAVIEST]}")
            for row in np.flatnonzero(heavy)
        ]
        rows = np.flatnonzero(~heavy)
        graphs = crystal_graphs.build(crystals.select(rows), self.spec)
        shortest = graphs.shortest()
        close = shortest < SHORTEST_BOND
        for row, distance in zip(rows[close], shortest[close], strict=True):
            message = f"two atoms are {distance:.3f} Å apart, accepted is at least {SHORTEST_BOND} Å"
            refused.append(_refusal(crystals, row, Reason.ATOMS_TOO_CLOSE, message))
        return rows[~close], graphs.select(np.flatnonzero(~close)), refused

    def _predict_rows(
        self,
        graphs: Graphs,
        batch: NDArray[np.int64],
        out: NDArray[np.float64],
        failed: NDArray[np.bool_],
        refused: list[Quarantined],
        ids: NDArray[Any],
    ) -> None:
        """Fill `out` for the rows of `batch`; on failure halve the batch until the guilty crystal stands alone."""
        try:
            out[batch] = self._forward(graphs.select(batch))
        except Exception as error:  # noqa: BLE001
            if len(batch) == 1:
                failed[batch] = True
                message = f"{type(error).__name__}: {error}".splitlines()[0]
                refused.append(Quarantined(str(ids[batch[0]]), "", Stage.PREDICT, Reason.PREDICTION_FAILED, message))
                return
            _log.warning("a micro-batch of %d crystals failed and is halved: %s", len(batch), error)
            for half in np.array_split(batch, 2):
                self._predict_rows(graphs, half, out, failed, refused, ids)

    def _forward(self, graphs: Graphs) -> NDArray[np.float64]:
        """(m, members, properties) in the properties' units."""
        batch = Batch.of(graphs.with_angles() if self.angles else graphs)
        columns = []
        for member in self.members:
            scaled = member.network(batch)
            columns.append(np.stack([p.decode(scaled[p.name].numpy()) for p in member.properties], axis=1))
        return np.stack(columns, axis=1)

    def _summarise(self, crystals: Crystals, rows: NDArray[np.int64], out: NDArray[np.float64]) -> Predictions:
        values = {}
        for position, prop in enumerate(self.properties):
            members = out[:, :, position]
            mean, std = members.mean(axis=1), members.std(axis=1, ddof=1)
            half = self.calibration[prop.name].half_width(std)
            low = mean - half if prop.minimum is None else np.maximum(mean - half, prop.minimum)
            values[prop.name] = PropertyPrediction(mean, std, low, mean + half, members)
        known = np.zeros(len(SYMBOLS), bool)
        known[[NUMBERS[symbol] for symbol in self.elements]] = True
        unseen = crystals.site_crystal[crystals.species_site[~known[crystals.numbers]]]
        ood = np.zeros(len(crystals), bool)
        ood[unseen] = True
        return Predictions(rows, values, ood[rows])


def write(
    folder: Path, name: str, members: list[str], calibration: dict[str, Calibration], facts: dict[str, Any]
) -> None:
    """Write `ensemble.json` beside the member folders."""
    described = {
        "name": name,
        "members": members,
        "calibration": {prop: asdict(fitted) for prop, fitted in calibration.items()},
        **facts,
    }
    checkpoint.write_whole(folder / "ensemble.json", checkpoint.to_json(described))


def _refusal(crystals: Crystals, row: Any, reason: Reason, message: str) -> Quarantined:
    origin = str(crystals.columns["origin"][row]) if "origin" in crystals.columns else ""
    return Quarantined(str(crystals.ids[row]), origin, Stage.FEATURIZE, reason, message)


def _micro_batches(graphs: Graphs, *, angles: bool) -> Iterator[NDArray[np.int64]]:
    """Rows of about equal work, crystals of like size together."""
    edges = np.diff(graphs.edge_ptr).astype(np.float64)
    atoms = np.maximum(np.diff(graphs.node_ptr), 1)
    cost = edges / EDGES_PER_BATCH
    if angles:
        cost = np.maximum(cost, edges * (edges / atoms) / TRIPLETS_PER_BATCH)
    order = np.lexsort((np.arange(len(cost)), cost))
    start, used = 0, 0.0
    for stop, row in enumerate(order):
        if used and used + cost[row] > 1:
            yield order[start:stop]
            start, used = stop, 0.0
        used += cost[row]
    if start < len(order):
        yield order[start:]
