"""A trained PaiNN for prediction alone: the same energies and their slopes, several times as fast.

Enters: a `PaiNN`, then `Crystals`. Leaves: energies, forces and stresses. What depends on a
distance alone is cut from tables of cubic splines; forces are the exact slopes of the energies
made from those tables. All gradients are written out. A pair of atoms is met once for both
(`assay.models.potentials.student.kernels`). Nothing here can learn. This module does not know
files.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from assay.featurize import neighbours
from assay.models.potentials.student import kernels
from assay.models.potentials.student.painn import COULOMB, SCREENING

if TYPE_CHECKING:
    from assay.models.potentials.student.painn import PaiNN
    from assay.sources.crystals import Crystals

ATOMS = 512
"""Atoms that are evaluated at a time: their states stay in the caches."""
_KNOTS = 512
"""Steps of a table from 0 to the cutoff."""
_WIDTH = 16
"""Columns of the energies: OpenBLAS adds up one column, or one row, in an order of its own."""

Rows = NDArray[Any]
Arrays = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def freeze(network: PaiNN) -> Frozen:
    """The quick twin of a network, in its float type and with its weights of this moment."""
    return Frozen(network)


class Frozen:
    """Evaluates crystals, in one thread at a time: it keeps its arrays for the next ones."""

    def __init__(self, network: PaiNN) -> None:
        wide: Any = copy.deepcopy(network).double().requires_grad_(requires_grad=False)
        self._room = _Room(next(network.parameters()).detach().numpy().dtype)
        self._cutoff = network.cutoff
        self._embed = self._room.array(wide.embed.weight)
        self._sent = self._room.array(wide.layers[0].send(wide.embed.weight))
        self._layers = [_Layer(layer, _table(wide, layer), self._room) for layer in wide.layers]
        self._readout = _Perceptron(wide.readout, self._room)
        self._scale, self._shift = float(wide.scale), wide.shift.numpy()
        self._radii, self._screening = wide.radii.numpy(), np.array(SCREENING) * (COULOMB, 1)

    def evaluate(self, crystals: Crystals) -> Arrays:
        """Evaluate n ordered crystals with S sites; see `together`."""
        return together([self], crystals)[0]

    def pairs(self, crystals: Crystals, first: int, last: int) -> _Pairs:
        """Pairs in the crystals from `first` to `last`, for every network `alike`."""
        pointer = crystals.site_ptr[first : last + 1]
        found = neighbours.within(crystals.lattice[first:last], crystals.frac, pointer, self._cutoff)
        return _Pairs(found, pointer, _KNOTS / self._cutoff, self._room)

    @property
    def alike(self) -> tuple[Any, ...]:
        """Networks that are alike here read the same pairs."""
        return self._cutoff, self._room.kind

    def some(self, numbers: NDArray[np.uint8], pairs: _Pairs, energy: Rows, forces: Rows, stress: Rows) -> None:
        """Evaluate crystals with these atoms and pairs; the stress is not divided by the volume."""
        atoms, pointer = len(numbers), pairs.site_ptr
        numbers = np.resize(numbers, pairs.atoms).astype(np.int64)
        f = self._embed.shape[1]
        states, learned = self._room("states", len(numbers), 4 * f), self._room("learned", len(numbers), _WIDTH)
        states[:, :f], states[:, f:], pairs.slope[:] = self._embed[numbers], 0, 0
        for k, layer in enumerate(self._layers):
            layer.forward(pairs, states, self._sent[numbers] if k == 0 else None)
        self._readout.forward(states[:, :f], learned)
        energies = learned[:atoms, 0] * self._scale + self._shift[numbers[:atoms]]
        energy[:] = np.add.reduceat(energies, pointer[:-1])
        learned[:], states[:, f:] = 0, 0
        learned[:, 0] = self._scale
        self._readout.back(learned, states[:, :f])
        for layer in reversed(self._layers):
            layer.back(pairs, states)
        kernels.collect(
            *(pointer, pairs.begin, pairs.other, pairs.vector, pairs.distance, pairs.slope),
            *(numbers.astype(np.float64), self._radii[numbers], self._screening, energy, forces, stress),
        )


def together(networks: Sequence[Frozen], crystals: Crystals) -> list[Arrays]:
    """Evaluate n ordered crystals with S sites by several networks, which share what they can.

    The other crystals of a batch change no bit of a result with OpenBLAS, whose sums over columns
    do not depend on the number of rows; with another BLAS they may change the last. Nor do the
    other networks.

    Returns:
        For each network (n,) energies in eV, (S, 3) forces in eV/Å, (n, 3, 3) stresses in eV/Å^3,
        positive under tension.
    """
    shapes = len(crystals), crystals.frac.shape, crystals.lattice.shape
    made = [tuple(np.zeros(shape) for shape in shapes) for _ in networks]
    first, pointer = 0, crystals.site_ptr
    while first < len(crystals):
        last = max(first + 1, int(np.searchsorted(pointer, pointer[first] + ATOMS, "right")) - 1)
        sites = slice(pointer[first], pointer[last])
        met: dict[tuple[Any, ...], _Pairs] = {}
        for network, (energy, forces, stress) in zip(networks, made, strict=True):
            if network.alike not in met:
                met[network.alike] = network.pairs(crystals, first, last)
            with np.errstate(over="ignore"):
                network.some(
                    *(crystals.numbers[sites], met[network.alike]),
                    *(energy[first:last], forces[sites], stress[first:last]),
                )
        first = last
    volume = crystals.volume[:, None, None]
    return [(energy, forces, (stress + stress.transpose(0, 2, 1)) / 2 / volume) for energy, forces, stress in made]


class _Room:
    """Arrays of one float type, made once: fresh memory costs more than what is done there."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind
        self._held: dict[str, tuple[Rows, Rows]] = {}
        """Name -> a flat array, and what was made of it last."""

    def __call__(self, name: str, *shape: int, kind: Any = None) -> Rows:
        """An array with any content, which lives until the next one of this name is wanted."""
        if name not in self._held or self._held[name][1].shape != shape:
            size = math.prod(shape)
            whole = self._held[name][0] if name in self._held else np.empty(0, kind or self.kind)
            whole = whole if len(whole) >= size else np.empty(size, whole.dtype)
            self._held[name] = whole, whole[:size].reshape(shape)
        return self._held[name][1]

    def array(self, values: torch.Tensor) -> Rows:
        """Numbers of a network in this float type."""
        return np.ascontiguousarray(values.numpy(), self.kind)


