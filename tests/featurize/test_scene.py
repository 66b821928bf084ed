"""Scenes: the same views for every description of a crystal, equal views once, bonds and blocks as counted by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from featurize import raster, scene, standard
from featurize.scene import ViewSpec
from sources.crystals import Crystals, concat, wrap
from tests.crystal_copies import in_cell
from tests.featurize.cells import crystal, random_cell_change

if TYPE_CHECKING:
    from numpy.typing import NDArray

FACES = np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1]]) / 2
SALT = crystal(5.64 * np.eye(3), np.concatenate([FACES, FACES + 0.5]), [11] * 4 + [17] * 4)
PRIMITIVE_SALT = crystal(2.82 * (1 - np.eye(3)), [[0, 0, 0], [0.5, 0.5, 0.5]], [11, 17])
SMALL = ViewSpec(supercells=((1, 1, 1), (2, 2, 1)), size=64)


def described_anew(one: Crystals, rng: np.random.Generator) -> Crystals:
    """The same crystal in another cell, turned, moved, its sites in another order."""
    other = in_cell(one, proper(rng))
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    order = rng.permutation(len(other.frac))
    return reordered(
        replace(
            other,
            lattice=other.lattice @ (rotation * np.linalg.det(rotation)),
            frac=wrap(other.frac + rng.random(3)),
        ),
        order,
    )


def proper(rng: np.random.Generator) -> NDArray[np.int64]:
    while True:
        matrix = random_cell_change(rng)
        if np.linalg.det(matrix) > 0:
            return matrix


def reordered(one: Crystals, order: NDArray[np.int64]) -> Crystals:
    from sources.crystals import gather_ranges

    held, ptr = gather_ranges(one.species_ptr, order)
    return replace(one, frac=one.frac[order], species_ptr=ptr, numbers=one.numbers[held], occupancy=one.occupancy[held])


def pictures(one: Crystals, spec: ViewSpec) -> tuple[NDArray[Any], NDArray[Any]]:
    """Images of one crystal and the weight of each."""
    scenes = scene.build(one, spec)
    return raster.images(scenes, spec), scenes.weight


def unlike(one: Crystals, other: Crystals, spec: ViewSpec) -> float:
    """Largest mean difference of a picture of either to the most similar one of the other, of the same weight."""
    (mine, w), (theirs, v) = pictures(one, spec), pictures(other, spec)
    apart = abs(mine[:, None] - theirs[None]).mean(axis=(2, 3, 4)) + (w[:, None] != v[None])
    return float(max(apart.min(axis=0).max(), apart.min(axis=1).max()))


# The same crystal.


def test_views_do_not_depend_on_the_description(crystals: Crystals) -> None:
    rng = np.random.default_rng(0)
    found = [unlike(one, described_anew(one, rng), SMALL) for one in (crystals[k : k + 1] for k in range(0, 300, 4))]
    assert np.mean(np.array(found) < 1e-3) == 1.0, [
        crystals.ids[4 * k] for k in np.flatnonzero(np.array(found) >= 1e-3)
    ]


def test_views_of_disordered_crystals_do_not_depend_on_the_description(disordered: Crystals) -> None:
    rng = np.random.default_rng(1)
    rows = [k for k in range(0, len(disordered), 5) if disordered.nsites[k] <= 40]
    found = [unlike(one, described_anew(one, rng), SMALL) for one in (disordered[k : k + 1] for k in rows)]
    assert max(found) < 1e-3


def test_the_primitive_and_the_conventional_cell_show_the_same() -> None:
    assert unlike(SALT, PRIMITIVE_SALT, SMALL) < 1e-6


def test_other_crystals_look_otherwise(crystals: Crystals) -> None:
    first = crystals[0:1]
    assert min(unlike(first, crystals[k : k + 1], SMALL) for k in range(30, 300, 30)) > 5e-3
    swapped = replace(SALT, numbers=SALT.numbers[::-1].copy())  # the same picture: Na and Cl change places
    assert unlike(SALT, swapped, SMALL) < 1e-6


def test_left_and_right_quartz_are_told_apart() -> None:
    right = quartz(1)
    assert unlike(right, quartz(-1), SMALL) > 1e-3
    assert unlike(right, described_anew(right, np.random.default_rng(3)), SMALL) < 1e-3


def quartz(hand: int) -> Crystals:
    """Alpha quartz, P3_1 21 and P3_2 21."""
    a, c, u, (x, y, z) = 4.916, 5.4054, 0.4697, (0.4135, 0.2669, 0.1191)
    lattice = np.array([[a, 0, 0], [-a / 2, a * np.sqrt(3) / 2, 0], [0, 0, c]])
    silicon = [[u, 0, 1 / 3], [0, u, 2 / 3], [-u, -u, 0]]
    oxygen = [[x, y, z + 1 / 3], [-y, x - y, z + 2 / 3], [y - x, -x, z], [y, x, -z + 2 / 3], [x - y, -y, -z + 1 / 3],
              [-x, y - x, -z]]  # fmt: skip
    right = crystal(lattice, silicon + oxygen, [14] * 3 + [8] * 6)
    return right if hand > 0 else replace(right, frac=wrap(right.frac @ np.diag([1, 1, -1])))


# Equal views.


def test_equal_views_are_drawn_once() -> None:
    scenes = scene.build(SALT, ViewSpec(supercells=((1, 1, 1),), random=0))
    assert scenes.weight.tolist() == [3]
    both = scene.build(concat([SALT, quartz(1)]), replace(SMALL, random=2))
    assert both.weight.sum() == 2 * replace(SMALL, random=2).views
    assert both.view_ptr.tolist()[0] == 0
    assert len(both) == both.view_ptr[-1] < 2 * replace(SMALL, random=2).views


def test_views_that_differ_are_kept(crystals: Crystals) -> None:
    """Every pair of views of one block differs somewhere in the picture."""
    for k in range(0, 300, 60):
        scenes = scene.build(crystals[k : k + 1], SMALL)
        drawn = raster.images(scenes, SMALL)
        for i in range(len(drawn)):
            for j in range(i):
                assert scenes.block[i] != scenes.block[j] or abs(drawn[i] - drawn[j]).max() > 1e-3


# What is in a view.


def test_a_block_holds_the_atoms_on_its_faces() -> None:
    scenes = scene.build(SALT, ViewSpec(supercells=((1, 1, 1), (2, 2, 2), (2, 2, 1)), random=0))
    counts = np.diff(scenes.sphere_ptr)
    assert counts[0] == 3**3
    assert set(counts[scenes.block == 1]) == {5**3}
    assert set(counts[scenes.block == 2]) == {5 * 5 * 3}


def test_bonds_join_neighbours_in_two_halves() -> None:
    """Na-Cl 2.82 Å is within 1.2 (1.66 + 1.02) Å, Na-Na and Cl-Cl 3.99 Å: only of Na within 1.2 (1.66 + 1.66) Å."""
    scenes = scene.build(
        crystal(5.64 * np.eye(3), SALT.frac, [3] * 4 + [9] * 4), ViewSpec(supercells=((1, 1, 1),), random=0)
    )
    assert len(scenes.owner) == 0  # LiF stretched to the cell of NaCl: 2.82 Å is beyond 1.2 (1.28 + 0.57)
    one = scene.build(
        crystal(4.03 * np.eye(3), SALT.frac, [3] * 4 + [9] * 4), ViewSpec(supercells=((1, 1, 1),), random=0)
    )
    lengths = np.linalg.norm(one.end - one.start, axis=1) * 2
    assert np.allclose(lengths[lengths < 2.5], 2.015, atol=1e-4)
    assert (lengths < 2.5).sum() == 2 * 54  # a 3 x 3 x 3 grid has 54 edges
    far = one.end + (one.end - one.start)
    starts = {tuple(np.round(p, 2)) for p in one.centre}
    assert all(tuple(np.round(p, 2) + 0.0) in {tuple(np.array(q) + 0.0) for q in starts} for p in far)
    none = scene.build(SALT, ViewSpec(bonds=0.0))
    assert len(none.owner) == none.stick_ptr[-1] == 0


def test_disordered_sites_are_blended() -> None:
    half = replace(
        crystal(4 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [29, 8]),
        species_ptr=np.array([0, 2, 3]),
        numbers=np.array([29, 30, 8], np.uint8),
        occupancy=np.array([0.5, 0.25, 1.0], np.float32),
    )
    spec = ViewSpec(encoding="elements", random=0, supercells=((1, 1, 1),))
    scenes = scene.build(half, spec)
    from featurize.colours import encoding

    table = encoding("elements").table()
    mixed = (0.5 * table[29] + 0.25 * table[30]) / 0.75
    assert any(np.allclose(colour, mixed, atol=1e-6) for colour in scenes.colour)
    radius = 0.5 * (0.5 * 1.32 + 0.25 * 1.22) / 0.75 * np.cbrt(0.75)
    assert any(np.isclose(r, radius, atol=1e-6) for r in scenes.radius)


def test_the_view_fits(crystals: Crystals) -> None:
    scenes = scene.build(crystals[::30], ViewSpec())
    for view in range(len(scenes)):
        held = slice(scenes.sphere_ptr[view], scenes.sphere_ptr[view + 1])
        reach = (abs(scenes.centre[held, :2]).max(axis=1) + scenes.radius[held]).max()
        assert reach == pytest.approx(scenes.extent[view] / 1.03, rel=1e-5)


def test_cameras_are_rotations() -> None:
    cell, _, _ = standard.frame(quartz(1), 0)
    cameras = scene.cameras(cell, ViewSpec(random=5))
    np.testing.assert_allclose(cameras @ cameras.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (8, 3, 3)), atol=1e-12)
    assert np.linalg.det(cameras) == pytest.approx(np.ones(8))
    for k in range(3):  # the axis points at the viewer, and c, or b for c, points up
        along = cameras[k] @ cell[k]
        assert along[:2] == pytest.approx([0, 0], abs=1e-9)
        assert along[2] > 0
        up = cameras[k] @ cell[1 if k == 2 else 2]
        assert up[0] == pytest.approx(0, abs=1e-9)
        assert up[1] > 0


# What is refused.


@pytest.mark.parametrize(
    ("change", "told"),
    [({"encoding": "fysics"}, "no encoding"), ({"supercells": ()}, "supercells"),
     ({"supercells": ((0, 1, 1),)}, "supercells"), ({"random": -1}, "random"), ({"seed": -1}, "seed"),
     ({"axes": False, "random": 0}, "random"),
     ({"size": 4}, "size is 4, expected 8 to 4096"), ({"radius": 0.0}, "radius"), ({"bonds": 3.0}, "bonds"),
     ({"shading": 1.5}, "shading"), ({"background": -1.0}, "background")],
)  # fmt: skip
def test_a_bad_spec_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ViewSpec(**change)


def test_an_element_without_a_colour_is_named() -> None:
    heavy = crystal(4 * np.eye(3), [[0, 0, 0]], [110])
    with pytest.raises(ValueError, match=r"test/1: atomic number 110; colours end at 103"):
        scene.build(concat([SALT, heavy]), ViewSpec())


def test_an_enormous_block_is_refused() -> None:
    with pytest.raises(ValueError, match=r"test/1: a block of \(20, 20, 20\) cells has 64000 atoms or more"):
        scene.build(SALT, ViewSpec(supercells=((20, 20, 20),)))


def test_no_crystals_no_views() -> None:
    none = scene.build(SALT[0:0], ViewSpec())
    assert len(none) == 0
    assert raster.images(none, ViewSpec()).shape == (0, 3, 224, 224)
