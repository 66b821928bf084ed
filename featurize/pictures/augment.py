"""Scenes varied for training: fewer views, turned, mirrored, nearer or further.

Enters: `Scenes`. Leaves: `Scenes`. Everything happens to the spheres and sticks before they are
drawn, so no pixel is interpolated. A crystal that is turned or mirrored has the same properties;
one with other colours is another crystal, so colours are left alone unless asked for
(docs/results.md has what it costs). This module does not know pixels or networks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from assay.featurize.pictures.scene import MARGIN, Scenes
from assay.sources.crystals import gather_ranges


@dataclass(frozen=True)
class Augment:
    """What is varied each time a crystal is shown in training; nothing is when it is predicted."""

    views: int = 2
    """Views of each crystal that are drawn for one step, another choice every time; 0: all."""
    turn: Literal["none", "plane", "space"] = "plane"
    """Turns by random angles: not at all, the picture in its plane, or the crystal in space."""
    flip: bool = True
    """Half of the views are mirrored."""
    zoom: float = 0.1
    """Sizes vary by up to this share; what no longer fits is cut off."""
    jitter: float = 0.0
    """Every channel of a view is multiplied by up to this much more or less. The channels are
    element properties, and this makes other elements of them."""

    def __post_init__(self) -> None:
        if self.views < 0:
            raise ValueError(f"augment.views is {self.views}, expected at least 0")
        if self.turn not in ("none", "plane", "space"):
            raise ValueError(f"augment.turn is {self.turn!r}, expected none, plane or space")
        for name in ("zoom", "jitter"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"augment.{name} is {getattr(self, name)}, expected 0 to below 1")


def select(scenes: Scenes, views: NDArray[np.int64], view_ptr: NDArray[np.int64]) -> Scenes:
    """The given views (v,), those of crystal i at `view_ptr[i]:view_ptr[i + 1]` of them."""
    spheres, sphere_ptr = gather_ranges(scenes.sphere_ptr, views)
    sticks, stick_ptr = gather_ranges(scenes.stick_ptr, views)
    moved = np.repeat(sphere_ptr[:-1] - scenes.sphere_ptr[views], np.diff(stick_ptr))
    return Scenes(
        view_ptr=view_ptr,
        weight=scenes.weight[views],
        block=scenes.block[views],
        extent=scenes.extent[views],
        depth=scenes.depth[views],
        sphere_ptr=sphere_ptr,
        centre=scenes.centre[spheres],
        radius=scenes.radius[spheres],
        colour=scenes.colour[spheres],
        site=scenes.site[spheres],
        stick_ptr=stick_ptr,
        start=scenes.start[sticks],
        end=scenes.end[sticks],
        owner=(scenes.owner[sticks] + moved).astype(np.int32),
    )


def crystals(scenes: Scenes, rows: NDArray[np.int64]) -> Scenes:
    """All views of some crystals."""
    return select(scenes, *gather_ranges(scenes.view_ptr, rows))


def draw(scenes: Scenes, rows: NDArray[np.int64], how: Augment, seeds: tuple[int, ...]) -> Scenes:
    """Some views of some crystals, varied; a crystal's views depend on its row and the seeds.

    A view that stands for several is as likely to be drawn as they are together, and counts once
    each time.
    """
    views: list[NDArray[np.int64]] = []
    turns: list[NDArray[np.float64]] = []
    others: list[NDArray[np.float64]] = []
    for row in rows.tolist():
        rng = np.random.default_rng([*seeds, row])
        held = np.arange(scenes.view_ptr[row], scenes.view_ptr[row + 1])
        every = np.repeat(held, scenes.weight[held].astype(np.int64))
        few = min(how.views or len(every), len(every))
        views.append(np.sort(rng.permutation(every)[:few]))
        turns.append(random_turns(rng, few, how))
        others.append(rng.uniform(-1, 1, (few, 1 + scenes.colour.shape[1])))
    ptr = np.cumsum([0, *map(len, views)], dtype=np.int64)
    chosen = select(scenes, np.concatenate(views), ptr)
    chosen = replace(chosen, weight=np.ones(len(chosen), np.float32))
    dealt = np.concatenate(others)
    return _coloured(turned(chosen, np.concatenate(turns), 1 + how.zoom * dealt[:, 0]), 1 + how.jitter * dealt[:, 1:])


def turned(scenes: Scenes, turns: NDArray[np.float64], zoom: NDArray[np.float64]) -> Scenes:
    """Every view after its turn (V, 3, 3), a rotation or mirroring, `zoom` (V,) times as large."""
    spheres, sticks = (
        np.repeat(turns, np.diff(ptr), axis=0).astype(np.float32) for ptr in (scenes.sphere_ptr, scenes.stick_ptr)
    )
    centre = np.einsum("bij,bj->bi", spheres, scenes.centre)
    first = scenes.sphere_ptr[:-1]
    reach = np.maximum.reduceat(abs(centre[:, :2]).max(axis=1) + scenes.radius, first)
    near = np.maximum.reduceat(centre[:, 2] + scenes.radius, first)
    far = np.minimum.reduceat(centre[:, 2] - scenes.radius, first)
    return replace(
        scenes,
        extent=(MARGIN * reach / zoom).astype(np.float32),
        depth=np.column_stack([far, near]).astype(np.float32),
        centre=centre,
        start=np.einsum("bij,bj->bi", sticks, scenes.start),
        end=np.einsum("bij,bj->bi", sticks, scenes.end),
    )


def random_turns(rng: np.random.Generator, n: int, how: Augment) -> NDArray[np.float64]:
    """(n, 3, 3) random turns."""
    made = np.tile(np.eye(3), (n, 1, 1))
    angles, normal = rng.uniform(0, 2 * np.pi, n), rng.normal(size=(n, 3, 3))
    if how.turn == "space":
        made, upper = np.linalg.qr(normal)
        made *= np.sign(np.diagonal(upper, axis1=1, axis2=2))[:, None, :]  # uniform over all (Mezzadri, 2007)
        made *= np.linalg.det(made)[:, None, None]
    elif how.turn == "plane":
        made[:, 0, 0] = made[:, 1, 1] = np.cos(angles)
        made[:, 1, 0] = np.sin(angles)
        made[:, 0, 1] = -made[:, 1, 0]
    flipped = rng.random(n) < 0.5
    if how.flip:
        made[flipped, 0] *= -1
    return made


def _coloured(scenes: Scenes, factor: NDArray[np.float64]) -> Scenes:
    """Channels (C,) of every view times a factor (V, C)."""
    if (factor == 1).all():
        return scenes
    each = np.repeat(factor, np.diff(scenes.sphere_ptr), axis=0).astype(np.float32)
    return replace(scenes, colour=(scenes.colour * each).clip(0, 1))
