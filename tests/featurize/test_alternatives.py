"""Split positions: which sites are alternatives, by brute force, in every description, on every path to a network."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from assay.featurize.alternatives import CLOSEST, FULL, find
from assay.featurize.graphs import GraphSpec, build
from assay.featurize.keys import keys
from assay.featurize.quotient import quotient
from assay.models.networks import registry
from assay.models.networks.batch import Batch
from assay.models.published import graphs as published
from assay.sources.crystals import Crystals, concat, wrap
from tests.crystal_copies import in_cell
from tests.featurize.cells import (
    assert_same_environments,
    crystal,
    random_cell_change,
    random_crystal,
    random_rotation,
)
from tests.featurize.test_graphs import assert_equal
from tests.featurize.test_graphs_torch import assert_same
from tests.featurize.test_neighbours import Edges, assert_same_edges

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEAREST = GraphSpec(angles=True)
RADIUS = GraphSpec(neighbours="radius", cutoff=4.3, angles=True)
SPECS = pytest.mark.parametrize("spec", [NEAREST, RADIUS, GraphSpec(k=3, angles=True)], ids=["12", "4.3 Å", "3"])
SEED = st.integers(0, 2**32 - 1)

PAIR = np.array([[1, 0, 0], [-1, 0, 0]])
RING = np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]])
AXES = np.array([*np.eye(3), *-np.eye(3)])
LINE = np.array([[0, 0, 0], [1, 0.2, 0], [2, 0, 0], [3, 0.2, 0]])


def shared(lattice: Any, sites: list[tuple[int, float, Any]]) -> Crystals:
    """One crystal; a site is an element, its share, and its fractional position."""
    numbers, share, frac = zip(*sites, strict=True)
    return replace(crystal(lattice, frac, numbers), occupancy=np.array(share, np.float32))


def around(number: int, centre: Any, shape: NDArray[Any], size: float, edge: Any) -> list[tuple[int, float, Any]]:
    """One atom split over the points of a shape of this size (Å), in a cell with these edges (Å)."""
    return [(number, 1 / len(shape), np.asarray(centre) + size * point / edge) for point in shape]


def split_perovskite(size: float = 0.15) -> Crystals:
    """BaTiO3 whose barium left the centre of its cage along the three axes."""
    edge = 4.0
    cage = [(22, 1.0, [0, 0, 0]), (8, 1.0, [0.5, 0, 0]), (8, 1.0, [0, 0.5, 0]), (8, 1.0, [0, 0, 0.5])]
    return shared(edge * np.eye(3), cage + around(56, [0.5, 0.5, 0.5], AXES, size, edge))


def thallium_cuprate(*, split: bool = True) -> Crystals:
    """Tl2Ba2CuO6, primitive cell, with Tl and the oxygen of its layer on one side of their axis, or on it."""
    a, c = 3.866, 23.24
    body = np.array([[-a, a, c], [a, -a, c], [a, a, -c]]) / 2
    held: list[tuple[int, float, Any]] = [(29, 1.0, [0, 0, 0]), (8, 1.0, [0, 0.5, 0]), (8, 1.0, [0.5, 0, 0])]
    for z, number, size in ((0.4168, 56, 0.0), (0.1171, 8, 0.0), (0.2024, 81, 0.12), (0.2886, 8, 0.34)):
        shape = RING if split and size else RING[:1] * 0.0
        held += [
            site for sign in (1, -1) for site in around(number, [0, 0, sign * z], shape, size, np.array([a, a, c]))
        ]
    conventional = np.diag([a, a, c])
    return shared(body, [(number, share, place @ conventional @ np.linalg.inv(body)) for number, share, place in held])


def split_crystal(seed: int) -> Crystals:
    """A random crystal some of whose atoms are split: into pairs, rings, stars or lines, now and then crowded."""
    rng = np.random.default_rng(seed)
    one = random_crystal(seed)
    sites: list[tuple[int, float, Any]] = []
    for number, place in zip(one.numbers[:4].tolist(), one.frac[:4], strict=True):
        shape = [np.zeros((1, 3)), PAIR, RING, AXES, LINE][rng.integers(5)]
        points = place + rng.uniform(0.05, 0.4) * shape @ random_rotation(rng) @ np.linalg.inv(one.lattice[0])
        share = rng.choice([0.2, 1.0, 1.0, 1.0, 1.3]) / len(points)
        sites += [(number, min(1.0, share), point) for point in points]
    return shared(one.lattice, sites)


def every_pair(one: Crystals, reach: float) -> tuple[NDArray[Any], ...]:
    """Target, source, image (e, 3) and vector (e, 3) Å of all pairs within `reach` (Å), measured one by one."""
    heights = 1 / np.linalg.norm(np.linalg.inv(one.lattice[0]), axis=0)
    steps = [range(-n, n + 1) for n in np.ceil(reach / heights).astype(int) + 1]
    image = np.array(list(itertools.product(*steps)))
    vector = (one.frac[None, :, None] + image[None, None] - one.frac[:, None, None]) @ one.lattice[0]
    length = np.linalg.norm(vector, axis=-1)
    target, source, which = np.nonzero((length <= reach) & (length > 1e-9))
    return target, source, image[which], vector[target, source, which]


def chain_of(start: int, steps: dict[int, list[tuple[int, tuple[int, ...]]]]) -> dict[int, set[tuple[int, ...]]]:
    """Images at which each site is reached from one site by close pairs, given up where one has two images."""
    found: dict[int, set[tuple[int, ...]]] = {start: {(0, 0, 0)}}
    waiting = [(start, (0, 0, 0))]
    while waiting and all(len(images) == 1 for images in found.values()):
        here, at = waiting.pop()
        for there, step in steps.get(here, []):
            image = tuple(a + b for a, b in zip(at, step, strict=True))
            if image not in found.setdefault(there, set()):
                found[there].add(image)
                waiting.append((there, image))
    return found


def oracle(one: Crystals, spec: GraphSpec) -> tuple[Edges, bool]:
    """The edges by the words of the rule, and whether the crystal is crowded."""
    target, source, image, vector = every_pair(one, 16.0 if spec.neighbours == "nearest" else spec.cutoff)
    length, share = np.linalg.norm(vector, axis=1), one.occupancy.astype(float)
    close = length < CLOSEST
    steps: dict[int, list[tuple[int, tuple[int, ...]]]] = {}
    for i, j, step in zip(target[close].tolist(), source[close].tolist(), image[close].tolist(), strict=True):
        steps.setdefault(i, []).append((j, tuple(step)))
    crowded = any(share[i] + sum(share[j] for j, _ in near) > FULL + 1e-6 for i, near in steps.items())
    out = close.copy()
    for i in steps:
        chain = chain_of(i, steps)
        if all(len(images) == 1 for images in chain.values()) and sum(share[j] for j in chain) < FULL + 1e-6:
            for j, (at,) in chain.items():
                out |= (target == i) & (source == j) & (image == at).all(axis=1)
    kept = np.ones(len(out), bool) if crowded else ~out
    target, source, vector, length = target[kept], source[kept], vector[kept], length[kept]
    if spec.neighbours == "nearest":
        kth = np.array([np.sort(length[target == i])[spec.k - 1] for i in range(len(share))])
        near = length <= kth[target] + spec.tolerance
        target, source, vector = target[near], source[near], vector[near]
    return (target, source, vector), crowded


@SPECS
@given(seed=SEED)
@settings(max_examples=40)
def test_brute_force(spec: GraphSpec, seed: int) -> None:
    one = split_crystal(seed)
    edges, crowded = oracle(one, spec)
    graphs = build(one, spec)
    assert_same_edges(graphs, edges)
    assert bool(graphs.shortest()[0] < CLOSEST) == crowded


def test_the_random_crystals_are_of_all_kinds() -> None:
    some = [split_crystal(seed) for seed in range(200)]
    found = [find(one.lattice, one.frac, one.site_ptr, one.site_occupancy) for one in some]
    kinds = [(bool(split.crowded.any()), split.most > 0, bool((split.chain >= 0).any())) for split in found]
    assert set(kinds) >= {(True, False, False), (False, False, False), (False, True, True), (False, True, False)}


@SPECS
@given(seed=SEED)
@settings(max_examples=20)
def test_no_description_changes_a_graph(spec: GraphSpec, seed: int) -> None:
    one, rng = split_crystal(seed), np.random.default_rng(seed)
    graphs = build(one, spec)
    moved = replace(one, lattice=one.lattice @ random_rotation(rng), frac=wrap(one.frac + rng.normal(size=3)))
    assert_same_environments(graphs, build(moved, spec))
    order = rng.permutation(len(one.frac))
    shuffled = shared(one.lattice, [(one.numbers[k], one.occupancy[k], one.frac[k]) for k in order])
    assert_same_environments(graphs, build(shuffled, spec), order)
    change = random_cell_change(rng)
    other = in_cell(one, change)
    old = np.repeat(np.arange(len(one.frac)), len(other.frac) // len(one.frac))
    assert_same_environments(graphs, build(other, spec), old)


@SPECS
@given(seeds=st.lists(SEED, min_size=1, max_size=5))
@settings(max_examples=20)
def test_in_torch(spec: GraphSpec, seeds: list[int]) -> None:
    """Split, crowded and ordered crystals side by side."""
    assert_same(concat([made(seed) for seed in seeds for made in (split_crystal, random_crystal)]), spec)


@SPECS
def test_a_batch_is_its_crystals_side_by_side_on_any_number_of_threads(spec: GraphSpec) -> None:
    batch = concat([made(seed) for seed in range(30) for made in (random_crystal, split_crystal)])
    whole = build(batch, spec, threads=3)
    for row in range(len(batch)):
        assert_equal(whole.select(np.array([row])), build(batch[row : row + 1], spec))


def test_a_split_atom_of_a_perovskite() -> None:
    """Each sixth of barium sees oxygen and not its five alternatives; so it does in a supercell."""
    one = split_perovskite()
    graphs = build(one, NEAREST)
    assert graphs.shortest()[0] == pytest.approx(2.0, abs=1e-6)
    assert (graphs.target >= 4).sum() == 6 * 12
    assert set(one.numbers[graphs.source[graphs.target >= 4]].tolist()) == {8}
    np.testing.assert_allclose(graphs.features()[4:, -1], 1 / 6, atol=1e-5)
    assert set(build(in_cell(one, np.diag([2, 1, 1])), NEAREST).shortest().round(5)) == {2.0}


def test_the_layers_of_a_thallium_cuprate() -> None:
    """The corners of the ring of oxygen are 0.48 Å apart, the opposite ones 0.68 Å: all are places of one atom."""
    one = thallium_cuprate()
    assert one.formulas().tolist() == ["Ba2CuTl2O6"] == thallium_cuprate(split=False).formulas().tolist()
    graphs = build(one, NEAREST)
    assert graphs.shortest()[0] > 1.5
    assert build(thallium_cuprate(split=False), NEAREST).shortest()[0] > 1.8


def test_the_ends_of_a_chain() -> None:
    """A line of sites 0.4 Å apart is one atom while it holds one; of one that holds more only neighbours exclude."""
    line = [[0, 0, 0], [0.4, 0, 0], [0.8, 0, 0], [1.2, 0, 0]]
    for share, shortest in ((0.25, None), (0.34, 0.8), (0.4, 0.4)):
        one = shared(9 * np.eye(3), [(3, share, np.array(place) / 9) for place in line])
        found = build(one, GraphSpec(neighbours="radius", cutoff=3)).shortest()[0]
        assert found == pytest.approx(np.inf if shortest is None else shortest, abs=1e-6), share


def test_a_channel_that_runs_through_the_crystal() -> None:
    """Its sites are their own alternatives in the next cell, and so on without an end: only close pairs exclude."""
    edges = np.array([0.45, 6.0, 6.0])
    one = shared(np.diag(edges), [(3, 0.2, [0, 0, 0])])
    graphs = build(one, GraphSpec(neighbours="radius", cutoff=1.0))
    np.testing.assert_allclose(graphs.distance, [0.9, 0.9], rtol=1e-6)
    twice = build(in_cell(one, np.diag([2, 1, 1])), GraphSpec(neighbours="radius", cutoff=1.0))
    np.testing.assert_allclose(twice.distance, [0.9] * 4, rtol=1e-6)
    crowded = build(shared(np.diag(edges), [(3, 0.4, [0, 0, 0])]), GraphSpec())
    assert crowded.shortest()[0] == pytest.approx(0.45)


@pytest.mark.parametrize("one", [split_perovskite(), thallium_cuprate()], ids=["perovskite", "cuprate"])
def test_a_network_predicts_the_same_on_the_quotient(one: Crystals) -> None:
    torch.manual_seed(0)
    network = registry.create("alignn", NEAREST.shape, ["x"], hidden=16).eval()
    full = build(one, NEAREST)
    merged = quotient(full)
    assert len(merged.features()) < len(full.features())
    with torch.inference_mode():
        whole, part = (network(Batch.of(graphs))["x"] for graphs in (full, merged))
    torch.testing.assert_close(part, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mutual", [True, False])
def test_graphs_of_published_networks_follow_the_rule(mutual: bool) -> None:
    rule = published.Rule(nearest=12, cutoff=8.0, mutual=mutual, angle_cutoff=None)
    assert published.graphs(thallium_cuprate(), rule).shortest()[0] > 1.5


def test_keys_tell_how_far_an_atom_is_split() -> None:
    far = GraphSpec(neighbours="radius", cutoff=8.0)

    def key(one: Crystals) -> int:
        return int(keys(build(one, far))[0])

    rng = np.random.default_rng(2)
    one = split_perovskite()
    turned = replace(one, lattice=one.lattice @ random_rotation(rng), frac=wrap(one.frac + rng.random(3)))
    assert key(turned) == key(in_cell(one, np.diag([1, 2, 1]))) == key(one) != key(split_perovskite(0.18))