class _Pairs:
    """Pairs of atoms; arrays are as in `assay.models.potentials.student.kernels.pair`."""

    def __init__(self, found: neighbours.Edges, pointer: NDArray[np.int64], per_step: float, room: _Room) -> None:
        _, source, target, vector, distance = found
        low, half = int(pointer[0]), len(source) // 2
        self.site_ptr, self.atoms = pointer - low, max(2, int(pointer[-1]) - low)
        self.begin = room("begin", self.atoms + 1, kind=np.int64)
        self.other, knot = room("other", half, kind=np.int32), room("knot", half, kind=np.int32)
        self.edge, self.slope = room("edge", half, 12), room("slope", half, 3)
        kernels.pair(
            *(source, target, vector, distance, low, per_step, _KNOTS - 1), *(self.begin, self.other, knot, self.edge)
        )
        self.vector, self.distance = vector, distance
        self.ends = self.begin, self.other, knot, self.edge


class _Perceptron:
    """Linear, SiLU, linear."""

    def __init__(self, module: Any, room: _Room) -> None:
        inner, _, outer = module
        self._maps = [_both(inner, room), _both(outer, room)]
        self._shared, self._own = room, _Room(room.kind)

    def forward(self, x: Rows, out: Rows) -> None:
        """Rows (S, in) to (S, out)."""
        (first, _, bias), (second, _, shift) = self._maps
        h, e = self._shared("h", len(x), len(bias)), self._shared("e", len(x), len(bias))
        np.matmul(x, first, out=h)
        h += bias
        np.negative(h, out=e)
        np.exp(e, out=e)
        kernels.silu(h, e, self._own("slope", *h.shape))
        np.matmul(h, second, out=out)
        out += shift

    def back(self, d_out: Rows, out: Rows) -> None:
        """Gradients (S, out) to those of the rows of the last call (S, in)."""
        (_, first, _), (_, second, _) = self._maps
        d_h = self._shared("h", len(d_out), second.shape[1])
        np.matmul(d_out, second, out=d_h)
        d_h *= self._own("slope", *d_h.shape)
        np.matmul(d_h, first, out=out)


def _both(linear: Any, room: _Room) -> tuple[Rows, Rows, Rows]:
    """Weights for the way there and the way back, and the bias; zeros go beside a single output."""
    missing = _WIDTH - 1 if len(linear.bias) == 1 else 0
    weight = torch.nn.functional.pad(linear.weight, (0, 0, 0, missing))
    return room.array(weight.T), room.array(weight), room.array(torch.nn.functional.pad(linear.bias, (0, missing)))


