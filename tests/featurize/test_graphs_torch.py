"""Graphs in torch: the edges, angles and features of the compiled search, in the same order, on any device."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from assay.featurize import graphs, graphs_torch
from assay.featurize.graphs import GraphSpec
from assay.featurize.graphs_torch import DeviceGraphs
from assay.sources.crystals import Crystals, concat, empty
from tests.featurize.cells import crystal, random_crystal
from tests.featurize.test_neighbours import BCC, CUBE, FCC, ROCK_SALT, SKEW

if TYPE_CHECKING:
    from collections.abc import Iterator

no_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch.cuda.is_available() is False")
DEVICES = ["cpu", pytest.param("cuda", marks=no_cuda)]
NEAREST, RADIUS = GraphSpec(angles=True), GraphSpec(neighbours="radius", cutoff=4.3, angles=True)
SPECS = pytest.mark.parametrize(
    "spec",
    [NEAREST, RADIUS, GraphSpec(k=3, angles=True), GraphSpec(k=40), GraphSpec(k=10, taper=0.3, angles=True)],
    ids=["12", "4.3 Å", "3", "40", "tapered"],
)
TIED = [
    crystal(FCC * 4.05, [[0, 0, 0]]),
    crystal(FCC * 4.05, [[0.3, 0.7, 0.9]]),
    crystal(BCC * 2.87, [[0.1, 0.2, 0.3]]),
    crystal(CUBE * 3.35, [[0, 0, 0]]),
    crystal(FCC * 5.64, ROCK_SALT, [11, 17]),
    crystal(CUBE * 4.12, ROCK_SALT, [55, 17]),
    crystal(FCC * 5.43, [[0, 0, 0], [0.25, 0.25, 0.25]], [14, 14]),
]
ODD = [
    crystal(SKEW @ FCC * 4.05, [[0.3, 0.1, 0.9]]),
    crystal(SKEW @ CUBE * 5.1, [[0.3, 0.1, 0.9], [0.8, 0.6, 0.4]]),
    crystal(np.diag([2.0, 2.0, 40.0]), [[0, 0, 0]]),
    crystal(np.diag([1.5, 30.0, 30.0]), [[0, 0, 0], [0.5, 0.5, 0.5]]),
    crystal(-CUBE * 3.0, [[0.999999, 0.0, 0.5]]),
    crystal(np.diag([3.0, 3.0, 3.0001]), [[0, 0, 0]]),
]
DISORDERED = Crystals(
    ["test/a", "test/b"],
    np.array([FCC * 5.0, SKEW @ CUBE * 4.0]),
    [0, 2, 3],
    [[0, 0, 0], [0.5, 0.5, 0.5], [0.2, 0.3, 0.4]],
    [0, 3, 4, 6],
    [57, 38, 56, 8, 26, 28],
    [0.7, 0.1, 0.05, 0.5, 1 / 3, 2 / 3],
)


def columns(built: DeviceGraphs, *, angles: bool) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Everything, by its name in `Graphs`."""
    names = ("node_ptr", "species_ptr", "numbers", "edge_ptr", "source", "target", "vector", "distance")
    yield from ((name, getattr(built, name).numpy(force=True)) for name in names)
    if angles:
        made = zip(("triplet_edge", "triplet_other", "cosine"), built.angles(), strict=True)
        yield from ((name, tensor.numpy(force=True)) for name, tensor in made)


def assert_same(crystals: Crystals, spec: GraphSpec, device: str = "cpu") -> None:
    expected, built = graphs.build(crystals, spec), graphs_torch.build(crystals, spec, device)
    assert built.spec == replace(spec, angles=False)
    for name, found in columns(built, angles=spec.angles):
        wanted = getattr(expected, name)
        assert found.shape == wanted.shape, name
        if wanted.dtype.kind == "f":
            assert found.dtype == wanted.dtype
            np.testing.assert_allclose(found, wanted, rtol=3e-7, atol=5e-7, err_msg=name)
        else:
            np.testing.assert_array_equal(found, wanted, err_msg=name)
    np.testing.assert_allclose(built.features().numpy(force=True), expected.features(), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(built.shortest(), expected.shortest(), rtol=3e-7)
    fading, wanted = built.taper(), expected.taper()
    assert (fading is None) == (wanted is None) == (spec.taper == 0)
    if fading is not None:
        np.testing.assert_allclose(fading.numpy(force=True), wanted, atol=1e-5)
    if spec.angles:
        np.testing.assert_array_equal(built.triplet_counts().numpy(force=True), np.diff(expected.triplet_ptr))


@SPECS
@given(seeds=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=6))
@settings(max_examples=40)
def test_random_cells(spec: GraphSpec, seeds: list[int]) -> None:
    assert_same(concat([random_crystal(seed) for seed in seeds]), spec)


