"""Scenes: what a camera sees of a crystal, as spheres and sticks in the camera's frame.

Enters: `Crystals` and a `ViewSpec`. Leaves: `Scenes`, a ragged batch of views, a few kilobytes
each. This module does not know pixels or networks.

The views of a crystal do not depend on how its cell was chosen, where its origin lies, or in which
order its sites come: a block of conventional cells is drawn, centred on an atom of the rarest
species, with the atoms on its faces on both. Views that show the same, because a symmetry operation
relates them, are recognised and drawn once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from assay.featurize import alternatives, elements, neighbours, standard
from assay.featurize.pictures import colours
from assay.featurize.pictures.cameras import cameras
from assay.featurize.readable import too_heavy
from assay.sources.crystals import Crystals, gather_ranges
from assay.sources.elements import SYMBOLS
from assay.sources.formats import convert

EDGE = 1e-3
"""Atoms this far outside the block, in fractions of its cell, are drawn: those on its faces are on
both."""
SAME = 1e-6
"""Difference per atom below which two views are one, see `_mark`."""
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
    views: list[list[_View]] = []
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
class _Block:
    """The atoms of a block of cells and the halves of their bonds, in the frame of the cell, Å."""

    site: NDArray[np.int64]
    position: NDArray[np.float64]
    owner: NDArray[np.int64]
    """Atom that each half bond begins at."""
    middle: NDArray[np.float64]
    """Where it ends."""


_Frame = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]
"""Cell (3, 3) in Å, fractional positions (s, 3), and a site (s,) of the batch like each, see
`standard.frame`."""


@dataclass
class _View:
    number: int
    block: _Block
    camera: NDArray[np.float64]
    mark: NDArray[np.float64]
    weight: int = 1


@dataclass(frozen=True)
class _Bonds:
    """Bonds of the cell: those of site i are `ptr[i]:ptr[i + 1]`; in Å and fractional."""

    ptr: NDArray[np.int64]
    vector: NDArray[np.float64]
    fraction: NDArray[np.float64]


def _views(crystals: Crystals, row: int, look: _Look, spec: ViewSpec) -> list[_View]:
    """The views of one crystal; of several that show the same, the first."""
    cell, frac, sites = standard.frame(crystals, row)
    bonds = _bonds(crystals, row, (cell, frac % 1.0 % 1.0, sites), look, spec)
    weight = np.asarray(1 + 0.37 * standard.kinds_of(crystals, sites), np.float64)
    views: list[_View] = []
    for number, size in enumerate(spec.supercells):
        if len(frac) * math.prod(size) > MOST_ATOMS:
            raise ValueError(
                f"{crystals.ids[row]}: a block of {size} cells has {len(frac) * math.prod(size)} atoms or "
                f"more, at most {MOST_ATOMS} are drawn"
            )
        index, fraction = _inside(frac, size)
        owner, middle = _halves(index, fraction, cell, bonds, size)
        block = _Block(sites[index], fraction @ cell, owner, middle)
        first = len(views)
        for camera in cameras(cell, axes=spec.axes, random=spec.random, seed=spec.seed):
            mark = _mark(block.position @ camera.T, weight[index])
            same = next((view for view in views[first:] if abs(view.mark - mark).max() < SAME * len(index)), None)
            if same:
                same.weight += 1
            else:
                views.append(_View(number, block, camera, mark))
    return views


def _mark(position: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Three numbers that two views share only if they show the same atoms at the same places."""
    waves = np.array([[0.731, 1.137, 0.419], [-0.523, 0.877, 1.291], [1.083, -0.349, 0.967]])
    return np.asarray(weight @ np.sin(position @ waves.T + 0.613), np.float64)


