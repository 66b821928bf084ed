"""One pass of the members of an ensemble over some crystals.

Enters: a `Trained` ensemble, a path (the CPU or another device), `Crystals`. Leaves: `Outputs`, and
`Quarantined` rows for the crystals that could not be predicted. This module does not know
calibration, weights of members or files.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from platform import machine
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from assay.featurize import graphs as crystal_graphs
from assay.featurize.alternatives import united
from assay.featurize.graphs import Graphs, GraphSpec
from assay.featurize.readable import Built, readable
from assay.models.ensemble.lean.convolutions import Convolutions
from assay.models.ensemble.reading import Reading, Unbuilt, compositions, graph_members, readings, unmerged
from assay.models.ensemble.summary import Outputs
from assay.models.target import DRAWS, LOG_VARIANCE, VIEWS
from assay.sources.checks import importing
from assay.sources.quarantine import Quarantined, Reason, Stage

if TYPE_CHECKING:
    import torch

    from assay.models.ensemble import device
    from assay.models.ensemble.checkpoint import Checkpoint
    from assay.models.ensemble.stored import Trained
    from assay.models.networks.layers import Network
    from assay.sources.crystals import Crystals
else:
    torch, device = importing.later("torch"), importing.later("assay.models.ensemble.device")

Member: TypeAlias = "Network | Convolutions"
"""A network as it predicts."""

CHECKED = 256
"""One crystal in so many, chosen by its id, is also predicted on its full graph."""
DIFFERENCE = 1e-4
"""Largest accepted difference to it, in scales of the target: ten times what merging has been seen
to change."""

_log = logging.getLogger(__name__)


class Path(Protocol):
    """How members read and predict: on the CPU or on another device."""

    @property
    def networks(self) -> tuple[Member, ...]:
        """The networks of the members, as they predict there."""

    @property
    def device_kind(self) -> str:
        """The kind of device with everything of it that changes last bits."""

    def exact(self) -> AbstractContextManager[None]:
        """Sums in a fixed order, for the time of a pass."""

    def build(self, crystals: Crystals, spec: GraphSpec) -> Any:
        """Graphs of the crystals, without angles."""

    def readings(self, crystals: Crystals, graphs: Any, *, angles: bool) -> Iterator[Reading]:
        """Everything the members read, graphs first; `graphs` are those of the crystals."""


@dataclass(frozen=True)
class HostPath:
    """On the CPU: equal atoms are merged, networks are frozen (`assay.models.ensemble.frozen`)."""

    members: tuple[Checkpoint, ...]
    threads: int = 1
    """That build graphs; networks take one, and no number depends on it."""

    @property
    def networks(self) -> tuple[Member, ...]:
        """The frozen networks."""
        return tuple(member.frozen for member in self.members)

    @property
    def device_kind(self) -> str:
        """The processor's family and the widest vectors that torch takes of it."""
        return f"cpu {machine()} {torch.backends.cpu.get_cpu_capability()}"

    def exact(self) -> AbstractContextManager[None]:
        """A CPU sums in a fixed order anyway."""
        return nullcontext()

    def build(self, crystals: Crystals, spec: GraphSpec) -> Graphs:
        """Full graphs of the crystals."""
        return crystal_graphs.build(crystals, spec, threads=self.threads)

    def readings(self, crystals: Crystals, graphs: Graphs, *, angles: bool) -> Iterator[Reading]:
        """Quotients of the graphs, and pictures."""
        return readings(self.members, crystals, graphs, angles=angles, threads=self.threads)


