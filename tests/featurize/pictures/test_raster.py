"""The rasteriser: against rays cast one by one, against ASE's projection, and against its twin in torch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from assay.featurize.pictures import raster, raster_torch, scene
from assay.featurize.pictures.colours import ENCODINGS, encoding
from assay.featurize.pictures.scene import Scenes, ViewSpec
from tests.featurize.cells import crystal
from tests.featurize.pictures.test_scene import SALT, quartz

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from assay.sources.crystals import Crystals

SPEC = ViewSpec(supercells=((1, 1, 1), (2, 2, 1)), size=64, random=2)


def balls(centre: Any, radius: Any, colour: Any, extent: float) -> Scenes:
    """One view of a few spheres."""
    n = len(radius)
    none = np.zeros((0, 3), np.float32)
    return Scenes(
        view_ptr=np.array([0, 1]), weight=np.ones(1, np.float32), block=np.zeros(1, np.int32),
        extent=np.array([extent], np.float32), depth=np.array([[-9, 9]], np.float32),
        sphere_ptr=np.array([0, n]), centre=np.asarray(centre, np.float32),
        radius=np.asarray(radius, np.float32), colour=np.asarray(colour, np.float32), site=np.zeros(n, np.int32),
        stick_ptr=np.array([0, 0]), start=none, end=none, owner=np.zeros(0, np.int32),
    )  # fmt: skip


def cast(scenes: Scenes, view: int, spec: ViewSpec, fine: int = 4) -> NDArray[np.float64]:
    """(C, size, size) mean over `fine`^2 rays of each pixel: the colour of the nearest surface, exactly."""
    reach, n = float(scenes.extent[view]), spec.size * fine
    axis = ((np.arange(n) + 0.5) / n * 2 - 1) * reach
    depth, colour = np.full((n, n), -np.inf), np.full((scenes.colour.shape[1], n, n), spec.background)

    def near(low: NDArray[Any], high: NDArray[Any]) -> tuple[slice, slice]:
        """Rows and columns of the rays that pass through a box: the others cannot hit what is inside."""
        left, right = np.searchsorted(axis, [low[0], high[0]])
        top, bottom = np.searchsorted(axis, [-high[1], -low[1]])
        return slice(top, bottom), slice(left, right)

    def hit(window: tuple[slice, slice], z: NDArray[Any], facing: NDArray[Any], k: int) -> None:
        front = z > depth[window]
        depth[window][front] = z[front]
        colour[:, *window][:, front] = scenes.colour[k][:, None] * (1 - spec.shading * (1 - facing[front]))

    with np.errstate(invalid="ignore"):
        for k in range(scenes.sphere_ptr[view], scenes.sphere_ptr[view + 1]):
            centre, r = scenes.centre[k].astype(float), float(scenes.radius[k])
            rows, columns = near(centre - r, centre + r)
            x, y = np.meshgrid(axis[columns], -axis[rows])
            height = np.sqrt(r * r - (x - centre[0]) ** 2 - (y - centre[1]) ** 2)
            hit((rows, columns), np.where(np.isfinite(height), centre[2] + height, -np.inf), height / r, k)
        for k in range(scenes.stick_ptr[view], scenes.stick_ptr[view + 1]):
            start, end = scenes.start[k].astype(float), scenes.end[k].astype(float)
            ends = np.stack([start, end])
            rows, columns = near(ends.min(axis=0) - spec.bond_radius, ends.max(axis=0) + spec.bond_radius)
            x, y = np.meshgrid(axis[columns], -axis[rows])
            hit((rows, columns), *_cylinder(x, y, start, end, spec.bond_radius), int(scenes.owner[k]))
    return colour.reshape(len(colour), spec.size, fine, spec.size, fine).mean(axis=(2, 4))


def _cylinder(x: Any, y: Any, start: Any, end: Any, r: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Depth of a cylinder's surface, -inf where a ray misses it, and the cosine-like height over its axis."""
    axis = (end - start) / np.linalg.norm(end - start)
    ray = np.array([0.0, 0.0, 1.0])
    origin = np.stack([x - start[0], y - start[1], np.full_like(x, -start[2])], axis=-1)
    across_ray, across_origin = ray - (ray @ axis) * axis, origin - (origin @ axis)[..., None] * axis
    a, b, c = across_ray @ across_ray, across_origin @ across_ray, (across_origin**2).sum(-1) - r * r
    if a < 1e-6:
        return np.full_like(x, -np.inf), np.zeros_like(x)
    t = (-b + np.sqrt(b * b - a * c)) / a
    along = origin @ axis + t * (ray @ axis)
    apart = np.sqrt(np.maximum(c + r * r - b * b / a, 0))
    good = np.isfinite(t) & (along >= 0) & (along <= np.linalg.norm(end - start))
    return np.where(good, t, -np.inf), np.sqrt(np.maximum(r * r - apart**2, 0)) / r


# Against rays.


