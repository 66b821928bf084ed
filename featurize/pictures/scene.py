"""Scenes: what a camera sees of a crystal, as spheres and sticks in the camera's frame.

Enters: `Crystals` and a `ViewSpec`. Leaves: `Scenes`, a ragged batch of views, a few kilobytes
each. This module does not know pixels or networks.

The views of a crystal do not depend on how its cell was chosen, where its origin lies, or in which
order its sites come: a block of conventional cells is drawn, centred on an atom of the rarest
species, with the atoms on its faces on both. Views that show the same, because a symmetry operation
relates them, are recognised and drawn once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from assay.featurize import alternatives, elements, neighbours
from assay.featurize.pictures import blocks, colours, frames
from assay.featurize.pictures.cameras import cameras
from assay.featurize.readable import too_heavy
from assay.featurize.standard import Conventional
from assay.sources.crystals import Crystals
from assay.sources.elements import SYMBOLS
from assay.sources.formats import convert

MARGIN = 1.03
"""Edge of the image over the reach of its spheres."""
MOST_ATOMS = 20_000
"""Atoms of one block; a larger one is refused."""
Bonding = Literal["radii", "crystal-nn"]
"""The rules that decide what is bonded, see `ViewSpec.bonding`."""


@dataclass(frozen=True)
class ViewSpec:
    """Which pictures are taken of a crystal; saved with the network that learned from them."""

    KEY: ClassVar[str] = "view"
    """Section of a recipe and of `model.json`."""

    encoding: str = "physics"
    """A key of `assay.featurize.pictures.colours.ENCODINGS`."""
    supercells: tuple[tuple[int, int, int], ...] = ((1, 1, 1), (2, 2, 1), (2, 2, 2))
    """Blocks of conventional cells."""
    axes: bool = True
    """Look along a, b and c."""
    random: int = 3
    """Further views of every block in random orientations, the same for all crystals."""
    seed: int = 0
    """Of the random orientations."""
    size: int = 224
    """Pixels of an edge of the image."""
    radius: float = 0.5
    """Radius of a sphere, in covalent radii."""
    bonds: float = 1.2
    """Atoms closer than this many times the sum of their covalent radii are joined; 0: no bonds are
    drawn."""
    bonding: Bonding = "radii"
    """What is bonded. "radii": see `bonds`. "crystal-nn": an atom and its near neighbours by
    pymatgen's CrystalNN (Zimmermann & Jain, RSC Adv. 10, 6063, 2020), whatever `bonds` is above 0;
    one atom naming the other is enough."""
    bond_radius: float = 0.12
    """Å."""
    shading: float = 0.5
    """Share of the colour lost where a surface is seen edge-on; 0: flat discs."""
    background: float = 0.0
    """Value of every channel of an element property where there is nothing; maps are 0 there."""

    def __post_init__(self) -> None:
        colours.encoding(self.encoding)
        object.__setattr__(self, "supercells", tuple(tuple(int(n) for n in block) for block in self.supercells))
        checks = (
            ("supercells", bool(self.supercells) and all(len(b) == 3 and min(b) >= 1 for b in self.supercells), ">= 1"),
            ("random", self.random >= 0 and (self.axes or self.random > 0), ">= 0, and >= 1 without axes"),
            ("seed", self.seed >= 0, ">= 0"),
            ("size", 8 <= self.size <= 4096, "8 to 4096"),
            ("radius", 0 < self.radius <= 3, "above 0, at most 3"),
            ("bonds", 0 <= self.bonds <= 2, "0 to 2"),
            ("bonding", self.bonding in get_args(Bonding), " or ".join(map(repr, get_args(Bonding)))),
            ("bond_radius", 0 < self.bond_radius <= 1, "above 0, at most 1"),
            ("shading", 0 <= self.shading <= 1, "0 to 1"),
            ("background", 0 <= self.background <= 1, "0 to 1"),
        )
        for name, good, accepted in checks:
            if not good:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected {accepted}")

    @property
    def shape(self) -> tuple[int, int]:
        """Channels and pixels of an edge of a picture."""
        return len(colours.encoding(self.encoding).names), self.size

    @property
    def views(self) -> int:
        """Views of one crystal, before equivalent ones are merged."""
        return len(self.supercells) * (3 * self.axes + self.random)


@dataclass(frozen=True)
class Scenes:
    """`V` views of a batch of crystals, with `B` spheres and `T` sticks in total.

    Camera frame: x to the right, y up, z towards the viewer, Å, orthographic; the origin is in the
    middle of the image.
    """

    view_ptr: NDArray[np.int64]
    """(n + 1,) views of crystal i are `view_ptr[i]:view_ptr[i + 1]`."""
    weight: NDArray[np.float32]
    """(V,) number of equivalent views that each stands for."""
    block: NDArray[np.int32]
    """(V,) position of its block in `ViewSpec.supercells`."""
    extent: NDArray[np.float32]
    """(V,) Å from the middle of the image to its edge; the view fits with a margin of 3 %."""
    depth: NDArray[np.float32]
    """(V, 2) Å, z of the furthest and of the nearest point of its spheres."""
    sphere_ptr: NDArray[np.int64]
    """(V + 1,) spheres of each view."""
    centre: NDArray[np.float32]
    """(B, 3) Å."""
    radius: NDArray[np.float32]
    """(B,) Å."""
    colour: NDArray[np.float32]
    """(B, C) channel values of `ViewSpec.encoding`, without its maps, 0 to 1."""
    site: NDArray[np.int32]
    """(B,) a site of the batch of crystals with the species of this sphere."""
    stick_ptr: NDArray[np.int64]
    """(V + 1,) sticks of each view."""
    start: NDArray[np.float32]
    """(T, 3) Å, centre of an atom."""
    end: NDArray[np.float32]
    """(T, 3) Å, middle of the bond: the other half is another stick."""
    owner: NDArray[np.int32]
    """(T,) sphere whose colour it has, counted in the batch."""

    def __len__(self) -> int:
        return len(self.weight)


def build(crystals: Crystals, spec: ViewSpec, refused: dict[int, str] | None = None) -> Scenes:
    """The views of every crystal.

    Given `refused`, a crystal that cannot be drawn has no views and is noted there.

    Raises:
        ValueError: for an element without a colour, a block of more than `MOST_ATOMS` atoms, or
            where CrystalNN fails; names the crystal.
        ImportError: when `bonding` is "crystal-nn" and pymatgen is missing.
    """
    look = _appearance(crystals, spec)
    views: list[list[_Shown]] = []
    for row in range(len(crystals)):
        try:
            views.append(_views(crystals, row, look, spec))
        except ValueError as error:
            if refused is None:
                raise
            refused[row] = str(error)
            views.append([])
    return _joined(views, look)


# What a site looks like.


@dataclass(frozen=True)
class _Look:
    """Colour (S, C), radius (S,) in Å and covalent radius (S,) in Å of every site."""

    colour: NDArray[np.float32]
    radius: NDArray[np.float64]
    covalent: NDArray[np.float64]


def _appearance(crystals: Crystals, spec: ViewSpec) -> _Look:
    """Means over the species on a site; vacancies shrink its sphere, to the volume per atom."""
    heavy = too_heavy(crystals)
    if heavy.any():
        name, last = crystals.ids[np.argmax(heavy)], SYMBOLS[elements.HEAVIEST]
        raise ValueError(f"{name}: holds an element beyond {last}, the last that has a colour")
    covalent = elements.properties()[:, elements.property_names().index("covalent_radius")]
    table = np.column_stack([covalent, colours.encoding(spec.encoding).table()])
    share = crystals.occupancy.astype(np.float64)[:, None]
    first = crystals.species_ptr[:-1]
    total = np.add.reduceat(share, first, axis=0)
    mean = np.add.reduceat(table[crystals.numbers] * share, first, axis=0) / total
    radius = spec.radius * mean[:, 0] * np.cbrt(np.minimum(total[:, 0], 1.0))
    return _Look(mean[:, 1:].astype(np.float32), radius, mean[:, 0])


# Blocks and the cameras around them.


@dataclass(frozen=True)
class _Shown:
    """The different views of a block."""

    number: int
    """Position in `ViewSpec.supercells`."""
    block: blocks.Block
    cameras: NDArray[np.float64]
    """(v, 3, 3)."""
    seen: NDArray[np.float64]
    """(v, m, 3) Å, atoms in the frame of each camera."""
    weight: NDArray[np.int64]
    """(v,)."""
    sites: NDArray[np.int64]
    """(s,) site of the batch of each atom of the cell."""


def _views(crystals: Crystals, row: int, look: _Look, spec: ViewSpec) -> list[_Shown]:
    """The views of one crystal; of several that show the same, the first."""
    held = frames.frame(crystals, row)
    bonds = _bonds(crystals, row, held, look, spec)
    every = cameras(held.cell, axes=spec.axes, random=spec.random, seed=spec.seed)
    shown = []
    for number, size in enumerate(spec.supercells):
        if len(held.frac) * math.prod(size) > MOST_ATOMS:
            raise ValueError(
                f"{crystals.ids[row]}: a block of {size} cells has {len(held.frac) * math.prod(size)} atoms or "
                f"more, at most {MOST_ATOMS} are drawn"
            )
        block = blocks.block(held.cell, held.frac, size, bonds)
        seen = block.position @ every.transpose(0, 2, 1)
        kept, weight = blocks.different(seen, 1 + 0.37 * held.kinds[block.atom])
        shown.append(_Shown(number, block, every[kept], seen[kept], weight, held.sites))
    return shown


def _bonds(crystals: Crystals, row: int, held: Conventional, look: _Look, spec: ViewSpec) -> blocks.Bonds:
    """Bonds by the rule of `ViewSpec.bonding`, none of them between sites of a split position."""
    cell, frac, sites = held.cell, held.frac % 1.0 % 1.0, held.sites
    if spec.bonding == "radii" or spec.bonds == 0:
        source, owner, vector = _within_radii(cell, frac, look.covalent[sites], spec.bonds)
    else:
        try:
            source, owner, vector = _near(crystals, cell, frac, sites)
        except ValueError as error:
            raise ValueError(f"{crystals.ids[row]}: {error}") from error
    joined = np.linalg.norm(vector, axis=1) >= alternatives.CLOSEST
    share = crystals.site_occupancy[sites]
    if alternatives.possible(share):
        split = alternatives.find(cell[None], frac, np.array([0, len(frac)]), share)
        joined &= ~split.between(source, owner, vector)
    owner, vector = owner[joined], vector[joined]
    count = np.bincount(owner, minlength=len(frac))
    return blocks.Bonds(np.concatenate([[0], np.cumsum(count)]), vector, vector @ np.linalg.inv(cell))


def _within_radii(
    cell: NDArray[np.float64], frac: NDArray[np.float64], covalent: NDArray[np.float64], scale: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Neighbour (e,), atom (e,), ascending, and vector (e, 3) within `scale` covalent radii."""
    count = np.array([0, len(frac)], np.int64)
    _, source, target, vector, distance = neighbours.within(cell[None], frac, count, 2 * scale * covalent.max())
    joined = distance < scale * (covalent[source] + covalent[target])
    return source[joined].astype(np.int64), target[joined].astype(np.int64), vector[joined]


