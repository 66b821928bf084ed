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
from itertools import chain

import numpy as np
from numba import njit
from numpy.typing import NDArray

from featurize import threads as cores
from featurize.graphs import Graphs, Weights, join
from sources.crystals import Crystals, gather_ranges

TOLERANCE = 1e-5
"""Å, and the same number for cosines: values closer than this to the next are one value."""
_CRYSTALS_AT_ONCE = 1_024
_CROWDED = 128
"""Bins per value up to which all bins are looked at."""


def of_crystals(graphs: Graphs, tolerance: float = TOLERANCE, *, angles: bool, threads: int = 1) -> Graphs:
    """The quotients of full graphs without angles, made a few at a time: full angles are never all in memory.

    The crystals must have no two atoms at one place, see `Graphs.shortest`. The number of threads changes no byte.
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
        tolerance: Å for distances, dimensionless for cosines. A class may be up to four times as wide; within it the
            mean value is kept.

    Raises:
        ValueError: when the graphs are quotients already, or the tolerance is not above 0.
    """
    if graphs.weights is not None:
        raise ValueError("these graphs are quotients already")
    if not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance}, expected above 0")
    of = _starts(graphs.triplet_edge, len(graphs.source))
    nodes, edges, angles = _colour(
        graphs.node_ptr,
        graphs.edge_ptr,
        of,
        content(graphs),
        graphs.source,
        graphs.target,
        graphs.distance,
        graphs.triplet_other,
        graphs.cosine,
        tolerance,
    )
    return _merge(graphs, of, nodes, edges, angles)


def content(of: Graphs | Crystals) -> NDArray[np.uint64]:
    """(N,) equal numbers for sites that look the same to a network: species with occupancy, as `atoms` rounds them."""
    share = np.round(of.occupancy.astype(np.float64), 5)
    found: NDArray[np.uint64] = _hash(of.species_ptr, of.numbers, share)
    return found


@njit(cache=True, nogil=True)
def _colour(  # type: ignore[no-untyped-def]
    node_ptr, edge_ptr, of, content, source, target, distance, other, cosine, tolerance
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
        _label(distance[p:q], tolerance, length[p:q])
        _label(cosine[of[p] : of[q]], tolerance, angle[of[p] : of[q]])
        for e in range(p, q):
            edge[e] = _mix(np.uint64(length[e]))
        seen, around = np.empty(q - p, np.uint64), np.empty(b - a, np.uint64)
        classes, table = 0, np.empty(_table_size(max(b - a, q - p)), np.uint64)
        while True:
            for e in range(p, q):
                total = np.uint64(0)
                for k in range(of[e], of[e + 1]):
                    total += _mix(edge[other[k]] ^ (np.uint64(angle[k]) << np.uint64(32)))
                seen[e - p] = total
            around[:] = np.uint64(0)
            for e in range(p, q):
                colour = _mix(edge[e] + _mix(node[source[e]]))
                edge[e] = _mix(_mix(colour + node[target[e]]) + seen[e - p])
                around[target[e] - a] += _mix(edge[e])
            for v in range(a, b):
                node[v] = _mix(node[v] + around[v - a])
            found = _classes(node[a:b], table) + _classes(edge[p:q], table)
            if found == classes:  # refinement only splits: the same number is the same partition
                break
            classes = found
    return node, edge, angle


def _merge(
    graphs: Graphs,
    of: NDArray[np.int64],
    nodes: NDArray[np.uint64],
    edges: NDArray[np.uint64],
    angles: NDArray[np.int64],
) -> Graphs:
    """One representative per colour, with its multiplicity; of edges and triplets, the mean of what is merged."""
    into = _starts(graphs.target, len(nodes))
    node_ptr, node, node_weight, place = _merge_nodes(graphs.node_ptr, nodes)
    ends, edge, edge_weight, target, distance, slot = _merge_edges(node, into, edges, graphs.distance)
    _find_classes(slot, place, graphs.target, ends, edge, edges)
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
def _find_classes(slot, place, target, ends, kept, colour):  # type: ignore[no-untyped-def]
    """Fill in the class of the edges into atoms that were not kept: triplets may lead there from other atoms."""
    for e in range(len(slot)):
        if slot[e] < 0:
            found = ends[place[target[e]]]
            while colour[kept[found]] != colour[e]:
                found += 1
            slot[e] = found


@njit(cache=True, nogil=True)
def _merge_triplets(edge, of, slot, other, label, cosine):  # type: ignore[no-untyped-def]
    """For the triplets of the kept edges: where those of each edge end, edge, other edge, mean cosine, number."""
    ends = np.zeros(len(edge) + 1, np.int64)
    new_edge, new_other = np.empty(len(other), np.int32), np.empty(len(other), np.int32)
    total, weight = np.empty(len(other), np.float64), np.empty(len(other), np.float32)
    most = np.diff(of).max() if len(other) else 0
    key_room, order_room = np.empty(most, np.int64), np.empty(most, np.int64)
    triplets = 0
    for k in range(len(edge) if len(other) else 0):
        first, last = of[edge[k]], of[edge[k] + 1]
        keys, order = key_room[: last - first], order_room[: last - first]
        for m in range(len(keys)):
            keys[m], order[m] = (np.int64(slot[other[first + m]]) << 32) | label[first + m], first + m
        _sort(keys, order)
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
def _sort(keys, order):  # type: ignore[no-untyped-def]
    """Sort the keys, and their order with them, stably; by insertion where there are few, as there mostly are."""
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


@njit(cache=True, inline="always")
def _mix(value):  # type: ignore[no-untyped-def]
    """A 64-bit finaliser (splitmix64, Steele et al. 2014): equal in, equal out; unlike in, unlike out."""
    z = value + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True)