@pytest.mark.parametrize("name", ["physics", "elements"])
def test_pictures_are_what_rays_see(name: str, crystals: Crystals, disordered: Crystals) -> None:
    spec = replace(SPEC, encoding=name, supercells=((1, 1, 1),), random=1, size=96)
    thicket = disordered[60:61]  # a thousand half bonds cross: more than one outline in many pixels
    for one, most in ((SALT, 0.01), (quartz(1), 0.003), (crystals[40:41], 0.01), (thicket, 0.04)):
        scenes = scene.build(one, spec)
        drawn = raster.images(scenes, spec)
        for view in range(len(scenes)):
            apart = abs(drawn[view] - cast(scenes, view, spec))
            assert apart.mean() < most


def test_a_lone_sphere_is_exact_within_its_outline() -> None:
    spec = ViewSpec(encoding="elements", size=96, bonds=0.0)
    scenes = balls([[0.3, -0.2, 0.0]], [1.7], [[1.0, 0.5, 0.25]], 2.5)
    apart = abs(raster.images(scenes, spec)[0] - cast(scenes, 0, spec, 8))
    assert apart.max() < 0.05  # shading falls steeply there
    flat = replace(spec, shading=0.0)
    assert raster.images(scenes, flat)[0, 0].sum() == pytest.approx(np.pi * (1.7 * 96 / 5) ** 2, rel=2e-3)  # its area


def test_the_nearer_sphere_hides_the_other_in_any_order() -> None:
    colour = [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]]
    centre, radius = np.array([[0, 0, 1.0], [0.5, 0, -1.0], [0, 0.4, 0.0]]), np.array([0.6, 0.9, 0.8])
    spec = ViewSpec(encoding="elements", size=96)
    first = raster.images(balls(centre, radius, colour, 1.6), spec)
    assert abs(first[0] - cast(balls(centre, radius, colour, 1.6), 0, spec)).mean() < 0.004
    for order in ([2, 1, 0], [1, 0, 2]):
        again = raster.images(balls(centre[order], radius[order], np.array(colour)[order], 1.6), spec)
        np.testing.assert_array_equal(first, again)


# Against ASE.


def test_ase_projects_the_same_way(crystals: Crystals) -> None:
    """Where atoms are, how large, and which hides which: `ase.io.utils.PlottingVariables`, turned like our camera."""
    utils, ase = pytest.importorskip("ase.io.utils"), pytest.importorskip("ase")
    spec = ViewSpec(supercells=((1, 1, 1),), random=3, bonds=0.0, shading=0.0, size=160)
    for row in (20, 90, 160):
        one = crystals[row : row + 1]
        scenes = scene.build(one, spec)
        drawn = raster.images(scenes, spec)
        for view in range(len(scenes)):
            held = slice(scenes.sphere_ptr[view], scenes.sphere_ptr[view + 1])
            centre, radius = scenes.centre[held].astype(float), scenes.radius[held].astype(float)
            atoms = ase.Atoms(numbers=np.ones(len(centre), int), positions=centre)
            theirs = utils.PlottingVariables(atoms, rotation="0x,0y,0z", radii=radius, scale=1.0)
            moved = theirs.positions[: len(centre), :2] - theirs.positions[0, :2]  # the cell is drawn too
            np.testing.assert_allclose(moved, centre[:, :2] - centre[0, :2], atol=1e-5)
            np.testing.assert_allclose(theirs.d, 2 * radius, atol=1e-6)
            _assert_painted_alike(drawn[view], scenes, held, spec, np.argsort(theirs.positions[: len(centre), 2]))


def _assert_painted_alike(drawn: Any, scenes: Scenes, held: slice, spec: ViewSpec, order: Any) -> None:
    """Flat discs in ASE's order, the far ones first, are our picture, but where spheres pass through each other."""
    size = spec.size
    view = int(np.searchsorted(scenes.sphere_ptr, held.start, side="right")) - 1
    reach = float(scenes.extent[view])
    axis = ((np.arange(size) + 0.5) / size * 2 - 1) * reach
    x, y = np.meshgrid(axis, -axis)
    painted, clear = np.zeros((3, size, size)), np.ones((size, size), bool)
    top = np.full((size, size), -1)
    centre, radius = scenes.centre[held].astype(float), scenes.radius[held].astype(float)
    for k in order:
        distance = np.hypot(x - centre[k, 0], y - centre[k, 1])
        inside = distance < radius[k]
        clear &= abs(distance - radius[k]) > 0.75 * 2 * reach / size  # outlines are mixed
        behind = np.unique(top[inside & (top >= 0)])
        for m in behind:
            if np.linalg.norm(centre[k] - centre[m]) < radius[k] + radius[m]:
                clear[inside & (np.hypot(x - centre[m, 0], y - centre[m, 1]) < radius[m])] = False
        painted[:, inside] = scenes.colour[held][k][:, None]
        top[inside] = k
    assert clear.mean() > 0.5
    np.testing.assert_allclose(drawn[:, clear], painted[:, clear], atol=1e-5)


