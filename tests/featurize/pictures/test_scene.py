"""Scenes: the same views for every description of a crystal, equal views once, bonds and blocks as counted by hand."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from assay.featurize.pictures import frames, raster, scene
from assay.featurize.pictures.cameras import cameras
from assay.featurize.pictures.scene import ViewSpec
from assay.sources import files
from assay.sources.crystals import Crystals, concat, wrap
from tests.crystal_copies import in_cell
from tests.featurize.cells import crystal, random_cell_change

if TYPE_CHECKING:
    from numpy.typing import NDArray

FACES = np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1]]) / 2
SALT = crystal(5.64 * np.eye(3), np.concatenate([FACES, FACES + 0.5]), [11] * 4 + [17] * 4)
PRIMITIVE_SALT = crystal(2.82 * (1 - np.eye(3)), [[0, 0, 0], [0.5, 0.5, 0.5]], [11, 17])
SMALL = ViewSpec(supercells=((1, 1, 1), (2, 2, 1)), size=64)
NEAR = replace(SMALL, bonding="crystal-nn")
DATA = Path(__file__).parents[2] / "data"


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
    from assay.sources.crystals import gather_ranges

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


def test_bonds_by_near_neighbours_of_real_crystals_do_not_depend_on_the_description(
    crystals: Crystals, disordered: Crystals
) -> None:
    rng = np.random.default_rng(2)
    batch = concat([bare(crystals[::30]), bare(disordered[::30])])
    rows = [row for row in range(len(batch)) if batch.nsites[row] <= 24]
    assert len(rows) > 10
    for row in rows:
        one = batch[row : row + 1]
        other = described_anew(one, rng)
        same_sticks(one, other)
        assert unlike(one, other, NEAR) < 1e-3


def bare(batch: Crystals) -> Crystals:
    return replace(batch, columns={})


@pytest.mark.parametrize(
    "name", ["La1.85Sr0.15CuO4.cif", "MgB2.cif", "Nb3Sn.vasp", "salt", "quartz", "fcc", "perovskite"]
)
def test_bonds_by_near_neighbours_do_not_depend_on_the_description(name: str) -> None:
    one = known(name)
    assert len(scene.build(one, NEAR).owner) > 0
    for seed in range(3):
        other = described_anew(one, np.random.default_rng(seed))
        same_sticks(one, other)
        assert unlike(one, other, NEAR) < 1e-3


def known(name: str) -> Crystals:
    if "." in name:
        return files.read(DATA / name)[0]
    if name == "perovskite":
        return crystal(3.905 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5], *(1 - np.eye(3)) / 2], [38, 22, 8, 8, 8])
    return {"salt": SALT, "quartz": quartz(1), "fcc": crystal(3.61 * np.eye(3), FACES, [29] * 4)}[name]


def same_sticks(one: Crystals, other: Crystals) -> None:
    """As many half bonds, as long, and as far from the middle: a picture hardly shows that one is missing."""
    mine, theirs = sticks(one), sticks(other)
    assert len(mine) == len(theirs), one.ids[0]
    np.testing.assert_allclose(mine, theirs, atol=2e-3, err_msg=str(one.ids[0]))


def sticks(one: Crystals) -> NDArray[np.float64]:
    """Every half bond's block, distances of its ends to the middle of the view, and length; each column sorted."""
    scenes = scene.build(one, NEAR)
    view = np.repeat(np.arange(len(scenes)), np.diff(scenes.stick_ptr))
    lengths = [np.linalg.norm(line, axis=1) for line in (scenes.start, scenes.end, scenes.end - scenes.start)]
    return np.sort(np.column_stack([scenes.block[view], *lengths]).astype(np.float64), axis=0)


def test_the_primitive_and_the_conventional_cell_show_the_same() -> None:
    assert unlike(SALT, PRIMITIVE_SALT, SMALL) < 1e-6
    assert unlike(SALT, PRIMITIVE_SALT, NEAR) < 1e-6


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


