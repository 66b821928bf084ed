"""Graphs: what does not change when the same crystal is written differently, and what a batch must not change."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from assay.featurize.graphs import Graphs, GraphSpec, Weights, build, join
from assay.featurize.quotient import quotient
from assay.sources.crystals import concat, empty, wrap
from tests.featurize.cells import (
    assert_same_environments,
    crystal,
    random_cell_change,
    random_crystal,
    random_rotation,
    with_cell,
)

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals

NEAREST = GraphSpec(angles=True)
RADIUS = GraphSpec(neighbours="radius", cutoff=4.3, angles=True)
SPECS = pytest.mark.parametrize("spec", [NEAREST, RADIUS, GraphSpec(k=3, angles=True)], ids=["12", "4.3 Å", "3"])
SEED = st.integers(0, 2**32 - 1)


def assert_equal(left: Graphs, right: Graphs) -> None:
    assert left.spec == right.spec
    assert (left.weights is None) == (right.weights is None)
    both = [(left, right, field.name) for field in fields(Graphs) if field.name not in ("spec", "weights")]
    both += [(left.weights, right.weights, field.name) for field in fields(Weights) if left.weights is not None]
    for mine, yours, name in both:
        ours, theirs = getattr(mine, name), getattr(yours, name)
        assert ours.dtype == theirs.dtype, name
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


@SPECS
@given(seed=SEED)
@settings(max_examples=40)
def test_translation(spec: GraphSpec, seed: int) -> None:
    one = random_crystal(seed)
    shift = np.random.default_rng(seed + 1).normal(size=3)
    assert_same_environments(build(one, spec), build(replace(one, frac=wrap(one.frac + shift)), spec))


@SPECS
@given(seed=SEED)
@settings(max_examples=40)
def test_rotation(spec: GraphSpec, seed: int) -> None:
    one = random_crystal(seed)
    turned = replace(one, lattice=one.lattice @ random_rotation(np.random.default_rng(seed)))
    assert_same_environments(build(one, spec), build(turned, spec))


@SPECS
@given(seed=SEED)
@settings(max_examples=40)
def test_site_order(spec: GraphSpec, seed: int) -> None:
    one = random_crystal(seed)
    order = np.random.default_rng(seed).permutation(len(one.frac))
    assert_same_environments(build(one, spec), build(crystal(one.lattice, one.frac[order]), spec), order)


@SPECS
@given(seed=SEED)
@settings(max_examples=40)
def test_choice_of_cell(spec: GraphSpec, seed: int) -> None:
    one = random_crystal(seed)
    other, old = with_cell(one, random_cell_change(np.random.default_rng(seed)))
    assert_same_environments(build(one, spec), build(other, spec), old)


@pytest.mark.parametrize("spec", [NEAREST, RADIUS], ids=["nearest", "radius"])
def test_real_crystals_turned_and_shifted(crystals: Crystals, spec: GraphSpec) -> None:
    few = crystals[::6]
    rng = np.random.default_rng(0)
    shift = rng.random((len(few), 3))[few.site_crystal]
    moved = replace(few, lattice=few.lattice @ random_rotation(rng), frac=wrap(few.frac + shift))
    assert_same_environments(build(few, spec), build(moved, spec))


@SPECS
def test_a_batch_is_its_crystals_side_by_side(crystals: Crystals, spec: GraphSpec) -> None:
    few = crystals[::30]
    whole = build(few, spec)
    for row in range(len(few)):
        assert_equal(whole.select(np.array([row])), build(few[row : row + 1], spec))


@pytest.mark.parametrize("spec", [NEAREST, replace(NEAREST, angles=False), RADIUS])
def test_select_equals_build_of_the_selection(crystals: Crystals, disordered: Crystals, spec: GraphSpec) -> None:
    few = concat([crystals[::30], disordered[::20]])
    rows = np.array([3, 0, 17, 3, 5])
    assert_equal(build(few, spec).select(rows), build(few.select(rows), spec))


@pytest.mark.parametrize("spec", [NEAREST, replace(NEAREST, angles=False), RADIUS])
def test_joined_graphs_are_those_of_the_joined_crystals(
    crystals: Crystals, disordered: Crystals, spec: GraphSpec
) -> None:
    parts = [crystals[::60], disordered[:1], empty(), disordered[1::40]]
    assert_equal(join([build(part, spec) for part in parts]), build(concat(parts), spec))
    assert_equal(join([build(parts[0], spec)]), build(parts[0], spec))


def test_join_undoes_select(crystals: Crystals, disordered: Crystals) -> None:
    graphs = quotient(build(concat([crystals[::60], disordered[::40]]), NEAREST))
    assert_equal(join([graphs.select(np.array([row])) for row in range(len(graphs))]), graphs)


def test_graphs_of_different_kinds_are_not_joined(crystals: Crystals) -> None:
    few = build(crystals[:2], NEAREST)
    for other in (build(crystals[:2], RADIUS), build(crystals[:2], replace(NEAREST, angles=False)), quotient(few)):
        with pytest.raises(ValueError, match="different kinds"):
            join([few, other])
    with pytest.raises(ValueError, match="no graphs"):
        join([])


def test_angles_of_a_quotient_are_made_with_it_or_never(crystals: Crystals) -> None:
    merged = quotient(build(crystals[:2], NEAREST))
    assert merged.with_angles() is merged
    with pytest.raises(ValueError, match="build the graph with angles first"):
        quotient(build(crystals[:2], replace(NEAREST, angles=False))).with_angles()


def test_angles_can_be_added_later(crystals: Crystals) -> None:
    few = crystals[::30]
    assert_equal(build(few, replace(NEAREST, angles=False)).with_angles(), build(few, NEAREST))


def test_edges_ascend_in_target_and_stay_inside_their_crystal(disordered: Crystals) -> None:
    graphs = build(disordered, NEAREST)
    assert (np.diff(graphs.target) >= 0).all()
    owner = np.repeat(np.arange(len(graphs)), np.diff(graphs.edge_ptr))
    node_owner = np.repeat(np.arange(len(graphs)), np.diff(graphs.node_ptr))
    np.testing.assert_array_equal(node_owner[graphs.source], owner)
    np.testing.assert_array_equal(node_owner[graphs.target], owner)
    triplet_owner = np.repeat(np.arange(len(graphs)), np.diff(graphs.triplet_ptr))
    np.testing.assert_array_equal(owner[graphs.triplet_edge], triplet_owner)
    np.testing.assert_allclose(np.linalg.norm(graphs.vector, axis=1), graphs.distance, rtol=1e-6)


def test_vectors_point_from_target_to_source(crystals: Crystals) -> None:
    few = crystals[::30]
    graphs = build(few, NEAREST)
    owner = few.site_crystal[graphs.target]
    fractional = np.linalg.solve(few.lattice[owner].transpose(0, 2, 1), graphs.vector[:, :, None].astype(float))[
        :, :, 0
    ]
    translation = fractional - (few.frac[graphs.source] - few.frac[graphs.target])
    np.testing.assert_allclose(translation, np.round(translation), atol=1e-5)


def test_shortest_distance_of_each_crystal() -> None:
    close = crystal(np.eye(3) * 6, [[0, 0, 0], [0.1, 0, 0]])
    same_place = crystal(np.eye(3) * 6, [[0.2, 0.2, 0.2], [0.2, 0.2, 0.2]])
    alone = crystal(np.eye(3) * 25, [[0, 0, 0]])
    spec = GraphSpec(neighbours="radius", cutoff=5)
    np.testing.assert_allclose(build(concat([close, same_place, alone]), spec).shortest(), [0.6, 0, np.inf], rtol=1e-6)


def test_an_isolated_atom_has_no_edges() -> None:
    graphs = build(crystal(np.eye(3) * 25, [[0, 0, 0]]), RADIUS)
    assert len(graphs.source) == len(graphs.cosine) == 0
    assert graphs.edge_ptr.tolist() == graphs.triplet_ptr.tolist() == [0, 0]
    assert graphs.features().shape[0] == 1


def test_no_crystals_give_no_graphs() -> None:
    for spec in (NEAREST, RADIUS):
        graphs = build(empty(), spec)
        assert len(graphs) == 0
        assert len(graphs.features()) == len(graphs.shortest()) == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("neighbours", "knn"), ("k", 0), ("k", 1000), ("tolerance", -1.0), ("cutoff", 0.0), ("atom_features", "magic")],
)
def test_a_wrong_spec_names_the_value_and_the_range(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"{field} is .*{value}.*expected"):
        replace(GraphSpec(), **{field: value})