def test_what_is_outside_the_image_is_not_drawn() -> None:
    spec = ViewSpec(encoding="elements", size=64)
    for x in (-30.0, -3.0, -2.5, -1.6, 1.6, 2.5, 3.0, 30.0):
        for place in ([x, 0, 0], [0, x, 0], [x, x, 0]):
            one = balls([place], [1.0], [[1.0, 1.0, 1.0]], 1.0)
            drawn = raster.images(one, spec)
            np.testing.assert_allclose(drawn, raster_torch.images(one, spec).numpy(), atol=1e-3)
            assert abs(x) < 2 or not drawn.any()


def test_depth_runs_from_the_back_to_the_front() -> None:
    """Also where the block is much deeper than it is wide."""
    spec = ViewSpec(encoding="deep", supercells=((1, 1, 1),), random=0, size=64, bonds=0.0)
    layers = crystal(
        np.diag([3.8, 3.8, 13.2]), [[0, 0, 0], [0, 0, 0.36], [0, 0, 0.64], [0.5, 0.5, 0.14]], [29, 57, 57, 8]
    )
    scenes = scene.build(layers, spec)
    for view, picture in enumerate(raster.images(scenes, spec)):
        held = slice(scenes.sphere_ptr[view], scenes.sphere_ptr[view + 1])
        near, far = scenes.centre[held, 2] + scenes.radius[held], scenes.centre[held, 2] - scenes.radius[held]
        middle = abs(scenes.centre[held, :2]).sum(axis=1) < 1e-3  # seen at the middle of the image: the nearest of them
        expected = (near[middle].max() - far.min()) / (near.max() - far.min())
        assert picture[-2, 32, 32] == pytest.approx(expected, abs=0.01)
        assert 0.9 < picture[-2].max() <= 1
        assert (picture[-2] == 1).mean() < 0.01


# Its twin.


@pytest.mark.parametrize(("name", "size"), [*((name, 48) for name in ENCODINGS), ("deep", 50), ("physics", 300)])
def test_torch_draws_the_same(name: str, size: int, crystals: Crystals) -> None:
    """Sizes that are no multiple of a tile, and larger than a band, among them."""
    views = {"supercells": ((1, 1, 1),), "random": 0} if size == 300 else {"random": 1}
    spec = replace(SPEC, encoding=name, size=size, background=0.1, **views)
    scenes = scene.build(crystals[10 : 300 if size < 300 else 11 : 97], spec)
    mine, theirs = raster.images(scenes, spec), raster_torch.images(scenes, spec).numpy()
    assert mine.shape == theirs.shape
    apart = abs(mine - theirs)
    assert np.quantile(apart, 0.9995) < 1e-3  # a pixel whose middle is on an outline may fall to either side
    assert apart.mean() < 1e-5


# What it is given.


def test_images_are_normalised_into_the_batch() -> None:
    scenes = scene.build(SALT, SPEC)
    plain = raster.images(scenes, SPEC)
    mean, std = np.array([0.5, 0.4, 0.3], np.float32), np.array([0.2, 0.3, 0.4], np.float32)
    out = np.empty_like(plain)
    scaled = raster.images(scenes, SPEC, mean=mean, std=std, out=out)
    assert scaled is out
    np.testing.assert_allclose(scaled, (plain - mean[:, None, None]) / std[:, None, None], atol=1e-5)
    twin = raster_torch.images(scenes, SPEC, mean=mean, std=std).numpy()
    assert abs(twin - scaled).mean() < 1e-4


def test_maps_show_depth_and_bonds() -> None:
    spec = ViewSpec(encoding="deep", supercells=((1, 1, 1),), random=0, size=96)
    lithium_fluoride = crystal(4.03 * np.eye(3), SALT.frac, [3] * 4 + [9] * 4)
    drawn = raster.images(scene.build(lithium_fluoride, spec), spec)
    depth, bond = drawn[0, -2], drawn[0, -1]
    assert len(encoding("deep").names) == drawn.shape[1]
    assert bond.max() == 1
    assert 0.005 < bond.mean() < 0.3
    assert depth[48, 48] > 0.7  # an atom of the front face
    assert depth[0, 0] == 0
    assert (depth[bond == 1] < depth.max()).all()


def test_the_background_can_be_white() -> None:
    white = raster.images(scene.build(SALT, SPEC), replace(SPEC, background=1.0))
    assert (white[:, :, 0, 0] == 1).all()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [({"out": np.empty((1, 3, 8, 8), np.float32)}, "out is float32"), ({"mean": np.zeros(2)}, "mean"),
     ({"std": np.zeros(3)}, "std above 0")],
)  # fmt: skip
def test_what_does_not_fit_is_refused(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        raster.images(scene.build(SALT, SPEC), SPEC, **arguments)