def test_near_neighbours_are_bonded_whoever_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Na names one Cl, no Cl names any: both halves are drawn, as often as the bond is in the block."""
    from assay.sources.formats import convert

    spec = ViewSpec(supercells=((1, 1, 1),), random=0, bonding="crystal-nn")
    whole = scene.build(SALT, spec)
    assert len(whole.owner) == 2 * 54  # a 3 x 3 x 3 grid has 54 edges
    assert np.linalg.norm(whole.end - whole.start, axis=1) == pytest.approx(np.full(108, 1.41), abs=1e-5)
    ask = convert.near_neighbours

    def one_way(crystals: Crystals, *frame: Any) -> tuple[NDArray[np.int64], ...]:
        source, target, image = ask(crystals, *frame)
        kept = crystals.numbers[crystals.species_ptr[frame[2][source]]] == 11
        return source[kept], target[kept], image[kept]

    monkeypatch.setattr(convert, "near_neighbours", one_way)
    half = scene.build(SALT, spec)
    np.testing.assert_array_equal(half.end, whole.end)
    np.testing.assert_array_equal(half.owner, whole.owner)


def test_bonds_of_0_draws_none_by_any_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymatgen.core", None)
    assert len(scene.build(SALT, ViewSpec(bonds=0.0, bonding="crystal-nn")).owner) == 0
    assert len(scene.build(SALT, ViewSpec()).owner) > 0
    with pytest.raises(ImportError, match=r"pip install pymatgen"):
        scene.build(SALT, ViewSpec(bonding="crystal-nn"))


@pytest.mark.parametrize("bonding", ["radii", "crystal-nn"])
def test_the_places_of_one_atom_are_not_bonded(bonding: Any) -> None:
    """The corners of a ring are 0.45 Å apart, the opposite ones 0.64 Å. Atoms at one place are never bonded."""
    ring = 0.32 / 2.6 * np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]])
    one = crystal(2.6 * np.eye(3), [*ring, [0.5, 0.5, 0.5]], [29, 29, 29, 29, 8])
    for share, shortest in ((0.25, 1.5), (0.5, 0.6)):
        split = replace(one, occupancy=np.array([share] * 4 + [1.0], np.float32))
        scenes = scene.build(split, replace(SMALL, bonding=bonding))
        assert len(scenes.owner) > 0
        assert (2 * np.linalg.norm(scenes.end - scenes.start, axis=1)).min() > shortest


def test_an_isolated_atom_has_no_bonds() -> None:
    assert len(scene.build(crystal(15 * np.eye(3), [[0, 0, 0]], [18]), NEAR).owner) == 0


def test_a_saved_spec_without_the_rule_still_loads() -> None:
    saved = asdict(ViewSpec())
    del saved["bonding"]
    assert ViewSpec(**saved) == ViewSpec()
    assert ViewSpec(**asdict(NEAR)) == NEAR


def test_disordered_sites_are_blended() -> None:
    half = replace(
        crystal(4 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [29, 8]),
        species_ptr=np.array([0, 2, 3]),
        numbers=np.array([29, 30, 8], np.uint8),
        occupancy=np.array([0.5, 0.25, 1.0], np.float32),
    )
    spec = ViewSpec(encoding="elements", random=0, supercells=((1, 1, 1),))
    scenes = scene.build(half, spec)
    from assay.featurize.pictures.colours import encoding

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
    cell = frames.frame(quartz(1), 0).cell
    found = cameras(cell, axes=True, random=5, seed=0)
    np.testing.assert_allclose(found @ found.transpose(0, 2, 1), np.broadcast_to(np.eye(3), (8, 3, 3)), atol=1e-12)
    assert np.linalg.det(found) == pytest.approx(np.ones(8))
    for k in range(3):  # the axis points at the viewer, and c, or b for c, points up
        along = found[k] @ cell[k]
        assert along[:2] == pytest.approx([0, 0], abs=1e-9)
        assert along[2] > 0
        up = found[k] @ cell[1 if k == 2 else 2]
        assert up[0] == pytest.approx(0, abs=1e-9)
        assert up[1] > 0


# What is refused.


@pytest.mark.parametrize(
    ("change", "told"),
    [({"encoding": "fysics"}, "no encoding"), ({"supercells": ()}, "supercells"),
     ({"supercells": ((0, 1, 1),)}, "supercells"), ({"random": -1}, "random"), ({"seed": -1}, "seed"),
     ({"axes": False, "random": 0}, "random"),
     ({"size": 4}, "size is 4, expected 8 to 4096"), ({"radius": 0.0}, "radius"), ({"bonds": 3.0}, "bonds"),
     ({"bonding": "voronoi"}, "bonding is 'voronoi', expected 'radii' or 'crystal-nn'"),
     ({"shading": 1.5}, "shading"), ({"background": -1.0}, "background")],
)  # fmt: skip
def test_a_bad_spec_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ViewSpec(**change)


def test_an_element_without_a_colour_is_named() -> None:
    heavy = crystal(4 * np.eye(3), [[0, 0, 0]], [110])
    with pytest.raises(ValueError, match=r"test/1: holds an element beyond Lr, the last that has a colour"):
        scene.build(concat([SALT, heavy]), ViewSpec())


def test_what_crystal_nn_cannot_do_names_the_crystal() -> None:
    heavy = replace(crystal(4 * np.eye(3), [[0, 0, 0]], [103]), ids=np.array(["test/2"]))
    assert len(scene.build(heavy, SMALL)) > 0
    with pytest.raises(ValueError, match=r"test/2: atomic number 103; the radii of CrystalNN end at 96"):
        scene.build(concat([SALT, heavy]), NEAR)


def test_an_enormous_block_is_refused() -> None:
    with pytest.raises(ValueError, match=r"test/1: a block of \(20, 20, 20\) cells has 64000 atoms or more"):
        scene.build(SALT, ViewSpec(supercells=((20, 20, 20),)))


def test_no_crystals_no_views() -> None:
    none = scene.build(SALT[0:0], ViewSpec())
    assert len(none) == 0
    assert raster.images(none, ViewSpec()).shape == (0, 3, 224, 224)
