"""The inputs of the members of an ensemble: graphs, pictures or compositions.

Enters: `Crystals` that can be predicted, with their graphs, and the members. Leaves: `Reading`s,
each for the members that read the very same tensors. What a portion holds depends on the crystals
alone. This module does not know properties, calibration or means.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.featurize.graphs import Graphs
from assay.featurize.pictures import augment, scene
from assay.featurize.pictures.scene import ViewSpec
from assay.featurize.quotient import of_crystals
from assay.models.networks.inputs import CompositionInputs, GraphInputs, Inputs, PictureInputs

if TYPE_CHECKING:
    from assay.models.ensemble.checkpoint import Checkpoint
    from assay.sources.crystals import Crystals

DRAWN_AT_ONCE = 64
"""Crystals whose scenes are held at once: the views of a large one take megabytes."""

WHOLE_AT_ONCE = 64
"""Crystals whose full graphs, with all angles, are held at once."""


@dataclass(frozen=True)
class Reading:
    """Some crystals as some members read them."""

    members: tuple[int, ...]
    """Positions in the ensemble."""
    inputs: Inputs
    """`m` crystals."""
    rows: NDArray[np.int64]
    """(m,) which ones."""
    refused: dict[int, str]
    """Why others of the portion cannot be read, by row."""
    merged: bool = False
    """Whether equal atoms of a graph were merged."""


@dataclass(frozen=True)
class Unbuilt:
    """No graphs of `n` crystals, for members that read none."""

    n: int
    """Crystals."""

    @classmethod
    def of(cls, crystals: Crystals) -> Unbuilt:
        """In place of the graphs of these crystals."""
        return cls(len(crystals))

    def shortest(self) -> NDArray[np.float32]:
        """No two sites are too close."""
        return np.full(self.n, np.inf, np.float32)

    def select(self, rows: NDArray[Any]) -> Unbuilt:
        """The same of these crystals."""
        return Unbuilt(len(rows))


def readings(
    members: Sequence[Checkpoint], crystals: Crystals, graphs: Graphs, *, angles: bool, threads: int = 1
) -> Iterator[Reading]:
    """Everything the members read; `graphs` are those of the crystals, without angles."""
    every = np.arange(len(crystals))
    if graph_members(members):
        merged = of_crystals(graphs, angles=angles, threads=threads)
        yield Reading(graph_members(members), GraphInputs(merged), every, {}, merged=True)
    for (view, _), seeing in _watchers(members).items():
        for rows in np.split(every, range(DRAWN_AT_ONCE, len(every), DRAWN_AT_ONCE)):
            refused: dict[int, str] = {}
            portion = crystals.select(rows)
            scenes = scene.build(portion, view, refused)
            good = np.setdiff1d(np.arange(len(rows)), list(refused))
            drawn = PictureInputs(portion.select(good), augment.crystals(scenes, good), view)
            yield Reading(seeing, drawn, rows[good], {int(rows[k]): reason for k, reason in refused.items()})


def unmerged(members: Sequence[Checkpoint], graphs: Graphs, *, angles: bool) -> Iterator[Reading]:
    """The graphs of `readings` in portions; each atom, bond and angle stands for itself."""
    for rows in np.split(np.arange(len(graphs)), range(WHOLE_AT_ONCE, len(graphs), WHOLE_AT_ONCE)):
        part = graphs.select(rows)
        yield Reading(graph_members(members), GraphInputs(part.with_angles() if angles else part), rows, {})


def compositions(members: Sequence[Checkpoint], crystals: Crystals) -> Iterator[Reading]:
    """What the members read that know elements and amounts alone."""
    atoms = crystals.composition()
    held = atoms.any(axis=1)
    refused = dict.fromkeys(np.flatnonzero(~held).tolist(), "its occupancies are 0 in five digits")
    rows = np.flatnonzero(held)
    for spec in dict.fromkeys(member.spec for member in members if member.kind.family == "composition"):
        reading = tuple(k for k, member in enumerate(members) if member.spec == spec)
        yield Reading(reading, CompositionInputs(atoms[rows], spec), rows, refused)  # type: ignore[arg-type] # of its kind


def graph_members(members: Sequence[Checkpoint]) -> tuple[int, ...]:
    """Positions of the members that read graphs."""
    return tuple(k for k, member in enumerate(members) if member.kind.family == "graphs")


def _watchers(members: Sequence[Checkpoint]) -> dict[tuple[ViewSpec, str], tuple[int, ...]]:
    """Members that see the same pictures, normalised alike."""
    found: dict[tuple[ViewSpec, str], tuple[int, ...]] = {}
    for k, member in enumerate(members):
        if member.kind.views:
            spec: Any = member.spec
            scale = repr([member.network.get_buffer(name).tolist() for name in ("mean", "std")])
            found[spec, scale] = (*found.get((spec, scale), ()), k)
    return found
