"""Graphs by alignn's rules: edge for edge and triplet for triplet what alignn builds where no distances are tied."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from assay.featurize import atoms
from assay.featurize.graphs import GraphSpec, build
from assay.featurize.quotient import quotient
from assay.models.ensemble.frozen import freeze
from assay.models.networks import registry
from assay.models.networks.batch import Batch
from assay.models.published import alignn as interop
from assay.models.published.graphs import Rule, graphs
from assay.sources.crystals import Crystals, wrap
from tests.models.networks.test_networks import SMALL
from tests.models.published.test_alignn import alignn, jarvis_atoms

__all__ = ["alignn"]

CLASSIC = Rule.of({"neighbor_strategy": "k-nearest", "cutoff": 8.0, "max_neighbors": 12})
PURE_12 = Rule.of({"neighbor_strategy": "pure_torch", "cutoff": 8.0, "max_neighbors": 12, "model": {}})
PURE = Rule.of(
    {"neighbor_strategy": "pure_torch", "cutoff": 5.0, "three_body_cutoff": 3.5, "max_neighbors": None, "model": {}}
)
RULES = pytest.mark.parametrize("rule", [CLASSIC, PURE_12, PURE], ids=["classic", "pure, 12 nearest", "pure, 5 Å"])
Bonds = tuple[Any, Any, Any, Any, Any, Any]
"""Of one crystal: source, target, vector (Å, from target to source) of each edge; two edges and
cosine per triplet."""


def rattled(crystals: Crystals) -> Crystals:
    """Every atom moved by 0.05 Å at random: only an atom's images remain tied, in pairs."""
    move = np.random.default_rng(0).normal(0, 0.05, crystals.frac.shape)
    inverse = np.linalg.inv(crystals.lattice)[crystals.site_crystal]
    return replace(crystals, frac=wrap(crystals.frac + np.einsum("ei,eij->ej", move, inverse)))


def untied(crystals: Crystals) -> Crystals:
    """The crystals in which no atom has a thirteenth neighbour as far away as its twelfth."""
    wide = build(crystals, GraphSpec(k=12, tolerance=1e-3))
    degree = np.bincount(wide.target, minlength=int(wide.node_ptr[-1]))
    return crystals.select(np.flatnonzero(np.maximum.reduceat(degree, wide.node_ptr[:-1]) == 12))


def theirs(package: Any, one: Any, rule: Rule) -> Bonds:
    if rule.mutual:
        graph, line = package.Graph.atom_dgl_multigraph(one, cutoff=rule.cutoff, max_neighbors=rule.nearest)
        ends, pairs = graph.edges(), line.edges()
    else:
        pure = interop.import_alignn("alignn.torch_graph_builder").build_pure_torch_graph
        options = {"two_body_cutoff": rule.cutoff, "three_body_cutoff": rule.angle_cutoff}
        graph, line = pure(one, max_neighbors=rule.nearest, use_matscipy_topology=False, **options)
        ends, pairs = (graph.src, graph.dst), (line.src, line.dst)
    found = (*ends, -graph.edata["r"], *pairs, line.edata["h"])
    source, target, vector, other, edge, cosine = (values.numpy() for values in found)
    return source, target, vector, other, edge, cosine.reshape(-1)


def ours(crystals: Crystals, rule: Rule) -> list[Bonds]:
    made = graphs(crystals, rule)
    found = []
    for row in range(len(made)):
        e, t = (slice(pointer[row], pointer[row + 1]) for pointer in (made.edge_ptr, made.triplet_ptr))
        ends = made.source[e] - made.node_ptr[row], made.target[e] - made.node_ptr[row]
        pairs = made.triplet_other[t] - e.start, made.triplet_edge[t] - e.start
        found.append((*ends, made.vector[e], *pairs, made.cosine[t]))
    return found


def assert_same(left: Bonds, right: Bonds) -> None:
    """The same edges as often, and the same triplets of the same edges."""
    across = np.array([0.543, 0.731, 0.413])  # no lattice plane: vectors that differ differ along it
    order = [np.lexsort((bonds[2] @ across, bonds[0], bonds[1])) for bonds in (left, right)]
    rows = [np.column_stack(bonds[:3])[places] for bonds, places in zip((left, right), order, strict=True)]
    assert len(rows[0]) == len(rows[1])
    np.testing.assert_allclose(*rows, atol=1e-4)
    name = np.cumsum([0, *(np.abs(np.diff(rows[0], axis=0)).max(axis=1) > 1e-3)])  # equal edges share a name
    triplets = []
    for bonds, places in zip((left, right), order, strict=True):
        names = np.empty(len(places), np.int64)
        names[places] = name
        found = np.column_stack([names[bonds[3]], names[bonds[4]], bonds[5]])
        triplets.append(found[np.lexsort((found[:, 1], found[:, 0]))])
    assert len(triplets[0]) == len(triplets[1])
    np.testing.assert_allclose(triplets[0], triplets[1], atol=2e-5)


@RULES
def test_the_same_graphs_where_nothing_is_tied(alignn: Any, crystals: Crystals, rule: Rule) -> None:
    few = rattled(crystals[:120])
    few = untied(few) if rule.nearest else few
    assert len(few) >= 40
    made = ours(few, rule)
    assert any((source == target).any() for source, target, *_ in made)  # some atoms are neighbours of their images
    for mine, one in zip(made, jarvis_atoms(alignn, few), strict=True):
        assert_same(mine, theirs(alignn, one, rule))


@pytest.mark.parametrize("rule", [CLASSIC, PURE_12], ids=["classic", "pure, 12 nearest"])
def test_of_a_tied_shell_alignn_keeps_a_part(alignn: Any, crystals: Crystals, rule: Rule) -> None:
    """Which part, rounding decides; ours is all of it, and more only where something is tied."""
    few = crystals[:60]
    tied = ~np.isin(few.ids, untied(few).ids)
    more = [
        len(mine[0]) - len(theirs(alignn, one, rule)[0])
        for mine, one in zip(ours(few, rule), jarvis_atoms(alignn, few), strict=True)
    ]
    assert (np.array(more)[~tied] == 0).all()
    assert (np.array(more) >= 0).all()
    assert (np.array(more)[tied] > 0).mean() > 0.5


@RULES
def test_their_quotients_are_the_same_crystals(rule: Rule, crystals: Crystals) -> None:
    """Their triplets lead from edges of other atoms, which the quotient may have left out."""
    full = graphs(crystals[:40], rule)
    merged = quotient(full)
    assert len(merged.cosine) < 0.7 * len(full.cosine)
    assert merged.triplet_other.min() >= 0
    torch.manual_seed(0)
    net = registry.create("alignn", atoms.width(rule.spec.atom_features), ["y"], **SMALL["alignn"]).eval()
    with torch.inference_mode():
        whole, short = (net(Batch.of(part))["y"] for part in (full, merged))
        quick = freeze(net)(Batch.of(merged))["y"]
    assert whole.std() > 1e-3
    torch.testing.assert_close(short, whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(quick, whole, rtol=1e-4, atol=1e-5)
