"""The symmetry quotient: equal atoms, bonds and angles of a crystal are kept once, with the number of times they occur.

Enters: `Graphs`. Leaves: smaller `Graphs` with `weights`, on which a network that is invariant and aggregates by sums,
means or softmax gives what it gives on the full graph. This module does not know networks or space groups.

Which atoms are equal is found on the graph itself, by colour refinement (Weisfeiler and Leman, 1968) over what a
network sees: species with occupancy, distances and cosines. A network of any depth gives atoms, and edges, of one
colour the same state. Distances and cosines are the same when no gap wider than the tolerance lies between them, so
that noise does not split a class at the edge of a bin.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from featurize.graphs import Graphs, Weights, join
from sources.crystals import gather_ranges

TOLERANCE = 1e-4
"""Å, and the same number for cosines: values closer than this to the next are one value."""
_CRYSTALS_AT_ONCE = 1_024


def of_crystals(graphs: Graphs, tolerance: float = TOLERANCE, *, angles: bool) -> Graphs:
    """The quotients of full graphs without angles, made a few at a time: full angles are never all in memory.

    The crystals must have no two atoms at one place, see `Graphs.shortest`.
    """
    parts = []
    for start in range(0, max(1, len(graphs)), _CRYSTALS_AT_ONCE):
        part = graphs.select(np.arange(start, min(start + _CRYSTALS_AT_ONCE, len(graphs))))
        parts.append(quotient(part.with_angles() if angles else part, tolerance))
    return join(parts)


def quotient(graphs: Graphs, tolerance: float = TOLERANCE) -> Graphs:
    """Merge equal nodes, edges and triplets of every crystal.

    Args:
        graphs: full graphs, with angles if a network will read them.
        tolerance: Å for distances, dimensionless for cosines. A class may be up to four times as wide; within it the
            mean value is kept.

    Raises:
        ValueError: when the graphs are quotients already, or the tolerance is not above 0.
    """
    if graphs.weights is not None:
        raise ValueError("these graphs are quotients already")
    if not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance}, expected above 0")
    nodes, edges, angles = _colour(
        graphs.node_ptr,
        graphs.edge_ptr,
        graphs.triplet_ptr,
        _content(graphs),
        graphs.source,
        graphs.target,
        graphs.distance,
        graphs.triplet_edge,
        graphs.triplet_other,
        graphs.cosine,
        tolerance,
    )
    return _merge(graphs, nodes, edges, angles)


def _content(graphs: Graphs) -> NDArray[np.uint64]:
    """(N,) equal numbers for sites that look the same to a network."""
    bits = np.ascontiguousarray(graphs.features() + np.float32(0)).view(np.uint32)  # -0 becomes 0
    content: NDArray[np.uint64] = _hash(bits)
    return content


@njit(cache=True, nogil=True)
def _colour(  # type: ignore[no-untyped-def]
    node_ptr, edge_ptr, triplet_ptr, content, source, target, distance, triplet_edge, other, cosine, tolerance
):
    """Colours of nodes (N,) and edges (E,), equal within a crystal where the states are, and labels of cosines (T,)."""
    node = np.empty(len(content), np.uint64)
    edge = np.empty(len(source), np.uint64)
    angle = np.empty(len(other), np.int64)
    length = np.empty(len(source), np.int64)
    for k in range(len(content)):
        node[k] = _mix(content[k])
    for c in range(len(node_ptr) - 1):
        a, b, p, q = node_ptr[c], node_ptr[c + 1], edge_ptr[c], edge_ptr[c + 1]
        t, u = triplet_ptr[c], triplet_ptr[c + 1]
        _label(distance[p:q], tolerance, length[p:q])
        _label(cosine[t:u], tolerance, angle[t:u])
        for e in range(p, q):
            edge[e] = _mix(np.uint64(length[e]))
        seen, around = np.empty(q - p, np.uint64), np.empty(b - a, np.uint64)
        classes = 0
        while True:
            seen[:] = np.uint64(0)
            for k in range(t, u):
                seen[triplet_edge[k] - p] += _mix(edge[other[k]] ^ (np.uint64(angle[k]) << np.uint64(32)))
            around[:] = np.uint64(0)
            for e in range(p, q):
                colour = _mix(edge[e] + _mix(node[source[e]]))
                edge[e] = _mix(_mix(colour + node[target[e]]) + seen[e - p])
                around[target[e] - a] += _mix(edge[e])
            for v in range(a, b):
                node[v] = _mix(node[v] + around[v - a])
            found = _classes(node[a:b]) + _classes(edge[p:q])
            if found == classes:  # refinement only splits: the same number is the same partition
                break
            classes = found
    return node, edge, angle


def _merge(graphs: Graphs, nodes: NDArray[np.uint64], edges: NDArray[np.uint64], angles: NDArray[np.int64]) -> Graphs:
    """One representative per colour, with its multiplicity; of edges and triplets, the mean of what is merged."""
    into = np.concatenate([[0], np.cumsum(np.bincount(graphs.target, minlength=len(nodes)))])
    of = np.concatenate([[0], np.cumsum(np.bincount(graphs.triplet_edge, minlength=len(edges)))])
    node_ptr, node, node_weight, place = _merge_nodes(graphs.node_ptr, nodes)
    ends, edge, edge_weight, target, distance, slot = _merge_edges(node, into, edges, graphs.distance)
    triplet_ends, triplet_edge, triplet_other, cosine, triplet_weight = _merge_triplets(
        edge, of, slot, graphs.triplet_other, angles, graphs.cosine
    )
    edge_ptr = ends[node_ptr]
    species, species_ptr = gather_ranges(graphs.species_ptr, node)
    return replace(
        graphs,
        node_ptr=node_ptr,
        species_ptr=species_ptr,
        numbers=graphs.numbers[species],
        occupancy=graphs.occupancy[species],
        edge_ptr=edge_ptr,
        source=place[graphs.source[edge]],
        target=target,
        vector=graphs.vector[edge],
        distance=distance,
        triplet_ptr=triplet_ends[edge_ptr],
        triplet_edge=triplet_edge,
        triplet_other=triplet_other,
        cosine=cosine,
        weights=Weights(node_weight, edge_weight, triplet_weight),
    )


@njit(cache=True, nogil=True)
def _merge_nodes(node_ptr, colour):  # type: ignore[no-untyped-def]
    """Pointer, first row and number of atoms of each class, and the class (N,) of every atom."""
    pointer, place = np.zeros(len(node_ptr), np.int64), np.empty(len(colour), np.int32)
    kept, weight = np.empty(len(colour), np.int64), np.zeros(len(colour), np.float32)
    nodes = 0
    for c in range(len(node_ptr) - 1):
        a, b = node_ptr[c], node_ptr[c + 1]
        order = np.argsort(colour[a:b], kind="mergesort") + a
        first = np.empty(b - a, np.int64)
        leader = a
        for k in range(b - a):  # stable: the first of a class is its lowest row
            if k == 0 or colour[order[k]] != colour[leader]:
                leader = order[k]
            first[order[k] - a] = leader
        for v in range(a, b):
            if first[v - a] == v:
                kept[nodes], place[v] = v, nodes
                nodes += 1
            place[v] = place[first[v - a]]
            weight[place[v]] += 1
        pointer[c + 1] = nodes
    return pointer, kept[:nodes].copy(), weight[:nodes].copy(), place


@njit(cache=True, nogil=True)
def _merge_edges(node, into, colour, distance):  # type: ignore[no-untyped-def]
    """Where the classes of edges into each kept node end; row, number, node, mean length; the class (E,) of each."""
    ends, slot = np.zeros(len(node) + 1, np.int64), np.full(len(colour), -1, np.int32)
    kept, weight = np.empty(len(colour), np.int64), np.zeros(len(colour), np.float32)
    target, length = np.empty(len(colour), np.int32), np.zeros(len(colour), np.float64)
    edges = 0
    for row in range(len(node)):
        for e in range(into[node[row]], into[node[row] + 1]):
            found = ends[row]
            while found < edges and colour[kept[found]] != colour[e]:
                found += 1
            if found == edges:
                kept[edges], target[edges] = e, row
                edges += 1
            slot[e] = found
            weight[found] += 1
            length[found] += distance[e]
        ends[row + 1] = edges
    mean = (length[:edges] / weight[:edges]).astype(np.float32)
    return ends, kept[:edges].copy(), weight[:edges].copy(), target[:edges].copy(), mean, slot


@njit(cache=True, nogil=True)
def _merge_triplets(edge, of, slot, other, label, cosine):  # type: ignore[no-untyped-def]
    """For the triplets of the kept edges: where those of each edge end, edge, other edge, mean cosine, number."""
    ends = np.zeros(len(edge) + 1, np.int64)
    new_edge, new_other = np.empty(len(other), np.int32), np.empty(len(other), np.int32)
    total, weight = np.zeros(len(other), np.float64), np.zeros(len(other), np.float32)
    triplets = 0
    for k in range(len(edge)):
        first = of[edge[k]]
        keys = np.empty(of[edge[k] + 1] - first, np.int64)
        for m in range(len(keys)):
            keys[m] = (np.int64(slot[other[first + m]]) << 32) | label[first + m]
        order = np.argsort(keys, kind="mergesort")
        for m in range(len(order)):
            if m == 0 or keys[order[m]] != keys[order[m - 1]]:
                new_edge[triplets], new_other[triplets] = k, slot[other[first + order[m]]]
                triplets += 1
            weight[triplets - 1] += 1
            total[triplets - 1] += cosine[first + order[m]]
        ends[k + 1] = triplets
    mean = (total[:triplets] / weight[:triplets]).astype(np.float32)
    return ends, new_edge[:triplets].copy(), new_other[:triplets].copy(), mean, weight[:triplets].copy()


@njit(cache=True, inline="always")
def _mix(value):  # type: ignore[no-untyped-def]
    """A 64-bit finaliser (splitmix64, Steele et al. 2014): equal in, equal out; unlike in, unlike out."""
    z = value + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True)
def _hash(rows):  # type: ignore[no-untyped-def]
    """(m,) a colour for every row (m, p) of bits."""
    colour = np.zeros(len(rows), np.uint64)
    for k in range(len(rows)):
        for bits in rows[k]:
            colour[k] = _mix(colour[k] ^ np.uint64(bits))
    return colour


@njit(cache=True, nogil=True)
def _label(values, tolerance, label):  # type: ignore[no-untyped-def]
    """Number the runs of values that no gap interrupts: bins of the tolerance's width without an empty one between.

    A run is at most four bins wide, so that a crowd of unlike values does not become one.
    """
    if len(values) == 0:
        return
    low = values.min()
    for k in range(len(values)):
        label[k] = int((values[k] - low) / tolerance)
    bins = label.max() + 1
    if bins <= 16 * len(values):  # marking every bin is cheaper than sorting
        marked = np.zeros(bins, np.uint8)
        for k in range(len(values)):
            marked[label[k]] = 1
        occupied = np.flatnonzero(marked)
    else:
        occupied = np.unique(label)
    number = np.empty(len(occupied), np.int64)
    run = width = 0
    for b in range(len(occupied)):
        if b == 0 or occupied[b] > occupied[b - 1] + 1 or width == 4:
            run, width = run + 1, 0
        width += 1
        number[b] = run
    if bins <= 16 * len(values):
        of_bin = np.empty(bins, np.int64)
        of_bin[occupied] = number
        for k in range(len(values)):
            label[k] = of_bin[label[k]]
    else:
        for k in range(len(values)):
            label[k] = number[np.searchsorted(occupied, label[k])]


@njit(cache=True, nogil=True)
def _classes(colour):  # type: ignore[no-untyped-def]
    ordered = np.sort(colour)
    found = min(1, len(ordered))
    for k in range(1, len(ordered)):
        if ordered[k] != ordered[k - 1]:
            found += 1
    return found