def run(
    trained: Trained, path: Path, crystals: Crystals, only: Collection[int] | None = None
) -> tuple[Outputs, list[Quarantined]]:
    """Let every member predict every crystal, or say why a crystal cannot be predicted.

    With `only`, positions of members, the others predict nothing, and their outputs stay NaN.

    A split position is one atom to the members. Where all of them read the composition alone, no
    graph is built and no site is compared with another. The micro-batches, and with them the last
    bits of each number, depend only on `crystals`.
    """
    build = partial(_built, path, trained.spec) if trained.structural else Unbuilt.of
    placed = united(crystals) if trained.structural else crystals
    needs_torch = not all(isinstance(network, Convolutions) for network in path.networks)
    with torch.inference_mode() if needs_torch else nullcontext(), path.exact():
        sound = readable(placed, build)
        refused = [refusal(placed, bad.row, bad.reason, bad.message) for bad in sound.refused]
        wanted = frozenset(range(len(trained.members)) if only is None else only)
        one = _Pass(trained, path.networks, placed.select(sound.rows), sound.rows, wanted)
        if any(trained.members[k].kind.family != "composition" for k in wanted):
            for reading in path.readings(one.crystals, sound.graphs, angles=trained.angles):
                one.take(reading)
                if reading.merged and wanted.intersection(reading.members):
                    one.check_quotient(sound.graphs)
        if trained.tables:
            for reading in compositions(trained.members, crystals.select(sound.rows)):
                one.take(reading)
    return one.out, refused + one.refused


def _built(path: Path, spec: GraphSpec, crystals: Crystals) -> Built:
    graphs: Built = path.build(crystals, spec)
    return graphs


