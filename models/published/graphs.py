"""Graphs as ALIGNN's published weights know them.

Enters: `Crystals` and the rule of a published model. Leaves: `Graphs` on which its network gives
the published numbers. Three things differ from `assay.featurize.graphs.build`. Neighbours are made
mutual where the rule says so. Where it does not, an edge leads from an atom to its neighbour, not
back. And a triplet leads from an edge into an atom to an edge *out of* it, the way back included;
its cosine is that of the angle at the atom. This module does not know networks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from assay.featurize import graphs as crystal_graphs
from assay.featurize.graphs import Graphs, GraphSpec

if TYPE_CHECKING:
    from assay.sources.crystals import Crystals

FEATURES = "properties-identity-v1"
"""The node features an imported network reads; of its columns only the one-hot ones have
weights."""

REACH = 8.0
"""Å, centre of the last distance Gaussian, the same in every published network."""


@dataclass(frozen=True)
class Rule:
    """How a published network's graphs were built."""

    nearest: int | None
    """Neighbours per atom, ties of the last one included (alignn's pure builder keeps some of
    them); None: all within the cutoff."""
    cutoff: float
    """Å; no bound where the nearest are made mutual."""
    mutual: bool
    """Whether every edge also runs the other way."""
    angle_cutoff: float | None
    """Å, longest edge that takes part in an angle; None: every edge does."""
    itself: bool = True
    """Whether an edge from an atom to its own image makes a triplet with itself. In alignn's pure
    builder it does, in DGL it does not."""

    @classmethod
    def of(cls, config: dict[str, Any]) -> Rule:
        """The rule in a `config.json`, alignn's defaults where it is silent.

        Raises:
            ValueError: for a strategy whose graphs Assay cannot build.
        """
        strategy, cutoff = config.get("neighbor_strategy", "k-nearest"), float(config.get("cutoff", REACH))
        most = config.get("max_neighbors", 12)
        if strategy == "k-nearest":
            if not config.get("use_canonize", True):
                raise ValueError("use_canonize is false, which doubles most edges; Assay can import true only")
            return cls(int(most or 12), cutoff, mutual=True, angle_cutoff=None, itself=False)
        if strategy == "pure_torch":
            bound = config.get("three_body_cutoff", config["model"].get("three_body_cutoff"))
            bound = None if bound is None or float(bound) >= cutoff else float(bound)
            return cls(int(most) if most else None, cutoff, mutual=False, angle_cutoff=bound)
        if strategy == "radius_graph":
            return cls(None, cutoff, mutual=False, angle_cutoff=None, itself=False)
        raise ValueError(f"neighbor_strategy is {strategy!r}, expected 'k-nearest', 'pure_torch' or 'radius_graph'")

    @property
    def spec(self) -> GraphSpec:
        """The nearest of our own graphs; not the same ones, see `graphs`."""
        if self.nearest is None:
            return GraphSpec(neighbours="radius", cutoff=self.cutoff, angles=True, atom_features=FEATURES)
        return GraphSpec(neighbours="nearest", k=self.nearest, angles=True, atom_features=FEATURES)


def graphs(crystals: Crystals, rule: Rule) -> Graphs:
    """Graphs by a published rule, with angles.

    Edges ascend in target, triplets in the edge they update.

    Feed them to a network as they are, or as quotients: `Graphs.select` builds angles of full
    graphs by our own rule.
    """
    built = crystal_graphs.build(crystals, replace(rule.spec, angles=False))
    full = _mutual(built, crystals) if rule.mutual else _outward(built, rule.cutoff)
    into = np.concatenate([[0], np.cumsum(np.bincount(full.target, minlength=int(full.node_ptr[-1])))])
    joins = np.ones(len(full.target), bool) if rule.angle_cutoff is None else full.distance <= rule.angle_cutoff
    count = np.where(joins, np.diff(into)[full.source], 0)
    edge = np.repeat(np.arange(len(count)), count)
    other = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + into[full.source[edge]]
    paired = joins[other] & ((edge != other) | rule.itself)
    edge, other = edge[paired], other[paired]
    owner = np.repeat(np.arange(len(full)), np.diff(full.edge_ptr))[edge]
    inner = (full.vector[other] * full.vector[edge]).sum(axis=1, dtype=np.float64)
    cosine = np.clip(-inner / (full.distance[other].astype(np.float64) * full.distance[edge]), -1, 1)
    return replace(
        full,
        spec=rule.spec,
        triplet_ptr=np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=len(full)))]),
        triplet_edge=edge.astype(np.int32),
        triplet_other=other.astype(np.int32),
        cosine=cosine.astype(np.float32),
    )


def _mutual(graphs: Graphs, crystals: Crystals) -> Graphs:
    """Every edge in both directions, once; twice from an atom to its own image, as in alignn."""
    source = np.concatenate([graphs.source, graphs.target])
    target = np.concatenate([graphs.target, graphs.source])
    vector = np.concatenate([graphs.vector, -graphs.vector])
    inverse = np.linalg.inv(crystals.lattice)[crystals.site_crystal[target]]
    steps = np.einsum("ei,eij->ej", vector.astype(np.float64), inverse) - crystals.frac[source] + crystals.frac[target]
    image = np.rint(steps).astype(np.int64)
    _, once = np.unique(np.column_stack([target, source, image]), axis=0, return_index=True)
    once = np.repeat(once, 1 + (source[once] == target[once]))
    return _edges(graphs, source[once], target[once], vector[once])


def _outward(graphs: Graphs, cutoff: float) -> Graphs:
    """Every edge up to the cutoff, from an atom to its neighbour."""
    near = np.flatnonzero(graphs.distance <= cutoff)
    order = near[np.argsort(graphs.source[near], kind="stable")]
    return _edges(graphs, graphs.target[order], graphs.source[order], -graphs.vector[order])


def _edges(graphs: Graphs, source: NDArray[np.int32], target: NDArray[np.int32], vector: NDArray[np.float32]) -> Graphs:
    """The same nodes with other edges, which ascend in target."""
    into = np.concatenate([[0], np.cumsum(np.bincount(target, minlength=int(graphs.node_ptr[-1])))])
    length = np.linalg.norm(vector.astype(np.float64), axis=1).astype(np.float32)
    return replace(graphs, edge_ptr=into[graphs.node_ptr], source=source, target=target, vector=vector, distance=length)