class _Layer:
    """Messages between neighbours, then a mix of the scalar and vector states of each atom.

    `rows` of an atom are what it sends, its vector state if it has one, and the gradient of its
    states: all that a pair asks of it.
    """

    def __init__(self, layer: Any, table: Rows, room: _Room) -> None:
        self._f = f = layer.mix.weight.shape[1]
        self._table = np.ascontiguousarray(table, room.kind).ravel()
        self._parts = table.shape[1] // f
        self._mix, self._unmix = room.array(layer.mix.weight.T), room.array(layer.mix.weight)
        self._sending, self._update = _Perceptron(layer.send, room), _Perceptron(layer.update, room)
        self._turns = layer.update[-1].weight.shape[0] // f
        self._shared, self._own = room, _Room(room.kind)
        self._send, self._pull = kernels.send(f, self._parts), kernels.pull(f, self._parts)
        self._width = self._parts * f + (3 * f if self._parts == 3 else 0)

    def forward(self, pairs: _Pairs, states: Rows, sent: Rows | None) -> None:
        """Renew the states (S, 4 F); in the first layer `sent` depends on the elements alone."""
        f, n = self._f, len(states)
        rows = self._own("rows", n, self._width + 4 * f)
        if sent is None:
            self._sending.forward(states[:, :f], rows[:, : 3 * f])
            rows[:, 3 * f : 6 * f] = states[:, f:]
        else:
            rows[:, : 2 * f] = sent
        self._send(*pairs.ends, self._table, rows, states)
        vector, mixed = self._shared("vector", n, 3 * f), self._own("mixed", n, 6 * f)
        vector[:] = states[:, f:]
        np.matmul(vector.reshape(-1, f), self._mix, out=mixed.reshape(-1, 2 * f))
        joined, dot, out = self._own("joined", n, 2 * f), self._own("dot", n, f), self._own("out", n, self._turns * f)
        joined[:, :f] = states[:, :f]
        kernels.measure(mixed, joined, dot)
        self._update.forward(joined, out)
        kernels.update(out, mixed, dot, states)

    def back(self, pairs: _Pairs, grads: Rows) -> None:
        """Gradients of the states after to those before (S, 4 F); slopes of pairs gain."""
        f, n = self._f, len(grads)
        mixed, joined, dot = self._own("mixed", n, 6 * f), self._own("joined", n, 2 * f), self._own("dot", n, f)
        out, rows = self._own("out", n, self._turns * f), self._own("rows", n, self._width + 4 * f)
        d_out, d_joined = self._shared("d_out", n, self._turns * f), self._shared("d_joined", n, 2 * f)
        d_mixed, d_vector = self._shared("d_mixed", n, 6 * f), self._shared("vector", n, 3 * f)
        kernels.update_back(grads, mixed, dot, d_out)
        self._update.back(d_out, d_joined)
        kernels.measure_back(grads, out, d_joined, joined, mixed, d_mixed)
        np.matmul(d_mixed.reshape(-1, 2 * f), self._unmix, out=d_vector.reshape(-1, f))
        grads[:, :f] += d_joined[:, :f]
        grads[:, f:] += d_vector
        rows[:, self._width :] = grads
        back = self._shared("back", n, 6 * f)
        back[:] = 0
        self._pull(*pairs.ends, self._table, rows, back, pairs.slope)
        if self._parts == 3:
            d_sent = self._shared("d_sent", n, f)
            self._sending.back(back[:, : 3 * f], d_sent)
            grads[:, :f] += d_sent
            grads[:, f:] += back[:, 3 * f :]


def _table(network: Any, layer: Any) -> Rows:
    """(knots + 3, width) weights of the B-splines that run through the filters at each knot."""
    places = torch.linspace(0, network.cutoff, _KNOTS + 1, dtype=torch.float64).clamp(min=1e-6)
    filters = layer.filters(network.basis(places[:, None])).numpy()
    through = sum(np.eye(_KNOTS + 1, _KNOTS + 3, k) * w for k, w in enumerate((1 / 6, 2 / 3, 1 / 6)))
    ends = np.zeros((2, _KNOTS + 3))
    ends[0, :3], ends[1, -3:] = (1, -2, 1), (-1, 0, 1)  # no curvature at 0, no slope at the cutoff
    solved: Rows = np.linalg.solve(np.vstack([through, ends]), np.vstack([filters, np.zeros((2, filters.shape[1]))]))
    return solved
