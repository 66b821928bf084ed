"""Frames of paths: displaced crystals, some of them moved on by a force field.

Enters: displaced crystals, `Frames` of a recipe, the potentials that may drive. Leaves: as many
crystals. Which of them move, and how far, depends on their ids and a seed alone. This module does
not know labels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from assay.models.potentials import dynamics, potential as potentials, relax
from assay.sources.crystals import Crystals, concat

if TYPE_CHECKING:
    from collections.abc import Mapping

    from assay.models.potentials.potential import Evaluation, Potential


@dataclass(frozen=True)
class Frames:
    """Displaced crystals that are replaced by one frame of a path that starts at them."""

    path: Literal["relaxation", "dynamics"]
    """Atoms and cell relax, or the atoms move under a thermostat in a fixed cell."""
    share: float
    """Of the displaced crystals."""
    driver: Literal["teacher", "students"] = "teacher"
    """Which forces drive; `students` are those of the round before."""
    steps: int = 20
    """Most evaluations on a path. Each crystal draws its number, from 2; of a path that ends sooner
    the last frame is taken."""
    temperature: float = 600.0
    """K, of dynamics."""
    timestep: float = 1.0
    """fs, of dynamics."""

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"frames.share is {self.share}, expected above 0, at most 1")
        if self.steps < 2:
            raise ValueError(f"frames.steps is {self.steps}, expected at least 2: the first is the displaced crystal")
        for name in ("temperature", "timestep"):
            if not getattr(self, name) > 0:
                raise ValueError(f"frames.{name} is {getattr(self, name)}, expected above 0")


def moved(crystals: Crystals, frames: tuple[Frames, ...], drivers: Mapping[str, Potential], seed: int) -> Crystals:
    """The crystals, some of them where a driver (by its name in `Frames`) has moved them.

    A crystal with an element that the driver has not learned stays where it is.
    """
    if not frames:
        return crystals
    streams, kept = dynamics.streams_of(crystals, seed, "frames"), dict[str, Crystals]()
    which = np.searchsorted(np.cumsum([one.share for one in frames]), [stream.random() for stream in streams], "right")
    for k, one in enumerate(frames):
        rows = np.flatnonzero(which == k)
        recorder = _Recorder(
            drivers[one.driver], {str(crystals.ids[row]): int(streams[row].integers(2, one.steps + 1)) for row in rows}
        )
        some = crystals.select(rows)
        some = some.select(potentials.known(recorder, some)[0])
        if one.path == "relaxation":
            relax.relax(some, recorder, relax.Settings(steps=one.steps))
        elif len(some):
            hot = dynamics.thermal(some, one.temperature, seed)
            dynamics.run(hot, recorder, one.steps - 1, one.timestep, one.temperature, thermostat=True, seed=seed)
        kept |= recorder.kept
    return concat([kept.get(str(name), crystals[row : row + 1]) for row, name in enumerate(crystals.ids)])


class _Recorder:
    """A potential that keeps the last place of each crystal, and ends its path at its frame."""

    def __init__(self, driver: Potential, left: dict[str, int]) -> None:
        """`left` are the evaluations of each crystal up to its frame, by id."""
        self.name, self.scale, self.elements, self.version = driver.name, driver.scale, driver.elements, driver.version
        self._driver, self._left = driver, left
        self.kept: dict[str, Crystals] = {}

    def evaluate(self, crystals: Crystals) -> Evaluation:
        """What the driver says; NaN where the path of a crystal shall end."""
        found = self._driver.evaluate(crystals)
        energy = found.energy.copy()
        for row in np.flatnonzero(np.isfinite(energy)).tolist():
            name = str(crystals.ids[row])
            self._left[name] -= 1
            self.kept[name] = crystals[row : row + 1]
            if self._left[name] <= 0:
                energy[row] = np.nan
        return replace(found, energy=energy)