@pytest.mark.parametrize("device", DEVICES)
@SPECS
def test_ties_skewed_flat_and_disordered_cells_in_one_batch(spec: GraphSpec, device: str) -> None:
    """Some atoms ask once, some many times: what they find comes back in the order of the atoms."""
    assert_same(concat([*TIED, *ODD, DISORDERED, *TIED[::-1]]), spec, device)


@SPECS
@pytest.mark.parametrize("one", [*TIED, *ODD, DISORDERED])
def test_each_alone(one: Crystals, spec: GraphSpec) -> None:
    assert_same(one, spec)


@pytest.mark.parametrize("device", DEVICES)
@SPECS
def test_real_crystals(spec: GraphSpec, device: str, crystals: Crystals, disordered: Crystals) -> None:
    assert_same(crystals, spec, device)
    assert_same(disordered, spec, device)


@pytest.mark.parametrize("most", [1, 500, 20_000])
def test_portions_change_nothing(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bound on memory that one atom may exceed."""
    monkeypatch.setattr(graphs_torch, "IMAGES_AT_ONCE", most)
    assert_same(concat([*TIED, *ODD, DISORDERED]), NEAREST)
    assert_same(concat([*TIED, *ODD, DISORDERED]), RADIUS)


@pytest.mark.parametrize("abundance", [0.05, 0.7, 1.0])
@pytest.mark.parametrize("tolerance", [1e-6, 0.1])
def test_who_finds_too_few_or_might_miss_a_tie_asks_again(
    abundance: float, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a short radius atoms of one crystal come to an end in different rounds; the order is that of the atoms."""
    monkeypatch.setattr(graphs_torch, "ABUNDANCE", abundance)
    some = [random_crystal(seed) for seed in range(100)]
    assert_same(concat([*TIED, *some, *ODD, DISORDERED]), GraphSpec(tolerance=tolerance, angles=True))


def test_no_crystals_no_edges_no_neighbours() -> None:
    assert_same(empty(), NEAREST)
    lonely = concat([crystal(CUBE * 9, [[0, 0, 0]]), TIED[0], crystal(CUBE * 9, [[0, 0, 0]])])
    assert_same(lonely, RADIUS)
    assert graphs_torch.build(lonely, RADIUS).shortest().tolist()[::2] == [np.inf, np.inf]
    assert_same(lonely[:1], RADIUS)


def test_atoms_at_one_place_are_neighbours() -> None:
    built = graphs_torch.build(crystal(CUBE * 6, [[0.2, 0.2, 0.2], [0.2, 0.2, 0.2]]), GraphSpec(k=1))
    assert built.distance.tolist() == [0, 0]
    assert built.source.tolist() == [1, 0]
    assert built.shortest().tolist() == [0]


@pytest.mark.parametrize("rows", [[0, 1, 2], [5, 3, 14], [7, 7], []])
def test_select_is_that_of_the_compiled_graphs(rows: list[int]) -> None:
    batch = concat([*TIED, *ODD, DISORDERED])
    index = np.array(rows, np.int64)
    expected = graphs.build(batch, NEAREST).select(index)
    built = graphs_torch.build(batch, NEAREST).select(index)
    assert len(built) == len(rows)
    for name, found in columns(built, angles=True):
        np.testing.assert_allclose(found, getattr(expected, name), rtol=3e-7, atol=5e-7, err_msg=name)
    np.testing.assert_allclose(built.features().numpy(), expected.features(), rtol=1e-6, atol=1e-6)


def test_an_element_without_features_is_refused_before_it_reaches_a_device() -> None:
    with pytest.raises(ValueError, match="no properties for atomic number 118"):
        graphs_torch.build(crystal(CUBE * 4, [[0, 0, 0]], [118]), NEAREST)


@pytest.mark.parametrize("device", DEVICES)
def test_the_same_bits_every_time(device: str, crystals: Crystals) -> None:
    first, second = (graphs_torch.build(crystals, NEAREST, device) for _ in range(2))
    for (name, mine), (_, yours) in zip(columns(first, angles=True), columns(second, angles=True), strict=True):
        assert mine.tobytes() == yours.tobytes(), name
