"""The symmetry quotient: what is merged, what is never merged, and that a network reads the same crystal in it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from assay.featurize import atoms
from assay.featurize.graphs import Graphs, GraphSpec, build, join
from assay.featurize.quotient import TOLERANCE, quotient, sort_keys
from assay.featurize.refinement import count_classes, number_runs, table_size
from assay.models.networks import registry
from assay.models.networks.batch import Batch
from assay.sources.crystals import Crystals, concat, empty, wrap
from tests.featurize.cells import crystal, random_cell_change, random_crystal, random_rotation, with_cell
from tests.featurize.test_graphs import assert_equal

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEAREST = GraphSpec(angles=True)
RADIUS = GraphSpec(neighbours="radius", cutoff=4.3, angles=True)
SPECS = pytest.mark.parametrize("spec", [NEAREST, RADIUS, replace(NEAREST, angles=False)], ids=["12", "4.3 Å", "bare"])
SEED = st.integers(0, 2**32 - 1)

SALT = np.array([[0, 0, 0], [1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]) / 2
FACES = SALT[:4]
BY_HAND: dict[str, tuple[Crystals, tuple[int, int, int]]] = {
    # nodes; edges; triplets, worked out on paper. Cl sees 6 Na (5 kinds of angle) and 12 Cl (7
    # kinds), and so does Na.
    "NaCl": (crystal(5.64 * np.eye(3), SALT, [11] * 4 + [17] * 4), (2, 4, 24)),
    # 8 unlike atoms (5 kinds of angle), and 6 like ones tied behind them (4 kinds).
    "CsCl": (crystal(4.12 * np.eye(3), [[0, 0, 0], [0.5, 0.5, 0.5]], [55, 17]), (2, 4, 18)),
    # 4 atoms (4 kinds of angle), and 12 behind them (7 kinds); both sublattices are one class.
    "diamond": (crystal(3.57 * np.eye(3), np.concatenate([FACES, FACES + 0.25]), [6] * 8), (1, 2, 11)),
    # Sr sees 12 O (4 kinds of angle); Ti 6 O (4) and 8 Sr (5); O 2 Ti (4), 4 Sr (5) and 8 O (8).
    "SrTiO3": (
        crystal(
            3.905 * np.eye(3),
            [[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]],
            [38, 22, 8, 8, 8],
        ),
        (3, 6, 30),
    ),
}


def sites(lattice: Any, frac: Any, species: list[dict[int, float]]) -> Crystals:
    """One crystal with the occupancy of every element on every site."""
    counts = [len(site) for site in species]
    numbers = [number for site in species for number in site]
    occupancy = [share for site in species for share in site.values()]
    return replace(
        crystal(lattice, frac),
        species_ptr=np.cumsum([0, *counts]),
        numbers=np.array(numbers, np.uint8),
        occupancy=np.array(occupancy, np.float32),
    )


def classes(graphs: Graphs) -> tuple[int, int, int]:
    return len(graphs.features()), len(graphs.source), len(graphs.cosine)


def counts(merged: Graphs) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """How many nodes, edges and triplets of the full graph each one stands for."""
    assert merged.weights is not None
    node = merged.weights.node.astype(np.float64)
    edge = merged.weights.edge * node[merged.target]
    return node, edge, merged.weights.triplet * edge[merged.triplet_edge]


def loops(distances: Any) -> Graphs:
    """One atom with an edge of each of these lengths to itself."""
    m = len(distances)
    one = build(crystal(np.eye(3) * 25, [[0, 0, 0]]), GraphSpec(neighbours="radius", cutoff=5))
    ends = np.zeros(m, np.int32)
    vector = np.outer(distances, [1, 0, 0]).astype(np.float32)
    return replace(
        one, edge_ptr=np.array([0, m]), source=ends, target=ends, vector=vector, distance=np.float32(distances)
    )


# Nothing is lost.


@SPECS
@pytest.mark.parametrize("pack", ["crystals", "disordered"])
def test_weights_count_the_full_graph(spec: GraphSpec, pack: str, request: pytest.FixtureRequest) -> None:
    few = request.getfixturevalue(pack)[::3]
    full = build(few, spec)
    merged = quotient(full)
    assert classes(merged)[1] < 0.5 * classes(full)[1]
    found = zip(counts(merged), (merged.node_ptr, merged.edge_ptr, merged.triplet_ptr), strict=True)
    expected = [np.diff(pointer) for pointer in (full.node_ptr, full.edge_ptr, full.triplet_ptr)]
    for (weight, pointer), total in zip(found, expected, strict=True):
        sums = np.concatenate([[0], np.cumsum(weight)])[pointer]
        np.testing.assert_array_equal(np.diff(sums), total)
        assert (weight >= 1).all()


@SPECS
def test_weighted_sums_are_those_of_the_full_graph(spec: GraphSpec, disordered: Crystals) -> None:
    """Content, lengths and cosines, alone and together along edges and triplets."""
    few = disordered[::3]
    full = build(few, spec)
    merged = quotient(full)
    node, edge, triplet = counts(merged)
    ones = (np.ones(count) for count in classes(full))
    for left, right in zip(moments(merged, node, edge, triplet), moments(full, *ones), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=2e-3)


def moments(graphs: Graphs, node: Any, edge: Any, triplet: Any) -> list[NDArray[Any]]:
    """Sums over each crystal, times weights (N,), (E,), (T,)."""
    content = graphs.features().astype(np.float64)
    ends = content[graphs.source, :3] * content[graphs.target, 3:6] * graphs.distance[:, None]
    angle = graphs.cosine * graphs.distance[graphs.triplet_edge] * graphs.distance[graphs.triplet_other] ** 2
    angle = angle[:, None] * content[graphs.source[graphs.triplet_other], :3]
    terms = [(content, node, graphs.node_ptr), (ends, edge, graphs.edge_ptr), (angle, triplet, graphs.triplet_ptr)]
    return [
        np.diff(np.vstack([np.zeros(values.shape[1]), np.cumsum(values * weight[:, None], axis=0)])[pointer], axis=0)
        for values, weight, pointer in terms
    ]


@SPECS
def test_edges_ascend_and_stay_inside_their_crystal(spec: GraphSpec, disordered: Crystals) -> None:
    merged = quotient(build(disordered[::3], spec))
    assert (np.diff(merged.target) >= 0).all()
    assert (np.diff(merged.triplet_edge) >= 0).all()
    owner = np.repeat(np.arange(len(merged)), np.diff(merged.edge_ptr))
    node_owner = np.repeat(np.arange(len(merged)), np.diff(merged.node_ptr))
    np.testing.assert_array_equal(node_owner[merged.source], owner)
    np.testing.assert_array_equal(node_owner[merged.target], owner)
    np.testing.assert_array_equal(merged.target[merged.triplet_other], merged.target[merged.triplet_edge])
    np.testing.assert_allclose(np.linalg.norm(merged.vector, axis=1), merged.distance, atol=4 * TOLERANCE)
    assert merged.triplet_ptr[-1] == len(merged.cosine)


# What is merged.


@pytest.mark.parametrize("name", BY_HAND)
def test_classes_one_counts_by_hand(name: str) -> None:
    one, expected = BY_HAND[name]
    assert classes(quotient(build(one, NEAREST))) == expected
    bare = classes(quotient(build(one, replace(NEAREST, angles=False))))
    assert bare == (*expected[:2], 0)  # angles are no finer in these four


def test_weights_one_counts_by_hand() -> None:
    salt = quotient(build(BY_HAND["NaCl"][0], NEAREST))
    assert salt.weights is not None
    assert salt.weights.node.tolist() == [4, 4]
    assert sorted(salt.weights.edge.tolist()) == [6, 6, 12, 12]
    np.testing.assert_array_equal(salt.numbers[salt.source] != salt.numbers[salt.target], salt.weights.edge == 6)
    short = np.flatnonzero(salt.distance < 3)[0]
    to_twelve = (salt.triplet_edge == short) & (salt.distance[salt.triplet_other] > 3)
    np.testing.assert_allclose(np.sort(salt.cosine[to_twelve]), [-np.sqrt(0.5), 0, np.sqrt(0.5)], atol=1e-6)
    assert salt.weights.triplet[to_twelve].tolist() == [4, 4, 4]
    to_six = (salt.triplet_edge == short) & (salt.distance[salt.triplet_other] < 3)
    assert dict(zip(salt.cosine[to_six].round(), salt.weights.triplet[to_six], strict=True)) == {0: 4, -1: 1}


def assert_same_classes(left: Graphs, right: Graphs, times: int = 1) -> None:
    """Both quotients have the same classes, each `times` as often in the right one."""
    assert classes(left) == classes(right)
    for mine, yours in zip(counts(left), counts(right), strict=True):
        np.testing.assert_array_equal(np.sort(mine) * times, np.sort(yours))
    np.testing.assert_allclose(np.sort(left.distance), np.sort(right.distance), atol=1e-5)
    np.testing.assert_allclose(np.sort(left.cosine), np.sort(right.cosine), atol=1e-5)


def symmetric_or_random(seed: int) -> Crystals:
    return BY_HAND[list(BY_HAND)[seed % 4]][0] if seed % 5 == 0 else random_crystal(seed)


@SPECS
@given(seed=SEED)
@settings(max_examples=25)
def test_site_order_place_and_rotation_do_not_matter(spec: GraphSpec, seed: int) -> None:
    one, rng = symmetric_or_random(seed), np.random.default_rng(seed)
    order = rng.permutation(len(one.frac))
    turned = one.lattice @ random_rotation(rng)
    other = crystal(turned, wrap(one.frac[order] + rng.normal(size=3)), one.numbers[order])
    assert_same_classes(quotient(build(one, spec)), quotient(build(other, spec)))


@SPECS
@given(seed=SEED)
@settings(max_examples=25)
def test_choice_of_cell_changes_the_weights_alone(spec: GraphSpec, seed: int) -> None:
    one, rng = symmetric_or_random(seed), np.random.default_rng(seed)
    other, old = with_cell(one, random_cell_change(rng))
    assert_same_classes(quotient(build(one, spec)), quotient(build(other, spec)), len(old) // len(one.frac))


@pytest.mark.parametrize("name", BY_HAND)
def test_a_large_supercell_has_the_same_quotient(name: str) -> None:
    one, _ = BY_HAND[name]
    other, _ = with_cell(one, np.diag([2, 2, 1]))
    assert_same_classes(quotient(build(one, NEAREST)), quotient(build(other, NEAREST)), 4)


def test_real_supercells_have_the_same_quotient(crystals: Crystals) -> None:
    for row in range(0, len(crystals), 30):
        one = crystals[row : row + 1]
        other, _ = with_cell(one, np.array([[1, 1, 0], [0, 1, 0], [0, 0, 2]]))
        assert_same_classes(quotient(build(one, RADIUS)), quotient(build(other, RADIUS)), 2)


def test_mirror_images_are_one_class() -> None:
    """Distances and cosines do not tell left from right, so no network here does."""
    arms = np.array([[1.1, 0, 0], [-0.4, 1.3, 0], [-0.5, -0.6, 1.5], [-0.6, -0.8, -1.6]])
    hand = np.concatenate([[[0, 0, 0]], arms])
    both = np.concatenate([hand + 5, hand * [1, 1, -1] + [5, 5, 15]])
    merged = quotient(build(crystal(np.diag([10, 10, 20]), both / [10, 10, 20], [6, 1, 9, 17, 35] * 2), RADIUS))
    assert merged.weights is not None
    assert merged.weights.node.tolist() == [2] * 5


# What is never merged.


def test_angles_alone_tell_two_atoms_apart() -> None:
    """A bent and a more bent SiH2: each Si sees two H at 1.5 Å, each H one Si, and nobody sees beyond."""

    def molecule(degrees: float) -> NDArray[Any]:
        half = np.radians(degrees) / 2
        arm = 1.5 * np.array([np.cos(half), np.sin(half), 0])
        return np.stack([np.zeros(3), arm, arm * [1, -1, 1]])

    places = np.concatenate([molecule(90) + 3, molecule(120) + np.array([3, 3, 9])])
    both = crystal(np.diag([6, 6, 12]), places / [6, 6, 12], [14, 1, 1] * 2)
    spec = GraphSpec(neighbours="radius", cutoff=1.8)
    blind, seeing = quotient(build(both, spec)), quotient(build(both, replace(spec, angles=True)))
    assert blind.weights is not None
    assert seeing.weights is not None
    assert blind.weights.node.tolist() == [2, 4]
    assert seeing.weights.node.tolist() == [1, 2, 1, 2]
    np.testing.assert_allclose(np.sort(seeing.cosine), [-0.5, 0], atol=1e-6)


COPPER, BRASS, VACANCY = {29: 1.0}, {29: 0.9, 30: 0.1}, {29: 0.9}


@pytest.mark.parametrize("table", sorted(atoms.TABLES))
@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (COPPER, COPPER, 1),
        (BRASS, {30: 0.1, 29: 0.9}, 1),
        (VACANCY, VACANCY, 1),
        (COPPER, BRASS, 2),
        (COPPER, VACANCY, 2),
        (BRASS, VACANCY, 2),
        (BRASS, {29: 0.8, 30: 0.2}, 2),
        (COPPER, {30: 1.0}, 2),
    ],
)
def test_only_equal_content_merges(table: str, left: dict[int, float], right: dict[int, float], expected: int) -> None:
    """Geometry makes all sites of a simple cubic crystal equal; what they hold does not."""
    alone = crystal(np.eye(3) * 2.6, [[0, 0, 0]], [50])  # a neighbour in the batch shares nothing
    pair = sites(np.diag([5.2, 2.6, 2.6]), [[0, 0, 0], [0.5, 0, 0]], [left, right])
    merged = quotient(build(concat([alone, pair]), replace(NEAREST, atom_features=table)))
    assert np.diff(merged.node_ptr).tolist() == [1, expected]
    assert merged.weights is not None
    assert merged.weights.node[1:].tolist() == [2 // expected] * expected


def test_a_doped_atom_sets_its_neighbours_apart() -> None:
    doped = BY_HAND["NaCl"][0]
    doped = replace(doped, numbers=np.array([11, 11, 11, 19, 17, 17, 17, 17], np.uint8))
    merged = quotient(build(doped, NEAREST))
    assert merged.weights is not None
    assert sorted(merged.weights.node.tolist()) == [1, 1, 3, 3]  # K; the Cl far from it; 3 Na; the Cl beside it


# Tolerance.


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", BY_HAND)
def test_noise_far_below_the_tolerance_splits_nothing(name: str, seed: int) -> None:
    one, _ = BY_HAND[name]
    spec = replace(RADIUS, cutoff=4.5)
    assert_near_classes(one, shaken(one, 1e-6, seed), spec)


def assert_near_classes(one: Crystals, other: Crystals, spec: GraphSpec) -> None:
    left, right = quotient(build(one, spec)), quotient(build(other, spec))
    assert classes(left) == classes(right)
    np.testing.assert_allclose(np.sort(left.distance), np.sort(right.distance), atol=1e-5)


@pytest.mark.parametrize("name", BY_HAND)
def test_noise_far_above_the_tolerance_splits_everything(name: str) -> None:
    one, (_, edges, _) = BY_HAND[name]
    merged = quotient(build(shaken(one, 1e-2, 0), replace(RADIUS, cutoff=4.5)))
    assert classes(merged)[0] == len(one.frac)
    assert classes(merged)[1] > 5 * edges


@pytest.mark.parametrize("name", ["NaCl", "diamond"])
def test_a_wider_tolerance_merges_through_more_noise(name: str) -> None:
    one, (nodes, _, _) = BY_HAND[name]
    noisy = build(shaken(one, 3e-4, 0), replace(RADIUS, cutoff=4.5))
    assert classes(quotient(noisy))[0] == len(one.frac)
    assert classes(quotient(noisy, tolerance=1e-2))[0] == nodes


def shaken(one: Crystals, amount: float, seed: int) -> Crystals:
    """Atoms displaced by `amount` Å, one standard deviation along each axis."""
    noise = np.random.default_rng(seed).normal(size=one.frac.shape) * amount
    return replace(one, frac=wrap(one.frac + noise @ np.linalg.inv(one.lattice[0])))


@pytest.mark.parametrize("place", np.linspace(0, 3, 61))
def test_values_at_the_edge_of_a_bin_stay_together(place: float) -> None:
    """Bins start at the shortest distance; wherever two close values lie in them, they are one."""
    middle = 1 + (20 + place) * TOLERANCE
    merged = quotient(loops([1.0, middle - 1e-6, middle + 1e-6, middle + 10 * TOLERANCE]))
    assert merged.weights is not None
    assert merged.weights.edge.tolist() == [1, 2, 1]
    np.testing.assert_allclose(merged.distance, [1, middle, middle + 10 * TOLERANCE], atol=3e-7)


@pytest.mark.parametrize("place", np.linspace(0, 1, 21))
def test_values_more_than_two_tolerances_apart_are_two(place: float) -> None:
    low = 1 + (20 + place) * TOLERANCE
    assert classes(quotient(loops([1.0, low, low + 2.01 * TOLERANCE])))[1] == 3


@given(seed=SEED, step=st.floats(0.02, 0.99))
@settings(max_examples=30)
def test_a_dense_chain_of_values_does_not_become_one(seed: int, step: float) -> None:
    m = 400
    values = np.float32(1 + np.arange(m) * step * TOLERANCE)
    order = np.random.default_rng(seed).permutation(m)
    merged = quotient(loops(values[order]))
    assert merged.weights is not None
    by_length = np.argsort(merged.distance)
    ends = np.cumsum(merged.weights.edge[by_length]).astype(int)
    assert ends[-1] == m
    starts = np.concatenate([[0], ends[:-1]])
    width = values[ends - 1].astype(float) - values[starts]
    assert width.max() <= 4 * TOLERANCE + 1e-6
    means = [values[a:b].astype(float).mean() for a, b in zip(starts, ends, strict=True)]
    np.testing.assert_allclose(merged.distance[by_length], means, rtol=1e-6)
    assert classes(merged)[1] <= m * step / 4 + 2  # and it does not fall apart


def test_a_tolerance_far_below_the_precision_merges_what_is_equal() -> None:
    values = [1.0, 1.0, 7.5, 7.5, 7.5, np.nextafter(np.float32(7.5), np.float32(8))]
    merged = quotient(loops(values), tolerance=1e-13)
    assert merged.weights is not None
    assert merged.weights.edge.tolist() == [2, 3, 1]


# Batches.


@SPECS
def test_select_of_a_quotient_is_the_quotient_of_the_selection(
    spec: GraphSpec, crystals: Crystals, disordered: Crystals
) -> None:
    full = build(concat([crystals[::30], disordered[::20]]), spec)
    rows = np.array([3, 0, 17, 3, 5])
    assert_equal(quotient(full).select(rows), quotient(full.select(rows)))
    assert_equal(quotient(full).select(rows[:0]), quotient(full.select(rows[:0])))


@SPECS
def test_joined_quotients_are_the_quotient_of_the_joined(
    spec: GraphSpec, crystals: Crystals, disordered: Crystals
) -> None:
    parts = [build(part, spec) for part in (crystals[::40], disordered[:3], empty(), disordered[::25])]
    assert_equal(join([quotient(part) for part in parts]), quotient(join(parts)))


@SPECS
def test_a_crystal_does_not_depend_on_its_neighbours_in_the_batch(spec: GraphSpec, disordered: Crystals) -> None:
    few = disordered[::20]
    whole = quotient(build(few, spec))
    for row in range(len(few)):
        assert_equal(whole.select(np.array([row])), quotient(build(few[row : row + 1], spec)))


@pytest.mark.parametrize("angles", [False, True])
def test_atoms_without_edges(angles: bool) -> None:
    spec = GraphSpec(neighbours="radius", cutoff=2, angles=angles)
    alone, pair = crystal(np.eye(3) * 25, [[0, 0, 0]]), crystal(np.eye(3) * 9, [[0, 0, 0], [0.5, 0.5, 0.5]], [1, 1])
    bonded = crystal(np.eye(3) * 9, [[0, 0, 0], [0.1, 0, 0]], [1, 1])
    merged = quotient(build(concat([alone, pair, bonded, alone]), spec))
    assert merged.weights is not None
    assert merged.weights.node.tolist() == [1, 2, 2, 1]
    assert merged.weights.edge.tolist() == [1]
    assert merged.edge_ptr.tolist() == [0, 0, 0, 1, 1]
    assert merged.triplet_ptr.tolist() == [0] * 5


@SPECS
def test_no_crystals_have_no_quotient(spec: GraphSpec) -> None:
    merged = quotient(build(empty(), spec))
    assert len(merged) == 0
    assert classes(merged) == (0, 0, 0)
    assert merged.weights is not None
    assert [len(w) for w in (merged.weights.node, merged.weights.edge, merged.weights.triplet)] == [0, 0, 0]


def test_two_atoms_at_one_place_are_no_crash() -> None:
    merged = quotient(build(crystal(np.eye(3) * 6, [[0.2, 0.2, 0.2], [0.2, 0.2, 0.2]]), NEAREST))
    assert merged.shortest().tolist() == [0]
    assert counts(merged)[0].sum() == 2


def test_a_quotient_of_a_quotient_is_refused(crystals: Crystals) -> None:
    with pytest.raises(ValueError, match="quotients already"):
        quotient(quotient(build(crystals[:2], NEAREST)))


@pytest.mark.parametrize("tolerance", [0.0, -1e-4, float("nan")])
def test_a_tolerance_that_is_none_is_refused(tolerance: float, crystals: Crystals) -> None:
    with pytest.raises(ValueError, match=f"tolerance is {tolerance}, expected at least 1e-15"):
        quotient(build(crystals[:2], NEAREST), tolerance)


# What a network sees.

SMALL = {
    "cgcnn": {"hidden": 32, "layers": 3},
    "alignn": {"hidden": 32, "alignn_layers": 2, "gcn_layers": 2, "embedding": 16},
    "gated-gcn": {"hidden": 32, "layers": 4, "embedding": 16},
    "megnet": {"hidden": 32, "blocks": 3},
}
READOUT = {"cgcnn": "pool", "alignn": "pool", "gated-gcn": "pool", "megnet": "read_nodes"}
"""The part of each network that is given the last node states."""


def states(network: Any, name: str, graphs: Graphs) -> tuple[NDArray[Any], NDArray[Any]]:
    """Last node states (N, h) and embeddings (n, w)."""
    seen = []
    hook = getattr(network, READOUT[name]).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.inference_mode():
        embedded = network.encode(Batch.of(graphs))
    hook.remove()
    return seen[0].numpy(), embedded.numpy()


@pytest.mark.parametrize("name", SMALL)
def test_real_crystals_embed_as_their_full_graphs_do(name: str, crystals: Crystals, disordered: Crystals) -> None:
    """250 crystals, random weights: within 1e-4 of the spread over the crystals, and atom by atom."""
    small = disordered.select(np.flatnonzero(np.diff(disordered.site_ptr) <= 40))
    many = concat([crystals[::2], small[:100]])
    assert len(many) >= 240
    assert not small[:100].is_ordered.all()
    full = build(many, replace(NEAREST, angles=registry.MODELS[name].reads.angles))
    merged = quotient(full)
    torch.manual_seed(0)
    network = registry.create(name, atoms.width(full.spec.atom_features), ["y"], **SMALL[name])
    with torch.no_grad():
        network.train()(Batch.of(full.select(np.arange(0, len(many), 5))))  # batch statistics of real crystals
    network.eval()
    every, expected = states(network, name, full)
    few, found = states(network, name, merged)
    spread = expected.std(axis=0)
    assert np.median(spread) > 1e-3
    assert (np.abs(found - expected).max(axis=0) <= 1e-4 * np.maximum(spread, np.median(spread))).all()
    weight = counts(merged)[0].astype(int)
    for a, b, p, q in zip(full.node_ptr, full.node_ptr[1:], merged.node_ptr, merged.node_ptr[1:], strict=False):
        gap = np.abs(every[a:b, None] - few[None, p:q]).max(axis=2)
        nearest = gap.min(axis=1)
        assert nearest.max() <= 1e-3 * every.std()
        alike = gap <= nearest[:, None] + 2e-3 * every.std()
        assert (alike.sum(axis=0) >= weight[p:q]).all()  # no node stands for atoms unlike it


# The short ways: each gives what the plain one gives.


@pytest.mark.parametrize("tolerance", [1e-1, 1e-3, 1e-4, 1e-7])
@pytest.mark.parametrize("items", [1, 2, 30, 3000])
def test_values_are_numbered_by_runs_of_bins(items: int, tolerance: float) -> None:
    """With few bins all are marked, with many the occupied ones are found."""
    values = np.random.default_rng(items).choice(np.random.default_rng(1).normal(size=50), items)
    values = (values + 1e-4 * np.random.default_rng(2).random(items)).astype(np.float32)
    label = np.empty(items, np.int64)
    number_runs(values, tolerance, label)
    bins = ((values - values.min()).astype(np.float64) / tolerance).astype(np.int64)
    run = width = 0
    number: dict[int, int] = {}
    for b in np.unique(bins).tolist():
        if b - 1 not in number or width == 4:
            run, width = run + 1, 0
        width += 1
        number[b] = run
    groups = np.array([number[b] for b in bins.tolist()])
    np.testing.assert_array_equal(label[:, None] == label, groups[:, None] == groups)


@pytest.mark.parametrize("items", [0, 1, 2, 40, 48, 49, 500])
def test_sorting_is_stable(items: int) -> None:
    keys, order = np.random.default_rng(items).integers(0, 9, items), np.arange(items)
    expected = np.argsort(keys, kind="stable")
    ordered = keys[expected]
    sort_keys(keys, order)
    np.testing.assert_array_equal(keys, ordered)
    np.testing.assert_array_equal(order, expected)


@pytest.mark.parametrize("items", [0, 1, 2, 7, 300])
def test_different_colours_are_counted(items: int) -> None:
    colours = np.random.default_rng(items).integers(0, items + 1, items).astype(np.uint64) * np.uint64(2**33)
    assert count_classes(colours, np.empty(table_size(items), np.uint64)) == len(np.unique(colours))