def _hash(species_ptr, numbers, share):  # type: ignore[no-untyped-def]
    """(N,) a colour for the species of every site, whatever their order."""
    colour = np.zeros(len(species_ptr) - 1, np.uint64)
    for site in range(len(colour)):
        for k in range(species_ptr[site], species_ptr[site + 1]):
            colour[site] += _mix(np.uint64(numbers[k]) ^ (np.uint64(round(share[k] * 1e5)) << np.uint64(8)))
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
    if bins <= _CROWDED * len(values):  # marking every bin is cheaper than finding the occupied ones
        _number_marked(bins, label)
    else:
        _number_found(label)


@njit(cache=True, nogil=True)
def _number_marked(bins, label):  # type: ignore[no-untyped-def]
    """Turn bins into numbers of runs, as `_label` does; eight empty bins are passed over at once."""
    marked = np.zeros((bins + 7) // 8 * 8, np.uint8)
    for k in range(len(label)):
        marked[label[k]] = 1
    number = np.empty(len(marked), np.int32)
    run = width = 0
    last = -2
    eights = marked.view(np.uint64)
    for word in range(len(eights)):
        if eights[word] == 0:
            continue
        for b in range(8 * word, 8 * word + 8):
            if marked[b]:
                if b > last + 1 or width == 4:
                    run, width = run + 1, 0
                width += 1
                number[b] = run
                last = b
    for k in range(len(label)):
        label[k] = number[label[k]]


@njit(cache=True, nogil=True)
def _number_found(label):  # type: ignore[no-untyped-def]
    """The same, where bins are many and values few: a hash table of the occupied bins, which alone are sorted."""
    held = np.full(_table_size(len(label)), -1, np.int64)
    mask = np.uint64(len(held) - 1)
    occupied, place = np.empty(len(label), np.int64), np.empty(len(label), np.uint64)
    count = 0
    for k in range(len(label)):
        place[k] = _find(held, mask, label[k])
        if held[place[k]] < 0:
            held[place[k]] = occupied[count] = label[k]
            count += 1
    occupied = np.sort(occupied[:count])
    number = np.empty(len(held), np.int64)
    run = width = 0
    for m in range(count):
        if m == 0 or occupied[m] > occupied[m - 1] + 1 or width == 4:
            run, width = run + 1, 0
        width += 1
        number[_find(held, mask, occupied[m])] = run
    for k in range(len(label)):
        label[k] = number[place[k]]


@njit(cache=True, inline="always")
def _find(held, mask, value):  # type: ignore[no-untyped-def]
    """Where a value is held, or would be; -1 marks free places."""
    place = ((np.uint64(value) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & mask
    while held[place] >= 0 and held[place] != value:
        place = (place + np.uint64(1)) & mask
    return place


@njit(cache=True, nogil=True)
def _table_size(items):  # type: ignore[no-untyped-def]
    """The power of 2 that holds so many with at least half of the places free."""
    size = 4
    while size < 2 * items:
        size *= 2
    return size


@njit(cache=True, nogil=True)
def _classes(colour, table):  # type: ignore[no-untyped-def]
    """Number of different colours; `table` is scratch with more places than colours, a power of 2."""
    table[:] = np.uint64(0)
    mask = np.uint64(len(table) - 1)
    found = zero = 0
    for value in colour:
        if value == 0:  # the mark of a free place
            zero = 1
            continue
        place = value & mask
        while table[place] != 0 and table[place] != value:
            place = (place + np.uint64(1)) & mask
        if table[place] == 0:
            table[place] = value
            found += 1
    return found + zero


@njit(cache=True, nogil=True)
def _starts(ascending, rows):  # type: ignore[no-untyped-def]
    """(rows + 1,) where the entries of each row begin in a list of rows."""
    start = np.zeros(rows + 1, np.int64)
    for k in range(len(ascending)):
        start[ascending[k] + 1] += 1
    for row in range(rows):
        start[row + 1] += start[row]
    return start
