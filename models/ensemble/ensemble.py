"""A deep ensemble: one prediction with an honest error bar out of several trained networks.

Enters: `Crystals`. Leaves: an `EnsemblePrediction` for the crystals that could be predicted, and
`Quarantined` rows for the others. Follows Lakshminarayanan et al., NeurIPS 2017. This module does
not know campaigns or files of crystals.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from assay.featurize import quotient
from assay.featurize.alternatives import united
from assay.models.ensemble import checkpoint, inference, novelty, stored, validation
from assay.models.ensemble.kept import members
from assay.models.ensemble.stored import Trained
from assay.models.ensemble.summary import EnsemblePrediction, summarise
from assay.models.networks import kinds
from assay.sources.checks import importing
from assay.sources.elements import NUMBERS, SYMBOLS

if TYPE_CHECKING:
    from assay.models.ensemble import device as devices
    from assay.models.ensemble.kept.store import Store
    from assay.sources.crystals import Crystals
    from assay.sources.quarantine import Quarantined
else:
    devices = importing.later("assay.models.ensemble.device")


@dataclass(frozen=True)
class Ensemble(Trained):
    """Trained members that predict crystals together."""

    threads: int = 1
    """That build graphs; networks take one, and no number depends on it."""
    device: devices.DevicePath | None = field(default=None, repr=False, compare=False)
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

        `precision` takes the place of the one in `ensemble.json`, see `Recipe.precision`; gradients
        need float32. The members predict on `device`, `compiled` by torch if asked for, and explain
        on the CPU.

        Raises:
            FileNotFoundError: when the folder is missing or is not an ensemble.
            ValueError: when it is damaged, its members disagree on graphs or properties, or the
                device is not there.
        """
        folder, away = Path(folder), device != "cpu" or compiled
        place = devices.chosen(device) if away else None
        described = checkpoint.read_json(folder / "ensemble.json", "a model ensemble")
        with checkpoint.naming(folder / "ensemble.json"):
            validation.ensemble(described)
        precision = precision or described.get("precision", "float32")
        kept = precision if place is None or place.type == "cpu" else "float32"  # a device lowers its own copies
        parts = stored.read(folder, described, kept)
        path = None if place is None else devices.path(parts["members"], place, precision, compiled=compiled)
        made = cls(**parts, threads=threads, device=path)
        stored.check_seal(folder, described)
        return made

    @property
    def identity(self) -> str:
        """What its predictions depend on beside the crystals and the code, as text."""
        path = self.device or inference.HostPath(self.members, self.threads)
        return repr((self.digest, path.device_kind, [member.outputs for member in self.members]))

    def predict(self, crystals: Crystals, store: Store | None = None) -> tuple[EnsemblePrediction, list[Quarantined]]:
        """Predict every crystal, or say why not.

        The micro-batches, and with them the last bits of each number, depend only on `crystals`.
        Members whose outputs for `crystals` a `store` keeps are not run; no bit depends on it.
        """
        path = self.device or inference.HostPath(self.members, self.threads)
        if store is None:
            outputs, refused = inference.run(self, path, crystals)
        else:
            outputs, refused = members.run(self, path, crystals, store)
        seeing = np.array([member.kind.views for member in self.members])
        placing = np.array([member.kind.family == "graphs" for member in self.members])
        unseen = self._unseen(crystals)
        fitted = self.calibration, self.weights
        found = summarise(outputs, self.properties, *fitted, seeing, unseen, placing, self.decisions)
        return found, refused

    def functional(self, name: str) -> str:
        """The level of theory of a property, as the card says; empty where it says none."""
        tasks = self.facts.get("tasks", {})
        data = tasks[name].get("data", {}) if name in tasks else self.facts.get("data", {})
        return str(data.get("functional", ""))

    def embed(self, crystals: Crystals) -> NDArray[np.float64]:
        """(n, width) places of crystals in the embedding from which `ood_distance` is measured.

        Distances between places are in the same unit: 1 is the distance that 95 % of the
        calibration crystals keep from their nearest training crystals.

        Raises:
            ValueError: when the ensemble was made without an embedding, or a crystal cannot be
                read.
        """
        if self.reference is None:
            raise ValueError(f"ensemble {self.name} has no reference, so it does not say how far crystals lie apart")
        member = self.members[self.reference.member]
        seen = united(crystals) if self.structural else crystals
        read = kinds.of(member.spec).inputs(seen, member.spec, quotient.TOLERANCE)
        found = novelty.embed(member.embedder, read, np.arange(len(seen)))
        scaled = (found - self.reference.mean) / self.reference.deviation
        return np.asarray(scaled, np.float64) / self.reference.limit

    def _unseen(self, crystals: Crystals) -> NDArray[np.bool_]:
        """(n,) whether a crystal holds an element that some member has not seen in training."""
        known = np.zeros(len(SYMBOLS), bool)
        known[[NUMBERS[symbol] for symbol in self.elements]] = True
        unseen = np.zeros(len(crystals), bool)
        unseen[crystals.site_crystal[crystals.species_site[~known[crystals.numbers]]]] = True
        return unseen
