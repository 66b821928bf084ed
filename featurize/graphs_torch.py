"""The same graphs in torch, for devices: all atoms of a batch ask for their neighbours at once.

Enters: `Crystals` and a `GraphSpec`; positions, cells, species and pointers travel, nothing bigger.
Leaves: `DeviceGraphs`, with the edges of `assay.featurize.graphs` in the same order, and their
angles. Distances are found by the same operations in the same order in float64: on CPU tensors
every real crystal tried gave the same bits. On a CPU the compiled search is far quicker. Never run
on CUDA. This module does not know networks.

An atom measures every image of every atom of its crystal that can lie within its radius. One that
finds too few neighbours asks again with a longer radius, alone: what it keeps does not depend on
the radius. Memory is bounded by taking atoms in portions. Every result is made by gathers, stable
sorts and integer sums; nothing is added by atomics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.featurize import alternatives, atoms, elements
from assay.featurize.graphs import GraphSpec, edges_of_split
from assay.sources.crystals import Crystals, gather_ranges

IMAGES_AT_ONCE = 2**22
"""Images that are measured at once, about 200 bytes each."""
ABUNDANCE = 1.5
_GROWTH = 1.2
"""Longer steps than the compiled search takes: a search in vain costs a device a round of
launches."""
_BEYOND = 1e-9
"""Cells; rounding must not lose an image: its distance decides."""


@dataclass(frozen=True, eq=False)
class DeviceGraphs:
    """Full graphs of `n` crystals on a device, laid out as `assay.featurize.graphs.Graphs`.

    Angles are made when they are asked for.
    """

    spec: GraphSpec
    """How they were built."""
    node_ptr: Tensor
    """(n + 1,) int64 nodes of crystal i are `node_ptr[i]:node_ptr[i + 1]`."""
    species_ptr: Tensor
    """(N + 1,) int64 species on each node."""
    numbers: Tensor
    """(K,) int64 atomic numbers."""
    occupancy: Tensor
    """(K,) float32, as node features read it: rounded to 5 decimals."""
    edge_ptr: Tensor
    """(n + 1,) int64 edges of each crystal."""
    source: Tensor
    """(E,) int64 node an edge comes from."""
    target: Tensor
    """(E,) int64 node an edge goes to, ascending."""
    vector: Tensor
    """(E, 3) float32, Å from target to source."""
    distance: Tensor
    """(E,) float32, Å."""

    def __len__(self) -> int:
        return len(self.node_ptr) - 1

    @property
    def into(self) -> Tensor:
        """(N + 1,) where the edges into each node begin."""
        return _starts(self.target, int(self.node_ptr[-1]))

    def features(self) -> Tensor:
        """(N, p) float32 occupancy-weighted node features named by `spec.atom_features`."""
        table = torch.as_tensor(atoms.TABLES[self.spec.atom_features](), device=self.numbers.device)
        share = self.occupancy[:, None]
        if len(self.numbers) == len(self.species_ptr) - 1:  # one species per site: nothing to average
            return torch.cat([table[self.numbers], share], dim=1)
        held = torch.cat([table[self.numbers] * share, share], dim=1)
        summed = torch.segment_reduce(held, "sum", lengths=self.species_ptr.diff())
        return torch.cat([summed[:, :-1] / summed[:, -1:], summed[:, -1:]], dim=1)

    def shortest(self) -> NDArray[np.float32]:
        """(n,) Å, shortest edge of each crystal; infinity without edges."""
        owner, _ = _spread(self.edge_ptr.diff())
        none = self.distance.new_full((len(self),), math.inf)
        return np.asarray(none.scatter_reduce(0, owner, self.distance, "amin").numpy(force=True), np.float32)

    def taper(self) -> Tensor | None:
        """(E,) float32 as `Graphs.taper`."""
        if not self.spec.taper:
            return None
        begin = torch.full_like(self.distance, self.spec.cutoff - self.spec.taper)
        if self.spec.neighbours == "nearest":
            order = _by_row(self.target, self.distance)
            begin = self.distance[order][self.into[self.target] + self.spec.k - 1]
        x = ((self.distance - begin) / self.spec.taper).clamp(0, 1)
        return 1 - x * x * (3 - 2 * x)

    def triplet_counts(self) -> Tensor:
        """(n,) int64 triplets of each crystal."""
        into = self.into
        pointer = _pointer(into.diff() * (into.diff() - 1))
        return pointer[self.node_ptr].diff()

    def angles(self) -> tuple[Tensor, Tensor, Tensor]:
        """The line graph: edge (T,) and other (T,) int64, cosine (T,) float32, as in `angles`."""
        into = self.into
        edge, place = _spread(into.diff()[self.target] - 1)
        other = into[self.target][edge] + place
        other = other + (other >= edge)  # the edge itself is stepped over
        x, y, z = self.vector.unbind(1)
        length = (x * x + y * y + z * z).double().sqrt().float()  # in float32 torch's root is off by a bit
        unit = self.vector.double() * (1 / length.double())[:, None]
        left, right = unit[edge], unit[other]
        cosine = left[:, 0] * right[:, 0] + left[:, 1] * right[:, 1] + left[:, 2] * right[:, 2]
        return edge, other, cosine.clamp(-1, 1).float()

    def select(self, rows: NDArray[Any]) -> DeviceGraphs:
        """Graphs of the crystals at integer positions `rows`, renumbered."""
        chosen = torch.tensor(rows, dtype=torch.int64, device=self.target.device)
        nodes, node_ptr = _gather_ranges(self.node_ptr, chosen)
        species, species_ptr = _gather_ranges(self.species_ptr, nodes)
        edges, edge_ptr = _gather_ranges(self.edge_ptr, chosen)
        shift = (node_ptr[:-1] - self.node_ptr[chosen]).repeat_interleave(edge_ptr.diff())
        return replace(
            self,
            node_ptr=node_ptr,
            species_ptr=species_ptr,
            numbers=self.numbers[species],
            occupancy=self.occupancy[species],
            edge_ptr=edge_ptr,
            source=self.source[edges] + shift,
            target=self.target[edges] + shift,
            vector=self.vector[edges],
            distance=self.distance[edges],
        )


def build(crystals: Crystals, spec: GraphSpec, device: torch.device | str = "cpu") -> DeviceGraphs:
    """Build graphs on a device that has float64; see `assay.featurize.graphs.build`.

    Crystals with split positions, which are few, get their edges from the compiled search.

    Raises:
        ValueError: for an element that node features do not know.
    """
    elements.check(crystals.numbers)  # on a device it would end the process
    cells = _Cells.of(crystals, device)
    edges = _without_alternatives(crystals, cells, _search(cells, spec), spec)
    share = np.round(crystals.occupancy.astype(np.float64), 5).astype(np.float32)
    return DeviceGraphs(
        spec=replace(spec, angles=False),
        node_ptr=cells.pointer,
        species_ptr=torch.tensor(crystals.species_ptr, device=device),
        numbers=torch.tensor(crystals.numbers, device=device).long(),
        occupancy=torch.tensor(share, device=device),
        edge_ptr=_starts(edges.target, len(cells.frac))[cells.pointer],
        source=edges.source,
        target=edges.target,
        vector=edges.vector,
        distance=edges.distance,
    )


class _Edges(NamedTuple):
    """Edges into atoms, as `DeviceGraphs` holds them."""

    source: Tensor
    target: Tensor
    vector: Tensor
    distance: Tensor


class _Cells(NamedTuple):
    """Crystals on a device."""

    lattice: Tensor
    """(n, 3, 3) float64, Å."""
    frac: Tensor
    """(S, 3) float64."""
    position: Tensor
    """(S, 3) float64, Å."""
    pointer: Tensor
    """(n + 1,) int64."""
    crystal: Tensor
    """(S,) int64."""
    heights: Tensor
    """(n, 3) float64, Å between opposite faces."""
    start: Tensor
    """(n,) float64, Å, radius of a sphere that holds about one atom."""

    @classmethod
    def of(cls, crystals: Crystals, device: torch.device | str) -> _Cells:
        lattice = torch.tensor(crystals.lattice, device=device)
        frac = torch.tensor(crystals.frac, device=device)
        pointer = torch.tensor(crystals.site_ptr, device=device)
        crystal, _ = _spread(pointer.diff())
        rows = lattice[crystal]
        position = frac[:, :1] * rows[:, 0] + frac[:, 1:2] * rows[:, 1] + frac[:, 2:] * rows[:, 2]
        normals = torch.linalg.cross(lattice[:, [1, 2, 0]], lattice[:, [2, 0, 1]])
        volume = (lattice[:, 0] * normals[:, 0]).sum(1).abs()
        start = (3 * volume / (4 * math.pi * pointer.diff().clamp(min=1))) ** (1 / 3)
        heights = volume[:, None] / normals.norm(dim=2)
        return cls(lattice, frac, position, pointer, crystal, heights, start)


def _without_alternatives(crystals: Crystals, cells: _Cells, edges: _Edges, spec: GraphSpec) -> _Edges:
    """The edges of a batch, those of crystals with split positions exchanged."""
    if not alternatives.possible(crystals.occupancy):
        return edges
    owner = cells.crystal[edges.target]
    split = torch.unique(owner[edges.distance < alternatives.CLOSEST])
    if not len(split):
        return edges
    rows = split.numpy(force=True)
    _, source, target, vector, distance = edges_of_split(crystals.select(rows), spec)
    nodes, _ = gather_ranges(crystals.site_ptr, rows)
    fresh = [torch.tensor(column, device=owner.device) for column in (nodes[source], nodes[target], vector, distance)]
    kept = torch.isin(owner, split, invert=True)
    joined = [torch.cat([column[kept], new]) for column, new in zip(edges, fresh, strict=True)]
    order = torch.argsort(joined[1], stable=True)
    return _Edges(*(column[order] for column in joined))


def _search(cells: _Cells, spec: GraphSpec) -> _Edges:
    """Edges into all atoms, ascending in target."""
    if spec.neighbours == "nearest":
        radius = (cells.start * (ABUNDANCE * (spec.k + 1)) ** (1 / 3))[cells.crystal]
    else:
        radius = torch.full_like(cells.frac[:, 0], spec.cutoff)
    asking, rounds = torch.arange(len(radius), device=radius.device), 0
    nothing = cells.frac.float()[:0]
    found = [_Edges(asking[:0], asking[:0], nothing, nothing[:, 0])]
    while len(asking):
        lacking = [asking[:0]]
        for part in _portions(cells, asking, radius[asking]):
            edges, done = _nearest(cells, part, radius[part], spec)
            found.append(edges)
            lacking.append(part[~done])
        asking, radius, rounds = torch.cat(lacking), radius * _GROWTH, rounds + 1
    joined = _Edges(*(torch.cat(column) for column in zip(*found, strict=True)))
    if rounds < 2:
        return joined
    order = torch.argsort(joined.target, stable=True)
    return _Edges(*(column[order] for column in joined))


def _portions(cells: _Cells, asking: Tensor, radius: Tensor) -> list[Tensor]:
    """Atoms in order, in portions that measure at most `IMAGES_AT_ONCE` images, or of one atom."""
    owner = cells.crystal[asking]
    along = torch.floor(2 * (radius[:, None] / cells.heights[owner] + _BEYOND)) + 1
    ends = (cells.pointer.diff()[owner] * along.prod(1)).long().cumsum(0)
    limits = IMAGES_AT_ONCE * torch.arange(1, 1 + int(ends[-1]) // IMAGES_AT_ONCE, device=ends.device)
    cuts = torch.searchsorted(ends, limits).tolist()
    return [part for part in asking.tensor_split(cuts) if len(part)]


def _nearest(cells: _Cells, asking: Tensor, radius: Tensor, spec: GraphSpec) -> tuple[_Edges, Tensor]:
    """Edges into the atoms (q,) that found enough within their radius (q,), and which did (q,)."""
    row, source, vector, length = _within(cells, asking, radius)
    bound = radius
    if spec.neighbours == "nearest":
        order = _by_row(row, length)
        start = _starts(row, len(asking))
        ranked = torch.cat([length[order], length.new_full((spec.k,), math.inf)])
        kth = ranked[start[:-1] + spec.k - 1]
        bound = torch.where(start.diff() >= spec.k, kth + spec.margin, math.inf)
    done = bound <= radius
    kept = torch.nonzero((length <= bound[row]) & done[row])[:, 0]
    return _Edges(source[kept], asking[row[kept]], vector[kept].float(), length[kept].float()), done


def _within(cells: _Cells, asking: Tensor, radius: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images within the radius (q,) of each atom (q,).

    Of two atoms the first in the crystal measures, as in `assay.featurize.neighbours`: seen from
    the other, translations descend and vectors change their sign.

    Returns:
        `row` (m,) which of the atoms, ascending; `source` (m,) atom the image is of, ascending in a
            row; `vector` (m,
        3) Å to it; `length` (m,) Å, both float64.
    """
    owner = cells.crystal[asking]
    row, other = _spread(cells.pointer.diff()[owner])
    target, source = asking[row], cells.pointer[owner][row] + other
    low, high = torch.minimum(target, source), torch.maximum(target, source)
    apart, margin = cells.frac[high] - cells.frac[low], (radius[:, None] / cells.heights[owner] + _BEYOND)[row]
    begin = torch.ceil(-margin - apart)
    steps = (torch.floor(margin - apart) - begin + 1).clamp(min=0).long()
    pair, step = _spread(steps.prod(1))
    _, rows, columns = steps[pair].unbind(1)
    cell = torch.stack([step // (rows * columns), step // columns % rows, step % columns], dim=1) + begin[pair]
    vector, lattice = (cells.position[high] - cells.position[low])[pair], cells.lattice[owner][row]
    for axis in range(3):
        vector = vector + cell[:, axis, None] * lattice[:, axis][pair]
    x, y, z = vector.unbind(1)
    square = x * x + y * y + z * z
    itself = (target == source)[pair] & (cell == 0).all(1)
    near = torch.nonzero((square <= (radius * radius)[row][pair]) & ~itself)[:, 0]
    pair = pair[near]
    sign = torch.where(source < target, -1.0, 1.0).to(vector)
    return row[pair], source[pair], sign[pair][:, None] * vector[near], square[near].sqrt()


def _spread(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Row i repeated `counts[i]` times (m,), and the position of each in its row (m,)."""
    owner = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    return owner, torch.arange(len(owner), device=counts.device) - _pointer(counts)[owner]


def _pointer(counts: Tensor) -> Tensor:
    """(n + 1,) where each row of so many items begins."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def _starts(ascending: Tensor, rows: int) -> Tensor:
    """(rows + 1,) where the entries of each row begin in a list of rows."""
    return torch.searchsorted(ascending, torch.arange(rows + 1, device=ascending.device))


def _by_row(row: Tensor, length: Tensor) -> Tensor:
    """(m,) places in ascending order of row, then of length."""
    order = torch.argsort(length, stable=True)
    return order[torch.argsort(row[order], stable=True)]


def _gather_ranges(pointer: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Items of the chosen rows (m,), and their pointer (len(rows) + 1,)."""
    counts = pointer.diff()[rows]
    owner, place = _spread(counts)
    return pointer[rows][owner] + place, _pointer(counts)
