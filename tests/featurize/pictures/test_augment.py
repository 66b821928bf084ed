"""Scenes seen otherwise: what is turned stays the same crystal, what is drawn depends on row and seed alone."""

import numpy as np
import pytest

from assay.featurize.pictures import augment, raster, scene
from assay.featurize.pictures.augment import Augment
from assay.featurize.pictures.scene import Scenes, ViewSpec
from assay.sources.crystals import Crystals, concat

SPEC = ViewSpec(size=48, supercells=((1, 1, 1), (2, 1, 1)), random=1, encoding="deep")
STILL = Augment(views=0, turn="none", flip=False, zoom=0.0)


@pytest.fixture(scope="module")
def few(crystals: Crystals, disordered: Crystals) -> Crystals:
    return concat([part.select(np.flatnonzero(np.diff(part.site_ptr) <= 12)[:6]) for part in (crystals, disordered)])


@pytest.fixture(scope="module")
def scenes(few: Crystals) -> Scenes:
    return scene.build(few, SPEC)


def test_selected_views_are_the_pictures_they_were(scenes: Scenes) -> None:
    every = raster.images(scenes, SPEC)
    chosen = np.array([3, 1, len(scenes) - 1, 1])
    picked = augment.select(scenes, chosen, np.array([0, 4]))
    assert np.array_equal(raster.images(picked, SPEC), every[chosen])
    rows = np.array([4, 2])
    views = np.concatenate([np.arange(scenes.view_ptr[row], scenes.view_ptr[row + 1]) for row in rows])
    assert np.array_equal(raster.images(augment.crystals(scenes, rows), SPEC), every[views])


def test_nothing_varied_is_the_plain_picture(scenes: Scenes) -> None:
    rows = np.arange(len(scenes.view_ptr) - 1)
    drawn = augment.draw(scenes, rows, STILL, (0, 1))
    wanted = np.repeat(raster.images(scenes, SPEC), scenes.weight.astype(int), axis=0)
    assert abs(raster.images(drawn, SPEC) - wanted).mean() < 1e-4  # rounding at outlines


def test_a_view_that_stands_for_several_is_drawn_as_often_as_they(scenes: Scenes) -> None:
    row = int(np.argmax(np.maximum.reduceat(scenes.weight, scenes.view_ptr[:-1])))
    held = np.arange(scenes.view_ptr[row], scenes.view_ptr[row + 1])
    assert scenes.weight[held].max() > 1
    counts = np.zeros(len(held))
    for seed in range(400):
        drawn = augment.draw(scenes, np.array([row]), Augment(views=2, turn="none", flip=False, zoom=0.0), (seed,))
        assert (drawn.weight == 1).all()
        for first, last in zip(drawn.sphere_ptr, drawn.sphere_ptr[1:]):
            views = (scenes.centre[scenes.sphere_ptr[k] : scenes.sphere_ptr[k + 1]] for k in held)
            alike = [np.array_equal(drawn.centre[first:last], view) for view in views]
            counts[alike] += 1 / sum(alike)
    np.testing.assert_allclose(counts / counts.sum(), scenes.weight[held] / scenes.weight[held].sum(), atol=0.06)


def test_what_becomes_of_a_crystal_does_not_depend_on_its_company(scenes: Scenes) -> None:
    how = Augment(views=2, turn="space", zoom=0.2, jitter=0.1)
    together = augment.draw(scenes, np.array([5, 3, 7]), how, (1, 4))
    alone = augment.draw(scenes, np.array([3]), how, (1, 4))
    assert np.array_equal(raster.images(together, SPEC)[2:4], raster.images(alone, SPEC))
    other = augment.draw(scenes, np.array([3]), how, (1, 5))
    assert not np.array_equal(raster.images(other, SPEC), raster.images(alone, SPEC))


def test_a_quarter_turn_in_the_plane_turns_the_pixels(scenes: Scenes) -> None:
    quarter = np.tile(np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), (len(scenes), 1, 1))
    turned = augment.turned(scenes, quarter, np.ones(len(scenes)))
    wanted = np.rot90(raster.images(scenes, SPEC), axes=(2, 3))
    assert abs(raster.images(turned, SPEC) - wanted).mean() < 1e-3
    mirror = np.tile(np.diag([-1.0, 1, 1]), (len(scenes), 1, 1))
    flipped = augment.turned(scenes, mirror, np.ones(len(scenes)))
    assert abs(raster.images(flipped, SPEC) - raster.images(scenes, SPEC)[..., ::-1]).mean() < 1e-3


@pytest.mark.parametrize("turn", ["plane", "space"])
@pytest.mark.parametrize("flip", [False, True])
def test_turns_are_rotations_and_mirrorings_only_where_wanted(turn: str, flip: bool) -> None:
    made = augment.random_turns(np.random.default_rng(0), 400, Augment(turn=turn, flip=flip))  # type: ignore[arg-type]
    np.testing.assert_allclose(made @ made.transpose(0, 2, 1), np.tile(np.eye(3), (400, 1, 1)), atol=1e-12)
    hands = np.linalg.det(made).round()
    assert (hands == 1).mean() == pytest.approx(0.5, abs=0.1) if flip else (hands == 1).all()
    towards = made[:, :, 2].mean(axis=0)  # of the z axis
    assert np.linalg.norm(towards) < 0.15 if turn == "space" else np.allclose(towards, [0, 0, 1])


def test_a_turned_crystal_still_fits_and_keeps_its_atoms(scenes: Scenes) -> None:
    rows = np.arange(len(scenes.view_ptr) - 1)
    turned = augment.draw(scenes, rows, Augment(views=0, turn="space", zoom=0.0), (0,))
    scenes = augment.select(scenes, np.repeat(np.arange(len(scenes)), scenes.weight.astype(int)), turned.view_ptr)
    reach = abs(turned.centre[:, :2]).max(axis=1) + turned.radius
    held = np.repeat(turned.extent, np.diff(turned.sphere_ptr))
    assert (reach <= held).all()
    np.testing.assert_allclose(
        np.linalg.norm(turned.centre, axis=1), np.linalg.norm(scenes.centre, axis=1), rtol=1e-4, atol=1e-4
    )
    assert np.array_equal(turned.colour, scenes.colour)
    jittered = augment.draw(scenes, rows, Augment(views=0, jitter=0.3), (0,))
    assert not np.array_equal(jittered.colour, scenes.colour)
    assert jittered.colour.min() >= 0
    assert jittered.colour.max() <= 1


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [("views", -1, "at least 0"), ("turn", "twice", "none, plane or space"), ("zoom", 1.5, "below 1"),
     ("jitter", -0.1, "0 to below 1")],
)  # fmt: skip
def test_values_out_of_range_are_named(key: str, value: object, told: str) -> None:
    with pytest.raises(ValueError, match=rf"augment\.{key} is .*{told}"):
        Augment(**{key: value})  # type: ignore[arg-type]
