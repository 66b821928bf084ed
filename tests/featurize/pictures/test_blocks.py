"""Blocks and the choice of the frame: compiled loops against the same rules written out with numpy."""

from __future__ import annotations

import itertools
import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from assay.featurize import standard
from assay.featurize.pictures import blocks, frames, scene
from assay.featurize.pictures.scene import ViewSpec
from assay.sources.crystals import Crystals

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPEC = ViewSpec(supercells=((1, 1, 1), (3, 2, 1)))


def by_hand(one: Crystals, spec: ViewSpec) -> dict[str, NDArray[Any]]:
    """Atoms, half bonds, order and reach of every view of one crystal, view by view."""
    held = frames.frame(one, 0)
    bonds = scene._bonds(one, 0, held, scene._appearance(one, spec), spec)
    radius = scene._appearance(one, spec).radius[held.sites]
    found: dict[str, list[Any]] = {"centre": [], "start": [], "end": [], "owner": [], "site": [], "extent": []}
    first = 0
    for size in spec.supercells:
        steps = np.array(list(itertools.product(*(range(-(n // 2 + 1), n // 2 + 2) for n in size))))
        every = held.frac[:, None] + steps
        atom, step = np.nonzero((abs(every) <= np.array(size) / 2 + blocks.EDGE).all(axis=2))
        fraction = every[atom, step]
        halves = [
            (m, edge)
            for m, s in enumerate(atom)
            for edge in range(bonds.ptr[s], bonds.ptr[s + 1])
            if (abs(fraction[m] + bonds.fraction[edge]) <= np.array(size) / 2 + blocks.EDGE).all()
        ]
        begins, edge = np.array(halves, np.int64).reshape(-1, 2).T
        position = fraction @ held.cell
        middle = position[begins] + bonds.vector[edge] / 2
        marks: list[NDArray[Any]] = []
        for camera in scene.cameras(held.cell, axes=spec.axes, random=spec.random, seed=spec.seed):
            centre = position @ camera.T
            mark = blocks._marks(centre[None], 1 + 0.37 * held.kinds[atom])[0]
            if any(abs(mark - other).max() < blocks.SAME * len(atom) for other in marks):
                continue
            marks.append(mark)
            x, y, z = centre.round(3).T
            order = np.lexsort((y, x, -z))
            rank = np.argsort(order)
            place = np.argsort(rank[begins], kind="stable")
            found["centre"].append(centre[order])
            found["site"].append(held.sites[atom][order])
            found["start"].append(centre[begins][place])
            found["end"].append((middle @ camera.T)[place])
            found["owner"].append(first + rank[begins][place])
            found["extent"].append([scene.MARGIN * (abs(centre[:, :2]).max(axis=1) + radius[atom]).max()])
            first += len(order)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def test_scenes_are_what_the_rules_say(crystals: Crystals, disordered: Crystals) -> None:
    for batch in (crystals, disordered):
        for row in range(0, len(batch), len(batch) // 6):
            one = batch[row : row + 1]
            if one.nsites[0] > 40:
                continue
            made, wanted = scene.build(one, SPEC), by_hand(one, SPEC)
            for name, values in wanted.items():
                np.testing.assert_allclose(getattr(made, name), values, atol=1e-5, err_msg=f"{one.ids[0]} {name}")


def test_the_scenes_of_a_batch_are_those_of_its_crystals(crystals: Crystals) -> None:
    three, single = scene.build(crystals[:3], SPEC), [scene.build(crystals[k : k + 1], SPEC) for k in range(3)]
    for name in ("weight", "block", "extent", "depth", "centre", "radius", "colour", "start", "end"):
        assert name in {field.name for field in fields(three)}
        assert getattr(three, name).tobytes() == b"".join(getattr(one, name).tobytes() for one in single)


def test_the_frame_is_the_largest_value_of_the_function_of_the_atoms(crystals: Crystals) -> None:
    for row in range(0, len(crystals), len(crystals) // 5):
        _, frac, _, kinds = standard.conventional(crystals, row)
        centres = np.arange(min(len(frac), 3))
        waves, factors = frames._waves()
        turns = np.array([np.eye(3), [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]])
        vectors = np.rint(waves @ turns).astype(np.int64)
        value = frames._values(frac, 1 + 0.37 * kinds, centres, vectors, factors, abs(vectors).max())
        phases = np.exp(2j * math.pi * (frac @ vectors.transpose(0, 2, 1).astype(float)))
        amplitudes = np.einsum("tsw,s->tw", phases, 1 + 0.37 * kinds)
        wanted = np.einsum("tow,tw,w->to", phases[:, centres].conj(), amplitudes, factors).real
        np.testing.assert_allclose(value, wanted, atol=1e-9 * len(frac))


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_the_order_is_by_depth_then_by_place(scale: float) -> None:
    rng = np.random.default_rng(0)
    seen = scale * rng.integers(-3, 4, (2, 300, 3)) + rng.uniform(-4e-4, 4e-4, (2, 300, 3))
    for places, order in zip(seen, blocks.order(seen), strict=True):
        x, y, z = places.round(3).T
        assert order.tolist() == np.lexsort((y, x, -z)).tolist()
