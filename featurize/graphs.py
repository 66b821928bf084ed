"""Crystal graphs: atoms as nodes, neighbours as directed edges, angles between edges as triplets.

Enters: `Crystals` and a `GraphSpec`. Leaves: `Graphs`, ragged arrays over the whole batch.
This module does not know networks, files or campaigns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from assay.featurize import alternatives, angles, atoms, neighbours
from assay.featurize.neighbours import Edges
from assay.sources.crystals import Crystals, gather_ranges, join_pointers


@dataclass(frozen=True)
class GraphSpec:
    """Everything that changes a number in a graph. It is saved with every checkpoint."""

    KEY: ClassVar[str] = "graph"
    """Section of a recipe and of `model.json`."""

    neighbours: Literal["nearest", "radius"] = "nearest"
    """`nearest`: the k nearest atoms of every atom; `radius`: every atom within `cutoff`."""
    k: int = 12
    """Neighbours per atom for `nearest`; all atoms tied with the k-th are kept too."""
    tolerance: float = 1e-6
    """Å beyond the k-th distance that still counts as tied."""
    taper: float = 0.0
    """Å over which the last neighbours fade, so that a prediction is continuous in the coordinates;
    0: all count alike. For `nearest` an atom also has the neighbours up to the k-th distance +
    `taper`; for `radius` those from `cutoff` - `taper` on fade. See `Graphs.taper`."""
    cutoff: float = 8.0
    """Å, for `radius`."""
    angles: bool = False
    """Whether the line graph is built."""
    atom_features: str = "properties-v1"
    """Name of the element table, a key of `assay.featurize.atoms.TABLES`."""

    def __post_init__(self) -> None:
        if self.neighbours not in ("nearest", "radius"):
            raise ValueError(f"neighbours is {self.neighbours!r}, expected 'nearest' or 'radius'")
        if not 1 <= self.k <= 200:
            raise ValueError(f"k is {self.k}, expected 1 to 200")
        if not 0 <= self.tolerance <= 0.1:
            raise ValueError(f"tolerance is {self.tolerance} Å, expected 0 to 0.1")
        if not 0 < self.cutoff <= 20:
            raise ValueError(f"cutoff is {self.cutoff} Å, expected above 0, at most 20")
        if not 0 <= self.taper <= 2:
            raise ValueError(f"taper is {self.taper} Å, expected 0 to 2")
        if self.atom_features not in atoms.TABLES:
            raise ValueError(f"atom_features is {self.atom_features!r}, expected one of {sorted(atoms.TABLES)}")

    @property
    def shape(self) -> int:
        """Width of the node features."""
        return atoms.width(self.atom_features)

    @property
    def margin(self) -> float:
        """Å beyond the k-th distance within which atoms are neighbours too."""
        return max(self.tolerance, self.taper)


@dataclass(frozen=True, eq=False)
class Weights:
    """How many equal ones each node, edge and triplet of a quotient graph stands for."""

    node: NDArray[np.float32]
    """(N,) atoms of the crystal."""
    edge: NDArray[np.float32]
    """(E,) edges into the same node."""
    triplet: NDArray[np.float32]
    """(T,) triplets of the same edge."""


@dataclass(frozen=True, eq=False)
class Graphs:
    """Graphs of `n` crystals with `N` nodes, `E` directed edges and `T` triplets.

    Edges ascend in target.
    """

    spec: GraphSpec
    """How the graphs were built."""
    node_ptr: NDArray[np.int64]
    """(n + 1,) nodes of crystal i are `node_ptr[i]:node_ptr[i + 1]`."""
    species_ptr: NDArray[np.int64]
    """(N + 1,) species on each node."""
    numbers: NDArray[np.uint8]
    """(K,) atomic numbers."""
    occupancy: NDArray[np.float32]
    """(K,) occupancies."""
    edge_ptr: NDArray[np.int64]
    """(n + 1,) edges of each crystal."""
    source: NDArray[np.int32]
    """(E,) node an edge comes from."""
    target: NDArray[np.int32]
    """(E,) node an edge goes to, ascending."""
    vector: NDArray[np.float32]
    """(E, 3) Å from target to source."""
    distance: NDArray[np.float32]
    """(E,) Å."""
    triplet_ptr: NDArray[np.int64]
    """(n + 1,) triplets of each crystal; all zero without angles."""
    triplet_edge: NDArray[np.int32]
    """(T,) edge that is updated, ascending."""
    triplet_other: NDArray[np.int32]
    """(T,) another edge into the same node."""
    cosine: NDArray[np.float32]
    """(T,) cosine of the angle between the two edges."""
    weights: Weights | None = None
    """Multiplicities in a quotient graph; None where every atom, edge and triplet stands for
    itself."""

    def __len__(self) -> int:
        return len(self.node_ptr) - 1

    def features(self) -> NDArray[np.float32]:
        """(N, p) occupancy-weighted node features named by `spec.atom_features`."""
        return atoms.features(self.spec.atom_features, self.species_ptr, self.numbers, self.occupancy)

    def shortest(self) -> NDArray[np.float32]:
        """(n,) Å, shortest edge of each crystal; infinity without edges."""
        out = np.full(len(self), np.inf, np.float32)
        owned = np.diff(self.edge_ptr) > 0
        if owned.any():
            out[owned] = np.minimum.reduceat(self.distance, self.edge_ptr[:-1][owned])
        return out

    def taper(self) -> NDArray[np.float32] | None:
        """(E,) how much each edge counts in the sums at its target; None where all count alike.

        With x = (distance - begin) / `spec.taper`, cut to 0 to 1, it is 1 - x^2 (3 - 2 x), whose
        value and slope are continuous. It begins at the k-th distance of the target, which is
        continuous in the coordinates too, or at `cutoff` - `taper`. An angle counts as much as its
        other edge.
        """
        if not self.spec.taper:
            return None
        if self.spec.neighbours == "nearest":
            count = np.ones_like(self.distance) if self.weights is None else self.weights.edge
            begin = neighbours.kth(self.target, self.distance, count, self.spec.k)
        else:
            begin = np.full_like(self.distance, self.spec.cutoff - self.spec.taper)
        x = ((self.distance - begin) / np.float32(self.spec.taper)).clip(0, 1)
        return np.asarray(1 - x * x * (3 - 2 * x), np.float32)

    def select(self, rows: NDArray[Any]) -> Graphs:
        """Graphs of the crystals at integer positions `rows`, renumbered.

        With all rows in order these graphs are returned as they are.

        The angles of a full graph are built anew, by our own rule.
        """
        if rows.dtype != bool and np.array_equal(rows, np.arange(len(self))):
            return self
        nodes, node_ptr = gather_ranges(self.node_ptr, rows)
        species, species_ptr = gather_ranges(self.species_ptr, nodes)
        edges, edge_ptr = gather_ranges(self.edge_ptr, rows)
        shift = np.repeat(node_ptr[:-1] - self.node_ptr[:-1][rows], np.diff(edge_ptr))
        graphs = replace(
            self,
            node_ptr=node_ptr,
            species_ptr=species_ptr,
            numbers=self.numbers[species],
            occupancy=self.occupancy[species],
            edge_ptr=edge_ptr,
            source=(self.source[edges] + shift).astype(np.int32),
            target=(self.target[edges] + shift).astype(np.int32),
            vector=self.vector[edges],
            distance=self.distance[edges],
            triplet_ptr=np.zeros(len(rows) + 1, np.int64),
            weights=None,
        )
        if self.weights is None:
            return graphs.with_angles() if self.spec.angles else graphs
        triplets, triplet_ptr = gather_ranges(self.triplet_ptr, rows)
        moved = np.repeat(edge_ptr[:-1] - self.edge_ptr[:-1][rows], np.diff(triplet_ptr))
        return replace(
            graphs,
            triplet_ptr=triplet_ptr,
            triplet_edge=(self.triplet_edge[triplets] + moved).astype(np.int32),
            triplet_other=(self.triplet_other[triplets] + moved).astype(np.int32),
            cosine=self.cosine[triplets],
            weights=Weights(self.weights.node[nodes], self.weights.edge[edges], self.weights.triplet[triplets]),
        )

    def with_angles(self, threads: int = 1) -> Graphs:
        """The same graphs with the line graph of their edges, made by so many threads.

        Raises:
            ValueError: for a quotient graph, whose angles are merged when it is made.
        """
        if self.weights is not None:
            if self.spec.angles:
                return self
            raise ValueError("this quotient was made without angles; build the graph with angles first")
        pointer, edge, other, cosine = angles.triplets(self.target, self.vector, int(self.node_ptr[-1]), threads)
        ends = pointer[self.node_ptr]
        spec = replace(self.spec, angles=True)
        return replace(self, spec=spec, triplet_ptr=ends, triplet_edge=edge, triplet_other=other, cosine=cosine)


def join(parts: Sequence[Graphs]) -> Graphs:
    """One batch of all parts in order; they must share a spec, and all or none be quotients.

    Raises:
        ValueError: when there is no part, or the parts are of different kinds.
    """
    if not parts:
        raise ValueError("no graphs to join")
    first = parts[0]
    if any(part.spec != first.spec or (part.weights is None) != (first.weights is None) for part in parts):
        raise ValueError("graphs of different kinds cannot be joined")
    nodes = np.cumsum([0, *(part.node_ptr[-1] for part in parts)])
    edges = np.cumsum([0, *(part.edge_ptr[-1] for part in parts)])

    def stack(name: str, offsets: NDArray[np.int64] | None = None) -> NDArray[Any]:
        arrays = [getattr(part, name) for part in parts]
        if offsets is not None:
            arrays = [(array + shift).astype(array.dtype) for array, shift in zip(arrays, offsets, strict=False)]
        return np.concatenate(arrays)

    weights = [part.weights for part in parts if part.weights is not None]
    return Graphs(
        spec=first.spec,
        node_ptr=join_pointers([part.node_ptr for part in parts]),
        species_ptr=join_pointers([part.species_ptr for part in parts]),
        numbers=stack("numbers"),
        occupancy=stack("occupancy"),
        edge_ptr=join_pointers([part.edge_ptr for part in parts]),
        source=stack("source", nodes),
        target=stack("target", nodes),
        vector=stack("vector"),
        distance=stack("distance"),
        triplet_ptr=join_pointers([part.triplet_ptr for part in parts]),
        triplet_edge=stack("triplet_edge", edges),
        triplet_other=stack("triplet_other", edges),
        cosine=stack("cosine"),
        weights=Weights(*(np.concatenate([getattr(w, part) for w in weights]) for part in ("node", "edge", "triplet")))
        if weights
        else None,
    )


def build(crystals: Crystals, spec: GraphSpec, threads: int = 1) -> Graphs:
    """Build the graphs of a batch of crystals; the number of threads changes no number.

    No edge joins the alternatives of a split position, see `assay.featurize.alternatives`; each is
    a node of its own. A crystal in `radius` mode may have nodes without edges. Two atoms at the
    same place make an edge of length zero, whose angles mean nothing: ask `Graphs.shortest` before
    a crystal goes to a network.
    """
    edges = _search(crystals, spec, dtype=np.float32, threads=threads)
    rows = alternatives.suspects(crystals, edges[0], edges[-1])
    if len(rows):
        others = edges_of_split(crystals.select(rows), spec, threads)
        edges = alternatives.replaced(edges, rows, others, crystals.site_ptr)
    edge_ptr, source, target, vector, distance = edges
    none = np.empty(0, np.int32)
    graphs = Graphs(
        spec=spec,
        node_ptr=crystals.site_ptr,
        species_ptr=crystals.species_ptr,
        numbers=crystals.numbers,
        occupancy=crystals.occupancy,
        edge_ptr=edge_ptr,
        source=source,
        target=target,
        vector=vector,
        distance=distance,
        triplet_ptr=np.zeros(len(crystals) + 1, np.int64),
        triplet_edge=none,
        triplet_other=none,
        cosine=np.empty(0, np.float32),
    )
    return graphs.with_angles(threads) if spec.angles else graphs


def edges_of_split(crystals: Crystals, spec: GraphSpec, threads: int = 1) -> Edges:
    """The edges of crystals with split positions: those of `build`, from a wider search.

    As many more neighbours as a site has alternatives at most are found for every atom. Then the
    alternatives go, and the rule of the spec is applied to those that are left. In a crystal
    without alternatives the edges are those of a plain search.
    """
    cells = crystals.lattice, crystals.frac, crystals.site_ptr
    split = alternatives.find(*cells, crystals.site_occupancy)
    found = _search(crystals, spec, dtype=np.float64, threads=threads, more=split.most)
    _, source, target, vector, distance = found
    kept = np.flatnonzero(~split.between(source, target, vector))
    source, target, vector, distance = source[kept], target[kept], vector[kept], distance[kept]
    if spec.neighbours == "nearest":
        order = np.lexsort((distance, target))
        first = np.searchsorted(target, np.arange(len(crystals.frac)))  # ascending in target before and after
        bound = distance[order][first + spec.k - 1] + spec.margin
        kept = np.flatnonzero(distance <= bound[target])
        source, target, vector, distance = source[kept], target[kept], vector[kept], distance[kept]
    into = np.searchsorted(target, crystals.site_ptr)
    return into, source, target, vector.astype(np.float32), distance.astype(np.float32)


def _search(crystals: Crystals, spec: GraphSpec, *, dtype: DTypeLike, threads: int, more: int = 0) -> Edges:
    """Edges by the rule of the spec, with `more` neighbours for `nearest`."""
    cells = crystals.lattice, crystals.frac, crystals.site_ptr
    if spec.neighbours == "nearest":
        return neighbours.nearest(*cells, spec.k + more, spec.margin, dtype=dtype, threads=threads)
    return neighbours.within(*cells, spec.cutoff, dtype=dtype, threads=threads)
