"""Colour refinement: which atoms, bonds and cosines of a crystal are equal to an invariant network.

Enters: `Graphs`. Leaves: one number per node and edge, equal where a network of any depth gives the
same state (Weisfeiler and Leman, 1968), found on the graph itself over what a network sees: species
with occupancy, distances and cosines. Distances and cosines are the same when no gap wider than the
tolerance lies between them, so that noise does not split a class at the edge of a bin. This module
does not know networks or space groups.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from assay.featurize.graphs import Graphs
from assay.featurize.threads import njit
from assay.sources.crystals import Crystals

SMALLEST = 1e-15
"""Å; below it the numbers of bins would not be numbers any more."""
_CROWDED = 128
"""Bins per value up to which all bins are looked at."""


def colours(
    graphs: Graphs, tolerance: float, of: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64]]:
    """Colours of nodes (N,) and edges (E,) of full graphs, and labels of cosines (T,).

    Within a crystal they are equal where the states of a network, or the cosines, are. `of` (E +
    1,) is where the triplets of each edge begin, if that is known already.

    Raises:
        ValueError: when the graphs are quotients already, or the tolerance is below 1e-15.
    """
    if graphs.weights is not None:
        raise ValueError("these graphs are quotients already")
    if not tolerance >= SMALLEST:
        raise ValueError(f"tolerance is {tolerance}, expected at least {SMALLEST}")
    found: tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int64]] = _colour(
        graphs.node_ptr,
        graphs.edge_ptr,
        starts(graphs.triplet_edge, len(graphs.source)) if of is None else of,
        content(graphs),
        graphs.source,
        graphs.target,
        graphs.distance,
        graphs.triplet_other,
        graphs.cosine,
        tolerance,
    )
    return found


def content(of: Graphs | Crystals) -> NDArray[np.uint64]:
    """(N,) equal numbers for sites with equal node features, as `atoms` rounds occupancies."""
    share = np.round(of.occupancy.astype(np.float64), 5)
    found: NDArray[np.uint64] = _hash(of.species_ptr, of.numbers, share)
    return found


@njit(cache=True, nogil=True)
def _colour(  # type: ignore[no-untyped-def]
    node_ptr, edge_ptr, of, content, source, target, distance, other, cosine, tolerance
):
    """Colours of nodes (N,) and edges (E,), equal where states are, and cosine labels (T,)."""
    node = np.empty(len(content), np.uint64)
    edge = np.empty(len(source), np.uint64)
    angle = np.empty(len(other), np.int64)
    length = np.empty(len(source), np.int64)
    for k in range(len(content)):
        node[k] = _mix(content[k])
    for c in range(len(node_ptr) - 1):
        a, b, p, q = node_ptr[c], node_ptr[c + 1], edge_ptr[c], edge_ptr[c + 1]
        number_runs(distance[p:q], tolerance, length[p:q])
        number_runs(cosine[of[p] : of[q]], tolerance, angle[of[p] : of[q]])
        for e in range(p, q):
            edge[e] = _mix(np.uint64(length[e]))
        seen, around = np.empty(q - p, np.uint64), np.empty(b - a, np.uint64)
        table = np.empty(table_size(max(b - a, q - p)), np.uint64)
        angles = of[q] > of[p]
        classes = 0 if angles else count_classes(node[a:b], table)
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
            found = count_classes(node[a:b], table) + (count_classes(edge[p:q], table) if angles else 0)
            if found == classes:  # refinement only splits: the same number is the same partition
                break  # and without angles edges of one class join the same classes of nodes by now
            classes = found
    return node, edge, angle


@njit(cache=True, inline="always")
def _mix(value):  # type: ignore[no-untyped-def]
    """A 64-bit finaliser (splitmix64, Steele et al. 2014), one to one."""
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
def number_runs(values, tolerance, label):  # type: ignore[no-untyped-def]
    """Number the runs of values without a gap: of bins, as wide as the tolerance, none is empty.

    A run is at most four bins wide, so that a crowd of unlike values does not become one.
    """
    if len(values) == 0:
        return
    low, bins = values[0], 1  # in loops: numba would import scipy to load its own minimum and maximum
    for value in values:
        low = min(low, value)
    for k in range(len(values)):
        label[k] = int((values[k] - low) / tolerance)
        bins = max(bins, label[k] + 1)
    if bins <= _CROWDED * len(values):  # marking every bin is cheaper than finding the occupied ones
        _number_marked(bins, label)
    else:
        _number_found(label)


@njit(cache=True, nogil=True)
def _number_marked(bins, label):  # type: ignore[no-untyped-def]
    """Turn bins into numbers of runs, as `number_runs`; eight empty bins are skipped at once."""
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
    """The same for many bins and few values: a hash table of the occupied bins, then sorted."""
    held = np.full(table_size(len(label)), -1, np.int64)
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
def table_size(items):  # type: ignore[no-untyped-def]
    """The power of 2 that holds so many with at least half of the places free."""
    size = 4
    while size < 2 * items:
        size *= 2
    return size


@njit(cache=True, nogil=True)
def count_classes(colour, table):  # type: ignore[no-untyped-def]
    """Number of different colours; `table` is scratch, a power of 2 longer than `colour`."""
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
def starts(ascending, rows):  # type: ignore[no-untyped-def]
    """(rows + 1,) where the entries of each row begin in a list of rows."""
    start = np.zeros(rows + 1, np.int64)
    for k in range(len(ascending)):
        start[ascending[k] + 1] += 1
    for row in range(rows):
        start[row + 1] += start[row]
    return start