def _near(
    crystals: Crystals, cell: NDArray[np.float64], frac: NDArray[np.float64], sites: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Near neighbours by CrystalNN, in both directions; laid out as by `_within_radii`."""
    source, target, image = convert.near_neighbours(crystals, cell, frac, sites)
    there = np.column_stack([source, target, image])
    back = np.column_stack([target, source, -image])
    both = np.unique(np.concatenate([there, back]), axis=0)
    vector = (frac[both[:, 1]] + both[:, 2:] - frac[both[:, 0]]) @ cell
    return both[:, 1], both[:, 0], vector


def _joined(crystals: list[list[_Shown]], look: _Look) -> Scenes:
    """Views laid end to end; within a view by depth, nearest first, then by place."""
    shown = [each for found in crystals for each in found]
    views = [len(each.weight) for each in shown]
    sphere_ptr = _pointer(np.repeat([len(each.block.atom) for each in shown], views))
    stick_ptr = _pointer(np.repeat([len(each.block.middle) for each in shown], views))
    site, owner = np.empty(sphere_ptr[-1], np.int32), np.empty(stick_ptr[-1], np.int32)
    centre = np.empty((sphere_ptr[-1], 3), np.float32)
    start, end = np.empty((2, stick_ptr[-1], 3), np.float32)
    reach, first = np.empty((len(sphere_ptr) - 1, 3)), 0
    for each, last in zip(shown, np.cumsum(views, dtype=np.int64), strict=True):
        held, sticks = slice(*sphere_ptr[[first, last]]), slice(*stick_ptr[[first, last]])
        sites, rows = each.sites[each.block.atom], each.cameras.reshape(-1, 3)
        blocks.draw(
            *(each.seen, blocks.order(each.seen), sites, look.radius[sites]),
            *((each.block.middle @ rows.T).reshape(-1, *each.cameras.shape[:2]), each.block.half_ptr, held.start),
            *(centre[held], site[held], start[sticks], end[sticks], owner[sticks], reach[first:last]),
        )
        first = last
    return Scenes(
        view_ptr=_pointer([sum(len(each.weight) for each in found) for found in crystals]),
        weight=np.concatenate([np.zeros(0, np.float32), *(each.weight for each in shown)], dtype=np.float32),
        block=np.repeat(np.array([each.number for each in shown], np.int32), views),
        extent=(MARGIN * reach[:, 0]).astype(np.float32),
        depth=reach[:, 1:].astype(np.float32),
        sphere_ptr=sphere_ptr,
        centre=centre,
        radius=look.radius[site].astype(np.float32),
        colour=look.colour[site],
        site=site,
        stick_ptr=stick_ptr,
        start=start,
        end=end,
        owner=owner,
    )


def _pointer(counts: ArrayLike) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
