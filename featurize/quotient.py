"""The symmetry quotient: equal atoms, bonds and angles of a crystal are kept once, counted.

Enters: `Graphs`. Leaves: smaller `Graphs` with `weights`, on which a network that is invariant and
aggregates by sums, means or softmax gives what it gives on the full graph. This module does not
know networks or space groups. Which atoms are equal is found by `assay.featurize.refinement`.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from assay.featurize import threads as cores
from assay.featurize.graphs import Graphs, Weights, join
from assay.featurize.refinement import colours, starts
from assay.featurize.threads import njit
from assay.sources.crystals import gather_ranges

TOLERANCE = 1e-5
"""Å, and the same number for cosines: values closer than this to the next are one value."""
_CRYSTALS_AT_ONCE = 1_024


def of_crystals(graphs: Graphs, tolerance: float = TOLERANCE, *, angles: bool, threads: int = 1) -> Graphs:
    """The quotients of full graphs without angles, a few at a time to save memory.

    The crystals must have no two atoms at one place, see `Graphs.shortest`. The number of threads
    changes no byte.
    """

    def some(first: int, last: int) -> list[Graphs]:
        parts = []
        for start in range(first, max(first + 1, last), _CRYSTALS_AT_ONCE):
            part = graphs.select(np.arange(start, min(start + _CRYSTALS_AT_ONCE, last)))
            parts.append(quotient(part.with_angles() if angles else part, tolerance))
        return parts

    return join(list(chain.from_iterable(cores.each(some, cores.slices(graphs.edge_ptr, threads)))))


def quotient(graphs: Graphs, tolerance: float = TOLERANCE) -> Graphs:
    """Merge equal nodes, edges and triplets of every crystal.

    Args:
        graphs: full graphs, with angles if a network will read them.
        tolerance: Å for distances, dimensionless for cosines. A class may be up to four times as
            wide; within it the mean value is kept.

    Raises:
        ValueError: when the graphs are quotients already, or the tolerance is below 1e-15.
    """
    of = starts(graphs.triplet_edge, len(graphs.source))
    return _merge(graphs, of, *colours(graphs, tolerance, of))


def _merge(
    graphs: Graphs,
    of: NDArray[np.int64],
    nodes: NDArray[np.uint64],
    edges: NDArray[np.uint64],
    angles: NDArray[np.int64],
) -> Graphs:
    """One representative per colour, with its multiplicity; edges and triplets are averaged."""
    into = starts(graphs.target, len(nodes))
    node_ptr, node, node_weight, place = _merge_nodes(graphs.node_ptr, nodes)
    ends, edge, edge_weight, target, distance, slot = _merge_edges(node, into, edges, graphs.distance)
    if len(graphs.triplet_other):
        _find_classes(slot, place, graphs.target, ends, edge, edges)
        triplets = _merge_triplets(edge, of, slot, graphs.triplet_other, angles, graphs.cosine)
    else:
        none = graphs.cosine.copy()
        triplets = np.zeros(len(edge) + 1, np.int64), graphs.triplet_edge, graphs.triplet_other, none, none
    triplet_ends, triplet_edge, triplet_other, cosine, triplet_weight = triplets
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
    """Classes of the edges into each kept node.

    Returns where those of each node end; their row, number, node and mean length; and the class
    (E,) of every edge.
    """
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
def _find_classes(slot, place, target, ends, kept, colour):  # type: ignore[no-untyped-def]
    """Fill in the class of the edges into atoms that were not kept; triplets may lead there."""
    for e in range(len(slot)):
        if slot[e] < 0:
            found = ends[place[target[e]]]
            while colour[kept[found]] != colour[e]:
                found += 1
            slot[e] = found


@njit(cache=True, nogil=True)
def _merge_triplets(edge, of, slot, other, label, cosine):  # type: ignore[no-untyped-def]
    """Triplets of the kept edges: their ends by edge, edge, other edge, mean cosine, number."""
    ends = np.zeros(len(edge) + 1, np.int64)
    new_edge, new_other = np.empty(len(other), np.int32), np.empty(len(other), np.int32)
    total, weight = np.empty(len(other), np.float64), np.empty(len(other), np.float32)
    most = 0  # in a loop: numba would import scipy to load its own maximum
    for e in range(len(of) - 1):
        most = max(most, of[e + 1] - of[e])
    key_room, order_room = np.empty(most, np.int64), np.empty(most, np.int64)
    triplets = 0
    for k in range(len(edge) if len(other) else 0):
        first, last = of[edge[k]], of[edge[k] + 1]
        keys, order = key_room[: last - first], order_room[: last - first]
        for m in range(len(keys)):
            keys[m], order[m] = (np.int64(slot[other[first + m]]) << 32) | label[first + m], first + m
        sort_keys(keys, order)
        for m in range(len(order)):
            if m == 0 or keys[m] != keys[m - 1]:
                new_edge[triplets], new_other[triplets] = k, slot[other[order[m]]]
                total[triplets], weight[triplets] = 0, 0
                triplets += 1
            weight[triplets - 1] += 1
            total[triplets - 1] += cosine[order[m]]
        ends[k + 1] = triplets
    mean = (total[:triplets] / weight[:triplets]).astype(np.float32)
    return ends, new_edge[:triplets].copy(), new_other[:triplets].copy(), mean, weight[:triplets].copy()


@njit(cache=True, nogil=True)
def sort_keys(keys, order):  # type: ignore[no-untyped-def]
    """Sort the keys, and their order with them, stably; few keys by insertion."""
    if len(keys) > 48:
        places = np.argsort(keys, kind="mergesort")
        keys[:], order[:] = keys[places], order[places]
        return
    for m in range(1, len(keys)):
        key, item = keys[m], order[m]
        place = m
        while place > 0 and keys[place - 1] > key:
            keys[place], order[place] = keys[place - 1], order[place - 1]
            place -= 1
        keys[place], order[place] = key, item
