"""The crystals that a teacher labels: drawn from data packs and prototypes, then displaced.

Enters: `Drawn` and `Displacement` of a recipe. Leaves: `Crystals` in a random order, so that any
first part of them is a fair sample. Each crystal is displaced by random numbers of its own. This
module does not know energies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.models.potentials.potential import right_handed
from assay.models.training.distil.frames import Frames
from assay.sources import prototypes
from assay.sources.crystals import Crystals, concat, text_array, wrap
from assay.sources.elements import SYMBOLS

if TYPE_CHECKING:
    from assay.sources.datasets import Dataset

_SPARE = 20
"""Prototypes made for each that is kept: some are too large, and half are disordered."""


@dataclass(frozen=True)
class Drawn:
    """Some of the crystals of one place."""

    dataset: str
    """A key of `assay.sources.datasets.DATASETS`, `FILE.parquet#COLUMN`, or `prototypes`.

    `assay distil` takes a campaign folder as well, and puts a file in its place."""
    count: int
    """Most crystals; they are drawn at random."""
    sites: int = 12
    """Most sites in the cell."""

    def __post_init__(self) -> None:
        for name in ("count", "sites"):
            if not getattr(self, name) > 0:
                raise ValueError(f"crystals.{name} is {getattr(self, name)}, expected above 0")


@dataclass(frozen=True)
class Displacement:
    """How far a crystal is moved before it is labelled.

    A crystal draws its own share of these, between nothing and all, most often little.
    """

    rattle: float = 0.15
    """Å, standard deviation of the displacement of an atom along an axis."""
    strain: float = 0.03
    """Standard deviation of each component of the strain."""
    volume: float = 0.06
    """Largest linear expansion or compression."""
    frames: tuple[Frames, ...] = ()
    """What moves some of the displaced crystals on, along a relaxation or hot."""

    def __post_init__(self) -> None:
        for name in ("rattle", "strain", "volume"):
            if not 0 <= getattr(self, name) < 0.5:
                raise ValueError(f"displacement.{name} is {getattr(self, name)}, expected 0 to 0.5")
        if (total := sum(one.share for one in self.frames)) > 1 + 1e-9:
            raise ValueError(f"displacement.frames have shares of {total:g} in all, expected at most 1")


def draw(drawn: Drawn, elements: frozenset[int], seed: int) -> Crystals:
    """Ordered crystals of some elements, in a random order, with ids that say where they are from.

    Raises:
        FileNotFoundError: when the data are not there.
        ValueError: for an unknown dataset.
    """
    if drawn.dataset == "prototypes":
        symbols = [SYMBOLS[z] for z in sorted(elements)]
        found = prototypes.generate(min(_SPARE * drawn.count, prototypes.count(None, symbols)), seed, None, symbols)
    else:
        found = _datasets().load(drawn.dataset).crystals
    strange = found.composition() > 0
    strange[:, sorted(elements)] = False
    fits = found.is_ordered & (found.nsites <= drawn.sites) & ~strange.any(axis=1)
    rows = np.random.default_rng([seed, 1]).permutation(np.flatnonzero(fits))[: drawn.count]
    some = found.select(rows).without_columns()
    return replace(some, ids=text_array([f"{drawn.dataset}/{name}" for name in some.ids]))


def known(name: str) -> Dataset:
    """A set of known values, whose file lies below the data folder or anywhere else.

    Raises:
        FileNotFoundError: when it is not there.
        ValueError: when it has no such column.
    """
    sets = _datasets()
    file, _, column = name.partition("#")
    path = Path(file) if Path(file).is_file() else sets.folder() / file
    found: Dataset = sets.load(f"{path}#{column}")
    return found


def _datasets() -> Any:
    from assay.sources import datasets  # which needs pyarrow

    return datasets


def displaced(crystals: Crystals, how: Displacement, seed: int) -> Crystals:
    """The crystals strained and rattled, right-handed; each depends on itself and the seed."""
    crystals = right_handed(crystals)
    strain, moves = np.empty((len(crystals), 3, 3)), np.empty((len(crystals.frac), 3))
    for row, name in enumerate(crystals.ids):
        random = np.random.default_rng([seed, *str(name).encode()])
        much, compressed = random.random(2) ** 2
        shear = random.normal(scale=how.strain * much, size=(3, 3))
        size = how.volume * compressed * random.choice([-1.0, 1.0])
        strain[row] = (shear + shear.T) / 2 + size * np.eye(3)
        sites = slice(crystals.site_ptr[row], crystals.site_ptr[row + 1])
        moves[sites] = random.normal(scale=how.rattle * much, size=(int(crystals.nsites[row]), 3))
    lattice = crystals.lattice @ (np.eye(3) + strain)
    frac = wrap(crystals.frac + np.einsum("si,sij->sj", moves, np.linalg.inv(lattice)[crystals.site_crystal]))
    return replace(crystals, lattice=lattice, frac=frac)


def together(parts: list[Crystals], seed: int) -> Crystals:
    """All parts in one random order."""
    every = concat(parts)
    return every.select(np.random.default_rng([seed, 2]).permutation(len(every)))


def systems(crystals: Crystals) -> NDArray[np.str_]:
    """(n,) chemical system of each crystal, such as `B-Mg`."""
    return np.array(crystals.elements())