def _inside(frac: NDArray[np.float64], size: tuple[int, int, int]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Atom (m,) and fractional position (m, 3) of all in a block around the origin, with faces."""
    steps = _translations(size)
    every = frac[:, None, :] + steps
    atom, step = np.nonzero((abs(every) <= np.array(size) / 2 + EDGE).all(axis=2))
    return atom, every[atom, step]


@lru_cache(maxsize=64)
def _translations(size: tuple[int, int, int]) -> NDArray[np.float64]:
    reach = [range(-(n // 2 + 1), n // 2 + 2) for n in size]
    return np.array(list(itertools.product(*reach)), np.float64)


def _bonds(crystals: Crystals, row: int, frame: _Frame, look: _Look, spec: ViewSpec) -> _Bonds:
    """Bonds by the rule of `ViewSpec.bonding`, none of them between sites of a split position.

    Positions are in [0, 1).
    """
    cell, frac, sites = frame
    if spec.bonding == "radii" or spec.bonds == 0:
        source, owner, vector = _within_radii(cell, frac, look.covalent[sites], spec.bonds)
    else:
        try:
            source, owner, vector = _near(crystals, frame)
        except ValueError as error:
            raise ValueError(f"{crystals.ids[row]}: {error}") from error
    joined = np.linalg.norm(vector, axis=1) >= alternatives.CLOSEST
    share = crystals.site_occupancy[sites]
    if alternatives.possible(share):
        split = alternatives.find(cell[None], frac, np.array([0, len(frac)]), share)
        joined &= ~split.between(source, owner, vector)
    owner, vector = owner[joined], vector[joined]
    held = np.bincount(owner, minlength=len(frac))
    return _Bonds(np.concatenate([[0], np.cumsum(held)]), vector, vector @ np.linalg.inv(cell))


def _within_radii(
    cell: NDArray[np.float64], frac: NDArray[np.float64], covalent: NDArray[np.float64], scale: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Neighbour (e,), atom (e,), ascending, and vector (e, 3) within `scale` covalent radii."""
    count = np.array([0, len(frac)], np.int64)
    _, source, target, vector, distance = neighbours.within(cell[None], frac, count, 2 * scale * covalent.max())
    joined = distance < scale * (covalent[source] + covalent[target])
    return source[joined].astype(np.int64), target[joined].astype(np.int64), vector[joined]


def _near(crystals: Crystals, frame: _Frame) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Near neighbours by CrystalNN, in both directions; laid out as by `_within_radii`."""
    cell, frac, sites = frame
    source, target, image = convert.near_neighbours(crystals, cell, frac, sites)
    there = np.column_stack([source, target, image])
    back = np.column_stack([target, source, -image])
    both = np.unique(np.concatenate([there, back]), axis=0)
    vector = (frac[both[:, 1]] + both[:, 2:] - frac[both[:, 0]]) @ cell
    return both[:, 1], both[:, 0], vector


def _halves(
    index: NDArray[np.int64],
    fraction: NDArray[np.float64],
    cell: NDArray[np.float64],
    bonds: _Bonds,
    size: tuple[int, int, int],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Atom (t,) and end (t, 3) in Å of every half bond whose atoms are both in the block."""
    edge, ptr = gather_ranges(bonds.ptr, index)
    owner = np.repeat(np.arange(len(index)), np.diff(ptr))
    far = fraction[owner] + bonds.fraction[edge]
    kept = (abs(far) <= np.array(size) / 2 + EDGE).all(axis=1)
    owner, edge = owner[kept], edge[kept]
    return owner, fraction[owner] @ cell + bonds.vector[edge] / 2


def _joined(crystals: list[list[_View]], look: _Look) -> Scenes:
    """Views laid end to end; within a view by depth, nearest first, then by place."""
    spheres, sticks, extent, depth = [], [], [], []
    first = 0
    for view in (view for found in crystals for view in found):
        block = view.block
        centre, start = block.position @ view.camera.T, block.position[block.owner] @ view.camera.T
        order, place = _order(centre), _order(start)
        rank = np.empty(len(order), np.int64)
        rank[order] = first + np.arange(len(order))
        spheres.append((centre[order], block.site[order]))
        sticks.append((start[place], (block.middle @ view.camera.T)[place], rank[block.owner[place]]))
        radius = look.radius[block.site]
        extent.append(MARGIN * float((abs(centre[:, :2]).max(axis=1) + radius).max()))
        depth.append([(centre[:, 2] - radius).min(), (centre[:, 2] + radius).max()])
        first += len(order)
    site = np.concatenate([np.zeros(0, np.int64), *(held for _, held in spheres)])
    return Scenes(
        view_ptr=_pointer(crystals),
        weight=np.array([view.weight for found in crystals for view in found], np.float32),
        block=np.array([view.number for found in crystals for view in found], np.int32),
        extent=np.array(extent, np.float32),
        depth=np.array(depth, np.float32).reshape(-1, 2),
        sphere_ptr=_pointer([held for _, held in spheres]),
        centre=_stacked([place for place, _ in spheres]),
        radius=look.radius[site].astype(np.float32),
        colour=look.colour[site],
        site=site.astype(np.int32),
        stick_ptr=_pointer([owner for _, _, owner in sticks]),
        start=_stacked([start for start, _, _ in sticks]),
        end=_stacked([end for _, end, _ in sticks]),
        owner=np.concatenate([np.zeros(0, np.int64), *(owner for _, _, owner in sticks)]).astype(np.int32),
    )


def _order(place: NDArray[np.float64]) -> NDArray[np.int64]:
    x, y, z = place.round(3).T
    return np.lexsort((y, x, -z))


def _pointer(parts: Sequence[Sized]) -> NDArray[np.int64]:
    return np.cumsum([0, *map(len, parts)], dtype=np.int64)


def _stacked(parts: list[NDArray[np.float64]]) -> NDArray[np.float32]:
    return np.concatenate([np.zeros((0, 3)), *parts]).astype(np.float32)
