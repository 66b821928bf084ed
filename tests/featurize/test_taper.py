"""Tapered graphs: what a network predicts is continuous in the coordinates, and one crystal has one number."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from assay.featurize import atoms, graphs, neighbours
from assay.featurize.graphs import Graphs, GraphSpec
from assay.featurize.quotient import quotient
from assay.models.networks import registry
from assay.models.networks.batch import Batch
from assay.sources.crystals import Crystals, concat, wrap
from tests.crystal_copies import in_cell
from tests.featurize.cells import crystal, random_crystal, random_rotation
from tests.featurize.test_neighbours import BCC, FCC

if TYPE_CHECKING:
    from numpy.typing import NDArray

TAPERED, CUT = GraphSpec(k=10, taper=0.3), GraphSpec(k=10)
RADIUS = GraphSpec(neighbours="radius", cutoff=4.3, taper=0.3)
SMALL = {
    "cgcnn": {"hidden": 16, "layers": 3},
    "alignn": {"hidden": 16, "alignn_layers": 1, "gcn_layers": 1, "bins": 40, "angle_bins": 20, "embedding": 16},
    "gated-gcn": {"hidden": 16, "layers": 2, "bins": 40, "embedding": 16},
    "megnet": {"hidden": 16, "blocks": 2},
}
NETWORKS = pytest.mark.parametrize("name", SMALL)


def held(made: Graphs) -> NDArray[np.float32]:
    taper = made.taper()
    assert taper is not None
    return taper


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_neighbours_and_weights_are_those_of_the_definition(seed: int) -> None:
    """By hand, from all atoms within a long radius."""
    one = random_crystal(seed)
    made = graphs.build(one, TAPERED)
    _, _, target, _, length = neighbours.within(one.lattice, one.frac, one.site_ptr, float(made.distance.max()) + 1)
    for site in range(len(one.frac)):
        near = np.sort(length[target == site])
        x = np.clip((near - near[9]) / 0.3, 0, 1)
        mine = made.target == site
        order = np.argsort(made.distance[mine])
        kept = near <= near[9] + 0.3
        np.testing.assert_allclose(made.distance[mine][order], near[kept], atol=1e-5)
        np.testing.assert_allclose(held(made)[mine][order], 1 - x[kept] ** 2 * (3 - 2 * x[kept]), atol=2e-5)


def test_whole_shells_count_and_a_shell_in_the_band_fades() -> None:
    """The 12 of fcc; of bcc 8 + 6, whose next 12 are far. At a third of the band: 1 - 7/27."""
    for lattice, shells in ((FCC * 4.05, 12), (BCC * 2.87, 14)):
        assert held(graphs.build(crystal(lattice, [[0, 0, 0]]), TAPERED)).tolist() == [1] * shells
    tetragonal = graphs.build(crystal(np.diag([3.0, 3.0, 3.1]), [[0, 0, 0]]), replace(TAPERED, k=4))
    np.testing.assert_allclose(np.sort(held(tetragonal)), [20 / 27] * 2 + [1] * 4, atol=1e-5)


def test_radius_graphs_fade_before_the_cutoff(crystals: Crystals) -> None:
    plain, made = (graphs.build(crystals[:20], spec) for spec in (replace(RADIUS, taper=0.0), RADIUS))
    np.testing.assert_array_equal(plain.distance, made.distance)
    assert plain.taper() is None
    assert (held(made)[made.distance <= 4.0] == 1).all()
    assert held(made)[made.distance > 4.2999].max(initial=0) < 1e-6


@pytest.mark.parametrize("taper", [-0.1, 2.5, float("nan")])
def test_a_taper_out_of_range_is_refused(taper: float) -> None:
    with pytest.raises(ValueError, match=f"taper is {taper} Å, expected 0 to 2"):
        GraphSpec(taper=taper)


# What a network says.


def network(name: str, some: Crystals, spec: GraphSpec) -> Any:
    """With the batch statistics of real crystals."""
    torch.manual_seed(0)
    made = registry.create(name, atoms.width(spec.atom_features), ["y"], **SMALL[name])
    with torch.no_grad():
        made.train()(batch(name, some, spec))
    return made.eval()


def batch(name: str, some: Crystals, spec: GraphSpec) -> Batch:
    return Batch.of(graphs.build(some, replace(spec, angles=registry.MODELS[name].reads.angles)))


def said(made: Any, name: str, some: Crystals, spec: GraphSpec) -> NDArray[np.float64]:
    with torch.inference_mode():
        return np.asarray(made(batch(name, some, spec))["y"].numpy(), np.float64)


def few(crystals: Crystals, disordered: Crystals) -> Crystals:
    small = disordered.select(np.flatnonzero(np.diff(disordered.site_ptr) <= 24))
    return concat([crystals[::6], small[:40]])


@NETWORKS
def test_rounded_and_rattled_coordinates_change_little(name: str, crystals: Crystals, disordered: Crystals) -> None:
    """With the taper less than 0.5 % of the deviation over crystals; without, the last neighbour jumps."""
    many = few(crystals, disordered)
    noise = 1e-4 * np.random.default_rng(0).uniform(-1, 1, many.frac.shape) / np.sqrt(3)
    shaken = many.frac + np.einsum("sj,sji->si", noise, np.linalg.inv(many.lattice)[many.site_crystal])
    changes = {}
    for spec in (TAPERED, CUT):
        made = network(name, many, spec)
        full = said(made, name, many, spec)
        for frac in (np.round(many.frac, 4), np.round(many.frac, 5), shaken):
            gap = np.abs(said(made, name, replace(many, frac=wrap(frac)), spec) - full) / full.std()
            changes.setdefault(spec, []).append(gap.max())
    assert max(changes[TAPERED]) < 0.005, changes
    assert min(changes[CUT]) > 0.01, changes


@NETWORKS
def test_a_neighbour_that_comes_closer_changes_nothing_at_once(name: str, crystals: Crystals) -> None:
    """Along a path on which sets of neighbours change, steps shrink in proportion to the step."""
    many = crystals[::30]
    way = np.random.default_rng(1).normal(size=many.frac.shape)
    way = 0.05 * np.einsum("sj,sji->si", way, np.linalg.inv(many.lattice)[many.site_crystal])
    made, steps = network(name, many, TAPERED), []
    edges = set()
    for count in (8, 64):
        path = [replace(many, frac=wrap(many.frac + t * way)) for t in np.linspace(0, 1, count + 1)]
        edges |= {len(graphs.build(one, TAPERED).source) for one in path}
        values = np.stack([said(made, name, one, TAPERED) for one in path])
        steps.append(np.abs(np.diff(values, axis=0)).max(axis=0))
    assert len(edges) > 5
    assert (steps[1] <= 0.25 * steps[0] + 1e-4).all()


@NETWORKS
def test_the_choice_of_cell_origin_and_axes_does_not_matter(
    name: str, crystals: Crystals, disordered: Crystals
) -> None:
    many = few(crystals, disordered)[::3]
    rng = np.random.default_rng(2)
    supercell = np.array([[2, 0, 0], [0, 1, 0], [0, 1, 1]])
    doubled = concat([in_cell(many[row : row + 1], supercell) for row in range(len(many))])
    turned = replace(
        doubled,
        lattice=doubled.lattice @ random_rotation(rng),
        frac=wrap(doubled.frac + rng.random((len(many), 3))[doubled.site_crystal]),
    )
    made = network(name, many, TAPERED)
    full = said(made, name, many, TAPERED)
    for other in (doubled, turned):
        assert np.abs(said(made, name, other, TAPERED) - full).max() < 1e-4 * full.std()


@NETWORKS
@pytest.mark.parametrize("spec", [TAPERED, RADIUS], ids=["nearest", "radius"])
def test_the_quotient_says_what_the_full_graph_says(
    name: str, spec: GraphSpec, crystals: Crystals, disordered: Crystals
) -> None:
    """Predictions, and while training outputs and gradients."""
    many = few(crystals, disordered)[::2]
    full = graphs.build(many, replace(spec, angles=registry.MODELS[name].reads.angles))
    merged = quotient(full)
    assert len(merged.source) < 0.7 * len(full.source)
    assert merged.weights is not None
    total = np.bincount(merged.target, merged.weights.edge * held(merged), minlength=len(merged.weights.node))
    assert total.min() >= (10 if spec is TAPERED else 0)
    made = network(name, many, spec)
    with torch.inference_mode():
        values = [made(Batch.of(part))["y"] for part in (full, merged)]
    torch.testing.assert_close(values[1], values[0], rtol=0, atol=1e-4 * float(values[0].std()))
    slopes = []
    for part in (full, merged):
        made.train().zero_grad()
        made(Batch.of(part))["y"].square().sum().backward()
        slopes.append({key: p.grad.clone() for key, p in made.named_parameters() if p.grad is not None})
    for key, slope in slopes[0].items():
        torch.testing.assert_close(slopes[1][key], slope, rtol=1e-2, atol=2e-3 * float(slope.abs().max()) + 1e-5)
