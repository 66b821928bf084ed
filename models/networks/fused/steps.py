"""Steps of graph networks for torch: compiled on a CPU, plain torch everywhere else.

Enters and leaves: tensors. Both ways compute the same to the last bits of float32; gradients of
gradients have the plain way only. This module does not know networks or batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from assay.models.networks.batch import total
from assay.models.networks.fused import loops


def gated(own: Tensor, parts: Tensor, ends: tuple[Tensor, Tensor, Tensor | None]) -> tuple[Tensor, Tensor]:
    """The messages of an edge-gated convolution (Bresson and Laurent, 2017).

    Args:
        own: (m, h) each message's own part of its gate.
        parts: (n, 4 h) of each node: its part of the gates of what it sends, the same of what it
            receives, what it sends, and what it adds to the messages.
        ends: (m,) row each message comes from, row it goes to, and how often it counts; None: once.

    Returns:
        (m, h) the gates before their sigmoid; (n, h) the mean of the messages to each node, by
        their gates, and what the node adds.
    """
    source, target, weight = ends
    if compiled(own) and not (weight is not None and weight.requires_grad):
        made: tuple[Tensor, Tensor] = _Gated.apply(own, parts, *ends)  # type: ignore[no-untyped-call]
        return made
    sends, receives, sent, kept = parts.chunk(4, dim=1)
    m = own + sends.index_select(0, source) + receives.index_select(0, target)
    gate = torch.sigmoid(m)
    message = total(gate * sent.index_select(0, source), target, len(sent), weight)
    return m, kept + message / (total(gate, target, len(sent), weight) + 1e-6)


def gated_sum(z: Tensor, sends: Tensor, receives: Tensor, ends: tuple[Tensor, Tensor, Tensor | None]) -> Tensor:
    """(n, h) the sum of the messages sigmoid(gate) silu(core) to each node, see Xie and Grossman.

    Args:
        z: (m, 2 h) each message's own part of gate and core.
        sends: (n, 2 h) both parts of the node it comes from.
        receives: (n, 2 h) both parts of the node it goes to.
        ends: as in `gated`.
    """
    source, target, weight = ends
    if compiled(z) and not (weight is not None and weight.requires_grad):
        made: Tensor = _GatedSum.apply(z, sends, receives, *ends)  # type: ignore[no-untyped-call]
        return made
    z = z + sends.index_select(0, source) + receives.index_select(0, target)
    gate, core = z.chunk(2, dim=1)
    return total(torch.sigmoid(gate) * functional.silu(core), target, len(sends), weight)


def activated(
    values: Tensor, norm: tuple[Tensor, Tensor, float], count: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Batch normalisation and silu in training; for `compiled` values only.

    Args:
        values: (m, h).
        norm: gain and offset (h,), and what is added to the variance.
        count: (m,) rows that each row stands for; None: one.
        state: (m, h) that the result is added to, or None.

    Returns:
        (m, h); mean and variance of the batch (h,) float64, and the rows they are of, ().
    """
    rows = values.new_ones(len(values)) if count is None else count
    made: tuple[Tensor, Tensor, Tensor, Tensor] = _Activated.apply(values, *norm, state, rows)  # type: ignore[no-untyped-call]
    return made


def expanded(values: Tensor, centers: Tensor, gamma: float) -> Tensor:
    """(m, bins) Gaussians of `compiled` values (m,); without a gradient."""
    made = np.empty((len(values), len(centers)), np.float32)
    loops.expand(_array(values), _array(centers), np.float32(gamma), made)
    return torch.from_numpy(made)


@dataclass(frozen=True)
class Places:
    """Where numbers stand in a table of a smooth function of them, whose rows are knots apart."""

    values: Tensor
    """(m,) the numbers."""
    knots: Tensor
    """(g,) the numbers that the rows stand for."""

    @classmethod
    def between(cls, low: float, high: float, gap: float, values: Tensor) -> Places | None:
        """Places from `low` to `high`, in a table of knots `gap` apart at most.

        None where the table would have half as many rows as there are values, or where nothing is
        `compiled`.
        """
        steps = math.ceil((high - low) / gap)
        if 2 * steps > len(values) or not compiled(values):
            return None
        return cls(values, low + (high - low) / steps * torch.arange(-1, steps + 3))

    def spread(self, count: Tensor | None) -> Tensor:
        """(g,) how often each row counts in a mean over the values; value i counts `count[i]`."""
        made, ones = np.zeros(len(self.knots)), np.ones(len(self.values), np.float32)
        loops.spread(ones if count is None else _array(count), *self.arrays(), made)
        return torch.from_numpy(made.astype(np.float32))

    def look_up(self, table: Tensor) -> Tensor:
        """(m, h) the function at the values, by cubic interpolation in its table (g, h)."""
        made: Tensor = _LookUp.apply(table, self)  # type: ignore[no-untyped-call]
        return made

    def arrays(self) -> tuple[Any, np.float32, np.float32]:
        """The values, the number that the second row stands for, and rows per unit."""
        low, after = float(self.knots[1]), float(self.knots[-3])
        return _array(self.values), np.float32(low), np.float32((len(self.knots) - 4) / (after - low))