class _Pass:
    """The members at work on crystals that networks can read."""

    def __init__(
        self,
        trained: Trained,
        networks: tuple[Member, ...],
        crystals: Crystals,
        rows: NDArray[np.int64],
        wanted: frozenset[int],
    ) -> None:
        self.trained, self.networks, self.crystals, self.wanted = trained, networks, crystals, wanted
        self.out = blank(trained, rows)
        self.refused: list[Quarantined] = []

    def take(self, reading: Reading) -> None:
        """Predict everything in a reading, and note the crystals that it could not hold."""
        reading = replace(reading, members=tuple(k for k in reading.members if k in self.wanted))
        if not reading.members:
            return
        for row, reason in reading.refused.items():
            self.out.unread.append((reading.members, row, reason))
            if not self.out.failed[row]:
                self.refused.append(refusal(self.crystals, row, Reason.UNSUPPORTED, reason))
            self.out.failed[row] = True
        lean = tuple(k for k in reading.members if isinstance(self.networks[k], Convolutions))
        others = tuple(k for k in reading.members if k not in lean)
        if lean:
            self._predict(replace(reading, members=lean), np.arange(len(reading.rows)))
        for batch in reading.inputs.micro_batches() if others else ():
            self._predict(replace(reading, members=others), batch)

    def check_quotient(self, graphs: Any) -> None:
        """Predict some crystals again on their full graphs; where that differs, all of them.

        Graphs are read before pictures: what has failed so far has failed on its quotient, and is
        tried anew.
        """
        ids, members = self.crystals.ids, self.trained.members
        drawn = np.array([row for row, name in enumerate(ids) if zlib.crc32(name.encode()) % CHECKED == 0], np.int64)
        if not len(drawn):
            return
        sample = _Pass(self.trained, self.networks, self.crystals.select(drawn), drawn, self.wanted)
        for reading in unmerged(members, graphs.select(drawn), angles=self.trained.angles):
            sample.take(reading)
        self.out.plain = self.out.plain and sample.out.plain
        worst = self._worst_difference(sample.out)
        if worst.max() <= DIFFERENCE:
            return
        _log.warning(
            "merging equal atoms changes the prediction of %s by %.1e of the target's scale; all %d go to full graphs",
            *(ids[drawn[worst.argmax()]], worst.max(), len(ids)),
        )
        self.refused.clear()
        self.out.failed[:] = False
        self.out.plain = False
        for reading in unmerged(members, graphs, angles=self.trained.angles):
            self.take(reading)

    def _worst_difference(self, full: Outputs) -> NDArray[np.float64]:
        """(d,) largest difference of a sample to the outputs, in scales, over graph networks."""
        on_graphs = [k for k in graph_members(self.trained.members) if k in self.wanted]
        merged = self.out.values[full.rows]
        gaps = [
            np.abs(prop.encode(full.values[:, on_graphs, k]) - prop.encode(merged[:, on_graphs, k]))
            for k, prop in enumerate(self.trained.properties)
        ]
        worst = np.max(gaps, axis=(0, 2))
        return np.asarray(np.nan_to_num(worst), np.float64)  # NaN where one failed, which is reported elsewhere

    def _predict(self, reading: Reading, batch: NDArray[np.int64]) -> None:
        """Predict the rows of `batch`; on failure halve it until one crystal is left to refuse."""
        try:
            self._forward(reading, batch)
        except Exception as error:
            if device.is_lost(error):
                raise
            message = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            return
        # the error is gone, and with it the memory of what failed
        self.out.plain = False
        if len(batch) == 1:
            row = int(reading.rows[batch[0]])
            if not self.out.failed[row]:  # another kind of network may have failed before
                name = str(self.crystals.ids[row])
                self.refused.append(Quarantined(name, "", Stage.PREDICT, Reason.PREDICTION_FAILED, message))
            self.out.failed[row] = True
            return
        _log.warning("a micro-batch of %d crystals failed and is halved: %s", len(batch), message)
        for half in np.array_split(batch, 2):
            self._predict(reading, half)

    def _forward(self, reading: Reading, chosen: NDArray[np.int64]) -> None:
        """Fill the outputs for the chosen rows; members that share a trunk run it once."""
        members, inputs = self.trained.members, reading.inputs
        rows, reference = reading.rows[chosen], self.trained.reference
        first = reading.members[0]  # either none of them needs torch, or all do
        if isinstance(self.networks[first], Convolutions):
            batch: Any = inputs.graphs.select(chosen)  # type: ignore[attr-defined] # of its kind
        else:
            batch = inputs.batch(chosen, members[first].network)
        states: dict[str, Any] = {}
        for k in reading.members:
            network, trunk = self.networks[k], members[k].trunk
            if trunk not in states:
                states[trunk] = network.states(batch)
            state, scaled = network.conclude(states[trunk], batch)
            if reference and reference.member == k and self.out.distance is not None:
                self.out.distance[rows] = reference.distance(_host(state))
            self._fill(k, rows, {name: _host(values) for name, values in scaled.items()}, batch)

    def _fill(self, k: int, rows: NDArray[np.int64], scaled: dict[str, NDArray[Any]], batch: Any) -> None:
        """Write the scaled predictions of member `k` into the outputs, in the properties' units."""
        for position, prop in enumerate(self.trained.members[k].properties):
            self.out.values[rows, k, position] = prop.decode(scaled[prop.name])
            if self.out.draws is not None:
                first, own = sum(self.trained.draws[:k]), self.trained.draws[k]
                drawn = prop.decode_draws(scaled[prop.name + DRAWS])
                self.out.draws[rows, first : first + own, position] = drawn
            log_variance = scaled.get(prop.name + LOG_VARIANCE)
            if log_variance is not None:
                self.out.variance[rows, k, position] = np.exp(log_variance.astype(np.float64)) * prop.scale**2
            each = scaled.get(prop.name + VIEWS)
            if each is not None:
                views = torch.from_numpy(prop.decode(each)).to(batch.weight.device)
                self.out.views[rows, k, position] = batch.variance(views).cpu().numpy()


def _host(values: Any) -> NDArray[Any]:
    found: NDArray[Any] = values if isinstance(values, np.ndarray) else values.cpu().numpy()
    return found


def blank(trained: Trained, rows: NDArray[np.int64]) -> Outputs:
    """Outputs for these rows that no member has filled yet."""
    made = Outputs(rows, len(trained.members), len(trained.properties))
    if trained.reference:
        made.distance = np.full(len(rows), np.nan)
    if trained.decisions:
        made.draws = np.full((len(rows), sum(trained.draws), len(trained.properties)), np.nan)
    return made


def refusal(crystals: Crystals, row: int, reason: Reason, message: str) -> Quarantined:
    """The record of a crystal that networks cannot read."""
    origin = str(crystals.columns["origin"][row]) if "origin" in crystals.columns else ""
    return Quarantined(str(crystals.ids[row]), origin, Stage.FEATURIZE, reason, message)