def compiled(values: Tensor) -> bool:
    """Whether the compiled loops read such values; torch's compiler traces plain torch only."""
    if torch.compiler.is_compiling():  # first: the compiler stops at what it cannot trace
        return False
    return values.device.type == "cpu" and values.dtype == torch.float32


def _array(tensor: Tensor) -> Any:
    return np.ascontiguousarray(tensor.detach().numpy())


def _zeros(rows: int, width: int) -> Any:
    return np.zeros((rows, width), np.float32)


def _ends(source: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Any, Any, Any]:
    counted = np.ones(len(source), np.float32) if weight is None else _array(weight)
    return _array(source), _array(target), counted


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, parts: Tensor, *ends: Any) -> Any:
        arrays, where = [_array(own), _array(parts)], _ends(*ends)
        m, gates, message, out = np.empty_like(arrays[0]), *(_zeros(len(parts), own.shape[1]) for _ in range(3))
        loops.gate(*arrays, *where, m, gates, message, out)
        ctx.kept = (m, gates, message, arrays[1], *where)
        ctx.set_materialize_grads(False)
        return torch.from_numpy(m), torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_m: Tensor | None, d_out: Tensor | None) -> Any:
        m, gates, message, parts, *where = ctx.kept
        made = np.empty_like(m), np.zeros_like(parts)
        come = _zeros(0, m.shape[1]) if d_m is None else _array(d_m)
        arrived = np.zeros_like(message) if d_out is None else _array(d_out)
        loops.gate_back(come, arrived, m, gates, message, parts, *where, *made)
        return (*map(torch.from_numpy, made), None, None, None)


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, places: Places) -> Tensor:
        ctx.places, ctx.shape = places.arrays(), table.shape
        out = np.empty((len(places.values), table.shape[1]), np.float32)
        loops.look_up(*ctx.places, _array(table), out)
        return torch.from_numpy(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> Any:
        d_table = _zeros(*ctx.shape)
        loops.look_up_back(_array(d_out), *ctx.places, d_table)
        return torch.from_numpy(d_table), None


class _GatedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, sends: Tensor, receives: Tensor, *ends: Any) -> Tensor:
        full, where = _array(z).copy(), _ends(*ends)
        message = _zeros(len(sends), z.shape[1] // 2)
        loops.messages(full, _array(sends), _array(receives), *where, message)
        ctx.kept = (full, *where)
        return torch.from_numpy(message)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_message: Tensor) -> Any:
        z, *where = ctx.kept
        made = [np.empty_like(z), *(_zeros(len(d_message), z.shape[1]) for _ in range(2))]
        loops.messages_back(_array(d_message), z, *where, *made)
        return (*map(torch.from_numpy, made), None, None, None)


class _Activated(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: Tensor, gain: Tensor, offset: Tensor, eps: float, state: Tensor | None, count: Tensor
    ) -> Any:
        rows, counts, gains = _array(values), _array(count), _array(gain)
        mean, variance, weight = loops.moments(rows, counts)
        centre = mean.astype(np.float32)
        inverse = (1 / np.sqrt(variance + eps)).astype(np.float32)
        out = np.empty_like(rows)
        before = _zeros(0, rows.shape[1]) if state is None else _array(state)
        loops.normalise(rows, gains * inverse, _array(offset) - centre * gains * inverse, before, out)
        ctx.kept = (rows, counts, centre, inverse, gains, _array(offset))
        ctx.stated = state is not None
        moments = torch.from_numpy(mean), torch.from_numpy(variance), torch.tensor(weight)
        ctx.mark_non_differentiable(*moments)
        return torch.from_numpy(out), *moments

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor, *_: Any) -> Any:
        d_values = np.empty_like(ctx.kept[0])
        of_gain, of_offset = loops.normalise_back(_array(d_out), *ctx.kept, d_values)
        made = torch.from_numpy(d_values), torch.from_numpy(of_gain), torch.from_numpy(of_offset)
        return (*made, None, d_out if ctx.stated else None, None)
